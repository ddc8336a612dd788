"""Detections of any source with all that is known of them: rows, layers, and single exposures where there are any."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.apps.batches import DATASET, IMAGES, PACKETS, tell_source
from gotorb.dataset.store import open_dataset
from gotorb.errors import ImageError
from gotorb.params import ArchiveParams
from gotorb.survey.alerts import LAYERS, find_packets, stream_packets
from gotorb.survey.archives import open_archive
from gotorb.survey.pixels import fill_missing, prepare_stamps

log = logging.getLogger(__name__)
PAGE = 512
"""Detections of a block: two batches, so that samples are those of `gotorb score`."""
NUMBERS = ("ra", "dec", "x", "y", "mag", "fwhm", "snr", "realbogus", "cnn_realbogus", "jd", "label",
           "n_seen", "missing_fraction")  # fmt: skip
TEXTS = ("id", "ut", "metalabel", "number", "object_id")
COLUMNS = (*TEXTS, *NUMBERS)
ALERT_NAMES = {"id": "candid", "object_id": "objectId", "mag": "magpsf", "realbogus": "rb", "cnn_realbogus": "drb",
               "x": "xpos", "y": "ypos", "number": "ssnamenr"}  # fmt: skip
"""Our column to that of ZTF's alerts, whose old scores are a random forest (rb) and a CNN (drb)."""


@dataclass(frozen=True)
class Detections:
    """Some detections of one source.

    Attributes
    ----------
    name : str
        Of the source, for people.
    table : DataFrame
        `COLUMNS`; text is "" and a number NaN where nothing is known.
    stamps : ndarray
        (n, size, size, n_layers).
    layers : tuple of str
        Names of the layers.
    exposures : ndarray
        (n, size, size, k) single exposures, k 0 where there are none.
    first : int
        Row of the source that comes first.
    field : tuple of float, optional
        Centre [deg], radius [deg] and epoch [MJD] of an image.
    """

    name: str
    table: pd.DataFrame
    stamps: np.ndarray
    layers: tuple[str, ...]
    exposures: np.ndarray
    first: int = 0
    field: tuple[float, float, float, float] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.table)

    def blocks(self) -> Iterator[Detections]:
        """The same in blocks of `PAGE`."""
        for start in range(0, len(self), PAGE):
            rows = slice(start, start + PAGE)
            yield Detections(
                self.name, self.table.iloc[rows].reset_index(drop=True), self.stamps[rows], self.layers,
                self.exposures[rows], self.first + start, self.field,
            )  # fmt: skip


def read_detections(source: Path, archive: ArchiveParams, size: int) -> Iterator[Detections]:
    """Blocks of detections of a source of any kind; a bad image among several is passed over.

    Parameters
    ----------
    source : Path
        An image, a folder of images, a data set, a stamp archive, an alert packet or a folder of these.
    archive : ArchiveParams
        How to read stamp archives.
    size : int
        Side of the stamps cut from images.
    """
    kind, images = tell_source(source)
    if kind == DATASET:
        yield from _from_dataset(source)
    elif kind == PACKETS:
        yield from _from_packets(source, archive)
    elif kind == IMAGES:
        for path in images:
            try:
                yield from read_image(path, size).blocks()
            except ImageError as error:
                if len(images) == 1:
                    raise
                log.warning("skipped image: %s", error)
    else:
        yield from _from_archive(source, archive)


def read_image(path: Path, size: int) -> Detections:
    """All detections of an image and their single exposures."""
    from gotorb import label_data
    from gotorb.catalogues.crossmatch import find_nearest
    from gotorb.labels.jobs import read_task
    from gotorb.stamps.layers import cut_planes, n_detected_exposures
    from gotorb.survey.fits import open_frame

    task = read_task(path, ext=label_data.SCIENCE_IMAGE_EXT)
    files = label_data.cut_options(size).files
    with open_frame(path) as frame:
        found = files.read_detections(frame)
        ra, dec, xy = found["ra"].to_numpy(), found["dec"].to_numpy(), (found["x"].to_numpy(), found["y"].to_numpy())
        exposures = [Path(one) for one in task.exposure_paths]
        planes = cut_planes(frame, exposures, ra, dec, size=size, extensions=files.extensions, xy=xy)
    stamps, missing = fill_missing(planes.layers())
    n_seen = n_detected_exposures(planes.exposures)
    table = found.assign(ut=task.ut, jd=task.jd, n_seen=n_seen, missing_fraction=missing)
    away = find_nearest(ra, dec, [task.ra_c], [task.dec_c])[1].max(initial=0.0) / 3600
    place = task.ra_c, task.dec_c, away, task.epoch_mjd
    return Detections(path.name, _columns(table), stamps, layout.LAYERS, fill_missing(planes.exposures)[0], 0, place)


def _from_dataset(source: Path) -> Iterator[Detections]:
    data = open_dataset(source)
    for rows, stamps in data.batches(batch=PAGE):
        table = _columns(data.table.iloc[rows].reset_index(drop=True))
        yield Detections(source.name, table, stamps, data.layers, _none(stamps), int(rows[0]))


def _from_packets(source: Path, archive: ArchiveParams) -> Iterator[Detections]:
    first = 0
    for table, raw in stream_packets(find_packets(source), PAGE):
        stamps, missing = prepare_stamps(raw, archive.background)
        known = _columns(table.assign(missing_fraction=missing), ALERT_NAMES)
        yield Detections(source.name, known, stamps, LAYERS, _none(stamps), first)
        first += len(table)


def _from_archive(source: Path, archive: ArchiveParams) -> Iterator[Detections]:
    data = open_archive(source, archive.model_copy(update={"size": None}))
    own = {ours: theirs for ours, theirs in archive.columns.items() if isinstance(theirs, str)}
    first = 0
    for stamps, missing in data.batches(PAGE):
        rows = slice(first, first + len(stamps))
        table = data.table.iloc[rows].reset_index(drop=True).assign(missing_fraction=missing)
        known = _columns(table, ALERT_NAMES | own).assign(id=data.ids[rows])
        yield Detections(source.name, known, stamps, data.layers, _none(stamps), first)
        first += len(stamps)


def _none(stamps: np.ndarray) -> np.ndarray:
    return np.empty((*stamps.shape[:3], 0), np.float32)


def _columns(table: pd.DataFrame, names: dict[str, str] | None = None) -> pd.DataFrame:
    """Our columns of a table, whatever it has of them, by our names or those given."""
    found: dict[str, Any] = {}
    for ours in COLUMNS:
        theirs = next((name for name in (ours, (names or {}).get(ours)) if name in table), None)
        if ours in TEXTS:
            text = (
                table[theirs].astype(object).where(table[theirs].notna(), "").astype(str)
                if theirs
                else pd.Series("", index=table.index)
            )
            found[ours] = text.where(~text.isin(["null", "nan"]), "")
        else:
            found[ours] = pd.to_numeric(table[theirs], errors="coerce") if theirs else np.nan
    return pd.DataFrame(found, index=table.index)
