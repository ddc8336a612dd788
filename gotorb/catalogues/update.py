"""Age of a minor-planet catalogue, the drift of its positions, and its update."""

import io
import json
import logging
import math
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from gotorb.catalogues.orbits import MPCORB_LINE, parse, read_catalogue
from gotorb.core.constants import MJD_ZERO
from gotorb.core.untrusted import BROKEN_PACKING, unpack_known
from gotorb.errors import CatalogueError

SOURCES = ("astorb", "mpcorb", "nea")
"""Lowell's asteroids, the Minor Planet Center's, and the latter's near-Earth objects alone."""
NETWORK_TIMEOUT_S = 30
UNIX_MJD = 40587.0
AGE_DAYS = (0, 30, 60, 100, 180, 365, 730)
DRIFT_ARCSEC = (0.0, 0.14, 0.5, 1.7, 6.0, 22.0, 60.0)
"""Typical main-belt object; measured against full ephemerides."""
TOLERABLE_ARCSEC = 1.0
"""The radius within which a detection is matched, unless params.yaml says otherwise."""

MPCORB_COLUMNS = {"M": (27, 35), "Peri": (38, 46), "Node": (49, 57), "i": (60, 68), "e": (71, 79), "n": (81, 91),
                  "a": (93, 103)}  # fmt: skip
MPCORB_MAGNITUDES = (("H", 9, 13), ("G", 15, 19))

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Status:
    """A catalogue, and the quality of its two-body positions at a time.

    Attributes
    ----------
    path, sha256 : str
        File and digest of its content.
    n_objects : int
        Lines.
    epoch_mjd, epoch_date : float, str
        Median epoch of the elements (MJD, TT).
    at_mjd, age_days : float
        The time that is asked about, and how much later it is.
    drift_arcsec : float
        Typical error of a position at that time.
    match_radius_arcsec : float
        Within it a detection is taken for the minor planet.
    fits : bool
        The drift is within that radius.
    """

    path: str
    sha256: str
    n_objects: int
    epoch_mjd: float
    epoch_date: str
    at_mjd: float
    age_days: float
    drift_arcsec: float
    match_radius_arcsec: float
    fits: bool

    @property
    def age(self) -> str:
        """Age of the elements and the drift to expect, as one line of text."""
        when = "before its elements" if self.age_days < 0 else "old"
        more = " or more" if abs(self.age_days) > AGE_DAYS[-1] else ""
        return (
            f"elements of {self.epoch_date}, {abs(self.age_days):.0f} days {when}, "
            f"two-body drift {self.drift_arcsec:.2g} arcsec{more}"
        )


def describe(path: Path, match_radius_arcsec: float, at_mjd: float | None = None) -> Status:
    """State of a catalogue at a time.

    Parameters
    ----------
    path : Path
        XEphem csv.
    match_radius_arcsec : float
        Radius of the match of detections, with which the drift is compared.
    at_mjd : float, optional
        MJD, UTC; now when left out.

    Returns
    -------
    Status

    Raises
    ------
    CatalogueError
        If it is missing, in another format, or holds no ellipse.

    Examples
    --------
    >>> status = describe(Path("catalogues/planets.csv"), match_radius_arcsec=2.0, at_mjd=57804.0)
    >>> status.n_objects, status.epoch_date, status.age_days
    (4, '2017-02-16', 4.0)
    """
    known, at_mjd = read_catalogue(path), time.time() / 86400 + UNIX_MJD if at_mjd is None else at_mjd
    if not math.isfinite(known.epoch_mjd):
        raise CatalogueError(f"no elliptical orbit in minor-planet catalogue {path}; run `gotorb catalogue update`")
    drift = _expected_drift(at_mjd - known.epoch_mjd)
    return Status(
        path=str(path),
        sha256=known.sha256,
        n_objects=len(known),
        epoch_mjd=round(known.epoch_mjd, 3),
        epoch_date=str((datetime(1858, 11, 17) + timedelta(days=known.epoch_mjd + 1e-3)).date()),
        at_mjd=round(at_mjd, 3),
        age_days=round(at_mjd - known.epoch_mjd, 1),
        drift_arcsec=drift,
        match_radius_arcsec=match_radius_arcsec,
        fits=drift <= match_radius_arcsec,
    )


def default_path(source: str) -> Path:
    """Path at which pympc keeps its catalogue of a source.

    Parameters
    ----------
    source : str
        One of `SOURCES`.

    Returns
    -------
    Path

    Examples
    --------
    >>> default_path("mpcorb").name
    'xephem_mpcorb.csv'
    """
    import pympc

    base = None if source == "nea" else source
    return Path(pympc.get_catalogue_status(source=base)["xephem"]["path"])


def renew(out: Path, source: str, from_file: Path | None = None) -> None:
    """Make a catalogue from the network, or from a file that was downloaded, and put it in place whole.

    Parameters
    ----------
    out : Path
        XEphem csv to write or replace; it stays as it is when something fails.
    source : str
        One of `SOURCES`.
    from_file : Path, optional
        An extended JSON file of the Minor Planet Center (mpcorb, nea), its MPCORB.DAT or NEA.txt, or Lowell's
        astorb.dat, gzipped or not.

    Raises
    ------
    CatalogueError
        If there is no network, the file is not of that source, or `out` cannot be written.

    Examples
    --------
    >>> renew(Path("catalogues/new.csv"), "mpcorb")  # doctest: +SKIP
    """
    if from_file is not None and not from_file.is_file():
        raise CatalogueError(f"no file {from_file}; give an MPC extended JSON file, gzipped or not, to --from-file")
    origin = from_file or f"{source} from the network"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogueError(f"{out} cannot be written ({error.strerror}); give another place to --out") from None
    try:
        with tempfile.TemporaryDirectory(prefix=".catalogue-", dir=out.parent) as folder, _quiet():
            made = _generate(from_file, source, folder) if from_file else _download(source, folder)
            parse(made)  # is it one?
            made.replace(out)
    except CatalogueError:
        raise CatalogueError(f"no orbit in {origin}; is it of the source {source!r}? {out} is unchanged") from None
    except Exception as error:  # pympc and pandas let through whatever a file or the network makes of them
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        cure = "give another file, or --source" if from_file else "check the network, or give a file to --from-file"
        raise CatalogueError(f"no catalogue from {origin} ({reason}); {cure}; {out} is unchanged") from None


def _generate(from_file: Path, source: str, folder: str) -> Path:
    import pympc

    if source != "astorb" and (lines := _read_mpcorb(from_file)) is not None:
        from_file = Path(folder) / "mpcorb_extended.json"
        from_file.write_text(json.dumps([_orbit(line) for line in lines]), encoding="utf-8")
    if source == "nea":
        files = {"base_filepath": None, "nea_filepath": str(from_file)}
    else:
        files = {"base_filepath": str(from_file), "nea_filepath": None}
    return Path(pympc.generate_xephem_catalogue(**files, source=_base(source), xephem_dir=folder))


def _read_mpcorb(path: Path) -> list[str] | None:
    """Orbits of a file in the Minor Planet Center's own format (MPCORB.DAT), a line each; None for another file."""
    with path.open("rb") as file:
        try:
            data = unpack_known(file, path.stat().st_size) or file.read()
        except BROKEN_PACKING as error:
            raise CatalogueError(f"{path} cannot be unpacked ({error}); download it again") from None
    text = data.decode("ascii", "replace")
    lines = [line for line in text.splitlines() if MPCORB_LINE.match(line.encode())]
    return lines or None


def _orbit(line: str) -> dict[str, Any]:
    """An orbit of MPCORB.DAT as the Minor Planet Center's extended JSON has it.

    Source: https://minorplanetcenter.net/iau/info/MPOrbitFormat.html (columns of the export format).
    """
    numbers = {name: float(line[first - 1 : last]) for name, (first, last) in MPCORB_COLUMNS.items()}
    magnitudes = {
        name: float(text) for name, first, last in MPCORB_MAGNITUDES if (text := line[first - 1 : last].strip())
    }
    names = line[166:194].strip()
    number, _, rest = names.partition(")") if names.startswith("(") else ("", "", names)
    named = {"Number": f"{number})"} if number else {}
    called = rest.strip() or number.strip("(") or line[:7].strip()
    kind = {"Principal_desig": called} if not number or any(letter.isdigit() for letter in called) else {"Name": called}
    return numbers | magnitudes | named | kind | {"Principal_desig": kind.get("Principal_desig", called)} | {
        "Epoch": unpack_epoch(line[20:25])
    }  # fmt: skip


def unpack_epoch(packed: str) -> float:
    """Julian date of a packed date of the Minor Planet Center.

    Parameters
    ----------
    packed : str
        Century, year, month and day in five letters.

    Returns
    -------
    float
        JD, TT.

    Examples
    --------
    >>> unpack_epoch("K2555")
    2460800.5
    """
    century = 100 * (ord(packed[0]) - ord("I") + 18)
    month, day = (int(letter, 36) for letter in packed[3:5])
    date = datetime(century + int(packed[1:3]), month, day)
    return (date - datetime(1858, 11, 17)).days + MJD_ZERO


def _download(source: str, folder: str) -> Path:
    import pympc

    made = pympc.update_catalogue(
        cat_dir=folder, source=_base(source), include_comets=source != "nea", show_progress=False, cleanup=True
    )
    return Path(made)


def _base(source: str) -> str:
    return "none" if source == "nea" else source


@contextmanager
def _quiet() -> Iterator[None]:
    """A dead network is noticed; what libraries print or warn of stays out of the result."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _expected_drift(age_days: float) -> float:
    """Typical error [arcsec] of a two-body position so many days before or after the elements' epoch.

    Examples
    --------
    >>> _expected_drift(-30), _expected_drift(80)
    (0.14, 1.1)
    """
    return round(float(np.interp(abs(age_days), AGE_DAYS, DRIFT_ARCSEC)), 3)


def warn_of_drift(path: Path, epoch_mjd: float, field_mjd: float) -> None:
    """Log once, per process and catalogue, that the epoch of its elements is too far from a field's.

    Parameters
    ----------
    path : Path
        XEphem csv.
    epoch_mjd, field_mjd : float
        Epochs of the elements and of the field, MJD.

    Examples
    --------
    >>> warn_of_drift(Path("catalogues/planets.csv"), epoch_mjd=57800.0, field_mjd=57801.0)  # no warning: one day
    """
    if _expected_drift(field_mjd - epoch_mjd) > TOLERABLE_ARCSEC:
        _warn(path, epoch_mjd, round(field_mjd - epoch_mjd))


_told: set[tuple[Path, float]] = set()


def _warn(path: Path, epoch_mjd: float, days: int) -> None:
    if (path, epoch_mjd) in _told:
        return
    _told.add((path, epoch_mjd))
    log.warning(
        "minor-planet catalogue %s: an image is %d days %s its elements, positions are off by some %.1f arcsec; "
        "run `gotorb catalogue update` or widen match_radius_arcsec",
        path,
        abs(days),
        "after" if days > 0 else "before",
        _expected_drift(days),
    )
