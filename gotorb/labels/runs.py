"""A labelling run: its locked folder, the list of its images, and its shards joined at the end."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from gotorb import layout
from gotorb.dataset.store import Dataset, cannot_write, write_dataset, write_table
from gotorb.errors import DataError, OutsideStorage
from gotorb.labels.parallel import HERE, Outcome, Work, Workers, run_images
from gotorb.labels.shards import assemble, remove_shards
from gotorb.labels.tasks import ImageTask
from gotorb.logs import run_log
from gotorb.settings import Settings
from gotorb.survey.archives import StampSource
from gotorb.survey.gotophoto import storage_path

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
    owner = data_dir / layout.OWNER_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(data_dir / ".lock")
        lock.acquire(timeout=0)
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%F %T} UTC")
    except Timeout:
        held_by = owner.read_text() if owner.exists() else "another run"
        raise DataError(f"{data_dir} is in use by {held_by}; wait for it, stop it or choose another name") from None
    except OSError as error:
        raise cannot_write(data_dir, error) from None
    try:
        with run_log(data_dir):
            yield data_dir
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def forget_shards(data_dir: Path) -> None:
    """Throw away what a killed run has finished."""
    remove_shards(data_dir / layout.SHARDS_DIR)


def write_images(data_dir: Path, tasks: Sequence[ImageTask], outcome: Outcome, *, before: Dataset | None) -> None:
    """Remember the images that a data set was made of, by the survey's own names, and what became of each.

    Images of the data set before stay as they are there.
    """
    rows = [
        {
            "image_id": task.image_id,
            "filepath": task.filepath,
            "exposures": json.dumps(task.exposures),
            "ra_c": task.ra_c,
            "dec_c": task.dec_c,
            "jd": task.jd,
            "ut": task.ut,
            "state": result.state,
            "n_rows": result.n_rows,
        }
        for task, result in zip(tasks, outcome.results, strict=True)
    ]
    images = pd.DataFrame(rows)
    if before is not None and (before.data_dir / layout.IMAGES_CSV).exists():
        known = pd.read_csv(before.data_dir / layout.IMAGES_CSV, dtype=str, keep_default_na=False)
        images = pd.concat([known, images[~images["image_id"].isin(known["image_id"])].astype(str)])
    part = data_dir / f"{layout.IMAGES_CSV}.part"
    images.to_csv(part, index=False, lineterminator="\n")
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
    text = ["image_id", "filepath", "exposures", "ut"]
    images = pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
    images[text] = images[text].fillna("")
    tasks = []
    for row in images.itertuples(index=False):
        exposures = tuple(json.loads(row.exposures))
        try:
            places = tuple(str(storage_path(name, settings)) for name in (row.filepath, *exposures))
        except OutsideStorage:
            continue  # it gave no row
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
    title: str,
    workers: Workers = HERE,
    before: Dataset | None = None,
) -> None:
    """Work through the images and join what they gave to the data set in `data_dir`.

    Raises
    ------
    DataError
        If no image could be used.
    """
    shards_dir = data_dir / layout.SHARDS_DIR
    log.info("%s: %d images into %s", title, len(tasks), data_dir)
    outcome = run_images(tasks, work, options, shards_dir=shards_dir, workers=workers, title=title)
    if outcome.skipped and not outcome.shards:
        raise DataError(f"none of {len(tasks)} images could be used; the first: {outcome.skipped[0].reason}")
    assemble(data_dir, outcome.shards, before=before)
    write_images(data_dir, tasks, outcome, before=before)
    remove_shards(shards_dir)
    log.info("%s: %s", title, ", ".join(f"{n} images {state}" for state, n in outcome.states.items()))


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
