"""Train a classifier on a data set, load it, score stamps with it, and judge it.

>>> from gotorb import classifier
>>> model, meta = classifier.train("data_20200304-050607")  # doctest: +SKIP
>>> evaluation = classifier.evaluate(model, meta)  # doctest: +SKIP
>>> samples = classifier.dropout_pred(model, stamps)  # doctest: +SKIP
>>> scores = samples.mean(axis=1)  # doctest: +SKIP

TensorFlow is imported when a function needs it, so importing this module is quick.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gotorb import layout
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import ConfigError, ModelError
from gotorb.models import Origin, find_model
from gotorb.params import EvaluateParams
from gotorb.trainer import train

if TYPE_CHECKING:
    from gotorb.evaluation.report import Evaluation
    from gotorb.training.model_files import Loaded

__all__ = [
    "benchmark", "dropout_pred", "evaluate", "export", "latentvec_pred", "load", "predict", "score_rows", "train",
]  # fmt: skip
EVALUATE = EvaluateParams()
Meta = dict[str, Any]
Source = Any
"""A model in memory, its folder, or its ``model.h5``."""


def load(model: Source, meta: Meta | str | Path | None = None) -> "Loaded":
    """Load a model and its meta.

    Parameters
    ----------
    model : path or keras.Model
        Model folder, ``model.h5``, or a model in memory, which is returned as it is.
    meta : dict or path, optional
        The meta, ``meta.hkl``, or its folder; the file beside `model` when left out.

    Returns
    -------
    model : keras.Model
        The network.
    meta : dict or None
        What its meta file holds, and under ``run_dir`` its folder; None when there is none.

    Raises
    ------
    ModelError
        If a file is missing, broken, holds code, or the two do not belong together.
    """
    from gotorb.training.model_files import load_training

    return load_training(model, meta)


def predict(model: Source, stamps: np.ndarray | Iterable[np.ndarray] | Dataset, *, batch_size: int = 256) -> np.ndarray:
    """Score stamps deterministically, dropout off.

    Parameters
    ----------
    model : path or keras.Model
        The model.
    stamps : ndarray, iterable of ndarray, or Dataset
        (n, size, size, n_layers) in the layers that the model was trained on, or batches of these. Of a
        Dataset all rows are scored, in the layers that the model's meta names.
    batch_size : int
        Stamps scored at a time; memory does not grow with n.

    Returns
    -------
    ndarray
        (n,) float32: 1 real, 0 bogus.
    """
    from gotorb.training.inference import score_stamps

    network, meta = load(model)
    if isinstance(stamps, Dataset):
        stamps = (block for _, block in stamps.batches(layers=(meta or {}).get("layers"), batch=batch_size))
    return score_stamps(network, stamps, batch_size=batch_size)


def score_rows(
    model: Source,
    meta: Meta | str | Path | None,
    data: Dataset,
    rows: Sequence[int] | np.ndarray | None = None,
    *,
    n_samples: int = EVALUATE.n_samples,
    seed: int = 0,
) -> np.ndarray:
    """Score rows of a data set as GOTO publishes scores: the mean of the posterior samples.

    Networks without dropout give their plain score.

    Parameters
    ----------
    model : path or keras.Model
        The model.
    meta : dict or path
        Its meta, which names the layers; found beside the model when None.
    data : Dataset
        From `gotorb.dataset.store.open_dataset`.
    rows : sequence of int, optional
        Row numbers; all when left out.
    n_samples, seed : int
        Posterior samples per stamp, and their seed.

    Returns
    -------
    ndarray
        (len(rows),) float.
    """
    from gotorb.evaluation import judge

    loaded = load(model, meta)
    wanted = np.arange(len(data)) if rows is None else np.asarray(rows, int)
    how = judge.Judging(n_samples, 0, None, seed, 256)
    plain, samples = judge.score_model(loaded.model, judge.require_meta(loaded.meta), data, wanted, how)
    return plain if samples is None else samples.mean(axis=1)


def dropout_pred(
    model: Source,
    stamps: np.ndarray | Iterable[np.ndarray],
    nsamples: int = 20,
    *,
    seed: int | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Sample the posterior of the scores by Monte-Carlo dropout; see `gotorb.training.inference.sample_scores`.

    Parameters
    ----------
    model : path or keras.Model
        A Bayesian model: one with dropout layers.
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    nsamples : int
        Samples per stamp.
    seed : int, optional
        Same seed, stamps and batch size: same samples. Fresh randomness when left out.
    batch_size : int
        Stamps held at a time, which share networks.

    Returns
    -------
    ndarray
        (n, nsamples) float32; the mean along axis 1 is a real/bogus score.

    Raises
    ------
    ModelError
        If the model has no dropout to sample from.
    """
    from gotorb.training.inference import sample_scores

    return sample_scores(load(model).model, stamps, nsamples, seed=seed, batch_size=batch_size)


def latentvec_pred(
    model: Source, stamps: np.ndarray | Iterable[np.ndarray] | Dataset, *, batch_size: int = 256
) -> np.ndarray:
    """Latent vectors of stamps: the flattened feature map from which the network decides.

    Parameters
    ----------
    model, stamps, batch_size
        As in `predict`.

    Returns
    -------
    ndarray
        (n, n_features) float32; `gotorb.evaluation.latent.map_latent` makes a map of them.

    Raises
    ------
    ModelError
        If the network has no layer named ``latent`` and no dense layer.
    """
    from gotorb.training.inference import latent_vectors

    network, meta = load(model)
    if isinstance(stamps, Dataset):
        stamps = (block for _, block in stamps.batches(layers=(meta or {}).get("layers"), batch=batch_size))
    return latent_vectors(network, stamps, batch_size=batch_size)


def export(model: Source, out_path: str | Path, *, meta: Meta | str | Path | None = None) -> Path:
    """Write a model as ONNX: plain scores by onnxruntime, without TensorFlow and without a posterior.

    The file holds layers, stamp size, threshold, name, version and digest of the model. ``gotorb score`` and
    `gotorb.training.onnx.read_portable` read it.

    Parameters
    ----------
    model : path, str or keras.Model
        Model folder, ``model.h5``, ``models:/name@alias``, or a model in memory.
    out_path : path
        The file, ``*.onnx``.
    meta : dict or path, optional
        Of a model in memory.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If what converts is not installed (``pip install 'gotorb[onnx]'``), or the file is not called ``*.onnx``.
    ModelError
        If nothing names the model's layers, or it cannot be converted.

    Examples
    --------
    >>> scores = read_portable(classifier.export("models/vgg6", "vgg6.onnx")).score(stamps)  # doctest: +SKIP
    """
    path = Path(out_path)
    if path.suffix != layout.ONNX_SUFFIX:
        raise ConfigError(f"{path} is to hold an exported model; end its name with {layout.ONNX_SUFFIX}")
    origin = find_model(model) if isinstance(model, (str, Path)) else _describe(model, meta)
    if len(origin.layers) != origin.model.input_shape[-1]:
        raise ModelError(
            f"model {origin.name} takes {origin.model.input_shape[-1]} layers but nothing names them; "
            f"keep {layout.META_HKL} beside {layout.MODEL_H5}, or give meta="
        )
    from gotorb.training.onnx import export_onnx

    about = {
        "layers": ",".join(origin.layers),
        "stamp_size": str(origin.model.input_shape[1]),
        "threshold": repr(float(origin.threshold)),
        "name": origin.name,
        "version": origin.version,
        "digest": origin.digest,
    }
    return export_onnx(origin.model, path, about)


def _describe(network: Any, meta: Meta | str | Path | None) -> Origin:
    """A model in memory by the meta of its training."""
    known = load(network, meta).meta or {}
    digest, name = f"sha256:{known.get('model_digest', '')}", Path(known.get("run_dir", network.name)).name
    layers = tuple(known.get("layers", ()))
    return Origin(network, layers, name, digest[:19], digest, known, float(known.get("threshold", 0.5)))


def evaluate(
    model: Source,
    meta: Meta | str | Path | None = None,
    data_dir: str | Path | None = None,
    n_samples: int = EVALUATE.n_samples,
    *,
    out_dir: str | Path | None = None,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    threshold_fpr: float | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> "Evaluation":
    """Judge a model on the validation and test rows of the data set that it was trained on.

    Writes ``metrics.json``, ``predictions.csv`` and a series of plots into the model's folder.

    Parameters
    ----------
    model : path or keras.Model
        Model folder, ``model.h5``, or the model returned by `train`.
    meta : dict or path, optional
        The meta returned by `train`, or ``meta.hkl``; the file beside `model` when left out.
    data_dir : path, optional
        The data set; found from the model's folder when left out.
    n_samples : int
        Posterior samples per stamp, for models with dropout.
    out_dir : path, optional
        Folder of the files; the model's folder when left out.
    n_bootstrap : int
        Resamples for the intervals.
    threshold_fpr : float, optional
        False-positive rate on the validation rows at which the threshold is chosen anew; the one in the meta
        when left out.
    seed : int
        Of posterior samples and resamples.
    batch_size : int
        Stamps sampled at a time.

    Returns
    -------
    Evaluation
        Metrics, predictions, Figures and the folder.

    Raises
    ------
    ModelError
        If there is no meta, or model, meta and data do not fit together.
    DataError
        If the data set lacks rows that the meta names.
    """
    from gotorb.evaluation import judge

    loaded = load(model, meta)
    known = judge.require_meta(loaded.meta)
    data = open_dataset(judge.find_data_dir(known, data_dir))
    how = judge.Judging(n_samples, n_bootstrap, threshold_fpr, seed, batch_size)
    target = judge.find_out_dir(known, out_dir)
    return judge.judge_model(loaded.model, known, data, judge.held_out_rows(data, known), how=how, out_dir=target)


def benchmark(
    model: Source,
    data_dir: str | Path,
    n_samples: int = EVALUATE.n_samples,
    *,
    meta: Meta | str | Path | None = None,
    out_dir: str | Path | None = None,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    seed: int = 0,
    batch_size: int = 256,
) -> "Evaluation":
    """Judge a model on all rows of any data set, in the layers that the model's meta names.

    Writes the same files as `evaluate`, into ``benchmark_<data set>/`` inside the model's folder.

    Parameters
    ----------
    model : path or keras.Model
        Model folder, ``model.h5``, or the model returned by `train`.
    data_dir : path
        Folder in the format of ``label_data.make()``.
    n_samples, meta, n_bootstrap, seed, batch_size
        As in `evaluate`.
    out_dir : path, optional
        Folder of the files.

    Returns
    -------
    Evaluation
        As `evaluate`; the metrics are of all labelled rows, and ``n_trained_on`` counts those among them
        that the model was trained on.
    """
    from gotorb.evaluation import judge

    loaded = load(model, meta)
    known = judge.require_meta(loaded.meta)
    data = open_dataset(data_dir)
    how = judge.Judging(n_samples, n_bootstrap, None, seed, batch_size)
    target = judge.find_out_dir(known, out_dir, f"benchmark_{data.data_dir.resolve().name}")
    return judge.judge_model(loaded.model, known, data, judge.all_rows(data), how=how, out_dir=target)
