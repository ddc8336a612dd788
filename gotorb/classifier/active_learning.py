"""Choice of rows for annotators, and the gain in labels: the front door.

Examples
--------
>>> from gotorb import active_learning
>>> ask = active_learning.choose("models/bayesian_vgg6", "data_20200304-050607", 100)  # doctest: +SKIP
>>> report = active_learning.learning_curves("data/dataset", out_path="active_learning.json")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.constants import SCORE_DIGITS
from gotorb.core.files import reported_writes, write_csv
from gotorb.core.params import SEED, AskParams, CurvesParams, TrainParams
from gotorb.dataset.store import Dataset, open_dataset, read_csv
from gotorb.errors import ConfigError, DataError, ModelError
from gotorb.evaluation.learning_curves import RUNS_SUFFIX, Experiment, Plan, plot_learning, sample_pool, write_report
from gotorb.evaluation.posterior import Scale, choose_rows
from gotorb.models import find_model, find_network

if TYPE_CHECKING:
    import keras

__all__ = ["choose", "learning_curves", "read_asked", "write_ask"]
ASK_COLUMNS = ("id", "photometry_id", "label", "value", "score", "image_id", "x", "y", "ra", "dec", "mag", "metalabel")
"""Columns of the csv for annotators, who fill in ``label``; `clean_data.relabel` reads photometry_id and label."""
PEOPLE = "marshall"
ASK, CURVES, TRAIN = AskParams(), CurvesParams(), TrainParams()


def choose(
    model: str | Path,
    data_dir: str | Path,
    n: int = ASK.n,
    *,
    method: str = ASK.method,
    already: Collection[str] = (),
    n_samples: int = ASK.n_samples,
    seed: int = SEED,
) -> pd.DataFrame:
    """Choose the rows of a data set whose labels would teach a model most, and not all alike.

    The pool holds the rows that annotators can label: with a candidate id of the survey (a whole number, once), not
    synthetic, not labelled by annotators before, not chosen before.

    Parameters
    ----------
    model : path or str
        Model folder, ``model.h5`` or ``models:/name@alias``; with dropout unless the choice is random.
    data_dir : path
        A data set, labelled or not (label -1).
    n : int
        Rows wanted.
    method : {"bald", "margin", "random"}
        See `gotorb.evaluation.posterior`.
    already : collection of str
        Row ids chosen before; never chosen again.
    n_samples, seed : int
        Posterior samples, and the seed of these and of ties.

    Returns
    -------
    DataFrame
        `ASK_COLUMNS`, in the order chosen; label is empty. Fewer than n rows when the pool runs out.

    Raises
    ------
    ConfigError
        If the method is unknown or n below 1.
    DataError
        If the pool is empty or a layer of the model is missing in the data set.
    ModelError
        If the model cannot be read or used.

    Examples
    --------
    >>> chosen = choose("models/small", "data/dataset", 3, n_samples=5, seed=1)
    >>> len(chosen), chosen.columns[:2].tolist()
    (3, ['id', 'photometry_id'])
    """

    data = open_dataset(data_dir)
    rows = _askable(data)
    known = find_model(model)
    _check_layers(known.layers, known.model, str(model))
    samples, features = sample_pool(
        known.model, data, rows, known.layers, method=method, n_samples=n_samples, seed=seed
    )
    chosen = choose_rows(
        data.ids[rows],
        samples,
        n,
        method=method,
        scale=Scale(known.threshold, (known.calibration or (1.0,))[0]),
        taken=already,
        features=features,
        rng=np.random.default_rng(seed),
    )
    numbers = rows[chosen["row"].to_numpy(int)]
    scores = samples[chosen["row"].to_numpy(int)].mean(axis=1) if samples.size else np.full(len(chosen), np.nan)
    table = data.table.iloc[numbers].assign(
        photometry_id=data.table["candidate_id"].iloc[numbers], label="", value=chosen["value"].to_numpy(), score=scores
    )
    return (
        table.reindex(columns=list(ASK_COLUMNS))
        .round({"value": SCORE_DIGITS, "score": SCORE_DIGITS})
        .reset_index(drop=True)
    )


def learning_curves(
    data_dir: str | Path,
    *,
    out_path: str | Path,
    methods: Sequence[str] = CURVES.methods,
    n_start: int = CURVES.n_start,
    n_step: int = CURVES.n_step,
    n_rounds: int = CURVES.n_rounds,
    seeds: Iterable[int] = CURVES.seeds,
    n_steps: int = CURVES.n_steps,
    n_epochs: int = CURVES.n_epochs,
    network: str = CURVES.network,
    layers: Sequence[str] = TRAIN.layers,
    dropout: float = TRAIN.dropout,
    learning_rate: float = TRAIN.learning_rate,
    batch_size: int = CURVES.batch_size,
    n_samples: int = CURVES.n_samples,
    threads: int = CURVES.threads,
    n_pool: int | None = CURVES.n_pool,
    restart: bool = CURVES.restart,
) -> dict[str, Any]:
    """Measure AUC and error on the test rows against the number of labels, for each method and seed.

    Each finished round is kept in ``<out_path's stem>.runs.json``: interrupted runs resume, and more seeds or methods
    add to it. Next to the report a figure of the curves is written (``.png``).

    Parameters
    ----------
    data_dir : path
        A divided and labelled data set; its train rows are the pool.
    out_path : path
        The report, ``*.json``.
    methods, n_start, n_step, n_rounds, seeds, n_steps, n_epochs, network, n_pool
        The plan; see `gotorb.evaluation.learning_curves.Plan`.
    layers, dropout, learning_rate, batch_size, threads
        As in `gotorb.classifier.train`.
    n_samples : int
        Posterior samples of each row of the pool.
    restart : bool
        Start again where finished rounds are of other data or another plan; else that is an error.

    Returns
    -------
    dict
        The report: ``plan``, ``data_digest``, ``runs`` (method, seed, round, n_labels, auc, error), ``summary`` and
        ``chosen`` (see `gotorb.evaluation.learning_curves`).

    Raises
    ------
    ConfigError
        If the plan compares nothing.
    DataError
        If rows, classes or layers are missing in the data set, or a file cannot be written.

    Examples
    --------
    >>> learning_curves("data/dataset", out_path="active_learning.json")["n_seeds"]  # doctest: +SKIP
    """

    how = Plan(
        methods=tuple(methods), n_start=n_start, n_step=n_step, n_rounds=n_rounds, seeds=tuple(seeds), n_steps=n_steps,
        n_epochs=n_epochs, network=network, layers=tuple(layers), dropout=dropout, learning_rate=learning_rate,
        batch_size=batch_size, n_samples=n_samples, threads=threads, n_pool=n_pool,
    )  # fmt: skip
    out_path = Path(out_path)
    if out_path.suffix != ".json":
        raise ConfigError(f"the report is to be {out_path}; end its name with .json")
    data, runs_path = open_dataset(data_dir), out_path.with_suffix(RUNS_SUFFIX)
    experiment = Experiment(how, data, runs_path, build=find_network(how.network), restart=restart)
    experiment.run()
    report = experiment.report()
    write_report(out_path, report)
    plot_learning(report["summary"]).savefig(out_path.with_suffix(".png"), dpi=110, metadata={"Software": None})
    return report


def _askable(data: Dataset) -> np.ndarray:
    """Row numbers that annotators can label."""
    table = data.table
    ids = table["candidate_id"].astype(str) if "candidate_id" in table else pd.Series("", index=table.index)
    own = ids.str.fullmatch(r"\d+") & ~table["metalabel"].isin((*layout.SYNTHETIC, PEOPLE))
    rows = np.flatnonzero(own & ~ids.where(own).duplicated())
    if len(rows) == 0:
        raise DataError(
            f"no row of {data.data_dir} can be labelled by people: none has a candidate_id that is a whole number and "
            f"is neither synthetic nor labelled by them ({PEOPLE}); label more images"
        )
    return rows


def _check_layers(layers: Sequence[str], network: keras.Model, model: str) -> None:
    if len(layers) != network.input_shape[-1]:
        raise ModelError(
            f"model {model} takes {network.input_shape[-1]} layers but nothing names them; "
            f"keep {layout.META_HKL} next to {layout.MODEL_H5}"
        )


def write_ask(table: pd.DataFrame, path: str | Path) -> Path:
    """Write rows to be labelled as csv.

    Parameters
    ----------
    table : DataFrame
    path : path

    Returns
    -------
    Path

    Raises
    ------
    DataError
        If the file cannot be written, or is there: it may hold labels.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asked = write_ask(pd.DataFrame({"id": ["row-07"], "image_id": "image-3"}), Path(folder) / "ask.csv")
    ...     read_asked([asked])
    {'row-07'}
    """
    path = Path(path)
    if path.exists():
        raise DataError(f"{path} exists and may hold labels; give another name")
    with reported_writes(path):
        return write_csv(path, table, inert=True)


def read_asked(paths: Iterable[str | Path]) -> set[str]:
    """Ids of the rows in csv files written before.

    Parameters
    ----------
    paths : iterable of path

    Returns
    -------
    set of str

    Raises
    ------
    DataError
        If a file cannot be read or has no column id.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asked = Path(folder) / "ask.csv"
    ...     _ = asked.write_text("id,label\\nrow-07,\\nrow-12,1\\n")
    ...     sorted(read_asked([asked]))
    ['row-07', 'row-12']
    """
    asked: set[str] = set()
    for path in paths:
        try:
            asked |= set(read_csv(Path(path))["id"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is no csv with the column id ({error}); give files of `gotorb ask`") from None
    return asked
