"""Where the known minor planets are at the time of an image: offline by pympc, or online by SkyBoT.

"None there" is an empty table; "no answer" is `LookupFailed`. The two must never be confused: an image whose
look-up failed gives no labels, because its asteroids would be labelled bogus.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd

from gotorb.errors import CatalogueError, LookupFailed
from gotorb.settings import Settings

JD_TO_MJD = 2_400_000.5
COLUMNS = ("name", "ra", "dec", "mag")


@dataclass(frozen=True)
class Field:
    """A circle on the sky at a time: centre [deg, ICRS], radius [deg], epoch [MJD, UTC, mid-exposure]."""

    ra: float
    dec: float
    radius_deg: float
    epoch_mjd: float


class MinorPlanets(Protocol):
    """A provider of minor-planet positions."""

    @property
    def version(self) -> str:
        """Which catalogue answers; goes into the provenance of every label."""

    def find(self, field: Field) -> pd.DataFrame:
        """Minor planets in a field: columns name, ra, dec (deg, topocentric), mag (V)."""


@dataclass(frozen=True)
class Pympc:
    """Positions computed offline by pympc from a catalogue of orbital elements.

    Attributes
    ----------
    catalogue : str
        XEphem csv; empty for pympc's own cache.
    observatory : tuple
        (longitude [deg East], rho cos phi', rho sin phi'); a geocentric position is off by 1.5 to 4 arcsec.
    """

    catalogue: str
    observatory: tuple[float, float, float]

    @property
    def version(self) -> str:
        """Name of the catalogue file."""
        return f"pympc:{Path(self.catalogue).name if self.catalogue else 'cache'}"

    def find(self, field: Field) -> pd.DataFrame:
        """Minor planets in a field.

        Raises
        ------
        CatalogueError
            If the catalogue file is missing or not in XEphem format.
        """
        import pympc

        if self.catalogue and not Path(self.catalogue).is_file():
            raise CatalogueError(
                f"no minor-planet catalogue {self.catalogue}; run `pympc.update_catalogue()` "
                "or set GOTORB_MPC_CATALOGUE in .env"
            )
        try:
            found = pympc.minor_planet_check(
                ra=field.ra,
                dec=field.dec,
                epoch=field.epoch_mjd,
                search_radius=field.radius_deg * 3600,
                xephem_filepath=self.catalogue or None,
                include_major_bodies=False,
                observatory=self.observatory,
                chunk_size=0,
            )
        except Exception as error:
            raise CatalogueError(
                f"minor-planet catalogue {self.catalogue or 'in the cache of pympc'} cannot be used ({error}); "
                "run `pympc.update_catalogue()` or set GOTORB_MPC_CATALOGUE in .env"
            ) from None
        table = found[list(COLUMNS)].to_pandas()
        return table.assign(name=table["name"].astype(str).str.strip())


@dataclass(frozen=True)
class Skybot:
    """Positions from IMCCE's SkyBoT service; needs the network.

    Attributes
    ----------
    observatory_code : str
        IAU code of the observatory (950 is La Palma).
    """

    observatory_code: str = "950"

    @property
    def version(self) -> str:
        """Name of the service."""
        return "skybot"

    def find(self, field: Field) -> pd.DataFrame:
        """Minor planets in a field.

        Raises
        ------
        LookupFailed
            If the service gives no usable answer.
        """
        from gotorb.catalogues.skybot import fetch_field

        return fetch_field(field.ra, field.dec, field.radius_deg, field.epoch_mjd, code=self.observatory_code)


def make_provider(name: str, settings: Settings) -> MinorPlanets:
    """Provider by the name used in params.yaml.

    Raises
    ------
    CatalogueError
        If the name is unknown.
    """
    providers: dict[str, MinorPlanets] = {
        "pympc": Pympc(settings.gotorb_mpc_catalogue, settings.observatory),
        "skybot": Skybot(),
    }
    if name not in providers:
        raise CatalogueError(f"unknown minor-planet provider {name!r}; choose one of {', '.join(sorted(providers))}")
    return providers[name]


__all__ = ["Field", "LookupFailed", "MinorPlanets", "Pympc", "Skybot", "make_provider"]
