"""What asking the right rows gains: learning curves of ways to choose labels against random choice.

A small part of the train rows is labelled at first; the labels of others are revealed as they are chosen. After each
round a network is trained from new random weights on all labels so far, with the same number of optimizer steps in
every round, no validation (the last steps of a cosine schedule need no choice of an epoch), and judged on the test
rows. Methods share the first rows and the seeds, so they are compared pair by pair.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gotorb import __version__, layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import Dataset, cannot_write, fsync, open_dataset
from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.acquisition import METHODS, RANDOM, choose_rows
from gotorb.evaluation.intervals import area_under_roc, count_by_score
from gotorb.evaluation.learning import describe_choices, plot_learning, summarise_curves
from gotorb.params import CurvesParams, TrainParams

if TYPE_CHECKING:
    import keras

LOG = logging.getLogger(__name__)
TRAIN, CURVES = TrainParams(), CurvesParams()
RUNS_SUFFIX = ".runs.json"
"""Of the file beside the report that keeps each finished round."""
Run = dict[str, Any]
CHOICE = ("chosen", "n_wrong")
"""Of a round: rows chosen, and how many of these the network that chose them had wrong."""


@dataclass(frozen=True)
class Plan:
    """How the curves are made.

    Attributes
    ----------
    methods : tuple of str
        Ways to choose, random among them.
    n_start, n_step, n_rounds : int
        Rows labelled at first, rows added in a round, and rounds after the first training.
    seeds : tuple of int
        Each decides the first rows, the weights and the order.
    n_steps, n_epochs : int
        Optimizer steps of each training, divided into so many epochs of the cosine schedule.
    network : str
        Name of a network with dropout.
    layers : tuple of str
        Of the stamps.
    dropout, learning_rate, batch_size, threads
        As in `gotorb.classifier.train`.
    n_samples : int
        Posterior samples of each row of the pool.
    n_pool : int, optional
        Train rows that take part, drawn at random, the same for all methods and seeds; all when None.
    """

    methods: tuple[str, ...]
    n_start: int
    n_step: int
    n_rounds: int
    seeds: tuple[int, ...]
    n_steps: int
    n_epochs: int
    network: str
    layers: tuple[str, ...]
    dropout: float
    learning_rate: float
    batch_size: int
    n_samples: int
    threads: int
    n_pool: int | None = None

    def __post_init__(self) -> None:
        """Refuse plans that compare nothing."""
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise ConfigError(f"unknown acquisition {unknown[0]!r}; choose from {', '.join(METHODS)}")
        if RANDOM not in self.methods or len(set(self.methods)) != len(self.methods):
            raise ConfigError(f"methods are {', '.join(self.methods)}; name {RANDOM}, the control, and each once")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds are {list(self.seeds)}; give at least one, each once")
        for name in ("n_start", "n_step", "n_rounds", "n_epochs", "batch_size", "n_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.n_pool is not None and self.n_pool < 1:
            raise ConfigError(f"n_pool is {self.n_pool}; give at least 1, or leave it out for all train rows")
        if self.n_steps < self.n_epochs:
            raise ConfigError(f"{self.n_steps} steps cannot be divided into {self.n_epochs} epochs; give more steps")


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
    anew: bool = CURVES.anew,
) -> dict[str, Any]:
    """Measure AUC and error on the test rows against the number of labels, for each method and seed.

    Each finished round is kept in ``<out_path's stem>.runs.json``: a run that was killed goes on there, and more seeds
    or methods add to it. Beside the report a figure of the curves is written (``.png``).

    Parameters
    ----------
    data_dir : path
        A divided and labelled data set; its train rows are the pool, its test rows judge.
    out_path : path
        The report, ``*.json``.
    methods, n_start, n_step, n_rounds, seeds, n_steps, n_epochs, network, layers, dropout, learning_rate, batch_size, \
n_samples, threads, n_pool
        See `Plan`.
    anew : bool
        Begin anew where what is kept is of other data or another plan; else that is an error.

    Returns
    -------
    dict
        The report: ``plan``, ``data_digest``, ``runs`` (method, seed, round, n_labels, auc, error), ``summary`` and
        ``chosen`` (see `gotorb.evaluation.learning`).

    Raises
    ------
    ConfigError
        If the plan compares nothing.
    DataError
        If the data set lacks rows, classes or layers, or a file cannot be written.
    """
    plan = Plan(
        tuple(methods), n_start, n_step, n_rounds, tuple(seeds), n_steps, n_epochs, network, tuple(layers), dropout,
        learning_rate, batch_size, n_samples, threads, n_pool,
    )  # fmt: skip
    out_path = Path(out_path)
    if out_path.suffix != ".json":
        raise ConfigError(f"the report is to be {out_path}; end its name with .json")
    experiment = Experiment(plan, open_dataset(data_dir), out_path.with_suffix(RUNS_SUFFIX), anew=anew)
    experiment.run()
    chosen: dict[str, list[int]] = {method: [] for method in plan.methods}
    n_wrong = dict.fromkeys(plan.methods, 0)
    wanted = experiment.wanted()
    for run in wanted:
        chosen[run["method"]] += run["chosen"]
        n_wrong[run["method"]] += run["n_wrong"]
    runs = pd.DataFrame([{key: value for key, value in run.items() if key not in CHOICE} for run in wanted])
    report = {
        "plan": asdict(plan),
        "data_digest": experiment.digest,
        "summary": summarise_curves(runs),
        "chosen": describe_choices(chosen, n_wrong, experiment.pool, experiment.data.table),
        "runs": runs.to_dict("records"),
    }
    _write_json(out_path, report)
    plot_learning(report["summary"]).savefig(out_path.with_suffix(".png"), dpi=110, metadata={"Software": None})
    return report


class Experiment:
    """The rounds of all methods and seeds, those finished before left out.

    Parameters
    ----------
    plan : Plan
        What is compared.
    data : Dataset
        Where the rows are.
    runs_path : Path
        Where finished rounds are kept.
    anew : bool
        Begin anew where these are of something else.
    """

    def __init__(self, plan: Plan, data: Dataset, runs_path: Path, *, anew: bool = False) -> None:
        from gotorb.training.rows import find_splits, select_rows

        data.layer_indices(plan.layers)
        self.plan, self.data, self.runs_path = plan, data, runs_path
        self.parts = select_rows(data.table, find_splits(data.table), where=data.data_dir)
        self.pool = self.parts.train
        if plan.n_pool is not None and plan.n_pool < len(self.pool):
            self.pool = np.sort(np.random.default_rng(0).choice(self.pool, plan.n_pool, replace=False))
        needed = plan.n_start + plan.n_step * plan.n_rounds
        if len(self.pool) < needed:
            raise DataError(
                f"{data.data_dir} has {len(self.pool)} labelled train rows, {plan.n_start} and {plan.n_rounds} "
                f"rounds of {plan.n_step} need {needed}; lower n_start, n_step or n_rounds, or raise n_pool"
            )
        self.runs: list[Run] = self._read(anew)

    @cached_property
    def digest(self) -> str:
        """Of the data set."""
        return data_digest(self.data.data_dir)

    def run(self) -> None:
        """Do what is not done yet."""
        for seed in self.plan.seeds:
            self._round(seed, 0, self.plan.methods)  # all methods begin with the same network
            for method in self.plan.methods:
                for number in range(1, self.plan.n_rounds + 1):
                    self._round(seed, number, (method,))

    def wanted(self) -> list[Run]:
        """Finished rounds of the plan, in its order; those of other seeds or methods in the file are left out."""
        rounds = range(self.plan.n_rounds + 1)
        return [
            self._find(method, seed, number)  # type: ignore[misc]
            for method in self.plan.methods
            for seed in self.plan.seeds
            for number in rounds
        ]

    def _round(self, seed: int, number: int, methods: Sequence[str]) -> None:
        """Train once, judge, and let each method choose the rows of the next round."""
        methods = [method for method in methods if self._find(method, seed, number) is None]
        if not methods:
            return
        labelled = self._labelled(methods[0], seed, number)
        network = self._train(labelled, [seed, number])
        scores = self._judge(network)
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
            raise DataError(f"the first {self.plan.n_start} rows of seed {seed} hold one class only; raise n_start")
        later = [self._find(method, seed, earlier)["chosen"] for earlier in range(number)]  # type: ignore[index]
        return np.sort(np.concatenate([start, *later]).astype(int))

    def _train(self, rows: np.ndarray, seed: list[int]) -> keras.Model:
        from gotorb.models import find_network
        from gotorb.training import building, fit, process, recipe, stream
        from gotorb.training.rows import Rows, weigh_classes

        plan, n_epoch = self.plan, self.plan.batch_size * (self.plan.n_steps // self.plan.n_epochs)
        number = int(np.random.default_rng(seed).integers(2**31))
        process.prepare_process(number, plan.threads)
        shape = (self.data.size, self.data.size, len(plan.layers))
        network = building.build_network(find_network(plan.network), shape, dropout=plan.dropout)
        weights = weigh_classes(self.data.labels[rows], "balanced")
        source = stream.Stream(self.data, plan.layers, plan.batch_size, weights)
        how = recipe.Recipe(
            plan.n_epochs, plan.n_epochs, "loss", plan.learning_rate, "adam", True, number, schedule="cosine",
            fit_kwargs={"validation_freq": plan.n_epochs},
        )  # fmt: skip
        # rows stand in an epoch as often as its steps need
        parts = Rows(np.resize(rows, n_epoch), self.parts.validation[: plan.batch_size], self.parts.test[:0], 0)
        return fit.fit_network(network, source, parts, how).model

    def _judge(self, network: keras.Model) -> dict[str, float]:
        from gotorb.training.scoring import score_stamps

        labels, scores = self.data.labels[self.parts.test], score_stamps(network, self._stamps(self.parts.test))
        wrong = [(scores[labels == layout.BOGUS] >= 0.5).mean(), (scores[labels == layout.REAL] < 0.5).mean()]
        auc = area_under_roc(*count_by_score(labels, scores)[1:])
        return {"auc": round(float(auc), 6), "error": round(float(np.mean(wrong)), 6)}

    def _choose(self, network: keras.Model, labelled: np.ndarray, method: str, seed: list[int]) -> list[int]:
        pool = np.setdiff1d(self.pool, labelled)
        samples, features = sample_pool(
            network, self.data, pool, self.plan.layers, method, self.plan.n_samples, seed=seed[0]
        )
        rng = np.random.default_rng([*seed, 1])
        found = choose_rows(self.data.ids[pool], samples, self.plan.n_step, method=method, features=features, rng=rng)
        return sorted(pool[found["row"].to_numpy(int)].tolist())

    def _count_wrong(self, network: keras.Model, rows: list[int]) -> int:
        """Rows that the network has on the wrong side of one half."""
        from gotorb.training.scoring import score_stamps

        if not rows:
            return 0
        scores = score_stamps(network, self._stamps(np.array(rows)))
        return int(((scores >= 0.5) != (self.data.labels[rows] == layout.REAL)).sum())

    def _stamps(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        return (stamps for _, stamps in self.data.batches(rows, layers=self.plan.layers))

    def _find(self, method: str, seed: int, number: int) -> Run | None:
        key = (method, seed, number)
        return next((run for run in self.runs if (run["method"], run["seed"], run["round"]) == key), None)

    def _identity(self) -> dict[str, Any]:
        """What decides a round's result; methods and seeds are part of each round."""
        plan = {key: value for key, value in asdict(self.plan).items() if key not in ("methods", "seeds")}
        found = plan | {"data_digest": self.digest, "code_version": __version__, "choice": CHOICE}
        return json.loads(json.dumps(found))

    def _read(self, anew: bool) -> list[Run]:
        if not self.runs_path.exists():
            return []
        try:
            kept = json.loads(self.runs_path.read_text())
            changed = sorted(key for key, value in self._identity().items() if kept["identity"].get(key) != value)
            runs = kept["runs"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self.runs_path} cannot be read ({error}); remove it to begin anew") from None
        if changed and anew:
            LOG.info("what %s keeps is of another %s; beginning anew", self.runs_path, ", ".join(changed))
            return []
        if changed:
            raise DataError(
                f"{self.runs_path} is of curves with another {', '.join(changed)}; give another --out, or remove it"
            )
        return runs

    def _write(self) -> None:
        _write_json(self.runs_path, {"identity": self._identity(), "runs": self.runs})


def sample_pool(
    network: keras.Model, data: Dataset, rows: np.ndarray, layers: Sequence[str], method: str, n_samples: int, seed: int
) -> tuple[np.ndarray, Any]:
    """Posterior samples (m, n_samples) of a pool, none for a random choice, and what gives its latent vectors."""
    if method == RANDOM:
        return np.empty((len(rows), 0), np.float32), None
    from gotorb.training.latent import latent_vectors
    from gotorb.training.scoring import sample_scores

    def stamps(wanted: np.ndarray) -> Iterator[np.ndarray]:
        return (block for _, block in data.batches(wanted, layers=layers))

    samples = sample_scores(network, stamps(rows), n_samples, seed=seed)
    return samples, lambda places: latent_vectors(network, stamps(rows[places]))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        fsync(part)
        part.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        part.unlink(missing_ok=True)
