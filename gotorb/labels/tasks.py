"""One image's work as plain values that travel to worker processes, and what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gotorb.errors import DataError, MissingPart
from gotorb.settings import Settings
from gotorb.survey.frames import open_frame
from gotorb.survey.gotophoto import storage_path

MJD_OF_JD = 2_400_000.5


@dataclass(frozen=True)
class ImageTask:
    """A difference image and its single exposures.

    Attributes
    ----------
    image_id : str
        Id in the survey.
    filepath, exposures : str, tuple of str
        The survey's own names of the files, as they go into the data set.
    path, exposure_paths : str, tuple of str
        Where the files lie on this machine.
    ra_c, dec_c : float
        Centre, deg, ICRS.
    jd : float
        Mid-exposure, UTC.
    ut : str
        Unit telescope.
    """

    image_id: str
    filepath: str
    exposures: tuple[str, ...]
    path: str
    exposure_paths: tuple[str, ...]
    ra_c: float
    dec_c: float
    jd: float
    ut: str

    @property
    def epoch_mjd(self) -> float:
        """Mid-exposure, MJD, UTC."""
        return self.jd - MJD_OF_JD

    def fingerprint(self, options: Any) -> str:
        """Short digest of everything that decides this image's shard, files' sizes and times included."""
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in map(_stat, (self.path, *self.exposure_paths))]
        return hashlib.sha256(repr((astuple(self), files, asdict(options))).encode()).hexdigest()[:16]


def _stat(path: str) -> tuple[str, Any]:
    class Absent:
        st_size, st_mtime_ns = -1, -1

    return path, Path(path).stat() if Path(path).is_file() else Absent()


@dataclass(frozen=True)
class Skipped:
    """An image that gave no rows, and why."""

    image_id: str
    path: str
    reason: str


@dataclass(frozen=True)
class Done:
    """An image whose shard is on disk."""

    image_id: str
    shard: str
    n_rows: int


NEEDED = ("id", "filepath", "ra_c", "dec_c", "jd")


def make_tasks(
    images: pd.DataFrame, get_exposures: Callable[[Any], Sequence[str]], settings: Settings
) -> list[ImageTask]:
    """Turn the rows of `get_images` into tasks.

    Parameters
    ----------
    images : DataFrame
        id, filepath, ra_c, dec_c (deg), jd (mid-exposure, UTC) and, when known, instrument.
    get_exposures : callable
        Gives the file names of the single exposures of one row.
    settings : Settings
        Say where the files lie.

    Raises
    ------
    DataError
        If there is no image.
    MissingPart
        If a needed column is absent.
    """
    if len(images) == 0:
        raise DataError("get_images() gave no difference image; check the database or your own get_images()")
    absent = [name for name in NEEDED if name not in images]
    if absent:
        raise MissingPart(
            f"no column {absent[0]!r} in the table of images (has {', '.join(images.columns)}); "
            f"label_data.get_images() must give {', '.join(NEEDED)}"
        )
    return [_make_task(row, get_exposures, settings) for _, row in images.iterrows()]


def _make_task(row: pd.Series, get_exposures: Callable[[Any], Sequence[str]], settings: Settings) -> ImageTask:
    exposures = tuple(str(name) for name in get_exposures(row))
    return ImageTask(
        image_id=str(row["id"]),
        filepath=str(row["filepath"]),
        exposures=exposures,
        path=str(storage_path(str(row["filepath"]), settings)),
        exposure_paths=tuple(str(storage_path(name, settings)) for name in exposures),
        ra_c=float(row["ra_c"]),
        dec_c=float(row["dec_c"]),
        jd=float(row["jd"]),
        ut=str(row.get("instrument", ""))[-1:],
    )


def read_task(path: Path | str, *, ext: str = "IMAGE") -> ImageTask:
    """Task of a single file: epoch and exposures come from its header (jd, coadd1, coadd2, ...).

    The exposures are looked for beside the file.

    Raises
    ------
    MissingPart
        If a header key is absent.
    """
    path = Path(path)
    with open_frame(path) as frame:
        n_coadd, jd = int(frame.key("ncoadd", ext, 0)), float(frame.key("jd", ext, 0))
        names = [str(frame.key(f"coadd{i + 1}", ext, 0)) for i in range(n_coadd)]
        instrument = str(frame.header(ext).get("instrume", frame.header(0).get("instrume", "")))
        centre = frame.wcs(ext).all_pix2world([[(n - 1) / 2 for n in frame.plane(ext).shape[::-1]]], 0)[0]
    beside = tuple(str(path.parent / Path(name).name) for name in names)
    return ImageTask(
        path.stem, str(path), tuple(names), str(path), beside, float(centre[0]), float(centre[1]), jd, instrument[-1:]
    )
