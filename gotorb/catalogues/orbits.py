"""Orbits of an XEphem csv as arrays, and those of them that can be near a field in a night.

The csv is read once: arrays of every line are kept in the user's cache folder and mapped into memory.

Only what a screen of the sky needs is read. The lines themselves stay in the catalogue; each row knows where its line
begins. Lines that are not plain ellipses (comets, other equinoxes, whatever cannot be read) have NaN for elements.

All orbits are propagated once per night, and a field only asks for those within reach. The screen never decides where
an object is, only that it cannot be there. Each orbit's place at local midnight is known to arcseconds; how far it can
get within the night follows from its speed, its distance and the Sun's pull. Objects close to the Earth or to the Sun,
and lines that are no plain ellipses, are never screened out.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import erfa
import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray

from gotorb.catalogues.crossmatch import ARCSEC, unit_vectors
from gotorb.core.constants import GAUSS_K, MJD_ZERO
from gotorb.core.files import value_digest, whole_file, write_text
from gotorb.core.settings import read_settings
from gotorb.errors import CatalogueError

if TYPE_CHECKING:
    from gotorb.catalogues.minor_planets import Field

OBLIQUITY = np.radians(84381.448 / 3600)
REFERENCE_MJD = 51544.5
EPHEM_TO_MJD = 15019.5
ROWS = ("px", "py", "pz", "qx", "qy", "qz", "e", "motion", "anomaly", "offset")
"""Rows of `Catalogue.orbits`: vectors to perihelion and at right angles to it, of the length of the half axes (au,
equatorial J2000); eccentricity; rad/day; mean anomaly at `REFERENCE_MJD`; where the line begins in the file."""
FIELDS = ("name", "type", "i", "node", "peri", "a", "motion", "e", "anomaly", "epoch", "equinox")
TYPES = ("e", "h", "p")
MPCORB_LINE = re.compile(rb"^\S{5,7} {0,2}[ \d.\-]{13}[A-Z]\d\d[1-9A-C][1-9A-V] [ \d.]{9}  [ \d.]{9}  ", re.MULTILINE)
"""Beginning of an orbit in MPCORB.DAT: packed designation, magnitudes, packed epoch, mean anomaly, perihelion."""
BLOCK_BYTES = 1 << 25
SMALL_BYTES = 1 << 22
"""Smaller catalogues are read in a tenth of a second: not worth a file in the cache."""
LAYOUT = 1
"""Raise it when the arrays change their meaning: old files of the cache are then not read."""
HALF_NIGHT = 0.5
MARGIN_ARCSEC = 120.0
"""Covers PyEphem's own accuracy, and that pympc takes UTC for TT (69 s)."""
SAFETY = 1.1
CLOSE_TO_EARTH_AU, CLOSE_TO_SUN_AU = 0.1, 0.3
SLOW = np.radians(1.0)
LIGHT_DAY_PER_AU = 499.004784 / 86400
EARTH_RADIUS_AU = 6378.137 / 149_597_870.7
TT_MINUS_UTC = 69.184 / 86400
BLOCK = 1 << 14
"""Orbits propagated at a time: their arrays stay in the processor's cache."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Content of a catalogue whose file has this stamp.

    Attributes
    ----------
    path : Path
        The XEphem csv.
    stamp : tuple of int
        Its size and time of change.
    sha256 : str
        Of its bytes.
    epoch_mjd : float
        Median epoch of the elements; NaN without any ellipse.
    orbits : ndarray
        (10, n) float64, rows as in `ROWS`.
    """

    path: Path
    stamp: tuple[int, int]
    sha256: str
    epoch_mjd: float
    orbits: NDArray[np.float64]

    def __len__(self) -> int:
        return self.orbits.shape[1]

    def lines(self, rows: NDArray[np.integer]) -> bytes | None:
        """Lines of some rows as the file holds them.

        Parameters
        ----------
        rows : ndarray of int
            (m,) row numbers.

        Returns
        -------
        bytes or None
            None if the file has been replaced since it was read.
        """
        offset = self.orbits[-1]
        begins, last = offset[rows].astype(int), len(self) - 1
        ends = np.where(rows < last, offset[np.minimum(rows + 1, last)], self.stamp[0]).astype(int)
        with self.path.open("rb") as file:
            if _stamp(os.fstat(file.fileno())) != self.stamp:
                return None
            lines = [os.pread(file.fileno(), e - b, b).strip() for b, e in zip(begins, ends, strict=True)]
        return b"".join(line + b"\n" for line in lines)


def read_catalogue(path: Path | str) -> Catalogue:
    """Read a catalogue as it is now: from this process, the cache or, the first time, the csv.

    Parameters
    ----------
    path : Path or str
        XEphem csv.

    Returns
    -------
    Catalogue

    Raises
    ------
    CatalogueError
        If the file is missing or holds no orbit in XEphem format.

    Examples
    --------
    >>> len(read_catalogue("catalogues/planets.csv"))
    4
    """
    path = Path(path).absolute()
    try:
        return _load(path, _stamp(path.stat()))
    except FileNotFoundError:
        raise CatalogueError(
            f"no minor-planet catalogue {path}; run `gotorb catalogue update` or set GOTORB_MPC_CATALOGUE in .env"
        ) from None
    except OSError as error:
        raise CatalogueError(
            f"minor-planet catalogue {path} cannot be used ({error.strerror}); correct GOTORB_MPC_CATALOGUE in .env"
        ) from None


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=2)
def _load(path: Path, stamp: tuple[int, int]) -> Catalogue:
    if stamp[0] < SMALL_BYTES:
        return Catalogue(path, stamp, *parse(path))
    folder = read_settings().cache_dir / "orbits"
    place, content = (value_digest(key, n_digits=12) for key in (str(path), (LAYOUT, stamp)))
    arrays, meta = folder / f"{place}-{content}.npy", folder / f"{place}-{content}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{place}.lock"):  # one process reads the csv, the others wait for its arrays
            if (kept := _read_arrays(arrays, meta)) is None:
                _write_arrays(arrays, meta, parse(path))
                for old in set(folder.glob(f"{place}-*")) - {arrays, meta}:
                    old.unlink()
                kept = _read_arrays(arrays, meta)
        if kept is not None:
            return Catalogue(path, stamp, *kept)
    except OSError as error:
        log.info("no arrays of minor planets are kept in %s (%s); set GOTORB_CACHE_DIR in .env", folder, error)
    return Catalogue(path, stamp, *parse(path))


def _read_arrays(arrays: Path, meta: Path) -> tuple[str, float, NDArray[np.float64]] | None:
    """Digest, epoch and orbits cached by an earlier process; None if they are missing or incomplete."""
    try:
        known = json.loads(meta.read_text())
        orbits = np.load(arrays, mmap_mode="r", allow_pickle=False)
        if orbits.shape == (len(ROWS), known["n"]) and orbits.dtype == np.float64:
            return str(known["sha256"]), float(known["epoch_mjd"]), orbits
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write_arrays(arrays: Path, meta: Path, parsed: tuple[str, float, NDArray[np.float64]]) -> None:
    sha256, epoch_mjd, orbits = parsed
    with whole_file(arrays) as aside, aside.open("wb") as file:
        np.save(file, orbits)
    write_text(meta, json.dumps({"n": orbits.shape[1], "sha256": sha256, "epoch_mjd": epoch_mjd}))


def parse(path: Path) -> tuple[str, float, NDArray[np.float64]]:
    """Read the orbits of every line of a csv.

    Parameters
    ----------
    path : Path
        XEphem csv.

    Returns
    -------
    sha256 : str
        Of its bytes.
    epoch_mjd : float
        Median epoch of the ellipses; NaN without any.
    orbits : ndarray
        (10, n) float64, rows as in `ROWS`.

    Raises
    ------
    CatalogueError
        If no line is an orbit.

    Examples
    --------
    >>> digest, epoch_mjd, orbits = parse(Path("catalogues/planets.csv"))
    >>> round(epoch_mjd, 1), orbits.shape
    (57800.0, (10, 4))
    """
    digest, start, parts, epochs, n_orbits = hashlib.sha256(), 0, [], [], 0
    with path.open("rb") as file:
        for block in _blocks(file):
            digest.update(block)
            orbits, epoch, n = _parse_block(block, start)
            start += len(block)
            parts.append(orbits)
            epochs.append(epoch)
            n_orbits += n
    if n_orbits == 0:
        raise CatalogueError(f"minor-planet catalogue {path} cannot be used ({_other_format(path)}")
    epoch = np.concatenate(epochs)
    median = float(np.median(epoch)) if len(epoch) else np.nan
    return digest.hexdigest(), median, np.concatenate(parts, axis=1)


def _other_format(path: Path) -> str:
    """Describe a file without XEphem orbits, and what to do."""
    with path.open("rb") as file:
        start = file.read(60_000)
    known = {
        "the Minor Planet Center's MPCORB.DAT": MPCORB_LINE.search(start) is not None
        or b"MINOR PLANET CENTER ORBIT" in start,
        "a packed file": start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK")),
        "the Minor Planet Center's JSON": start.lstrip().startswith(b"["),
    }
    kind = next((name for name, holds in known.items() if holds), None)
    if kind is None:
        cure = "run `gotorb catalogue update` or set GOTORB_MPC_CATALOGUE in .env"
        return f"no line is an orbit in XEphem format); {cure}"
    cure = f"run `gotorb catalogue update --from-file {path} --out minor_planets.csv`"
    return f"{kind}, not XEphem csv); {cure}, and set GOTORB_MPC_CATALOGUE to that file in .env"


def _blocks(file: Any) -> Iterator[bytes]:
    """Whole lines, many at a time."""
    while block := file.read(BLOCK_BYTES) + file.readline():
        yield block


def _parse_block(block: bytes, start: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Orbits of some lines, the epochs [MJD] of their ellipses, and how many lines are orbits of any kind."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    begins = np.append(0, ends + 1)
    begins = begins[begins < len(block)]
    orbits = np.full((len(ROWS), len(begins)), np.nan)
    orbits[-1] = start + begins
    frame = pd.read_csv(
        io.BytesIO(",".join(FIELDS).encode() + b"\n" + block),
        usecols=list(FIELDS[1:]),  # also keeps lines with more fields
        index_col=False,
        skip_blank_lines=False,
        quoting=csv.QUOTE_NONE,
        encoding_errors="replace",
        low_memory=False,
    )
    if len(frame) != len(begins):  # stray line ends: nothing can be said of these lines
        return orbits, np.empty(0), 0
    number = {name: _numbers(frame[name]) for name in FIELDS[2:] if name not in ("motion", "epoch")}
    plain = (frame["type"] == "e").to_numpy() & (number["equinox"] == 2000)
    plain &= (number["a"] > 0) & (number["e"] >= 0) & (number["e"] < 1)
    epoch = np.where(plain, _epochs(frame["epoch"]), np.nan)
    orbits[:-1, plain] = _shapes({name: value[plain] for name, value in number.items()}, epoch[plain])
    return orbits, epoch[np.isfinite(epoch)], int(frame["type"].isin(TYPES).sum())


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)


def _epochs(column: pd.Series) -> NDArray[np.float64]:
    """MJD of decimal years or month/day/year, as PyEphem itself reads them."""
    import ephem

    codes, texts = pd.factorize(column)
    known = [float(ephem.readdb(f"x,e,0,0,0,1,0,0,0,{text},2000,0,0")._epoch_M) + EPHEM_TO_MJD for text in texts]
    return np.array([*known, np.nan])[codes]


def _shapes(number: dict[str, NDArray[np.float64]], epoch: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first nine of `ROWS` from elements in au and degrees."""
    a, e = number["a"], number["e"]
    node, peri, i = (np.radians(number[name]) for name in ("node", "peri", "i"))
    cn, sn, cp, sp, ci, si = np.cos(node), np.sin(node), np.cos(peri), np.sin(peri), np.cos(i), np.sin(i)
    p = a * _to_equator(cn * cp - sn * sp * ci, sn * cp + cn * sp * ci, sp * si)
    q = a * np.sqrt(1 - e**2) * _to_equator(-cn * sp - sn * cp * ci, -sn * sp + cn * cp * ci, cp * si)
    motion = GAUSS_K * a**-1.5
    anomaly = np.mod(np.radians(number["anomaly"]) + motion * (REFERENCE_MJD - epoch), 2 * np.pi)
    return np.concatenate([p, q, [e, motion, anomaly]])


def _to_equator(x: NDArray, y: NDArray, z: NDArray) -> NDArray[np.float64]:
    c, s = np.cos(OBLIQUITY), np.sin(OBLIQUITY)
    return np.stack([x, c * y - s * z, s * y + c * z])


@dataclass(frozen=True, eq=False)
class Night:
    """Every orbit of a catalogue during one night.

    Attributes
    ----------
    sight : ndarray
        (3, n) unit vectors from the Earth's centre at local midnight.
    reach : ndarray
        (n,) angle [rad] that the object stays within all night; pi if it may be anywhere.
    fast : ndarray of int
        Rows with a reach beyond `SLOW`.
    """

    sight: NDArray[np.float32]
    reach: NDArray[np.float32]
    fast: NDArray[np.intp]

    def _rows_near(self, field: Field) -> NDArray[np.intp]:
        """Rows that can be in a field, in the order of the catalogue."""
        radius = np.radians(field.radius_deg) + MARGIN_ARCSEC * ARCSEC
        centre = unit_vectors(field.ra, field.dec)[0].astype(np.float32)
        cosine = np.einsum("i,ij->j", centre, self.sight)  # one thread, unlike @: workers share the cores
        rows = np.union1d(np.flatnonzero(cosine >= np.cos(min(radius + SLOW, np.pi))), self.fast)
        apart = np.linalg.norm(self.sight[:, rows] - centre[:, None], axis=0)
        return rows[2 * np.arcsin(np.clip(apart / 2, 0, 1)) <= radius + self.reach[rows]]


def lines_near(catalogue: Catalogue, field: Field, longitude: float) -> bytes | None:
    """Lines of the objects that can be in a field.

    Parameters
    ----------
    catalogue : Catalogue
    field : Field
    longitude : float
        Of the observatory, deg East; decides which night the field belongs to.

    Returns
    -------
    bytes or None
        None if the file has been replaced since it was read.

    Examples
    --------
    >>> from gotorb.catalogues.minor_planets import Field
    >>> from gotorb.labels.jobs import read_task
    >>> task = read_task("images/visit.fits")
    >>> field = Field(task.ra_c, task.dec_c, 1.0, task.epoch_mjd)
    >>> lines_near(read_catalogue("catalogues/planets.csv"), field, longitude=-17.88)[:5]
    b'Ceres'
    """
    return catalogue.lines(screen(catalogue, midnight(field.epoch_mjd, longitude))._rows_near(field))


def midnight(mjd: float, longitude: float) -> float:
    """Midnight of the night of a time; nights last from local noon to noon.

    Parameters
    ----------
    mjd : float
        MJD, UTC.
    longitude : float
        Deg East.

    Returns
    -------
    float
        MJD, UTC.

    Examples
    --------
    >>> midnight(60000.9, 0.0), midnight(60001.4, 0.0)
    (60001.0, 60001.0)
    >>> round(midnight(60000.2, 289.25), 3)  # Chile: 16 h to 16 h UTC
    60000.197
    """
    east = ((longitude + 180) % 360 - 180) / 360
    return float(np.floor(mjd + east - 0.5)) + 1.0 - east


@lru_cache(maxsize=2)
def screen(catalogue: Catalogue, midnight: float) -> Night:
    """Propagate every orbit of a catalogue to a midnight.

    Parameters
    ----------
    catalogue : Catalogue
    midnight : float
        MJD, UTC.

    Returns
    -------
    Night

    Examples
    --------
    >>> night = screen(read_catalogue("catalogues/planets.csv"), midnight(57804.1, -17.88))
    >>> night.sight.shape
    (3, 4)
    """
    tt = midnight + TT_MINUS_UTC
    earth = erfa.epv00(MJD_ZERO, tt)[0]
    n = len(catalogue)
    sight, reach = np.empty((3, n), np.float32), np.empty(n, np.float32)
    for start in range(0, n, BLOCK):
        part = slice(start, start + BLOCK)
        sight[:, part], reach[part] = _propagate(catalogue.orbits[:-1, part], tt, earth["p"], earth["v"])
    return Night(sight, reach, np.flatnonzero(reach > SLOW))


def _propagate(orbits: NDArray, tt: float, earth: NDArray, earth_speed: NDArray) -> tuple[NDArray, NDArray]:
    """Unit vectors and reach of some orbits; zero and pi for unusable orbits."""
    p, q, (e, motion, anomaly) = orbits[:3], orbits[3:6], orbits[6:]
    eccentric = eccentric_anomaly(anomaly + motion * (tt - REFERENCE_MJD), e)
    cos, sin = np.cos(eccentric), np.sin(eccentric)
    place = p * (cos - e) + q * sin
    speed = (q * cos - p * sin) * (motion / (1 - e * cos))
    seen = place - earth[:, None]
    seen -= speed * (_length(seen) * LIGHT_DAY_PER_AU)
    distance, sun = _length(seen), _length(place)
    sight = seen / distance
    reach = SAFETY * _reach(sight, speed - earth_speed[:, None], distance, sun)
    unknown = ~(np.isfinite(reach) & (distance > CLOSE_TO_EARTH_AU) & (sun > CLOSE_TO_SUN_AU))
    return np.where(unknown, 0.0, sight), np.where(unknown, np.pi, np.minimum(reach, np.pi))


def _reach(sight: NDArray, speed: NDArray, distance: NDArray, sun: NDArray) -> NDArray:
    """Largest angle from a place within half a night: motion, how both orbits bend, and the observatory's parallax."""
    along = np.einsum("ij,ij->j", speed, sight)
    across = np.sqrt(np.maximum(np.einsum("ij,ij->j", speed, speed) - along**2, 0))
    bend = GAUSS_K**2 * (1 + 1 / sun**2) * HALF_NIGHT**2 / 2
    nearest = distance - np.abs(along) * HALF_NIGHT - bend - EARTH_RADIUS_AU
    sideways = across * HALF_NIGHT + bend + EARTH_RADIUS_AU
    return np.where(nearest > 0, np.arctan2(sideways, nearest), np.pi)


def _length(vectors: NDArray) -> NDArray:
    return np.sqrt(np.einsum("ij,ij->j", vectors, vectors))


def eccentric_anomaly(mean: NDArray, e: NDArray) -> NDArray:
    """Solve Kepler's equation for ellipses.

    Parameters
    ----------
    mean, e : ndarray
        (n,) mean anomalies [rad] and eccentricities below 1.

    Returns
    -------
    ndarray
        (n,) eccentric anomalies [rad]; NaN where Newton's method does not converge.

    Examples
    --------
    >>> E = eccentric_anomaly(np.array([0.01, 3.0]), np.array([0.99, 0.2]))
    >>> bool(np.allclose(E - np.array([0.99, 0.2]) * np.sin(E), [0.01, 3.0]))
    True
    """
    mean = np.mod(mean + np.pi, 2 * np.pi) - np.pi
    anomaly = mean + np.copysign(0.85 * e, mean)
    step = np.full_like(mean, np.inf)
    for _ in range(30):
        step = (anomaly - e * np.sin(anomaly) - mean) / (1 - e * np.cos(anomaly))
        anomaly = anomaly - step
        if not np.any(np.abs(step) > 1e-6):
            break
    return np.where(np.abs(step) > 1e-6, np.nan, anomaly)
