"""Stamps to be scored, a batch at a time, from images, data sets, stamp archives or alert packets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError, ImageError
from gotorb.params import ArchiveParams
from gotorb.survey.alerts import LAYERS, find_packets, holds_packets, stream_packets
from gotorb.survey.archives import open_archive
from gotorb.survey.pixels import prepare_stamps

log = logging.getLogger(__name__)
BATCH = 256
DATASET, PACKETS, IMAGES, ARCHIVE = "data set", "packets", "images", "archive"
FITS_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.fz")


@dataclass(frozen=True)
class Batch:
    """Some rows to be scored: ids (m,), ra and dec [deg] (m,), stamps (m, size, size, n_layers) and layer names."""

    ids: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    stamps: np.ndarray
    layers: tuple[str, ...]


def read_batches(source: Path, archive: ArchiveParams, size: int) -> Iterator[Batch]:
    """Batches of a source of any kind, told apart by what is there.

    Parameters
    ----------
    source : Path
        An image, a folder of images, a data set, a stamp archive (folder or hdf5), alert packets or a folder of these.
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
        yield from _from_images(images, size)
    else:
        yield from _from_archive(source, archive)


def tell_source(source: Path) -> tuple[str, list[Path]]:
    """What a source is, by what is there: one of `DATASET`, `PACKETS`, `IMAGES`, `ARCHIVE`; and its images."""
    if source.is_dir() and layout.labels_path(source).exists():
        return DATASET, []
    if holds_packets(source):
        return PACKETS, []
    images = find_images(source)
    return (IMAGES, images) if images else (ARCHIVE, [])


def find_images(source: Path) -> list[Path]:
    """FITS files with detections: the one given, or those of a folder that have a table of them."""
    if source.is_file():
        return [source] if source.name.endswith(FITS_SUFFIXES) else []
    return [path for path in sorted(source.iterdir()) if path.name.endswith(FITS_SUFFIXES) and _has_detections(path)]


def _has_detections(path: Path) -> bool:
    from gotorb import label_data
    from gotorb.survey.fits import open_frame

    try:
        with open_frame(path) as frame:
            frame.table(label_data.DIFFERENCE_PHOT_EXT)
            return True
    except ImageError:
        return False


def _from_images(paths: list[Path], size: int) -> Iterator[Batch]:
    """All detections of the images; a bad one among others is passed over with a warning."""
    from gotorb import label_data

    for path in paths:
        try:
            table, stamps = label_data.cut_image(path, stamp_size=size)
        except ImageError as error:
            if len(paths) == 1:
                raise
            log.warning("skipped image: %s", error)
            continue
        for start in range(0, len(table), BATCH):
            rows = table.iloc[start : start + BATCH]
            ids, ra, dec = rows["candidate_id"].to_numpy(str), _numbers(rows, "ra"), _numbers(rows, "dec")
            yield Batch(ids, ra, dec, stamps[start : start + BATCH], layout.LAYERS)


def _from_dataset(source: Path) -> Iterator[Batch]:
    data = open_dataset(source)
    for rows, stamps in data.batches(batch=BATCH):
        table = data.table.iloc[rows]
        yield Batch(data.ids[rows], _numbers(table, "ra"), _numbers(table, "dec"), stamps, data.layers)


def _from_packets(source: Path, archive: ArchiveParams) -> Iterator[Batch]:
    for table, raw in stream_packets(find_packets(source), BATCH):
        stamps, _ = prepare_stamps(raw, archive.background)
        yield Batch(table["candid"].to_numpy(str), _numbers(table, "ra"), _numbers(table, "dec"), stamps, LAYERS)


def _from_archive(source: Path, archive: ArchiveParams) -> Iterator[Batch]:
    data = open_archive(source, archive.model_copy(update={"size": None}))  # the model says how much it takes
    ra, dec = (_numbers(data.table, _column(archive, ours)) for ours in ("ra", "dec"))
    start = 0
    for stamps, _ in data.batches(BATCH):
        rows = slice(start, start + len(stamps))
        yield Batch(data.ids[rows], ra[rows], dec[rows], stamps, data.layers)
        start += len(stamps)


def _column(archive: ArchiveParams, ours: str) -> str:
    """The archive's column for one of ours; of the same name when none is given."""
    theirs = archive.columns.get(ours, ours)
    if isinstance(theirs, list):
        raise DataError(f"label.archive.columns.{ours} is {theirs} in params.yaml; name one column of degrees")
    return theirs


def _numbers(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats; NaN where there is no number, or no such column."""
    if name not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[name], errors="coerce").to_numpy(float)
