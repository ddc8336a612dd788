"""Galaxies from a GLADE catalogue in catsHTM format: hierarchical triangular mesh files read with h5py.

The format (Soumagnac & Ofek 2018, PASP 130, 075002) stores a tree of triangles on the sphere; each leaf
that holds sources names a data set of its own. Columns are found by name; RA and Dec are in radians.
"""

from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from gotorb.catalogues.crossmatch import chord, unit_vectors
from gotorb.core.files import file_digest
from gotorb.core.untrusted import UntrustedFile, find_array
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

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> task = read_task("images/visit.fits")
    >>> find_galaxies("catalogues", task.ra_c, task.dec_c, radius_arcsec=60)["mag"].tolist()
    [17.5, 16.0]
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

    Examples
    --------
    >>> catalogue_version("catalogues").split("@")[0]
    'glade'
    """
    return f"{NAME.lower()}@{_index_digest(_folder(catshtm_dir) / f'{NAME}_htm.hdf5')[:12]}"


_index_digest = lru_cache(maxsize=8)(file_digest)


def _folder(catshtm_dir: Path | str) -> Path:
    if not str(catshtm_dir):
        raise CatalogueError("CATSHTM_DIR is not set in .env or the environment; name the folder that holds GLADE/")
    for folder in (Path(catshtm_dir) / NAME, Path(catshtm_dir) / NAME / "v1"):
        if (folder / f"{NAME}_htm.hdf5").is_file():
            return folder
    raise CatalogueError(f"no {NAME}/{NAME}_htm.hdf5 in {catshtm_dir}; set CATSHTM_DIR in .env to your catsHTM folder")


@lru_cache(maxsize=8)
def _read_index(folder: Path) -> tuple[np.ndarray, tuple[str, ...]]:

    try:
        with h5py.File(folder / f"{NAME}_htm.hdf5", "r") as file:
            trixels = find_array(file, next(iter(file)))[:]
        cells = loadmat(folder / f"{NAME}_htmColCell.mat", squeeze_me=True)["ColCell"]
    except (OSError, KeyError, StopIteration, ValueError) as error:
        raise CatalogueError(f"{folder} is not a catsHTM catalogue ({error}); download it again") from None
    return trixels, tuple(str(name).strip() for name in np.atleast_1d(cells))


def _leaves_near(trixels: np.ndarray, ra: float, dec: float, radius_arcsec: float) -> list[int]:
    """Numbers (1-based) of leaves with sources that the circle may touch."""
    centre = unit_vectors([ra], [dec])[0]
    margin = np.sin(np.radians(radius_arcsec / 3600))
    waiting = list(np.flatnonzero(trixels[LEVEL] == trixels[LEVEL].min()) + 1)
    leaves: list[int] = []
    seen: set[int] = set()
    while waiting:
        number = int(waiting.pop())
        if number in seen or not 0 < number <= trixels.shape[1]:
            raise CatalogueError(f"the index of {NAME} is no tree of trixels; download the catalogue again")
        seen.add(number)
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
            values = np.atleast_2d(find_array(file, f"htm_{number:06d}")[:])
    except (OSError, KeyError, UntrustedFile) as error:
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


Array = NDArray[np.floating]
COLUMNS = ("RA", "Dec", "Bmag", "Rad", "Dist")
UNITS = ("rad", "rad", "mag", "arcsec", "Mpc")
DEPTH = 5
AT_ONCE = 50_000
"""Galaxies whose trixels are searched together."""


def write_glade(galaxies: Array, catalogues_dir: Path) -> None:
    """Write sources with the columns COLUMNS, shape (n, 5), to `catalogues_dir`/GLADE.

    Parameters
    ----------
    galaxies : ndarray (n, 5)
        RA, Dec [rad], B [mag], radius [arcsec], distance [Mpc].
    catalogues_dir : Path
        Folder of catalogues.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_glade(np.array([[0.1, 0.2, 16.5, 30.0, 12.0]]), Path(folder))
    ...     find_galaxies(folder, np.degrees(0.1), np.degrees(0.2), radius_arcsec=1)["mag"].tolist()
    [16.5]
    """
    folder = catalogues_dir / NAME
    folder.mkdir(parents=True, exist_ok=True)
    vertices, level, father, sons = _mesh(DEPTH)
    leaf = np.flatnonzero(level == DEPTH)
    poles = _poles(vertices)
    blocks = [galaxies[start : start + AT_ONCE] for start in range(0, len(galaxies), AT_ONCE)] or [galaxies]
    owner = np.concatenate([_owners(block, poles, sons) for block in blocks])
    counts = np.full(len(level), np.nan)
    counts[leaf] = np.bincount(owner, minlength=len(level))[leaf]
    corner = [part for pole in np.moveaxis(poles, 1, 0) for part in _lon_lat(pole)]
    index = np.vstack([level, father, sons.T, *(c[None, :] for c in corner), counts]).astype(float)
    with h5py.File(folder / f"{NAME}_htm.hdf5", "w", track_order=False) as file:
        file[f"{NAME}_HTM"] = index
    for trixel in leaf[counts[leaf] > 0]:
        _write_trixel(folder, int(trixel) + 1, galaxies[owner == trixel])
    _write_names(folder)


def _write_trixel(folder: Path, number: int, rows: Array) -> None:
    """One trixel (1-based number): sources sorted by declination, and the declination of every 30th."""
    rows = rows[np.argsort(rows[:, 1], kind="stable")]
    first = number // TRIXELS_PER_FILE * TRIXELS_PER_FILE
    with h5py.File(folder / f"{NAME}_htm_{first:06d}.hdf5", "a") as file:
        file[f"htm_{number:06d}"] = rows.T
        step = np.arange(0, len(rows), 30)
        file[f"htm_{number:06d}_Ind"] = np.vstack([step + 1.0, rows[step, 1]])


def _write_names(folder: Path) -> None:
    cells = {"ColCell": np.array(COLUMNS, dtype=object), "ColUnits": np.array(UNITS, dtype=object)}
    path = folder / f"{NAME}_htmColCell.mat"
    savemat(path, cells)
    content = bytearray(path.read_bytes())
    content[:116] = b"MATLAB 5.0 MAT-file, column names of a catsHTM catalogue".ljust(116)
    path.write_bytes(content)


def _mesh(depth: int) -> tuple[Array, Array, Array, Array]:
    """All trixels down to a depth: vertices (n, 3, 3), level (n,), father (n,) and sons (n, 4), 1-based or NaN."""
    x, y, z = np.eye(3)
    south = [(x, -z, y), (y, -z, -x), (-x, -z, -y), (-y, -z, x)]
    north = [(x, z, -y), (-y, z, -x), (-x, z, y), (y, z, x)]
    layers, fathers, sons = [np.array(south + north)], [np.full(8, np.nan)], []
    start = 0
    for _ in range(depth):
        parents = layers[-1]
        after = start + len(parents)
        layers.append(_split(parents))
        fathers.append(np.repeat(start + 1 + np.arange(len(parents)), 4).astype(float))
        sons.append(after + 1.0 + np.arange(4 * len(parents)).reshape(-1, 4))
        start = after
    sons.append(np.full((len(layers[-1]), 4), np.nan))
    level = np.concatenate([np.full(len(layer), float(k)) for k, layer in enumerate(layers)])
    return np.concatenate(layers), level, np.concatenate(fathers), np.concatenate(sons)


def _split(parents: Array) -> Array:
    """Four smaller triangles per triangle, in order: (n, 3, 3) to (4 n, 3, 3)."""
    a, b, c = parents[:, 0], parents[:, 1], parents[:, 2]
    middle = [_unit(b + c), _unit(a + c), _unit(a + b)]
    four = [(a, middle[2], middle[1]), (b, middle[0], middle[2]), (c, middle[1], middle[0]), tuple(middle)]
    return np.stack([np.stack(corner, axis=1) for corner in four], axis=1).reshape(-1, 3, 3)


def _unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def _poles(vertices: Array) -> Array:
    """Unit poles of the three sides, (n, 3, 3), pointing inwards."""
    poles = _unit(np.cross(vertices, np.roll(vertices, -1, axis=1)))
    centre = vertices.sum(axis=1)
    inwards = np.sign(np.einsum("nsk,nk->ns", poles, centre))
    return poles * inwards[:, :, None]


def _lon_lat(vector: Array) -> tuple[Array, Array]:
    return np.mod(np.arctan2(vector[:, 1], vector[:, 0]), 2 * np.pi), np.arcsin(np.clip(vector[:, 2], -1, 1))


def _owners(galaxies: Array, poles: Array, sons: Array) -> NDArray[np.intp]:
    """Number (0-based) of the smallest trixel that holds each source: down from the eight largest, son by son."""
    ra, dec = galaxies[:, 0], galaxies[:, 1]
    place = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    owner = np.argmax(np.einsum("tsk,nk->nts", poles[:8], place).min(axis=2), axis=1)
    while len(owner) and np.isfinite(sons[owner[0], 0]):
        choices = sons[owner].astype(np.intp) - 1
        inside = np.einsum("ntsk,nk->nts", poles[choices], place).min(axis=2)
        owner = choices[np.arange(len(owner)), np.argmax(inside, axis=1)]
    return owner
