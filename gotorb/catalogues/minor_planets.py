"""Minor planets at the time of an image: offline by pympc, or online by SkyBoT.

"None there" is an empty table; "no answer" is `LookupFailed`. The two must never be confused: an image whose
look-up failed gives no labels, because its asteroids would be labelled bogus.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Protocol

import pandas as pd

from gotorb.catalogues.orbits import lines_near, read_catalogue
from gotorb.catalogues.skybot import COLUMNS, Limits, Question, look_up, make_table
from gotorb.catalogues.update import warn_of_drift
from gotorb.core.settings import OBSERVATORY_CODE, SKYBOT_URL, Settings, read_settings
from gotorb.errors import CatalogueError, LookupFailed


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
        """Name and version of the catalogue; goes into the provenance of every label."""

    def find(self, field: Field) -> pd.DataFrame:
        """Minor planets in a field.

        Parameters
        ----------
        field : Field

        Returns
        -------
        DataFrame
            Columns name, ra, dec (deg, topocentric) and mag (V); empty when there are none.
        """


@dataclass(frozen=True)
class Pympc:
    """Positions computed offline by pympc from a catalogue of orbital elements.

    pympc reads and propagates the whole catalogue for every field. Here that is done once a night (`night`), and
    pympc is given only the lines of the objects that can be in the field: its answer is the same.

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
    def path(self) -> Path:
        """The XEphem csv."""
        if self.catalogue:
            return Path(self.catalogue)
        import pympc

        return Path(pympc.get_catalogue_status()["xephem"]["path"])

    @property
    def version(self) -> str:
        """Name and digest of the catalogue: the same bytes have the same version on every machine.

        Raises
        ------
        CatalogueError
            If the catalogue file is missing or not in XEphem format.
        """
        path = self.path
        return f"pympc:{path.name}@{read_catalogue(path).sha256[:12]}"

    def find(self, field: Field) -> pd.DataFrame:
        """Minor planets in a field.

        Parameters
        ----------
        field : Field

        Returns
        -------
        DataFrame
            As `MinorPlanets.find`.

        Raises
        ------
        CatalogueError
            If the catalogue file is missing or not in XEphem format.
        """
        path, lines = self.path, None
        while lines is None:  # a catalogue that is replaced meanwhile is read again
            catalogue = read_catalogue(path)
            lines = lines_near(catalogue, field, self.observatory[0])
        warn_of_drift(path, catalogue.epoch_mjd, field.epoch_mjd)
        return self._compute(lines, field) if lines else make_table((), (), (), ())

    def _compute(self, lines: bytes, field: Field) -> pd.DataFrame:
        """Exact positions by pympc of those lines of the catalogue that lie in the field."""
        import pympc

        with TemporaryDirectory(prefix="gotorb-") as folder:
            near = Path(folder, "near.csv")
            near.write_bytes(lines)
            try:
                with _known_earth_rotation():
                    found = pympc.minor_planet_check(
                        ra=field.ra,
                        dec=field.dec,
                        epoch=field.epoch_mjd,
                        search_radius=field.radius_deg * 3600,
                        xephem_filepath=str(near),
                        include_major_bodies=False,
                        observatory=self.observatory,
                        chunk_size=0,
                    )
            except Exception as error:
                raise CatalogueError(
                    f"minor-planet catalogue {self.path} cannot be used ({error}); "
                    "run `gotorb catalogue update` or set GOTORB_MPC_CATALOGUE in .env"
                ) from None
        return make_table(found["name"], found["ra"], found["dec"], found["mag"])


@contextmanager
def _known_earth_rotation() -> Iterator[None]:
    """Use the installed tables of the Earth's rotation at any age: a second of UT1 is 0.001 arcsec at 0.5 au.

    Else astropy asks the network, refuses images that are newer than its tables, or warns of a dubious year.
    """
    from astropy.utils.iers import conf

    with (
        warnings.catch_warnings(action="ignore"),
        conf.set_temp("auto_download", False),
        conf.set_temp("auto_max_age", None),
        conf.set_temp("iers_degraded_accuracy", "ignore"),
    ):
        yield


@dataclass(frozen=True)
class Skybot:
    """Positions from IMCCE's SkyBoT service; needs the network.

    Attributes
    ----------
    observatory_code : str
        IAU code of the observatory (950 is La Palma).
    url : str
        Address of the service.
    """

    observatory_code: str = OBSERVATORY_CODE
    url: str = SKYBOT_URL
    renew: ClassVar[bool] = False

    @property
    def version(self) -> str:
        """Name of the service."""
        return "skybot"

    def find(self, field: Field) -> pd.DataFrame:
        """Minor planets in a field.

        Parameters
        ----------
        field : Field

        Returns
        -------
        DataFrame
            As `MinorPlanets.find`.

        Raises
        ------
        LookupFailed
            If the service gives no usable answer.
        """
        question = Question(
            url=self.url,
            code=self.observatory_code,
            ra=field.ra,
            dec=field.dec,
            radius_deg=field.radius_deg,
            epoch_mjd=field.epoch_mjd,
        )
        return look_up(question, Limits(total_s=read_settings().skybot_deadline_s), renew=self.renew)


class RenewedSkybot(Skybot):
    """SkyBoT, whose cached answers are used on the same day only."""

    renew = True


def make_provider(name: str, settings: Settings, *, renew: bool = False) -> MinorPlanets:
    """Provider by the name used in params.yaml.

    Parameters
    ----------
    name : {"pympc", "skybot"}
    settings : Settings
        Catalogue, observatory and service to use.
    renew : bool
        Ask a service again for what it answered before today.

    Returns
    -------
    MinorPlanets

    Raises
    ------
    CatalogueError
        If the name is unknown.

    Examples
    --------
    >>> from gotorb.core.settings import read_settings
    >>> from gotorb.labels.jobs import read_task
    >>> task = read_task("images/visit.fits")
    >>> provider = make_provider("pympc", read_settings())
    >>> provider.find(Field(task.ra_c, task.dec_c, 0.1, task.epoch_mjd))["name"].tolist()
    ['Ceres']
    """
    providers: dict[str, MinorPlanets] = {
        "pympc": Pympc(settings.gotorb_mpc_catalogue, settings.observatory),
        "skybot": (RenewedSkybot if renew else Skybot)(settings.observatory_code, settings.skybot_url),
    }
    if name not in providers:
        raise CatalogueError(f"unknown minor-planet provider {name!r}; choose one of {', '.join(sorted(providers))}")
    return providers[name]


__all__ = ["COLUMNS", "Field", "LookupFailed", "MinorPlanets", "Pympc", "Skybot", "make_provider"]
