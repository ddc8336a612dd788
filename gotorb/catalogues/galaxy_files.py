"""Writer of the catsHTM galaxy files that `galaxies` reads.

catsHTM (Soumagnac & Ofek 2018) is a hierarchical triangular mesh: eight spherical triangles (trixels), each split into
four, five times. The index file holds for each trixel its level, father, four sons (1-based numbers, NaN for none), the
longitudes and latitudes [rad] of the poles of its three sides, and its number of sources. Sources live in the smallest
trixels, sorted by declination; trixel n is in the file numbered n rounded down to a hundred.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from gotorb.catalogues.galaxies import NAME, TRIXELS_PER_FILE

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
