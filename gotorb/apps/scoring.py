"""Score whatever holds stamps with a model of any origin, a batch at a time, into one csv."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gotorb import layout
from gotorb.apps.batches import Batch, read_batches
from gotorb.dataset.card import data_digest, tree_digest
from gotorb.dataset.store import file_digest
from gotorb.errors import DataError, ModelError
from gotorb.evaluation.posterior import summarise_samples
from gotorb.models import find_model
from gotorb.params import ArchiveParams
from gotorb.portable import PortableModel, read_portable
from gotorb.survey.alerts import find_packets
from gotorb.survey.pixels import crop_stamps

if TYPE_CHECKING:
    from gotorb.training.scoring import CompiledModel

COLUMNS = ("id", "ra", "dec", "score", "mean", "std", "confidence", "model_name", "model_version", "data_sha256")
N_DIGITS = 6


@dataclass(frozen=True)
class Scorer:
    """A model that knows what it takes and who it is.

    Attributes
    ----------
    model : keras.Model or PortableModel
        The network; normalises by itself.
    layers : tuple of str
        Layers it was trained on, in their order.
    name, version : str
        Registered name and version, or the folder's name and the digest of the file; of an exported model those of
        the one that it was made from.
    """

    model: Any
    layers: tuple[str, ...]
    name: str
    version: str

    @cached_property
    def compiled(self) -> CompiledModel | PortableModel:
        """The network, compiled once for all batches."""
        if isinstance(self.model, PortableModel):
            return self.model
        from gotorb.training.scoring import CompiledModel

        return CompiledModel(self.model)

    @property
    def size(self) -> int:
        """Side of the stamps it takes."""
        return int(self.model.input_shape[1])


def load_scorer(model: str) -> Scorer:
    """Load a model by registry name (``models:/gotorb@champion``) or by path; an exported one without TensorFlow.

    Raises
    ------
    ConfigError
        If an exported model's onnxruntime is not installed.
    ModelError
        If there is no such model, or nothing says which layers it takes.
    """
    if Path(model).suffix == layout.ONNX_SUFFIX:
        exported = read_portable(model)
        return Scorer(exported, exported.layers, exported.name, exported.about["version"])
    found = find_model(model)
    scorer = Scorer(found.model, found.layers, found.name, found.version)
    if len(scorer.layers) != scorer.model.input_shape[-1]:
        raise ModelError(
            f"model {model} takes {scorer.model.input_shape[-1]} layers but nothing names them; "
            f"keep {layout.META_HKL} beside {layout.MODEL_H5}, or register it with `make repro`"
        )
    return scorer


def score_source(
    scorer: Scorer, source: Path | str, out_path: Path | str, *, archive: ArchiveParams, n_samples: int = 20,
    seed: int = 0,
) -> int:  # fmt: skip
    """Score every stamp of a source and write one row for each.

    Parameters
    ----------
    scorer : Scorer
        From `load_scorer`.
    source : path
        A difference image, a folder of them, a data set, a stamp archive (folder or hdf5), or alert packets.
    out_path : path
        The csv: id, ra, dec, score, posterior mean, std, confidence, model name and version, digest of the data.
        The three of the posterior are empty for a model without dropout and for an exported one.
    archive : ArchiveParams
        How to read stamp archives.
    n_samples : int
        Posterior samples for each stamp.
    seed : int
        Of the samples.

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
    digest = source_digest(source)
    part = out_path.with_name(out_path.name + ".part")
    n_rows = 0
    try:
        out_path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for batch in read_batches(source, archive, scorer.size):
                stamps = _fitting(scorer, batch, source)
                writer.writerows(_score_batch(scorer, batch, stamps, digest, n_samples, seed + n_rows))
                n_rows += len(batch.ids)
            file.flush()
            os.fsync(file.fileno())
        part.replace(out_path)
    except OSError as error:
        raise DataError(
            f"{source} cannot be read or {out_path} not written ({error}); check the files, permissions and free space"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return n_rows


def _score_batch(
    scorer: Scorer, batch: Batch, stamps: np.ndarray, digest: str, n_samples: int, seed: int
) -> Iterator[tuple[Any, ...]]:
    scores = scorer.compiled.score(stamps)
    posterior: list[tuple[Any, ...]] = [("", "", "")] * len(scores)
    if not isinstance(scorer.compiled, PortableModel) and scorer.compiled.dropouts:
        samples = scorer.compiled.sample(stamps, n_samples, seed=seed)
        summary = summarise_samples(samples)
        values = np.column_stack([summary.mean, summary.std, summary.confidence])
        posterior = [tuple(row) for row in np.round(values, N_DIGITS).tolist()]
    places = [
        [round(float(v), 7) if np.isfinite(v) else "" for v in pair] for pair in zip(batch.ra, batch.dec, strict=True)
    ]
    for id_, place, score, three in zip(batch.ids, places, scores, posterior, strict=True):
        yield (id_, *place, round(float(score), N_DIGITS), *three, scorer.name, scorer.version, digest)


def _fitting(scorer: Scorer, batch: Batch, source: Path) -> np.ndarray:
    """The layers and central pixels that the model takes, refused when they do not fit."""
    absent = [name for name in scorer.layers if name not in batch.layers]
    if absent:
        raise DataError(
            f"model {scorer.name} takes layer {absent[0]!r}, which {source} lacks (has {', '.join(batch.layers)}); "
            "use a model trained on such stamps"
        )
    side = batch.stamps.shape[1]
    if side < scorer.size or (side - scorer.size) % 2:
        raise DataError(
            f"model {scorer.name} takes stamps of {scorer.size} pixels, {source} has {side}; "
            "use a model trained on such stamps"
        )
    return crop_stamps(batch.stamps, scorer.size)[..., [batch.layers.index(name) for name in scorer.layers]]


def source_digest(source: Path) -> str:
    """Hex sha256 of a source's content."""
    if source.is_file():
        return file_digest(source)
    if layout.labels_path(source).exists():
        return data_digest(source)
    return tree_digest(find_packets(source) or [path for path in sorted(source.iterdir()) if path.is_file()])
