"""Learning curves of acquisition methods: performance against the number of labels, compared with random choice.

An experiment begins with few labelled train rows and reveals the labels of the rows that a method chooses. In each
round a network is trained from new random weights on all labels so far, and evaluated on the test rows. All rounds have
the same number of optimizer steps and a cosine schedule, which needs no validation to choose an epoch. Methods share
the first rows and the seeds, so the comparison is paired.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gotorb import __version__
from gotorb.core import layout
from gotorb.core.files import reported_writes, write_text
from gotorb.core.params import CurvesParams, TrainParams
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import Dataset
from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.evaluate import score_plainly
from gotorb.evaluation.intervals import area_under_roc, count_by_score
from gotorb.evaluation.posterior import METHODS, RANDOM, choose_rows

if TYPE_CHECKING:
    import keras

LOG = logging.getLogger(__name__)
TRAIN, CURVES = TrainParams(), CurvesParams()
RUNS_SUFFIX = ".runs.json"
"""Suffix of the file with the finished rounds, next to the report."""
Run = dict[str, Any]
CHOICE = ("chosen", "n_wrong")
"""Keys of a round: chosen rows, and number of these that the network called wrong."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan of an experiment.

    Attributes
    ----------
    methods : tuple of str
        Acquisition methods, random among them.
    n_start, n_step, n_rounds : int
        Rows labelled at the start, rows added in a round, and rounds after the first training.
    seeds : tuple of int
        Seeds of the first rows, the weights and the order.
    n_steps, n_epochs : int
        Optimizer steps of each training, and epochs of the cosine schedule into which they are divided.
    network : str
        Name of a network with dropout.
    layers : tuple of str
        Layers of the stamps.
    dropout, learning_rate, batch_size, threads
        As in `gotorb.classifier.train`.
    n_samples : int
        Posterior samples of each row of the pool.
    n_pool : int, optional
        Train rows in the pool, drawn at random once for all methods and seeds; None: all.
    """

    methods: tuple[str, ...] = CURVES.methods
    n_start: int = CURVES.n_start
    n_step: int = CURVES.n_step
    n_rounds: int = CURVES.n_rounds
    seeds: tuple[int, ...] = CURVES.seeds
    n_steps: int = CURVES.n_steps
    n_epochs: int = CURVES.n_epochs
    network: str = CURVES.network
    layers: tuple[str, ...] = TRAIN.layers
    dropout: float = TRAIN.dropout
    learning_rate: float = TRAIN.learning_rate
    batch_size: int = CURVES.batch_size
    n_samples: int = CURVES.n_samples
    threads: int = CURVES.threads
    n_pool: int | None = CURVES.n_pool

    def __post_init__(self) -> None:
        """Refuse plans without a comparison."""
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise ConfigError(f"unknown acquisition {unknown[0]!r}; choose from {', '.join(METHODS)}")
        if RANDOM not in self.methods or len(set(self.methods)) != len(self.methods):
            raise ConfigError(f"methods are {', '.join(self.methods)}; name each once, with {RANDOM} as the control")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds are {list(self.seeds)}; give at least one, each once")
        for name in ("n_start", "n_step", "n_rounds", "n_epochs", "batch_size", "n_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.n_pool is not None and self.n_pool < 1:
            raise ConfigError(f"n_pool is {self.n_pool}; give at least 1, or leave it out for all train rows")
        if self.n_steps < self.n_epochs:
            raise ConfigError(f"{self.n_steps} steps cannot be divided into {self.n_epochs} epochs; give more steps")


class Experiment:
    """Rounds of all methods and seeds; finished rounds are not repeated.

    Parameters
    ----------
    plan : Plan
        Plan of the experiment.
    data : Dataset
        Data set with a split.
    runs_path : Path
        File of the finished rounds.
    build : callable
        Builder of the plan's network (`gotorb.models.find_network`).
    restart : bool
        Start again if the file belongs to another experiment; otherwise that is an error.
    """

    def __init__(
        self, plan: Plan, data: Dataset, runs_path: Path, *, build: Callable[..., keras.Model], restart: bool = False
    ) -> None:
        from gotorb.training.data import find_splits, select_rows

        data.layer_indices(plan.layers)
        self.plan, self.data, self.runs_path, self.build = plan, data, runs_path, build
        self.parts = select_rows(data.table, find_splits(data.table), where=data.data_dir)
        self.pool = self.parts.train
        if plan.n_pool is not None and plan.n_pool < len(self.pool):
            self.pool = np.sort(np.random.default_rng(0).choice(self.pool, plan.n_pool, replace=False))
        needed = plan.n_start + plan.n_step * plan.n_rounds
        if len(self.pool) < needed:
            raise DataError(
                f"{data.data_dir} has {len(self.pool)} labelled train rows, but {plan.n_start} and {plan.n_rounds} "
                f"rounds of {plan.n_step} need {needed}; lower n_start, n_step or n_rounds, or raise n_pool"
            )
        self.runs: list[Run] = self._read(restart)

    @cached_property
    def digest(self) -> str:
        """Digest of the data set."""
        return data_digest(self.data.data_dir)

    def run(self) -> None:
        """Run the missing rounds."""
        for seed in self.plan.seeds:
            self._round(seed, 0, self.plan.methods)  # all methods start with the same network
            for method in self.plan.methods:
                for number in range(1, self.plan.n_rounds + 1):
                    self._round(seed, number, (method,))

    def wanted(self) -> list[Run]:
        """Finished rounds of the plan, in its order, without other seeds or methods in the file.

        Returns
        -------
        list of dict
            method, seed, round, n_labels, auc, error, chosen and n_wrong of each round.
        """
        rounds = range(self.plan.n_rounds + 1)
        return [
            self._find(method, seed, number)  # type: ignore[misc]
            for method in self.plan.methods
            for seed in self.plan.seeds
            for number in rounds
        ]

    def report(self) -> dict[str, Any]:
        """Summary of the finished rounds.

        Returns
        -------
        dict
            plan, data_digest, summary (`summarise_curves`), chosen (the chosen rows by metalabel) and runs.
        """
        wanted = self.wanted()
        chosen: dict[str, list[int]] = {method: [] for method in self.plan.methods}
        n_wrong = dict.fromkeys(self.plan.methods, 0)
        for run in wanted:
            chosen[run["method"]] += run["chosen"]
            n_wrong[run["method"]] += run["n_wrong"]
        runs = pd.DataFrame([{key: value for key, value in run.items() if key not in CHOICE} for run in wanted])
        return {
            "plan": asdict(self.plan),
            "data_digest": self.digest,
            "summary": summarise_curves(runs),
            "chosen": _describe_choices(chosen, n_wrong, self.pool, self.data.table),
            "runs": runs.to_dict("records"),
        }

    def _round(self, seed: int, number: int, methods: Sequence[str]) -> None:
        """Train and evaluate one network, and choose the rows of the next round by each method."""
        methods = [method for method in methods if self._find(method, seed, number) is None]
        if not methods:
            return
        labelled = self._labelled(methods[0], seed, number)
        network = self._train(labelled, [seed, number])
        scores = self._measure(network)
        for method in methods:
            chosen = [] if number == self.plan.n_rounds else self._choose(network, labelled, method, [seed, number])
            run = {"method": method, "seed": seed, "round": number, "n_labels": len(labelled)} | scores
            self.runs.append(run | {"chosen": chosen, "n_wrong": self._count_wrong(network, chosen)})
            LOG.info("%s, seed %d, %d labels: AUC %.4f", method, seed, len(labelled), scores["auc"])
        self._write()

    def _labelled(self, method: str, seed: int, number: int) -> np.ndarray:
        """Rows whose labels are known in a round, ascending."""
        rng = np.random.default_rng([seed, len(self.pool)])
        start = rng.choice(self.pool, self.plan.n_start, replace=False)
        if len(set(self.data.labels[start].tolist())) < 2:
            raise DataError(f"the first {self.plan.n_start} rows of seed {seed} are of one class; raise n_start")
        later = [self._find(method, seed, earlier)["chosen"] for earlier in range(number)]  # type: ignore[index]
        return np.sort(np.concatenate([start, *later]).astype(int))

    def _train(self, rows: np.ndarray, seed: list[int]) -> keras.Model:
        from gotorb.training.data import Rows, Stream, weigh_classes
        from gotorb.training.fit import fit_network, prepare_process
        from gotorb.training.networks import build_network
        from gotorb.training.recipe import Recipe

        plan, n_epoch = self.plan, self.plan.batch_size * (self.plan.n_steps // self.plan.n_epochs)
        number = int(np.random.default_rng(seed).integers(2**31))
        prepare_process(number, plan.threads)
        shape = (self.data.size, self.data.size, len(plan.layers))
        network = build_network(self.build, shape, dropout=plan.dropout)
        weights = weigh_classes(self.data.labels[rows], "balanced")
        source = Stream(data=self.data, layers=plan.layers, batch_size=plan.batch_size, class_weights=weights)
        how = Recipe(
            epochs=plan.n_epochs, patience=plan.n_epochs, monitor="loss", learning_rate=plan.learning_rate,
            optimizer="adam", augment=True, seed=number, schedule="cosine",
            fit_kwargs={"validation_freq": plan.n_epochs},
        )  # fmt: skip
        # an epoch repeats the rows as often as its steps need
        parts = Rows(np.resize(rows, n_epoch), self.parts.validation[: plan.batch_size], self.parts.test[:0], 0)
        return fit_network(network, source, parts, how).model

    def _measure(self, network: keras.Model) -> dict[str, float]:
        scores = score_plainly(network, self.plan.layers, self.data, self.parts.test)
        labels = self.data.labels[self.parts.test]
        wrong = [(scores[labels == layout.BOGUS] >= 0.5).mean(), (scores[labels == layout.REAL] < 0.5).mean()]
        auc = area_under_roc(*count_by_score(labels, scores)[1:])
        return {"auc": round(float(auc), 6), "error": round(float(np.mean(wrong)), 6)}

    def _choose(self, network: keras.Model, labelled: np.ndarray, method: str, seed: list[int]) -> list[int]:
        pool = np.setdiff1d(self.pool, labelled)
        samples, features = sample_pool(
            network, self.data, pool, self.plan.layers, method=method, n_samples=self.plan.n_samples, seed=seed[0]
        )
        rng = np.random.default_rng([*seed, 1])
        found = choose_rows(self.data.ids[pool], samples, self.plan.n_step, method=method, features=features, rng=rng)
        return sorted(pool[found["row"].to_numpy(int)].tolist())

    def _count_wrong(self, network: keras.Model, rows: list[int]) -> int:
        """Number of rows with a score on the wrong side of 0.5."""
        if not rows:
            return 0
        scores = score_plainly(network, self.plan.layers, self.data, np.array(rows))
        return int(((scores >= 0.5) != (self.data.labels[rows] == layout.REAL)).sum())

    def _find(self, method: str, seed: int, number: int) -> Run | None:
        key = (method, seed, number)
        return next((run for run in self.runs if (run["method"], run["seed"], run["round"]) == key), None)

    def _identity(self) -> dict[str, Any]:
        """Everything that determines the result of a round; methods and seeds are recorded with each round."""
        plan = {key: value for key, value in asdict(self.plan).items() if key not in ("methods", "seeds")}
        found = plan | {"data_digest": self.digest, "code_version": __version__, "choice": CHOICE}
        return json.loads(json.dumps(found))

    def _read(self, restart: bool) -> list[Run]:
        if not self.runs_path.exists():
            return []
        try:
            kept = json.loads(self.runs_path.read_text())
            changed = sorted(key for key, value in self._identity().items() if kept["identity"].get(key) != value)
            runs = kept["runs"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self.runs_path} cannot be read ({error}); remove it to start again") from None
        if changed and restart:
            LOG.info("%s has another %s; starting again", self.runs_path, ", ".join(changed))
            return []
        if changed:
            raise DataError(f"{self.runs_path} has another {', '.join(changed)}; give another --out, or remove it")
        return runs

    def _write(self) -> None:
        write_report(self.runs_path, {"identity": self._identity(), "runs": self.runs})


def sample_pool(
    network: keras.Model, data: Dataset, rows: np.ndarray, layers: Sequence[str], *,
    method: str, n_samples: int, seed: int,
) -> tuple[np.ndarray, Any]:  # fmt: skip
    """Draw posterior samples of a pool, and make a function that computes its latent vectors.

    Parameters
    ----------
    network : keras.Model
        Network with dropout.
    data : Dataset
        Data set with the stamps.
    rows : ndarray of int
        (m,) row numbers of the pool.
    layers : sequence of str
        Layers of the network's input.
    method : str
        Acquisition method; `RANDOM` needs neither samples nor vectors.
    n_samples, seed : int
        Posterior samples per stamp, and their seed.

    Returns
    -------
    samples : ndarray
        (m, n_samples) samples; (m, 0) for a random choice.
    vectors : callable or None
        Function from (k,) indices into `rows` to latent vectors (k, n_features); None for a random choice.

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> from gotorb.evaluation.evaluate import load_with_meta
    >>> (model, meta), data = load_with_meta("models/small"), open_dataset("data/dataset")
    >>> samples, _ = sample_pool(model, data, np.arange(4), meta["layers"], method="margin", n_samples=3, seed=1)
    >>> samples.shape
    (4, 3)
    """
    if method == RANDOM:
        return np.empty((len(rows), 0), np.float32), None
    from gotorb.training.inference import latent_vectors, sample_scores

    def stamps(wanted: np.ndarray) -> Iterator[np.ndarray]:
        return (block for _, block in data.batches(wanted, layers=layers))

    samples = sample_scores(network, stamps(rows), n_samples, seed=seed)
    return samples, lambda places: latent_vectors(network, stamps(rows[places]))


def write_report(path: Path, content: dict[str, Any]) -> None:
    """Write a report as json, whole or not at all.

    Parameters
    ----------
    path : Path
        File to write.
    content : dict
        Plain values.

    Raises
    ------
    DataError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(Path(folder) / "report.json", {"n_seeds": 3})
    ...     (Path(folder) / "report.json").read_text()
    '{\\n "n_seeds": 3\\n}\\n'
    """
    with reported_writes(path):
        write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


QUANTITIES = {"auc": 1, "error": -1}
"""Measured quantity -> 1 if larger is better, else -1."""
COLOURS = {"bald": "tab:blue", "margin": "tab:orange", RANDOM: "0.4"}


def summarise_curves(runs: pd.DataFrame) -> dict[str, Any]:
    """Compare methods with random choice, seed by seed.

    Parameters
    ----------
    runs : DataFrame
        method, seed, round, n_labels, auc, error; all methods, random among them, have the same seeds and rounds.

    Returns
    -------
    dict
        n_labels, n_seeds, and methods: for each method and quantity ``curve`` (mean over seeds with 95 % interval). For
        methods other than random also ``difference`` (paired difference from random, positive if better), ``gain``
        (its mean over the rounds after the start) and ``labels_ratio`` (see `labels_ratio`). With one seed intervals
        are None.

    Examples
    --------
    >>> run = {"seed": 1, "round": 0, "n_labels": 100, "auc": 0.9, "error": 0.1}
    >>> summarise_curves(pd.DataFrame([{"method": "random", **run}]))["methods"]["random"]["auc"]["curve"]["mean"]
    [0.9]
    """
    methods = list(dict.fromkeys(runs["method"]))
    n_labels = np.sort(runs["n_labels"].unique())
    found: dict[str, Any] = {"n_labels": n_labels.tolist(), "n_seeds": int(runs["seed"].nunique()), "methods": {}}
    for method in methods:
        found["methods"][method] = {
            quantity: _compare(_curves(runs, method, quantity), _curves(runs, RANDOM, quantity), n_labels, sign)
            if method != RANDOM
            else {"curve": _student_interval(_curves(runs, method, quantity))}
            for quantity, sign in QUANTITIES.items()
        }
    return found


def _describe_choices(
    chosen: Mapping[str, Sequence[int]], n_wrong: Mapping[str, int], pool: np.ndarray, table: pd.DataFrame
) -> dict[str, Any]:
    """Describe the pool and the rows chosen by each method: number, real fraction, and fraction of each metalabel.

    For chosen rows also ``wrong``, the fraction that the choosing network called wrong.
    """
    kinds = sorted(set(table["metalabel"].iloc[pool]))

    def describe(numbers: Sequence[int] | np.ndarray) -> dict[str, Any]:
        rows = table.iloc[list(numbers)]
        shares = {kind: round(float((rows["metalabel"] == kind).mean()), 4) for kind in kinds}
        return {"n": len(rows), "real": round(float((rows["label"] == layout.REAL).mean()), 4), "metalabels": shares}

    return {"pool": describe(pool)} | {
        method: describe(numbers) | {"wrong": round(n_wrong[method] / len(numbers), 4)}
        for method, numbers in chosen.items()
        if numbers
    }


def _curves(runs: pd.DataFrame, method: str, quantity: str) -> np.ndarray:
    """(n_seeds, n_rounds) values."""
    return runs[runs["method"] == method].pivot(index="seed", columns="round", values=quantity).to_numpy(float)


def _compare(curves: np.ndarray, control: np.ndarray, n_labels: np.ndarray, sign: int) -> dict[str, Any]:
    difference = sign * (curves - control)
    gain = _student_interval(difference[:, 1:].mean(axis=1, keepdims=True))
    return {
        "curve": _student_interval(curves),
        "difference": _student_interval(difference),
        "gain": {key: value[0] for key, value in gain.items()},
        "labels_ratio": _labels_ratio(sign * curves, sign * control, n_labels),
    }


def _student_interval(values: np.ndarray) -> dict[str, list[float | None]]:
    """Mean over seeds of each column, with Student's 95 % interval."""
    from scipy.stats import t

    mean, n = values.mean(axis=0), len(values)
    if n < 2:
        return {"mean": _plain(mean), "low": [None] * len(mean), "high": [None] * len(mean)}
    half = t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return {"mean": _plain(mean), "low": _plain(mean - half), "high": _plain(mean + half)}


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 6) for value in values]


def _labels_ratio(curves: np.ndarray, control: np.ndarray, n_labels: np.ndarray) -> dict[str, float | None]:
    """`labels_ratio` of the mean curves, with Student's interval of its logarithm by the jackknife.

    A bootstrap over a handful of seeds would give too narrow an interval.
    """
    from scipy.stats import t

    def log_ratio(seeds: np.ndarray) -> float:
        return float(np.log(labels_ratio(curves[seeds].mean(axis=0), control[seeds].mean(axis=0), n_labels)))

    n = len(curves)
    every = np.arange(n)
    value = log_ratio(every)
    if n < 2:
        return {"value": round(float(np.exp(value)), 4), "low": None, "high": None}
    without = np.array([log_ratio(np.delete(every, seed)) for seed in every])
    half = t.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    found = {"value": value, "low": value - half, "high": value + half}
    return {key: round(float(np.exp(one)), 4) for key, one in found.items()}


def labels_ratio(curve: np.ndarray, control: np.ndarray, n_labels: np.ndarray) -> float:
    """Ratio of the labels that the control and the curve need for the best performance that both reach.

    Values above 1 mean that the curve needs fewer labels. Curves are interpolated linearly between rounds.

    Parameters
    ----------
    curve, control : ndarray
        (n_rounds,) performance; larger is better.
    n_labels : ndarray
        (n_rounds,) labels, ascending.

    Returns
    -------
    float
        Labels of the control over labels of the curve.

    Examples
    --------
    >>> labels_ratio(np.array([0.5, 0.9, 0.95]), np.array([0.5, 0.7, 0.9]), np.array([100, 200, 300]))
    1.5
    """
    goal = min(curve.max(), control.max())
    needed = [_labels_for(goal, np.maximum.accumulate(values), n_labels) for values in (control, curve)]
    return needed[0] / needed[1]


def _labels_for(goal: float, rising: np.ndarray, n_labels: np.ndarray) -> float:
    place = int(np.argmax(rising >= goal))
    if place == 0:
        return float(n_labels[0])
    low, high = rising[place - 1 : place + 1]
    return float(n_labels[place - 1] + (goal - low) / (high - low) * (n_labels[place] - n_labels[place - 1]))


def plot_learning(summary: dict[str, Any]) -> Figure:
    """Plot the curve of each method with its 95 % band over seeds, one panel for each quantity.

    Parameters
    ----------
    summary : dict
        From `summarise_curves`.

    Returns
    -------
    Figure

    Examples
    --------
    >>> runs = pd.DataFrame([{"method": "random", "seed": 1, "round": 0, "n_labels": 100, "auc": 0.9, "error": 0.1}])
    >>> [axes.get_ylabel() for axes in plot_learning(summarise_curves(runs)).axes]
    ['AUC of the test rows', 'mean of FPR and FNR at 0.5']
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, len(QUANTITIES))
    for axis, quantity in zip(axes, QUANTITIES, strict=True):
        for method, found in summary["methods"].items():
            curve, colour = found[quantity]["curve"], COLOURS.get(method)
            axis.plot(summary["n_labels"], curve["mean"], "o-", ms=3, label=method, color=colour)
            if None not in curve["low"]:
                band = np.clip([curve["low"], curve["high"]], 0, 1)  # with few seeds limits may exceed 0 or 1
                axis.fill_between(summary["n_labels"], *band, alpha=0.15, color=colour, lw=0)
        axis.set_xlabel("labels")
    axes[0].set_ylabel("AUC of the test rows")
    axes[1].set_ylabel("mean of FPR and FNR at 0.5")
    axes[0].legend(frameon=False, title=f"{summary['n_seeds']} seeds")
    return figure
