"""A labelling run: its locked folder, the list of its images, and its shards joined at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from gotorb import layout
from gotorb.dataset.store import write_dataset, write_table
from gotorb.errors import DataError
from gotorb.labels.parallel import Work, run_images
from gotorb.labels.shards import assemble, remove_shards
from gotorb.labels.tasks import ImageTask
from gotorb.logs import run_log
from gotorb.settings import Settings
from gotorb.survey.gotophoto import storage_path
from gotorb.survey.stamps import StampSource

log = logging.getLogger(__name__)


@contextmanager
def run_folder(out_dir: Path | str, name: str | None) -> Iterator[Path]:
    """Make a run's folder, lock it against a second run and log into it.

    Raises
    ------
    DataError
        If another run holds the folder.
    """
    data_dir = Path(out_dir) / (name or layout.timestamped("data"))
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(data_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(f"another run is at work in {data_dir}; wait for it or choose another name") from None
    try:
        with run_log(data_dir):
            yield data_dir
    finally:
        lock.release()


def write_images(data_dir: Path, tasks: Sequence[ImageTask]) -> None:
    """Remember which images a data set was made of, by the survey's own names."""
    rows = [
        {
            "image_id": task.image_id,
            "filepath": task.filepath,
            "exposures": ";".join(task.exposures),
            "ra_c": task.ra_c,
            "dec_c": task.dec_c,
            "jd": task.jd,
            "ut": task.ut,
        }
        for task in tasks
    ]
    part = data_dir / f"{layout.IMAGES_CSV}.part"
    pd.DataFrame(rows).to_csv(part, index=False, lineterminator="\n")
    part.replace(data_dir / layout.IMAGES_CSV)


def read_images(data_dir: Path | str, settings: Settings) -> list[ImageTask]:
    """Images that a data set was made of, with their files' places on this machine.

    Raises
    ------
    DataError
        If the data set has no list of images.
    """
    path = Path(data_dir) / layout.IMAGES_CSV
    if not path.exists():
        raise DataError(f"no {path.name} in {data_dir}; give a data set made by label_data.make()")
    images = pd.read_csv(path, dtype={"image_id": str, "ut": str}).fillna({"exposures": "", "ut": ""})
    tasks = []
    for row in images.itertuples(index=False):
        exposures = tuple(name for name in row.exposures.split(";") if name)
        places = tuple(str(storage_path(name, settings)) for name in (row.filepath, *exposures))
        tasks.append(
            ImageTask(row.image_id, row.filepath, exposures, places[0], places[1:], row.ra_c, row.dec_c, row.jd, row.ut)
        )
    return tasks


def make_shards(
    data_dir: Path,
    tasks: Sequence[ImageTask],
    work: Work,
    options: Any,
    *,
    n_processes: int,
    title: str,
    before: tuple[pd.DataFrame, Iterator[np.ndarray]] | None = None,
) -> None:
    """Work through the images and join what they gave to the data set in `data_dir`.

    Raises
    ------
    DataError
        If no image could be used.
    """
    shards_dir = data_dir / layout.SHARDS_DIR
    log.info("%s: %d images into %s", title, len(tasks), data_dir)
    outcome = run_images(tasks, work, options, shards_dir=shards_dir, n_processes=n_processes, title=title)
    if outcome.skipped and not outcome.shards:
        raise DataError(f"none of {len(tasks)} images could be used; the first: {outcome.skipped[0].reason}")
    assemble(data_dir, outcome.shards, before=before)
    remove_shards(shards_dir)
    log.info("%s: %d images done, %d skipped", title, len(outcome.shards), len(outcome.skipped))


def write_stamps(data_dir: Path, rows: pd.DataFrame, source: StampSource) -> None:
    """Write ready-made stamps and their labelled rows as a data set.

    Raises
    ------
    DataError
        If no row has a label.
    """
    if not rows["label"].isin([layout.REAL, layout.BOGUS]).any():
        raise DataError(f"none of {len(rows)} rows got a label; check label.archive in params.yaml")
    missing: list[np.ndarray] = []

    def blocks() -> Iterator[np.ndarray]:
        for stamps, fraction in source.batches():
            missing.append(fraction)
            yield stamps

    # stamps are written first and tell how much of each is missing, so the rows are completed behind them
    write_dataset(data_dir, rows, blocks(), layers=source.layers)
    write_table(data_dir, rows.assign(missing_fraction=np.concatenate(missing)))
    log.info("%d stamps into %s", len(rows), data_dir)
