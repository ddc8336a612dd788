"""Scores of any source of stamps by any model, in batches, in one csv."""

from __future__ import annotations

import csv
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import numpy as np
import pandas as pd

from gotorb.classifier.sources import STREAM, find_kind, find_streamed, read_detections
from gotorb.core import layout
from gotorb.core.constants import SCORE_DIGITS
from gotorb.core.files import file_digest, inert_cell, tree_digest, whole_file
from gotorb.core.params import BATCH_SIZE, N_SAMPLES, SEED, ArchiveParams
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError, ModelError, NotFinite
from gotorb.evaluation.calibration import expit, logit
from gotorb.evaluation.external_classifiers import PREFIX
from gotorb.evaluation.posterior import Scale, summarise_samples
from gotorb.features import FeatureSet
from gotorb.models import find_model
from gotorb.stamps.batches import not_finite
from gotorb.survey.alerts import find_packets
from gotorb.survey.pixels import check_middle, crop_stamps
from gotorb.training.onnx import PortableModel, read_portable

if TYPE_CHECKING:
    from gotorb.training.inference import CompiledModel


T = TypeVar("T")
AHEAD = 3
"""Items fetched and not yet taken; more would only take memory."""
NICENESS = 10
_END: Any = object()
FEATURE_DIGITS = 6
"""Significant digits of features in files."""


def fetch_ahead(items: Iterable[T], *, ahead: int = AHEAD) -> Generator[T, None, None]:
    """Yield the items in their order, fetched by a thread of their own.

    An error of the source is raised where its item would have come. When the caller stops early, the thread ends
    before the generator is closed, so that files are not read by one who is no longer asked.

    Parameters
    ----------
    items : iterable
        Slow to read: files, packets.
    ahead : int
        Items held at most.

    Yields
    ------
    object

    Examples
    --------
    >>> list(fetch_ahead(range(3)))
    [0, 1, 2]
    """
    left = iter(items)
    pool = ThreadPoolExecutor(1, initializer=_give_way)
    waiting = deque(pool.submit(next, left, _END) for _ in range(ahead))
    try:
        while (found := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, left, _END))
            yield found
    finally:
        pool.shutdown(cancel_futures=True)


def _give_way() -> None:
    """Lower the priority of this thread below the network's.

    These wait for each other at every layer, so one that is held up holds up all.
    """
    if sys.platform != "linux":
        return  # elsewhere threads have no priority of their own, and the process would be meant
    with suppress(OSError):
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, min(os.getpriority(os.PRIO_PROCESS, me) + NICENESS, 19))


log = logging.getLogger(__name__)
COLUMNS = (
    "id", "ra", "dec", "score", "mean", "std", "confidence", "model_name", "model_version", "data_sha256",
    "threshold", "called_real", "image_id",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model with its layers, name, version and threshold.

    Attributes
    ----------
    model : keras.Model or PortableModel
        The network; normalises by itself.
    layers : tuple of str
        Layers it was trained on, in their order.
    name, version : str
        Registered name and version, or the folder's name and the digest of the file; of an exported model those of
        the one that it was made from.
    threshold : float
        Score at or above which it calls a detection real.
    calibration : tuple of float, optional
        Temperature and offset of its map from scores to probabilities.
    """

    model: Any
    layers: tuple[str, ...]
    name: str
    version: str
    threshold: float = 0.5
    calibration: tuple[float, float] | None = None

    def probability(self, scores: np.ndarray) -> np.ndarray | None:
        """Calibrated probabilities of being real; None without a calibration.

        Parameters
        ----------
        scores : ndarray
            (n,) scores, or means of posteriors.

        Returns
        -------
        ndarray or None
        """
        if self.calibration is None:
            return None
        temperature, offset = self.calibration
        return expit(logit(scores) / temperature + offset)

    @cached_property
    def compiled(self) -> CompiledModel | PortableModel:
        """The network, compiled once for all batches."""
        if isinstance(self.model, PortableModel):
            return self.model
        from gotorb.training.inference import CompiledModel

        return CompiledModel(self.model)

    @property
    def samples(self) -> bool:
        """True for a model with a posterior; exported models and those without dropout have none."""
        return not isinstance(self.compiled, PortableModel) and self.compiled.has_posterior

    @property
    def size(self) -> int:
        """Side of the stamps it takes."""
        return int(self.model.input_shape[1])


def load_scorer(model: str) -> Scorer:
    """Load a model of any origin; an exported one needs no TensorFlow.

    Parameters
    ----------
    model : str
        Registry name (``models:/gotorb@champion``) or path.

    Returns
    -------
    Scorer

    Raises
    ------
    ConfigError
        If an exported model's onnxruntime is not installed.
    ModelError
        If there is no such model, or nothing says which layers it takes.
    """
    if Path(model).suffix == layout.ONNX_SUFFIX:
        exported = read_portable(model)
        return Scorer(
            model=exported, layers=exported.layers, name=exported.name, version=exported.about["version"],
            threshold=exported.threshold,
        )  # fmt: skip
    found = find_model(model)
    scorer = Scorer(
        model=found.model, layers=found.layers, name=found.name, version=found.version, threshold=found.threshold,
        calibration=found.calibration,
    )  # fmt: skip
    if len(scorer.layers) != scorer.model.input_shape[-1]:
        raise ModelError(
            f"model {model} takes {scorer.model.input_shape[-1]} layers but nothing names them; "
            f"keep {layout.META_HKL} next to {layout.MODEL_H5}, or register it with `make repro`"
        )
    return scorer


def score_source(
    scorer: Scorer, source: Path | str, out_path: Path | str, *, archive: ArchiveParams, n_samples: int = N_SAMPLES,
    seed: int = SEED, threshold: float | None = None, features: bool = False,
) -> int:  # fmt: skip
    """Score every stamp of a source and write one row for each.

    Parameters
    ----------
    scorer : Scorer
        From `load_scorer`.
    source : path
        A difference image, a folder of them, a data set, a stamp archive (folder or hdf5), or alert packets.
    out_path : path
        The csv: id, ra, dec, score, posterior mean, std, confidence, model name and version, digest of the data,
        threshold and the call (1 real, 0 bogus), which goes by the posterior mean where there is one.
        The three of the posterior are empty for a model without dropout, for an exported one and without samples.
    archive : ArchiveParams
        How to read stamp archives.
    n_samples : int
        Posterior samples for each stamp; 0 for plain scores only.
    seed : int
        Of the samples.
    threshold : float, optional
        Score at or above which a row is called real; the model's own when left out.
    features : bool
        Add a column for each measured feature (`gotorb.features`) of the stamps.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    DataError
        If the source cannot be read, or does not fit the model.
    """
    source, out_path = Path(source), Path(out_path)
    if not source.exists():
        raise DataError(f"no {source}; give images, a stamp archive, a data set or alert packets")
    try:
        with whole_file(out_path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            return _write_rows(
                file, scorer, source, archive, n_samples=n_samples, seed=seed, threshold=threshold,
                measured=find_features(scorer) if features else None,
            )  # fmt: skip
    except OSError as error:
        raise DataError(
            f"{source} cannot be read or {out_path} not written ({error}); check the files, permissions and free space"
        ) from None


def _write_rows(
    file: TextIO, scorer: Scorer, source: Path, archive: ArchiveParams, *, n_samples: int, seed: int,
    threshold: float | None, measured: FeatureSet | None = None,
) -> int:  # fmt: skip
    """Score a batch while threads read the next ones and make the source's digest; rows wait for that in memory."""
    writer, n_rows = csv.writer(file, lineterminator="\n"), 0
    writer.writerow([*COLUMNS, *(measured.names if measured else ())])
    threshold = scorer.threshold if threshold is None else threshold
    ready = (
        (found, fit_stamps(scorer, found.stamps, found.layers, source))
        for found in read_detections(source, archive, scorer.size, block=BATCH_SIZE)
    )
    waiting: list[tuple[pd.DataFrame, Scores, np.ndarray | None]] = []
    with ThreadPoolExecutor(1, initializer=_give_way) as pool, closing(fetch_ahead(ready)) as batches:
        digest = pool.submit(_source_digest, source)

        def write() -> None:
            about = scorer.name, scorer.version, digest.result(), round(threshold, SCORE_DIGITS)
            for table, scores, numbers in waiting:
                rows = _rows(table, scores, about, scale_of(scorer, threshold))
                writer.writerows(rows if numbers is None else map(_join_row, rows, numbers))
            waiting.clear()

        for found, stamps in batches:
            if n_rows == 0 and (told := tell_middle(scorer, found.stamps.shape[1], source)):
                log.info(told)
            with name_rows(scorer, found.table["id"]):
                scored = score_batch(scorer, stamps, n_samples, seed + n_rows)
            place = found.table[["id", "ra", "dec", "image_id"]]
            waiting.append((place, scored, measured.measure(stamps) if measured else None))
            n_rows += len(found)
            if digest.done():
                write()
        write()
    return n_rows


def find_features(scorer: Scorer) -> FeatureSet:
    """Features of a model's stamps: its own, or those of its size and layers.

    Parameters
    ----------
    scorer : Scorer

    Returns
    -------
    FeatureSet

    Raises
    ------
    ModelError
        If the model takes no difference.
    """
    own = getattr(getattr(scorer.model, "measured", scorer.model), "features", None)
    return own if isinstance(own, FeatureSet) else FeatureSet(scorer.size, tuple(scorer.layers))


def _join_row(row: tuple[Any, ...], numbers: np.ndarray) -> tuple[Any, ...]:
    return (*row, *(f"{number:.{FEATURE_DIGITS}g}" for number in numbers.tolist()))


@contextmanager
def name_rows(scorer: Scorer, ids: Iterable[str]) -> Iterator[None]:
    """Name the model as its users do, and rows by their ids, in the error of scores that are not finite.

    Parameters
    ----------
    scorer : Scorer
        Model that scores inside the block.
    ids : iterable of str
        Ids of the rows that it scores.

    Yields
    ------
    None
    """
    try:
        yield
    except NotFinite as error:
        names = [str(one) for one in ids]
        shown = [names[row] for row in error.rows]
        raise not_finite(f"{scorer.name}/{scorer.version}", len(names), error.rows, shown) from None


@dataclass(frozen=True)
class Scores:
    """Scores of a batch, (n,), and its posterior samples (n, n_samples), None where there are none."""

    plain: np.ndarray
    samples: np.ndarray | None

    @property
    def best(self) -> np.ndarray:
        """Score that decides the call: the mean of the samples, else the plain score."""
        return self.plain if self.samples is None else self.samples.mean(axis=1, dtype=float)


def score_batch(scorer: Scorer, stamps: np.ndarray, n_samples: int, seed: int) -> Scores:
    """Plain scores of a batch, and posterior samples where the model has a posterior.

    Parameters
    ----------
    scorer : Scorer
    stamps : ndarray
        (n, size, size, n_layers) as `fit_stamps` gives them.
    n_samples : int
        Samples per stamp; 0 for none.
    seed : int

    Returns
    -------
    Scores
    """
    plain = scorer.compiled.score(stamps)
    if not n_samples or isinstance(scorer.compiled, PortableModel) or not scorer.samples:
        return Scores(plain, None)
    return Scores(plain, scorer.compiled.sample(stamps, n_samples, seed=seed))


def scale_of(scorer: Scorer, threshold: float) -> Scale:
    """Scale on which a scorer's posteriors are summarised: calibrated, one half at the threshold.

    Parameters
    ----------
    scorer : Scorer
    threshold : float
        In use.

    Returns
    -------
    Scale
    """
    return Scale(threshold, 1.0 if scorer.calibration is None else scorer.calibration[0])


def _rows(table: pd.DataFrame, found: Scores, about: tuple[Any, ...], scale: Scale) -> Iterator[tuple[Any, ...]]:
    """Rows of the csv, made column by column: a call for each value would cost more than its score."""
    posterior: list[Iterable[Any]] = [repeat("")] * 3
    if found.samples is not None:
        summary = summarise_samples(found.samples, scale)
        posterior = [
            np.round(values, SCORE_DIGITS).tolist() for values in (summary.mean, summary.std, summary.confidence)
        ]
    places = [
        ["" if value != value else value for value in np.round(table[name].to_numpy(float), 7).tolist()]
        for name in ("ra", "dec")
    ]
    plain = np.round(found.plain.astype(float), SCORE_DIGITS).tolist()
    called = (found.best >= scale.threshold).astype(int).tolist()
    *model, shown = about
    return zip(
        map(inert_cell, table["id"].tolist()), *places, plain, *posterior, *map(repeat, model), repeat(shown), called,
        map(inert_cell, table["image_id"].tolist()), strict=False,
    )  # fmt: skip


def fit_stamps(scorer: Scorer, stamps: np.ndarray, layers: tuple[str, ...], source: Path | str) -> np.ndarray:
    """Select the layers and central pixels that a model takes.

    Parameters
    ----------
    scorer : Scorer
    stamps : ndarray
        (n, side, side, len(layers)).
    layers : tuple of str
        Names of the layers of the stamps.
    source : Path or str
        Source of the stamps, for messages.

    Returns
    -------
    ndarray
        (n, size, size, n_layers) in the order of the model's layers.

    Raises
    ------
    DataError
        If a layer is missing, or the stamps are too small or their middle is half a pixel off.
    """
    absent = [name for name in scorer.layers if name not in layers]
    if absent:
        raise DataError(
            f"model {scorer.name} takes layer {absent[0]!r}, which is missing in {source} (has {', '.join(layers)}); "
            "use a model trained on such stamps"
        )
    check_middle(stamps.shape[1], scorer.size, model=scorer.name, where=source)
    stamps = crop_stamps(stamps, scorer.size)
    if layers == scorer.layers:
        return np.ascontiguousarray(stamps)
    return stamps[..., [layers.index(name) for name in scorer.layers]]


def score_peers(models: Sequence[str], data_dir: Path | str) -> pd.DataFrame:
    """Score all rows of a data set by models of others, for the table that compares them with ours.

    Parameters
    ----------
    models : sequence of str
        Addresses of models, such as imported ones.
    data_dir : path
        The data set; of larger stamps a model sees the middle.

    Returns
    -------
    DataFrame
        By row id: a column ``peer_NAME`` of plain scores for each model.

    Raises
    ------
    ModelError, DataError
        If a model cannot be loaded, or the stamps do not fit it.
    """
    data = open_dataset(data_dir)
    found: dict[str, np.ndarray] = {}
    for address in models:
        scorer = load_scorer(address)
        blocks = (fit_stamps(scorer, stamps, data.layers, data_dir) for _, stamps in data.batches(batch=BATCH_SIZE))
        found[f"{PREFIX}{scorer.name}"] = scorer.compiled.score(blocks)
    return pd.DataFrame(found, index=pd.Index(data.ids, name="id"))


def tell_middle(scorer: Scorer, side: int, source: Path | str) -> str:
    """Note on stamps that are larger than the model's.

    Parameters
    ----------
    scorer : Scorer
    side : int
        Side of the stamps, pixels.
    source : Path or str

    Returns
    -------
    str
        "" for stamps of the model's size.
    """
    if side <= scorer.size:
        return ""
    return f"{source} has stamps of {side} pixels; model {scorer.name} sees the {scorer.size} in the middle"


def _source_digest(source: Path) -> str:
    """Hex sha256 of a source's content."""
    if source.is_file():
        return file_digest(source)
    if layout.labels_path(source).exists():
        return data_digest(source)
    if find_kind(source)[0] == STREAM:
        return tree_digest([path for _, paths in find_streamed(source).values() for path in paths])
    return tree_digest(find_packets(source) or [path for path in sorted(source.iterdir()) if path.is_file()])
