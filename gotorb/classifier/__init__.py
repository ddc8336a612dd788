"""Train a classifier on a data set, load it, score stamps with it, and evaluate it.

>>> from gotorb import classifier
>>> model, meta = classifier.train("data_20200304-050607")  # doctest: +SKIP
>>> evaluation = classifier.evaluate(model, meta)  # doctest: +SKIP
>>> samples = classifier.dropout_pred(model, stamps)  # doctest: +SKIP
>>> scores = samples.mean(axis=1)  # doctest: +SKIP

TensorFlow is imported when a function needs it, so importing this module is quick.
`gotorb.classifier.training` describes the parameters of ``train``.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gotorb.classifier.adopt import adopt as adopt
from gotorb.classifier.measured import drop_calibration
from gotorb.classifier.training import train
from gotorb.core import layout
from gotorb.core.params import BATCH_SIZE, SEED, DecideParams, EvaluateParams, Params, find_params
from gotorb.dataset.split import assign_folds, link_groups
from gotorb.dataset.store import Dataset, open_dataset, read_table, write_table
from gotorb.errors import ConfigError, DataError, ModelError
from gotorb.evaluation import evaluate as evaluation
from gotorb.evaluation.comparison import SCORED_COLUMNS, ScoredRows, compare_scored
from gotorb.evaluation.evaluate import score_plainly
from gotorb.evaluation.label_errors import rank_labels, write_label_errors
from gotorb.evaluation.report import read_predictions
from gotorb.models import Origin, find_model

if TYPE_CHECKING:
    from gotorb.evaluation.comparison import ScoredRows
    from gotorb.evaluation.label_errors import LabelErrors
    from gotorb.evaluation.report import Evaluation
    from gotorb.training.model_files import Loaded


LOG = logging.getLogger(__name__)
EVALUATE, DECIDE = EvaluateParams(), DecideParams()
N_VALIDATION_PARTS = 6
"""One of so many parts of the rows that are not scored decides when a training stops."""
MIN_ROWS_PER_FOLD = 5
"""Fewer rows of a class in a fold give no result."""
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
        The meta, ``meta.hkl``, or its folder; the file next to `model` when left out.

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

    Examples
    --------
    >>> model, meta = load("models/small")
    >>> meta["layers"]
    ['science', 'template', 'difference', 'ptp']
    """
    from gotorb.training.importing import load_model

    return load_model(model, meta)


def predict(
    model: Source, stamps: np.ndarray | Iterable[np.ndarray] | Dataset, *, batch_size: int = BATCH_SIZE
) -> np.ndarray:
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

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> model, meta = load("models/small")
    >>> predict(model, open_dataset("data/dataset").read_stamps([0, 1], meta["layers"])).round(1).tolist()
    [0.0, 1.0]
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
    seed: int = SEED,
) -> np.ndarray:
    """Score rows of a data set as GOTO publishes scores: the mean of the posterior samples.

    Networks without dropout give their plain score.

    Parameters
    ----------
    model : path or keras.Model
        The model.
    meta : dict or path
        Its meta, which names the layers; found next to the model when None.
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

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> score_rows("models/small", None, open_dataset("data/dataset"), [0, 1]).round(1).tolist()
    [0.0, 1.0]
    """

    loaded = load(model, meta)
    wanted = None if rows is None else np.asarray(rows, int)
    known = evaluation.require_meta(loaded.meta)
    return evaluation.score_rows(loaded.model, known, data, wanted, n_samples=n_samples, seed=seed)


def dropout_pred(
    model: Source,
    stamps: np.ndarray | Iterable[np.ndarray],
    nsamples: int = EVALUATE.n_samples,
    *,
    seed: int | None = None,
    batch_size: int = BATCH_SIZE,
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

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> model, meta = load("models/small")
    >>> samples = dropout_pred(model, open_dataset("data/dataset").read_stamps([0, 1], meta["layers"]), 5)
    >>> samples.shape, samples.mean(axis=1).round(1).tolist()
    ((2, 5), [0.0, 1.0])
    """
    from gotorb.training.inference import sample_scores

    return sample_scores(load(model).model, stamps, nsamples, seed=seed, batch_size=batch_size)


def latentvec_pred(
    model: Source, stamps: np.ndarray | Iterable[np.ndarray] | Dataset, *, batch_size: int = BATCH_SIZE
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

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> model, meta = load("models/small")
    >>> latentvec_pred(model, open_dataset("data/dataset").read_stamps([0, 1], meta["layers"])).shape
    (2, 1764)
    """
    from gotorb.training.inference import latent_vectors

    network, meta = load(model)
    if isinstance(stamps, Dataset):
        stamps = (block for _, block in stamps.batches(layers=(meta or {}).get("layers"), batch=batch_size))
    return latent_vectors(network, stamps, batch_size=batch_size)


def export(model: Source, out_path: str | Path, *, meta: Meta | str | Path | None = None) -> Path:
    """Write a model as ONNX: plain scores by onnxruntime, without TensorFlow and without a posterior.

    The file holds layers, stamp size, threshold, name, version and digest of the model. ``gotorb score`` and
    `gotorb.training.onnx.read_portable` read it. Trees of ``measured`` and ``fusion`` are part of it; the features that
    they read are measured by gotorb, and are an input of the file.

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
            f"keep {layout.META_HKL} next to {layout.MODEL_H5}, or give meta="
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
    return Origin(
        model=network,
        layers=layers,
        name=name,
        version=digest[:19],
        digest=digest,
        meta=known,
        threshold=float(known.get("threshold", 0.5)),
    )


def evaluate(
    model: Source,
    meta: Meta | str | Path | None = None,
    data_dir: str | Path | None = None,
    n_samples: int = EVALUATE.n_samples,
    *,
    out_dir: str | Path | None = None,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    threshold_fpr: float | None = EVALUATE.threshold_fpr,
    seed: int = SEED,
    batch_size: int = BATCH_SIZE,
) -> "Evaluation":
    """Evaluate a model on the validation and test rows of the data set that it was trained on.

    Writes ``metrics.json``, ``predictions.csv`` and a series of plots into the model's folder.

    Parameters
    ----------
    model : path or keras.Model
        Model folder, ``model.h5``, or the model returned by `train`.
    meta : dict or path, optional
        The meta returned by `train`, or ``meta.hkl``; the file next to `model` when left out.
    data_dir : path, optional
        The data set; found from the model's folder when left out.
    n_samples : int
        Posterior samples per stamp, for models with dropout.
    out_dir : path, optional
        Folder of the files; the model's folder when left out.
    n_bootstrap : int
        Resamples for the intervals.
    threshold_fpr : float, optional
        False-positive rate on the validation rows at which the threshold is chosen again; the one in the meta
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
        If rows that the meta names are missing in the data set.

    Examples
    --------
    >>> evaluate("models/small", out_dir="evaluations/small").metrics["auc"]  # doctest: +SKIP
    """

    loaded = load(model, meta)
    known = evaluation.require_meta(loaded.meta)
    data = open_dataset(evaluation.find_data_dir(known, data_dir))
    options = evaluation.EvaluationOptions(
        n_samples=n_samples, n_bootstrap=n_bootstrap, threshold_fpr=threshold_fpr, seed=seed, batch_size=batch_size
    )
    target = evaluation.find_out_dir(known, out_dir)
    rows = evaluation.held_out_rows(data, known)
    return evaluation.evaluate_model(loaded.model, known, data, rows, how=options, out_dir=target)


def benchmark(
    model: Source,
    data_dir: str | Path,
    n_samples: int = EVALUATE.n_samples,
    *,
    meta: Meta | str | Path | None = None,
    out_dir: str | Path | None = None,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    seed: int = SEED,
    batch_size: int = BATCH_SIZE,
) -> "Evaluation":
    """Evaluate a model on all rows of any data set, in the layers that the model's meta names.

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

    Examples
    --------
    >>> benchmark("models/small", data_dir="data/other").metrics["auc"]  # doctest: +SKIP
    """

    loaded = load(model, meta)
    known = evaluation.require_meta(loaded.meta)
    data = open_dataset(data_dir)
    options = evaluation.EvaluationOptions(
        n_samples=n_samples, n_bootstrap=n_bootstrap, threshold_fpr=None, seed=seed, batch_size=batch_size
    )
    target = evaluation.find_out_dir(known, out_dir, f"benchmark_{data.data_dir.resolve().name}")
    rows = evaluation.all_rows(data)
    return evaluation.evaluate_model(loaded.model, known, data, rows, how=options, out_dir=target)


def compare(
    one: str,
    other: str,
    *,
    data_dir: str | Path = DECIDE.data_dir,
    n_bootstrap: int = DECIDE.n_bootstrap,
    seed: int = SEED,
) -> dict[str, Any]:
    """Compare two models or evaluations on the test rows that both have.

    Parameters
    ----------
    one, other : str
        Folder of an evaluation (with predictions.csv), folder of a model, ``model.h5``, or registry address.
    data_dir : path
        Divided data set that models score; evaluations have their own scores.
    n_bootstrap, seed : int
        Resamples of the paired intervals, and their seed.

    Returns
    -------
    dict
        See `gotorb.evaluation.comparison.compare_scored`.

    Raises
    ------
    DataError, ModelError
        If there is no such evaluation or model, or the two share no test row of equal label.

    Examples
    --------
    >>> found = compare("models/small", "models/small", data_dir="data/dataset", n_bootstrap=20)
    >>> found["n_rows"], found["auc"]["difference"]
    (4, 0.0)
    """

    parts = (_read_scored(name, data_dir) for name in (one, other))
    return compare_scored(*parts, n_bootstrap=n_bootstrap, seed=seed)


def _read_scored(name: str, data_dir: str | Path) -> "ScoredRows":

    if (Path(name) / layout.PREDICTIONS_CSV).exists() and not (Path(name) / layout.MODEL_H5).exists():
        rows, threshold = read_predictions(name), _read_threshold(Path(name))
    else:
        origin, data = find_model(name), open_dataset(data_dir)
        test = np.flatnonzero(data.table[layout.SPLIT_COLUMN] == "test")
        rows = (
            data.table.assign(label=data.labels)
            .iloc[test]
            .assign(score=score_plainly(origin.model, origin.layers, data, test))
        )
        threshold = origin.threshold
    inside = (rows[layout.SPLIT_COLUMN] == "test") & rows["label"].isin((layout.REAL, layout.BOGUS))
    return ScoredRows(name, rows[inside].reindex(columns=list(SCORED_COLUMNS)).set_index("id"), threshold)


def _read_threshold(folder: Path) -> float:
    for path in (folder / layout.METRICS_JSON, Path("reports") / f"{folder.name}.json"):
        if path.exists():
            return float(json.loads(path.read_text(encoding="utf-8"))["threshold"])
    raise DataError(f"no threshold: {folder} has no {layout.METRICS_JSON}; evaluate again")


def score_out_of_fold(
    data_dir: str | Path,
    network: str = "bayesian_vgg6",
    params: Params | None = None,
    *,
    n_before: int = 0,
    undecided: bool = False,
) -> pd.Series:
    """Score every labelled row by a network trained without it and its linked rows.

    Parameters
    ----------
    data_dir : path
        A data set; its own division is not used.
    network : str
        Network of the training recipe.
    params : Params, optional
        ``peers.n_folds``, the recipe ``train``, ``dataset.link_radius_arcsec``, ``evaluate.n_samples``, ``seed``;
        those of the project here when left out.
    n_before : int
        Number of trainings of the same folds before this one: each has first weights and orders of its own.
    undecided : bool
        Score the rows of unknown label too.

    Returns
    -------
    Series
        Scores by id; empty when n_folds is 0 or a class has fewer than 5 rows for each fold. Those of models on
        measured features are without their calibration: it is fitted to the few validation rows of a fold, and its
        differences between folds would blur the order of rows of different folds.

    Examples
    --------
    >>> score_out_of_fold("data/dataset", "bayesian_vgg6")  # doctest: +SKIP
    """
    scores = _score_folds(data_dir, [network], find_params() if params is None else params, n_before, undecided)
    return scores[network].rename(None)


def score_models_out_of_fold(
    data_dir: str | Path, models: Sequence[str], params: Params | None = None, *, n_before: int = 0
) -> pd.DataFrame:
    """Score every row out of fold by several models, rows of unknown label included.

    Parameters
    ----------
    data_dir : path
        A data set; its own division is not used.
    models : sequence of str
        Models in the order of their training; ``fusion`` uses the network of a ``bayesian_vgg6`` before it.
    params : Params, optional
        As in `score_out_of_fold`.
    n_before : int
        As in `score_out_of_fold`.

    Returns
    -------
    DataFrame
        id, the score of each model, and `layout.SEED_COLUMN`, which is `n_before`; no rows where they are too few, as
        in `score_out_of_fold`.

    Examples
    --------
    >>> score_models_out_of_fold("data/dataset", ["bayesian_vgg6", "fusion"])  # doctest: +SKIP
    """
    scores = _score_folds(data_dir, models, find_params() if params is None else params, n_before, undecided=True)
    return scores.rename_axis("id").reset_index().assign(**{layout.SEED_COLUMN: n_before})


def _score_folds(
    data_dir: str | Path, models: Sequence[str], params: Params, n_before: int, undecided: bool
) -> pd.DataFrame:
    """Out-of-fold scores of each model by id."""
    data, n_folds = open_dataset(data_dir), params.peers.n_folds
    known = np.flatnonzero(data.labels != layout.UNKNOWN)
    rarest = min(np.sum(data.labels == label) for label in (layout.REAL, layout.BOGUS))
    if n_folds == 0 or rarest < MIN_ROWS_PER_FOLD * n_folds:
        LOG.info("%d rows of the rarer class are too few for %d folds", rarest, n_folds)
        return pd.DataFrame(columns=list(models), dtype=float)
    groups = link_groups(data.table, link_radius_arcsec=params.dataset.link_radius_arcsec)
    if undecided or layout.PROBABILITY_COLUMN in data.table:  # undecided rows are learned from, or scored, in folds too
        known = np.arange(len(data))
    folds = assign_folds(data.labels[known], groups[known], n_folds=n_folds, seed=params.seed)
    scores = pd.DataFrame(np.nan, index=data.ids[known], columns=list(models))
    for fold in range(n_folds):
        split = np.full(len(data), layout.SPLITS[0], dtype="U10")
        rest = known[folds != fold]
        inner = assign_folds(data.labels[rest], groups[rest], n_folds=N_VALIDATION_PARTS, seed=params.seed + fold)
        split[rest[inner == 0]] = layout.SPLITS[1]
        split[known[folds == fold]] = layout.SPLITS[2]
        scores.iloc[np.flatnonzero(folds == fold)] = _train_and_score(data, split, models, params, n_before)
        LOG.info("scored fold %d of %d", fold + 1, n_folds)
    return scores if undecided else scores[data.labels[known] != layout.UNKNOWN]


def _train_and_score(
    data: Dataset, split: np.ndarray, models: Sequence[str], params: Params, n_before: int
) -> np.ndarray:
    """Scores of the test rows by models trained on the others, (n, n_models)."""
    options: dict[str, Any] = params.train.model_dump(exclude={"models"}) | {"seed": params.seed + n_before}
    rows, scores = np.flatnonzero(split == layout.SPLITS[2]), []
    with TemporaryDirectory() as folder:
        layout.stamps_path(folder).symlink_to(layout.stamps_path(data.data_dir).resolve())
        write_table(folder, data.table.assign(**{layout.SPLIT_COLUMN: split}))
        for name in models:
            model, meta = train(folder, name, name=name, **options)
            how = {"n_samples": params.evaluate.n_samples, "seed": params.seed}
            scores.append(score_rows(drop_calibration(model), meta, data, rows, **how))
    return np.stack(scores, axis=1)


def find_label_errors(
    data_dir: str | Path,
    *,
    network: str = "bayesian_vgg6",
    params: Params | None = None,
    out_path: str | Path | None = None,
) -> "LabelErrors":
    """Score every row out of fold, rank the labels that are contradicted, and write the list.

    Parameters
    ----------
    data_dir : path
        A data set; its own division is not used.
    network : str
        Network that is trained.
    params : Params, optional
        As in `score_out_of_fold`.
    out_path : path, optional
        csv to write; label_errors.csv in the data set's folder when left out.

    Returns
    -------
    LabelErrors
        The ranked rows and the noise rate of each metalabel.

    Raises
    ------
    DataError
        If the data set cannot be used or has too few rows for the folds.

    Examples
    --------
    >>> find_label_errors("data/dataset").rows.head()  # doctest: +SKIP
    """

    params = find_params() if params is None else params
    scores = score_out_of_fold(data_dir, network, params)
    if scores.empty:
        raise DataError(f"too few labelled rows in {data_dir} for {params.peers.n_folds} folds; lower peers.n_folds")
    rows = read_table(data_dir).set_index("id", drop=False).loc[scores.index].assign(score=scores)
    found = rank_labels(rows.reset_index(drop=True))
    write_label_errors(found, Path(data_dir) / layout.LABEL_ERRORS_CSV if out_path is None else Path(out_path))
    return found
