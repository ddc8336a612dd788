"""Many images over several processes or a cluster: one bad image or one dead worker never stops a run."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from gotorb import layout
from gotorb.errors import DataError, GotorbError, ImageError, LookupFailed
from gotorb.labels.cluster import run_on_cluster
from gotorb.labels.shards import read_shard_table, shard_path, write_shard
from gotorb.labels.tasks import Done, ImageTask, Job, Part, Skipped, Take

log = logging.getLogger(__name__)
Work = Callable[[Any, Any], tuple[pd.DataFrame, np.ndarray]]


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes
    ----------
    n_processes : int
        Processes of this machine; 1 works in this process.
    chunk : int
        Images that a worker takes at a time.
    scheduler : str
        Address of a dask scheduler; when given, its workers do the work.
    """

    n_processes: int = 1
    chunk: int = 4
    scheduler: str = ""


HERE = Workers()
"""This process."""


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

    @property
    def states(self) -> dict[str, int]:
        """Number of images in each state that occurs, in the order of `layout.IMAGE_STATES`."""
        counts = Counter(result.state for result in self.results)
        return {state: counts[state] for state in layout.IMAGE_STATES if counts[state]}


def run_images(
    tasks: Sequence[ImageTask],
    work: Work,
    options: Any,
    *,
    shards_dir: Path,
    workers: Workers = HERE,
    title: str = "",
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
    workers : Workers
        Who does it.
    title : str
        Of the progress bar.

    Raises
    ------
    DataError
        If shards cannot be written, or a cluster's workers write them where they are not seen here.
    """
    found: dict[str, Done | Skipped] = {}
    job = partial(do_images, work=work, options=options, shards_dir=Path(shards_dir).resolve())
    parts = [tasks[start : start + workers.chunk] for start in range(0, len(tasks), workers.chunk)]
    with tqdm(total=len(tasks), desc=title, unit="image", leave=False, disable=None) as bar:

        def take(results: Sequence[Done | Skipped]) -> None:
            found.update({result.image_id: result for result in results})
            bar.update(len(results))

        if workers.scheduler:
            run_on_cluster(parts, job, take, address=workers.scheduler)
        elif workers.n_processes == 1:
            for task in tasks:
                take(job([task]))
        else:
            _run_in_pools(parts, job, take, workers.n_processes)
    outcome = Outcome(tuple(found[task.image_id] for task in tasks))
    for skipped in outcome.skipped:
        log.warning("skipped image %s (%s): %s", skipped.image_id, skipped.state, skipped.reason)
    _check_seen(outcome.shards)
    return outcome


def _check_seen(shards: Sequence[Path]) -> None:
    unseen = next((path for path in shards if not path.exists()), None)
    if unseen:
        raise DataError(f"shard {unseen} was written elsewhere; the cluster's workers must share {unseen.parent}")


def do_images(part: Part, *, work: Work, options: Any, shards_dir: Path) -> list[Done | Skipped]:
    """Do some images one after the other."""
    return [do_image(task, work, options, shards_dir) for task in part]


def do_image(task: ImageTask, work: Work, options: Any, shards_dir: Path) -> Done | Skipped:
    """Do one image, or find it done; whatever is wrong with the image ends in a state, never in an exception."""
    if task.problem:
        return Skipped(task.image_id, task.filepath, task.problem, "refused")
    path = shard_path(shards_dir, task, task.fingerprint(options))
    if path.exists():
        return Done(task.image_id, str(path), len(read_shard_table(path)))
    try:
        table, stamps = work(task, options)
    except (ImageError, LookupFailed) as error:
        return Skipped(task.image_id, task.path, str(error), error.state)
    except GotorbError:
        raise  # a setting or a catalogue: every image would fail alike
    except Exception as error:
        log.exception("image %s", task.image_id)
        reason = f"{type(error).__name__}: {error} on {task.path}; look at the file, or report this as a bug"
        return Skipped(task.image_id, task.path, reason, "failed")
    write_shard(path, table, stamps)
    return Done(task.image_id, str(path), len(table))


def _run_in_pools(parts: Sequence[Part], job: Job, take: Take, n_processes: int) -> None:
    """A worker that dies breaks its pool: the images it may have died on are tried again alone."""
    waiting = list(parts)
    while waiting:
        left = _run_pool(waiting, job, take, n_processes)
        suspects, waiting = left[:n_processes], left[n_processes:]
        for task in (task for part in suspects for task in part):
            if _run_pool([[task]], job, take, 1):
                take([Skipped.crashed(task)])


def _run_pool(parts: Sequence[Part], job: Job, take: Take, n_processes: int) -> list[Part]:
    """Run until all is done or the pool breaks; return what is left, first what the workers were at."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, mp_context=spawn, initializer=_leave_interrupts_to_parent) as pool:
        waiting = {pool.submit(job, part): part for part in parts}
        try:
            for future in as_completed(list(waiting)):
                take(future.result())
                del waiting[future]
        except BrokenProcessPool:
            log.warning("a worker process died; its images are tried again")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # leaving the block would let all of them run
            raise
    return list(waiting.values())


def _leave_interrupts_to_parent() -> None:
    """Ctrl-C reaches every process of a terminal: workers finish their image, the parent stops the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
