"""Galaxies from a GLADE catalogue in catsHTM format: hierarchical triangular mesh files read with h5py.

The format (Soumagnac & Ofek 2018, PASP 130, 075002) stores a tree of triangles on the sphere; each leaf
that holds sources names a data set of its own. Columns are found by name; RA and Dec are in radians.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from gotorb.catalogues.crossmatch import chord, unit_vectors
from gotorb.errors import CatalogueError

NAME = "GLADE"
TRIXELS_PER_FILE = 100
LEVEL, FATHER, SONS, POLES, N_SOURCES = 0, 1, slice(2, 6), slice(6, 12), 12


def find_galaxies(
    catshtm_dir: Path | str, ra: float, dec: float, *, radius_arcsec: float, max_mag: float | None = None
) -> pd.DataFrame:
    """Galaxies within a radius of a position.

    Parameters
    ----------
    catshtm_dir : path
        Folder with ``GLADE/`` or ``GLADE/v1/`` inside (CATSHTM_DIR in .env).
    ra, dec : float
        deg, ICRS.
    radius_arcsec : float
        Radius of the circle.
    max_mag : float, optional
        Faintest galaxy wanted (B).

    Returns
    -------
    DataFrame
        galaxy_id (from the position), ra, dec (deg), mag (B; NaN when the catalogue has none).

    Raises
    ------
    CatalogueError
        If the catalogue is missing or not in catsHTM format.
    """
    folder = _folder(catshtm_dir)
    trixels, columns = _read_index(folder)
    rows = [_read_trixel(folder, number, columns) for number in _leaves_near(trixels, ra, dec, radius_arcsec)]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["ra", "dec", "mag"], dtype=float)
    distance = np.linalg.norm(unit_vectors(table["ra"], table["dec"]) - unit_vectors([ra], [dec]), axis=1)
    near = distance <= chord(radius_arcsec)
    if max_mag is not None:
        near &= (table["mag"] <= max_mag).to_numpy()
    table = table[near].sort_values(["dec", "ra"]).reset_index(drop=True)
    return table.assign(galaxy_id=[f"glade:{r:.5f}{d:+.5f}" for r, d in zip(table["ra"], table["dec"], strict=True)])


def catalogue_version(catshtm_dir: Path | str) -> str:
    """Name of the catalogue and digest of its index, for the provenance of synthetic rows.

    Parameters
    ----------
    catshtm_dir : Path or str
        Folder of the catsHTM files.

    Returns
    -------
    str

    Raises
    ------
    CatalogueError
        If the catalogue is missing.
    """
    return f"{NAME.lower()}@{_index_digest(_folder(catshtm_dir) / f'{NAME}_htm.hdf5')}"


@lru_cache(maxsize=8)
def _index_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _folder(catshtm_dir: Path | str) -> Path:
    if not str(catshtm_dir):
        raise CatalogueError("CATSHTM_DIR is not set in .env or the environment; name the folder that holds GLADE/")
    for folder in (Path(catshtm_dir) / NAME, Path(catshtm_dir) / NAME / "v1"):
        if (folder / f"{NAME}_htm.hdf5").is_file():
            return folder
    raise CatalogueError(f"no {NAME}/{NAME}_htm.hdf5 in {catshtm_dir}; set CATSHTM_DIR in .env to your catsHTM folder")


@lru_cache(maxsize=8)
def _read_index(folder: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    from scipy.io import loadmat

    try:
        with h5py.File(folder / f"{NAME}_htm.hdf5", "r") as file:
            trixels = next(iter(file.values()))[:]
        cells = loadmat(folder / f"{NAME}_htmColCell.mat", squeeze_me=True)["ColCell"]
    except (OSError, KeyError, StopIteration, ValueError) as error:
        raise CatalogueError(f"{folder} is not a catsHTM catalogue ({error}); download it again") from None
    return trixels, tuple(str(name).strip() for name in np.atleast_1d(cells))


def _leaves_near(trixels: np.ndarray, ra: float, dec: float, radius_arcsec: float) -> list[int]:
    """Numbers (1-based) of leaves with sources that the circle may touch."""
    centre = unit_vectors([ra], [dec])[0]
    margin = np.sin(np.radians(radius_arcsec / 3600))
    waiting = list(np.flatnonzero(trixels[LEVEL] == trixels[LEVEL].min()) + 1)
    leaves = []
    while waiting:
        number = int(waiting.pop())
        column = trixels[:, number - 1]
        poles = unit_vectors(np.degrees(column[POLES][0::2]), np.degrees(column[POLES][1::2]))
        if (poles @ centre < -margin).any():
            continue
        sons = column[SONS]
        if np.isfinite(sons).all() and (sons > 0).all():
            waiting.extend(sons)
        elif column[N_SOURCES] > 0:
            leaves.append(number)
    return sorted(leaves)


def _read_trixel(folder: Path, number: int, columns: tuple[str, ...]) -> pd.DataFrame:
    path = folder / f"{NAME}_htm_{number // TRIXELS_PER_FILE * TRIXELS_PER_FILE:06d}.hdf5"
    try:
        with h5py.File(path, "r") as file:
            values = np.atleast_2d(file[f"htm_{number:06d}"][:])
    except (OSError, KeyError) as error:
        raise CatalogueError(f"{path} has no trixel {number} ({error}); download the catalogue again") from None
    lower = [name.lower() for name in columns]
    mag = next((i for i, name in enumerate(lower) if name in {"b", "bmag", "b_mag", "mag_b"}), None)
    return pd.DataFrame(
        {
            "ra": np.degrees(values[lower.index("ra")]) % 360,
            "dec": np.degrees(values[lower.index("dec")]),
            "mag": values[mag] if mag is not None else np.nan,
        }
    )
