"""Many images over several processes: one bad image or one dead worker never stops a run."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from gotorb.errors import ImageError, LookupFailed
from gotorb.labels.shards import read_shard_table, shard_path, write_shard
from gotorb.labels.tasks import Done, ImageTask, Skipped

log = logging.getLogger(__name__)
Work = Callable[[Any, Any], tuple[pd.DataFrame, np.ndarray]]


@dataclass(frozen=True)
class Outcome:
    """What became of every image, in the order of the tasks."""

    results: tuple[Done | Skipped, ...]

    @property
    def shards(self) -> list[Path]:
        """Shards of the finished images."""
        return [Path(result.shard) for result in self.results if isinstance(result, Done)]

    @property
    def skipped(self) -> list[Skipped]:
        """Images without a shard."""
        return [result for result in self.results if isinstance(result, Skipped)]


def run_images(
    tasks: Sequence[ImageTask], work: Work, options: Any, *, shards_dir: Path, n_processes: int = 1, title: str = ""
) -> Outcome:
    """Do the work of every image, each into its own shard; shards that are there already are kept.

    Parameters
    ----------
    tasks : sequence of ImageTask
        Images.
    work : callable
        ``work(task, options) -> (table, stamps)``; a module-level function, since it travels to processes.
    options : dataclass
        Same for all images.
    shards_dir : Path
        Where the shards go.
    n_processes : int
        1 works in this process.
    title : str
        Of the progress bar.
    """
    with tqdm(total=len(tasks), desc=title, unit="image", leave=False, disable=None) as bar:
        run = _run_here if n_processes == 1 else _run_in_pool
        found = run(tasks, work, options, shards_dir, n_processes, bar)
    outcome = Outcome(tuple(found[task.image_id] for task in tasks))
    for skipped in outcome.skipped:
        log.warning("skipped image %s: %s", skipped.image_id, skipped.reason)
    return outcome


def do_image(task: ImageTask, work: Work, options: Any, shards_dir: Path) -> Done | Skipped:
    """Do one image, or find it done."""
    path = shard_path(shards_dir, task, task.fingerprint(options))
    if path.exists():
        return Done(task.image_id, str(path), len(read_shard_table(path)))
    try:
        table, stamps = work(task, options)
    except (ImageError, LookupFailed) as error:
        return Skipped(task.image_id, task.path, str(error))
    return write_shard(path, table, stamps)


def _run_here(
    tasks: Sequence[ImageTask], work: Work, options: Any, shards_dir: Path, _: int, bar: Any
) -> dict[str, Done | Skipped]:
    found = {}
    for task in tasks:
        found[task.image_id] = do_image(task, work, options, shards_dir)
        bar.update()
    return found


def _run_in_pool(
    tasks: Sequence[ImageTask], work: Work, options: Any, shards_dir: Path, n_processes: int, bar: Any
) -> dict[str, Done | Skipped]:
    """A worker that dies breaks its pool: the images it may have died on are tried again alone."""
    found: dict[str, Done | Skipped] = {}
    waiting = list(tasks)
    while waiting:
        suspects = _run_pool_once(waiting, work, options, shards_dir, n_processes, bar, found)
        for task in suspects:
            if _run_pool_once([task], work, options, shards_dir, 1, bar, found):
                found[task.image_id] = Skipped(task.image_id, task.path, "a worker died on it twice; run it alone")
        waiting = [task for task in waiting if task.image_id not in found]
    return found


def _run_pool_once(
    tasks: Sequence[ImageTask],
    work: Work,
    options: Any,
    shards_dir: Path,
    n_processes: int,
    bar: Any,
    found: dict[str, Done | Skipped],
) -> list[ImageTask]:
    """Run until all is done or the pool breaks; return the images that may have broken it."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, mp_context=spawn) as pool:
        futures: dict[Future, ImageTask] = {
            pool.submit(do_image, task, work, options, shards_dir): task for task in tasks
        }
        try:
            for future in as_completed(futures):
                found[futures[future].image_id] = future.result()
                bar.update()
        except BrokenProcessPool:
            log.warning("a worker process died; the unfinished images are done again")
            return [task for task in tasks if task.image_id not in found][:n_processes]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return []
