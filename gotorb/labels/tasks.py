"""One image's work as plain values that travel to worker processes, and what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from gotorb import layout
from gotorb.errors import DataError, GotorbError, MissingPart, OutsideStorage
from gotorb.settings import Settings
from gotorb.stamps.layers import Extensions
from gotorb.survey.detections import read_detections
from gotorb.survey.fits import Frame, open_frame
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
    problem : str
        Why the image is refused before it is opened; "" for most.
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
    problem: str = ""

    @property
    def epoch_mjd(self) -> float:
        """Mid-exposure, MJD, UTC."""
        return self.jd - MJD_OF_JD

    def fingerprint(self, options: Any) -> str:
        """Short digest of everything that decides this image's shard: files' sizes and times, options, catalogues."""
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in map(_stat, (self.path, *self.exposure_paths))]
        known = astuple(self), files, asdict(options), getattr(options, "catalogues", ())
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _stat(path: str) -> tuple[str, Any]:
    class Absent:
        st_size, st_mtime_ns = -1, -1

    return path, Path(path).stat() if Path(path).is_file() else Absent()


@dataclass(frozen=True)
class FileLayout:
    """How a survey's files are laid out.

    Attributes
    ----------
    extensions : Extensions
        Names of the HDUs.
    detection_columns : dict
        Our column name to the survey's, where they differ.
    first_pixel : int
        x and y of the first pixel's centre in the table of detections.
    """

    extensions: Extensions = field(default_factory=Extensions)
    detection_columns: dict[str, str] = field(default_factory=dict)
    first_pixel: int = 0

    def read_detections(self, frame: Frame) -> pd.DataFrame:
        """Detections of an image; see `survey.detections.read_detections`."""
        return read_detections(
            frame,
            self.extensions.detections,
            names=self.detection_columns,
            first_pixel=self.first_pixel,
            wcs_ext=self.extensions.difference,
        )


@dataclass(frozen=True)
class Skipped:
    """An image that gave no rows: its state is one of `layout.FAILED_STATES`, the reason is for people."""

    image_id: str
    path: str
    reason: str
    state: str

    n_rows = 0

    @classmethod
    def crashed(cls, task: ImageTask) -> Skipped:
        """An image on which workers died again and again."""
        return cls(task.image_id, task.path, "workers died on it again and again; label it alone", "crashed")


@dataclass(frozen=True)
class Done:
    """An image whose shard is on disk."""

    image_id: str
    shard: str
    n_rows: int

    @property
    def state(self) -> str:
        """``labelled``, or ``empty`` when the image gave no row."""
        return layout.LABELLED if self.n_rows else layout.EMPTY


Part = Sequence[ImageTask]
"""Images that a worker takes at a time."""
Job = Callable[[Part], list[Done | Skipped]]
Take = Callable[[Sequence[Done | Skipped]], None]
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
        If there is no image, or one stands twice.
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
    twice = images["id"].astype(str).duplicated()
    if twice.any():
        raise DataError(f"image {images['id'][twice].iloc[0]!r} stands twice in the table of images; give each id once")
    return [_make_task(row, get_exposures, settings) for _, row in images.iterrows()]


def _make_task(row: pd.Series, get_exposures: Callable[[Any], Sequence[str]], settings: Settings) -> ImageTask:
    filepath, problem = str(row["filepath"]), ""
    exposures: tuple[str, ...] = ()
    places: tuple[str, ...] = ("",)
    try:
        exposures = tuple(str(name) for name in get_exposures(row))
        places = tuple(str(storage_path(name, settings)) for name in (filepath, *exposures))
    except OutsideStorage as error:
        problem = str(error)
    except GotorbError:
        raise  # the database or a setting: every image would fail alike
    except Exception as error:
        problem = f"get_individual_images() failed on image {row['id']} ({type(error).__name__}: {error}); mend it"
    return ImageTask(
        image_id=str(row["id"]),
        filepath=filepath,
        exposures=exposures,
        path=places[0],
        exposure_paths=places[1:],
        ra_c=float(row["ra_c"]),
        dec_c=float(row["dec_c"]),
        jd=float(row["jd"]),
        ut=_unit_telescope(row.get("instrument", "")),
        problem=problem,
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
        centre = frame.wcs(ext).all_pix2world([[(n - 1) / 2 for n in frame.shape(ext)[::-1]]], 0)[0]
    beside = tuple(str(path.parent / Path(name).name) for name in names)
    return ImageTask(
        path.stem, str(path), tuple(names), str(path), beside, float(centre[0]), float(centre[1]), jd,
        _unit_telescope(instrument),
    )  # fmt: skip


def _unit_telescope(instrument: object) -> str:
    """The digit at the end of an instrument's name, "" for none."""
    last = str(instrument)[-1:]
    return last if last.isdigit() else ""
