"""Scores of many sources in one csv: interrupted calls resume, and a folder can be watched."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from gotorb import label_data
from gotorb.classifier.scores import Scorer, load_scorer, score_source
from gotorb.classifier.sources import find_kind
from gotorb.core.executor import Executor, Workers
from gotorb.core.files import file_states, reported_writes, value_digest, whole_file
from gotorb.core.logs import one_line
from gotorb.core.params import SEED, ArchiveParams, ScoreParams
from gotorb.core.settings import project_root, read_settings
from gotorb.errors import DataError, GotorbError, ImageError
from gotorb.survey.folder import is_fits

log = logging.getLogger(__name__)
SCORE = ScoreParams()
WATCHED = (".avro", ".bin", ".h5")
"""Ends of the names of files that are scored, besides those of FITS files."""


@dataclass(frozen=True)
class Options:
    """Options of `score_source`, which together with model and source determine the rows."""

    archive: ArchiveParams = field(default_factory=ArchiveParams)
    n_samples: int = SCORE.n_samples
    seed: int = SEED
    threshold: float | None = SCORE.threshold
    features: bool = SCORE.features

    def score(self, scorer: Scorer, source: Path, out_path: Path) -> int:
        """Score one source into one csv.

        Parameters
        ----------
        scorer : Scorer
        source, out_path : Path
            Source of stamps, and csv to write.

        Returns
        -------
        int
            Number of rows written.
        """
        return score_source(
            scorer, source, out_path, archive=self.archive, n_samples=self.n_samples, seed=self.seed,
            threshold=self.threshold, features=self.features,
        )  # fmt: skip


def score_sources(
    model: str,
    sources: Sequence[Path | str],
    out_path: Path | str,
    options: Options,
    *,
    n_processes: int = SCORE.n_processes,
) -> int:
    """Score several sources into one csv, in the order given; a folder of images counts as its images.

    Rows of a finished source wait in ``<out_path>.parts/`` until all are there. The same call after a kill takes
    them from there and ends with the same bytes; a source, model or option that changed is scored again. An alias is
    looked up once, and its version is part of that: all rows are of one model. With DASK_SCHEDULER_ADDRESS set, the
    workers of that cluster score the sources: they need `model`, `sources`, `out_path` and an adapter under the same
    paths.

    Parameters
    ----------
    model : str
        As for `load_scorer`.
    sources : sequence of path
        Images, folders of images, data sets, stamp archives, alert packets or folders of these.
    out_path : path
        The csv.
    options : Options
        Samples, seed, threshold, how to read archives.
    n_processes : int
        Processes that score a source each; they share the cores. Not used on a cluster.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    DataError
        If a source cannot be read or does not fit the model. A bad image among several is skipped with a
        warning.
    ConfigError
        If there is no scheduler at the address.
    """
    from gotorb.tracking.registry import pin_version

    workers = Workers(n_processes, scheduler=read_settings().dask_scheduler_address)
    out_path, parts_dir, model = Path(out_path), Path(f"{out_path}.parts"), pin_version(model)
    every = _expand(sources)
    parts = [parts_dir / f"{_fingerprint(model, source, options)}.csv" for source in every]
    todo = list({part: (source, part) for source, part in zip(every, parts, strict=True) if not part.exists()}.values())
    log.info("%d sources, %d scored before", len(every), len(every) - len(todo))
    try:
        if todo and (workers.scheduler or (n_processes > 1 and len(todo) > 1)):
            _score_apart(model, todo, options, workers)
        elif todo:
            scorer = load_scorer(model)
            for source, part in todo:
                _score_one(scorer, source, part, options, alone=len(every) == 1)
    finally:
        with suppress(OSError):  # not there, or rows wait in it
            parts_dir.rmdir()
    n_rows = _join(out_path, [part for part in parts if part.exists()], len(every))
    shutil.rmtree(parts_dir, ignore_errors=True)
    return n_rows


def _expand(sources: Iterable[Path | str]) -> list[Path]:
    every: list[Path] = []
    for source in map(Path, sources):
        if not source.exists():
            raise DataError(f"no {source}; give images, a stamp archive, a data set or alert packets")
        every += find_kind(source)[1] or [source]
    return every


def _fingerprint(model: str, source: Path, options: Options) -> str:
    """Name of a part: what decides its bytes, files by size and time of change."""
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    return value_digest((model, str(source), file_states((*files, *_weights(model))), asdict(options)))


def _weights(model: str) -> list[Path]:
    """Files of a model that is a path."""
    return [path for path in (Path(model), *Path(model).glob("*")) if path.is_file()]


def _score_one(scorer: Scorer, source: Path, part: Path, options: Options, *, alone: bool) -> None:
    try:
        options.score(scorer, source, part)
    except ImageError as error:
        if alone:
            raise
        log.warning("skipped image: %s", error)


_SCORERS: dict[str, Scorer] = {}
"""Scorers of a worker process, by what decides their weights."""
_LOADING = threading.Lock()


def _score_apart(model: str, todo: Sequence[tuple[Path, Path]], options: Options, workers: Workers) -> None:
    """Score sources in other processes, of this machine or of a cluster."""
    threads = max(1, (os.cpu_count() or 1) // workers.n_processes)
    adapter = read_settings().gotorb_adapter
    if workers.scheduler:  # whose processes have folders of their own
        todo = [(source.absolute(), part.absolute()) for source, part in todo]
        model = str(Path(model).absolute()) if Path(model).exists() else model
        adapter = adapter and str((project_root() / Path(adapter).expanduser()).absolute())
    key = value_digest((model, file_states(_weights(model))))
    job = partial(_work, model=model, key=key, options=options, adapter=adapter)
    with Executor(workers, initializer=_start_worker, initargs=(threads,)) as executor:
        executor.map(job, todo, crashed=_crashed, title="score", unit="source")


def _crashed(pair: tuple[Path, Path]) -> None:
    raise DataError(f"worker processes died on {pair[0]}, perhaps out of memory; score it alone, or leave it out")


def _start_worker(threads: int) -> None:
    os.environ |= {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_NUM_INTEROP_THREADS": str(threads)}


def _work(pair: tuple[Path, Path], model: str, key: str, options: Options, adapter: str) -> None:
    """Score one source in a worker, which loads the model once."""

    if adapter:
        label_data.use_adapter(adapter)
    with _LOADING:  # a cluster's worker may have several threads
        if key not in _SCORERS:
            _SCORERS.clear()
            _SCORERS[key] = load_scorer(model)
        scorer = _SCORERS[key]
    _score_one(scorer, *pair, options, alone=False)


def _join(out_path: Path, parts: Sequence[Path], n_sources: int) -> int:
    """Write the parts behind one another, under one line of names."""
    if not parts:
        raise DataError(f"none of {n_sources} sources can be scored; see the warnings")
    with reported_writes(out_path), whole_file(out_path) as aside, aside.open("wb") as file:
        for number, part in enumerate(parts):
            names, _, rows = part.read_bytes().partition(b"\n")
            file.write(rows if number else names + b"\n" + rows)
    return sum(count_rows(part) for part in parts)


def count_rows(path: Path) -> int:
    """Number of rows of a csv, its header left out; a quoted name may hold line ends.

    Parameters
    ----------
    path : Path

    Returns
    -------
    int
    """
    import csv

    with path.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.reader(file)) - 1


def watch_folder(
    model: str, folder: Path | str, out_dir: Path | str, options: Options, *, poll_s: float = SCORE.poll_s,
    goes_on: Callable[[], bool] = lambda: True,
) -> int:  # fmt: skip
    """Score each new file of a folder once, into a csv of its own.

    A file is taken when its size did not change between two looks. Its csv (``<file>.csv``) appears whole, and is
    how a watch that was killed knows what is done. A file that cannot be scored is named in a warning and tried
    again when it has changed.

    Parameters
    ----------
    model, options
        As for `score_sources`.
    folder, out_dir : path
        Where files arrive, and where the csv files go.
    poll_s : float
        Seconds between looks.
    goes_on : callable
        Asked after each look.

    Returns
    -------
    int
        Files scored.
    """
    folder, out_dir = Path(folder), Path(out_dir)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; name the one in which new images or packets arrive")
    scorer, n_scored = load_scorer(model), 0
    seen: dict[Path, tuple[int, int]] = {}
    failed: dict[Path, tuple[int, int]] = {}
    while True:
        now = {path: state for path in sorted(folder.iterdir()) if (state := _state(path)) is not None}
        for path, state in now.items():
            out = out_dir / f"{path.name}.csv"
            if seen.get(path) != state or failed.get(path) == state or out.exists():
                continue
            try:
                log.info("%s: %d rows", path.name, options.score(scorer, path, out))
                n_scored += 1
            except GotorbError as error:
                failed[path] = state
                log.warning("not scored: %s", one_line(error))
        seen = now
        if not goes_on():
            return n_scored
        time.sleep(poll_s)


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file of a kind that is scored, else None."""
    try:
        stat = path.stat()
    except OSError:
        return None
    scored = path.is_file() and (is_fits(path) or path.name.endswith(WATCHED))
    return (stat.st_size, stat.st_mtime_ns) if scored else None
