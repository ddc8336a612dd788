"""Readers of detections and stamps of any source: images, data sets, stamp archives, alert packets, streams."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb import label_data
from gotorb.catalogues.crossmatch import find_nearest
from gotorb.core import layout
from gotorb.core.params import BATCH_SIZE, ArchiveParams
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError, ImageError
from gotorb.labels.image import check_exposures
from gotorb.stamps.layers import N_STACKED, cut_planes, n_detected_exposures
from gotorb.survey.alerts import find_packets, holds_packets, make_reader, stream_alerts
from gotorb.survey.archives import open_archive
from gotorb.survey.fits import open_frame
from gotorb.survey.folder import is_fits
from gotorb.survey.pixels import crop_stamps, fill_missing, prepare_stamps

log = logging.getLogger(__name__)
PAGE = 2 * BATCH_SIZE
"""Detections of a page."""
PLANES_BYTES = 1 << 27
"""Bytes of the planes of an image's stamps that are cut at a time: memory does not grow with the detections."""
DATASET, PACKETS, STREAM, IMAGES, ARCHIVE = "data set", "packets", "stream", "images", "archive"
NUMBERS = ("ra", "dec", "x", "y", "mag", "fwhm", "snr", "realbogus", "cnn_realbogus", "jd", "label",
           "n_seen", "missing_fraction")  # fmt: skip
TEXTS = ("id", "image_id", "ut", "metalabel", "number", "object_id")
COLUMNS = (*TEXTS, *NUMBERS)
ALERT_NAMES = {"id": "candid", "object_id": "objectId", "mag": "magpsf", "realbogus": "rb", "cnn_realbogus": "drb",
               "x": "xpos", "y": "ypos", "number": "ssnamenr"}  # fmt: skip
"""Our column to that of ZTF's alerts, whose old scores are a random forest (rb) and a CNN (drb)."""


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Some detections of one source.

    Attributes
    ----------
    name : str
        Of the source, for messages and pages.
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

    def blocks(self, n: int) -> Iterator[Detections]:
        """Yield the same detections in blocks.

        Parameters
        ----------
        n : int
            Largest number of detections of a block.

        Yields
        ------
        Detections
        """
        for start in range(0, len(self), n):
            rows = slice(start, start + n)
            yield replace(
                self, table=self.table.iloc[rows].reset_index(drop=True), stamps=self.stamps[rows],
                exposures=self.exposures[rows], first=self.first + start,
            )  # fmt: skip


def read_detections(source: Path, archive: ArchiveParams, size: int, *, block: int = PAGE) -> Iterator[Detections]:
    """Read the detections of a source of any kind in blocks; a bad image among several is skipped with a warning.

    Parameters
    ----------
    source : Path
        An image, a folder of images, a data set, a stamp archive (folder or hdf5), an alert packet, a folder of
        packets, or the folder of a stream that keeps its packets.
    archive : ArchiveParams
        Names and layout of stamp archives.
    size : int
        Side of the stamps cut from images [pixel].
    block : int
        Largest number of detections of a block.

    Yields
    ------
    Detections
        In the order of the source.

    Raises
    ------
    ImageError
        If the source is one image that cannot be read.
    DataError
        If the source cannot be read.
    """
    kind, images = find_kind(source)
    if kind == DATASET:
        yield from _from_dataset(source, block)
    elif kind == PACKETS:
        yield from _from_packets(source, find_packets(source), archive, size, block)
    elif kind == STREAM:
        yield from _from_stream(source, archive, size, block)
    elif kind == IMAGES:
        for path in images:
            try:
                for found in _read_image(path, size):
                    yield from found.blocks(block)
            except ImageError as error:
                if len(images) == 1:
                    raise
                log.warning("skipped image: %s", error)
    else:
        yield from _from_archive(source, archive, block)


def find_kind(source: Path) -> tuple[str, list[Path]]:
    """Tell the kind of a source by its content.

    Parameters
    ----------
    source : Path
        File or folder.

    Returns
    -------
    kind : str
        One of `DATASET`, `PACKETS`, `STREAM`, `IMAGES`, `ARCHIVE`.
    images : list of Path
        The source's images; empty for the other kinds.
    """
    if source.is_dir() and layout.labels_path(source).exists():
        return DATASET, []
    if source.is_dir() and (source / layout.STREAM_DB).exists():
        return STREAM, []
    if holds_packets(source):
        return PACKETS, []
    images = _find_images(source)
    return (IMAGES, images) if images else (ARCHIVE, [])


def _find_images(source: Path) -> list[Path]:
    """FITS files with detections: the one given, or those of a folder that have a table of them."""
    if source.is_file():
        return [source] if is_fits(source) else []
    return [path for path in sorted(source.iterdir()) if is_fits(path) and _has_detections(path)]


def _has_detections(path: Path) -> bool:

    label_data.use_adapter()
    try:
        with open_frame(path) as frame:
            frame.table(label_data.DIFFERENCE_PHOT_EXT)
            return True
    except ImageError:
        return False


def _read_image(path: Path, size: int) -> Iterator[Detections]:
    """Read all detections of an image, their stamps and their single exposures, as many at a time as memory allows.

    Parameters
    ----------
    path : Path
        Difference image, as `label_data.describe_image` knows it.
    size : int
        Side of the stamps [pixel].

    Yields
    ------
    Detections
        With `field`, the circle around all detections.

    Raises
    ------
    ImageError
        If the image or an exposure cannot be read.
    """

    task = label_data.describe_image(path)
    check_exposures(task)
    files = label_data.cut_options(size).files
    with open_frame(path) as frame:
        every = files.read_detections(frame)
        away = find_nearest(every["ra"], every["dec"], [task.ra_c], [task.dec_c])[1].max(initial=0.0) / 3600
        place = task.ra_c, task.dec_c, away, task.epoch_mjd
        exposures = [Path(one) for one in task.exposure_paths]
        pages = PLANES_BYTES // (4 * size**2 * (N_STACKED + len(exposures)) * PAGE)
        at_once = PAGE * max(pages, 1)
        for start in range(0, max(len(every), 1), at_once):
            found = every.iloc[start : start + at_once].reset_index(drop=True)
            ra, dec, x, y = (found[name].to_numpy() for name in ("ra", "dec", "x", "y"))
            planes = cut_planes(frame, exposures, ra, dec, size=size, extensions=files.extensions, xy=(x, y))
            stamps, missing = fill_missing(planes.layers())
            known = {"image_id": task.image_id, "ut": task.ut, "jd": task.jd, "missing_fraction": missing}
            table = _columns(found.assign(**known, n_seen=n_detected_exposures(planes.exposures)))
            yield Detections(
                name=path.name, table=table, stamps=stamps, layers=layout.LAYERS,
                exposures=fill_missing(planes.exposures)[0], first=start, field=place,
            )  # fmt: skip


def _without_exposures(
    source: Path, table: pd.DataFrame, stamps: np.ndarray, layers: tuple[str, ...], first: int
) -> Detections:
    none = np.empty((*stamps.shape[:3], 0), np.float32)
    return Detections(name=source.name, table=table, stamps=stamps, layers=layers, exposures=none, first=first)


def _from_dataset(source: Path, block: int) -> Iterator[Detections]:
    data = open_dataset(source)
    for rows, stamps in data.batches(batch=block):
        table = _columns(data.table.iloc[rows].reset_index(drop=True)).assign(id=data.ids[rows])
        yield _without_exposures(source, table, stamps, data.layers, int(rows[0]))


def find_streamed(source: Path) -> dict[str, tuple[frozenset[str], list[Path]]]:
    """Scored alerts of a stream's folder, and the packets that it keeps of them.

    Parameters
    ----------
    source : Path
        Folder of the stream's journal.

    Returns
    -------
    dict
        Survey -> ids of its scored alerts, and files in the order of topic, partition and offset.

    Raises
    ------
    DataError
        If the stream keeps no packets, or its journal cannot be read.
    """
    query = "SELECT survey, alert_id, topic, part, off FROM scores WHERE score IS NOT NULL ORDER BY topic, part, off"
    try:
        with closing(sqlite3.connect(f"{(source / layout.STREAM_DB).absolute().as_uri()}?mode=ro", uri=True)) as db:
            place = db.execute("SELECT value FROM about WHERE name = 'packets'").fetchone()
            rows = db.execute(query).fetchall()
    except sqlite3.Error as error:
        raise DataError(
            f"the journal of {source} cannot be read ({error}); give the --out of `gotorb stream`"
        ) from None
    if place is None:
        raise DataError(f"the stream of {source} keeps no packets; run it with --keep-packets DIR")
    found: dict[str, tuple[frozenset[str], list[Path]]] = {}
    for survey in sorted({row[0] for row in rows}):
        own = [row for row in rows if row[0] == survey]
        files = dict.fromkeys(path for row in own if (path := _find_kept(source / place[0], *row[2:])) is not None)
        found[survey] = frozenset(row[1] for row in own), list(files)
        log.info("%s: %d scored alerts in %d kept packets", survey, len(own), len(files))
    if not any(files for _, files in found.values()):
        raise DataError(f"no packets of the scored alerts of {source} in {source / place[0]}; put them back there")
    return found


def _find_kept(folder: Path, topic: str, part: int, offset: int) -> Path | None:
    paths = (layout.kept_packet(folder, topic, part, offset, suffix) for suffix in (".avro", ".bin"))
    return next((path for path in paths if path.exists()), None)


def _from_stream(source: Path, archive: ArchiveParams, size: int, block: int) -> Iterator[Detections]:
    """Alerts of one survey after the other; larger stamps are cut to the size, so that all are alike."""
    first = 0
    for ids, paths in find_streamed(source).values():
        for found in _from_packets(source, paths, archive, size, block) if paths else ():
            rows = found.table["id"].isin(ids).to_numpy()
            side = found.stamps.shape[1]
            stamps = crop_stamps(found.stamps, size) if side > size and (side - size) % 2 == 0 else found.stamps
            table = found.table[rows].reset_index(drop=True)
            yield replace(found, table=table, stamps=stamps[rows], exposures=found.exposures[rows][:, :size, :size],
                          first=first)  # fmt: skip
            first += len(table)


def _from_packets(
    source: Path, paths: Sequence[Path], archive: ArchiveParams, size: int, block: int
) -> Iterator[Detections]:
    first, reader = 0, make_reader(archive.packets, size)
    for alerts in stream_alerts(paths, block, reader):
        stamps, missing = prepare_stamps(np.stack([alert.stamp for alert in alerts]), archive.background)
        table = pd.DataFrame([alert.record for alert in alerts])
        score = table["rb"].where(table["rb"].notna(), table["survey_score"])  # Rubin's is its reliability
        known = _columns(table.assign(missing_fraction=missing, rb=score), ALERT_NAMES)
        yield _without_exposures(source, known, stamps, alerts[0].layers, first)
        first += len(table)


def _from_archive(source: Path, archive: ArchiveParams, block: int) -> Iterator[Detections]:
    data = open_archive(source, archive.model_copy(update={"size": None}))  # the model says how much it takes
    own = {ours: theirs for ours, theirs in archive.columns.items() if isinstance(theirs, str)}
    for ours in {"ra", "dec"} - own.keys() & archive.columns.keys():
        raise DataError(
            f"label.archive.columns.{ours} is {archive.columns[ours]} in params.yaml; name one column of degrees"
        )
    first = 0
    for stamps, missing in data.batches(block):
        rows = slice(first, first + len(stamps))
        table = data.table.iloc[rows].reset_index(drop=True).assign(missing_fraction=missing)
        known = _columns(table, ALERT_NAMES | own).assign(id=data.ids[rows])
        yield _without_exposures(source, known, stamps, data.layers, first)
        first += len(stamps)


def _columns(table: pd.DataFrame, names: dict[str, str] | None = None) -> pd.DataFrame:
    """Our columns of a table, as far as they exist, by our names or the given ones."""
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
