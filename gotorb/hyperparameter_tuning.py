"""Search the hyperparameters of `bayesian_vgg6`: learning rate, sizes, dropout, L2 penalty, activation, start.

>>> from gotorb import classifier, hyperparameter_tuning  # doctest: +SKIP
>>> tuning = hyperparameter_tuning.run_model_tuning("data/dataset", out_dir="tuning")  # doctest: +SKIP
>>> classifier.train("data/dataset", **tuning.best["train"])  # doctest: +SKIP
"""

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout

from gotorb import __version__
from gotorb.core import layout
from gotorb.core.files import write_json, write_text
from gotorb.core.logs import run_log
from gotorb.core.params import SEED, DatasetParams, FitParams, TrainParams, TuneParams
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import open_dataset
from gotorb.errors import ConfigError, ModelError
from gotorb.evaluation.model_figures import plot_trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gotorb.training.trials import Setting, Trial

LOG = logging.getLogger(__name__)
TRAIN, FIT, DATASET, TUNE = TrainParams(), FitParams(), DatasetParams(), TuneParams()
BEGUN_JSON = "begun.json"
DECIMALS = 6


@dataclass(frozen=True)
class Tuning:
    """Result of a tuning.

    Attributes
    ----------
    best : dict
        Content of best.json; ``classifier.train(data_dir, **best["train"])`` trains it.
    trials : DataFrame
        Content of trials.csv, a row per trial.
    figure : Figure
        The trials as lines across parallel axes.
    out_dir : Path
        Folder of the files.
    """

    best: dict[str, Any]
    trials: pd.DataFrame
    figure: "Figure"
    out_dir: Path


def run_model_tuning(
    data_dir: str | Path,
    *,
    method: str = TUNE.method,
    objective: str = TUNE.objective,
    max_trials: int | None = TUNE.max_trials,
    max_epochs: int = TUNE.max_epochs,
    factor: float = TUNE.factor,
    iterations: int = TUNE.iterations,
    max_parameters: int = TUNE.max_parameters,
    space: Mapping[str, Any] | None = None,
    layers: Sequence[str] = TRAIN.layers,
    batch_size: int = TRAIN.batch_size,
    patience: int = TRAIN.patience,
    augment: bool = FIT.augment,
    class_weights: str | dict[int, float] | None = FIT.class_weights,
    crop: int | None = TRAIN.crop,
    normalise: str = TRAIN.normalise,
    test_fraction: float = DATASET.test_fraction,
    validation_fraction: float = DATASET.validation_fraction,
    link_radius_arcsec: float = DATASET.link_radius_arcsec,
    seed: int = SEED,
    threads: int | None = TRAIN.threads,
    n_workers: int = TUNE.n_workers,
    out_dir: str | Path | None = None,
    on_trial: "Callable[[Trial], None] | None" = None,
) -> Tuning:
    """Search hyperparameters of `bayesian_vgg6` on the training and validation rows of a data set.

    Writes ``trials.csv``, ``best.json`` and ``trials.png``. A trial is trained as `classifier.train` does it, at a
    constant learning rate; the test rows are never read. The same data, options, threads and workers give the same
    trials.

    An interrupted tuning resumes when it is called again with the same data, options and folder: finished trials are
    not trained again, and the result is the same. Its checkpoints are in ``<out_dir>/unfinished/`` and are removed when
    all is written. With other data or options a new tuning begins next to the unfinished one, which can still resume.

    Parameters
    ----------
    data_dir : path
        Folder made by ``label_data.make()``.
    method : {"hyperband", "random", "bayesian"}
        Hyperband tries many configurations for few epochs and continues the better ones.
    objective : str
        Quantity of the validation rows by which trials are compared: ``val_binary_crossentropy``,
        ``val_loss`` (which holds the L2 penalty too), ``val_auc``, ``val_average_precision`` or ``val_accuracy``.
        A trial's best epoch counts.
    max_trials : int, optional
        Trials at most; None lets Hyperband end by itself.
    max_epochs : int
        Epochs of the longest trial.
    factor, iterations : float, int
        Of Hyperband: ratio of the epochs of successive rounds, and number of complete runs.
    max_parameters : int
        Larger networks are not tried.
    space : mapping, optional
        Narrower limits: name -> [lowest, highest], or the names to choose from, or one value. Names are block1,
        scale_up (the second block has block1 + scale_up filters), dense, initializer, activation, dropout, l2,
        learning_rate; see `gotorb.training.tuning`.
    layers, batch_size, patience, augment, class_weights
        As in `classifier.train`.
    crop, normalise
        As in `classifier.train`.
    test_fraction, validation_fraction, link_radius_arcsec
        As in `classifier.train`.
    seed : int
        Of the choices and of each trial.
    threads : int, optional
        CPU threads of a trial; part of the result's identity.
    n_workers : int
        Trials at a time, each in a process of its own. A process that dies costs its trial a second try. From a
        script, call this below ``if __name__ == "__main__":``.
    out_dir : path, optional
        Folder of the files; ``data_dir/tuning`` when left out.
    on_trial : callable, optional
        Called with each finished trial (`gotorb.training.trials.Trial`), in order; after a resumption also with those
        that were finished before.

    Raises
    ------
    ConfigError
        If an option is impossible, or another process tunes in this folder.
    DataError
        If the data set cannot be trained on.
    ModelError
        If every trial failed.

    Examples
    --------
    >>> tuning = run_model_tuning("data/dataset", max_trials=20, out_dir="tuning")  # doctest: +SKIP
    """
    from gotorb.training import networks, tuning

    layers = tuple(layers)
    options: dict[str, Any] = {
        "method": method, "objective": objective, "max_trials": max_trials, "max_epochs": max_epochs,
        "factor": factor, "iterations": iterations, "max_parameters": max_parameters, "space": dict(space or {}),
        "layers": layers, "batch_size": batch_size, "patience": patience, "augment": augment,
        "class_weights": class_weights, "crop": crop, "normalise": normalise, "test_fraction": test_fraction,
        "validation_fraction": validation_fraction, "link_radius_arcsec": link_radius_arcsec, "seed": seed,
        "n_workers": n_workers,
    }  # fmt: skip
    search: dict[str, Any] = {name: options[name] for name in ("max_trials", "max_epochs", "factor", "iterations")}
    tuning.check_search(method, objective, **search)
    data, limits = open_dataset(data_dir), tuning.make_space(space)
    shape = networks.seen_shape((data.size, data.size, len(layers)), crop)
    out_dir = Path(data_dir, "tuning") if out_dir is None else Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    trials: list[Trial] = []
    with run_log(out_dir):
        setting = _prepare(data, options, threads)
        with _open_folder(out_dir, setting) as opened:
            oracle = tuning.make_oracle(
                method, limits, objective, folder=opened.folder, seed=seed, **search,
                fits=lambda values: tuning.count_parameters(shape, values) <= max_parameters,
            )  # fmt: skip
            for trial in tuning.run_trials(oracle, opened, max_epochs=max_epochs, n_workers=n_workers):
                found = trial.message or f"{trial.objective:.4f}"
                LOG.info("%s %s: %s %s", trial.name, trial.status, objective, found)
                trials.append(trial)
                if on_trial is not None:
                    on_trial(trial)
            best = tuning.choose_best(trials, tuning.OBJECTIVES[objective])
            if best is None:
                raise ModelError(f"all {len(trials)} trials failed ({trials[0].message}); narrow space")
            written = _write(out_dir, trials, best, objective, setting)
            shutil.rmtree(opened.folder)
    return written


def read_best(path: str | Path) -> dict[str, Any]:
    """Options of `classifier.train` of the best configuration.

    Parameters
    ----------
    path : path
        best.json, or the folder that holds it.

    Returns
    -------
    dict
        model (a name), learning_rate, dropout, model_kwargs.

    Raises
    ------
    ModelError
        If there is no such file, or it is none of a tuning.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     best = {"model": "bayesian_vgg6", "learning_rate": 0.001, "dropout": 0.1, "model_kwargs": {}}
    ...     _ = (Path(folder) / "best.json").write_text(json.dumps({"train": best}))
    ...     read_best(folder)["dropout"]
    0.1
    """
    path = Path(path) / layout.BEST_JSON if Path(path).is_dir() else Path(path)
    try:
        best = json.loads(path.read_text(encoding="utf-8"))["train"]
        return {name: best[name] for name in ("model", "learning_rate", "dropout", "model_kwargs")}
    except FileNotFoundError:
        raise ModelError(f"no {path.name} in {path.parent}; run `gotorb tune` or the stage tune first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not the result of a tuning ({error}); tune again") from None


def _prepare(data: Any, options: dict[str, Any], threads: int | None) -> "Setting":
    """Check the data and pin the threads; return what all trials share, without the test rows."""
    from gotorb.training import data as training_data
    from gotorb.training import fit, networks, trials

    if options["n_workers"] < 1:
        raise ConfigError(f"n_workers is {options['n_workers']}; give 1 or more")
    networks.find_normaliser(options["normalise"], options["layers"])
    names = ("test_fraction", "validation_fraction", "link_radius_arcsec", "seed")
    taught = training_data.prepare_lesson(
        data, options["layers"], options["batch_size"], class_weights=options["class_weights"],
        division={name: options[name] for name in names}, splits=("train", "validation"),
    )  # fmt: skip
    pinned = fit.prepare_process(options["seed"], threads)
    setting = trials.Setting(
        data_dir=data.data_dir, layers=options["layers"], batch_size=options["batch_size"],
        class_weights=taught.stream.class_weights, rows=replace(taught.rows, test=taught.rows.test[:0]),
        objective=options["objective"], seed=options["seed"],
        recipe={name: options[name] for name in ("patience", "augment", "normalise", "crop")},
        # threads that are pinned in this process cannot be asked for again
        threads=threads if options["n_workers"] == 1 else pinned,
        identity=_identify(data.data_dir, options | {"threads": pinned}),
    )  # fmt: skip
    trials.make_recipe(setting, options["max_epochs"], TRAIN.learning_rate, options["seed"])  # refuses impossible ones
    return setting


def _identify(data_dir: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Everything that decides the result of a tuning."""
    import keras
    import keras_tuner

    from gotorb.training.model_files import describe_option

    identity = {name: json.dumps(describe_option(value), sort_keys=True) for name, value in settings.items()}
    versions = {"code": __version__, "keras": keras.__version__, "keras-tuner": keras_tuner.__version__}
    return identity | versions | {"data set": data_digest(data_dir)}


@contextmanager
def _open_folder(out_dir: Path, setting: "Setting") -> "Iterator[Setting]":
    """Open the folder of a tuning of this identity for this process alone."""

    digest = hashlib.sha256(json.dumps(setting.identity, sort_keys=True).encode()).hexdigest()
    folder = out_dir / layout.UNFINISHED_DIR / digest[:12]
    folder.mkdir(parents=True, exist_ok=True)
    _log_others(folder, setting)
    begun = folder / BEGUN_JSON
    try:
        with FileLock(folder / ".lock", timeout=0):
            if not begun.exists():
                write_json(begun, {"id": uuid.uuid4().hex, "identity": setting.identity})
            yield replace(setting, folder=folder, tuning=json.loads(begun.read_text(encoding="utf-8"))["id"])
    except Timeout:
        raise ConfigError(f"another process tunes in {folder}; wait for it or give another out_dir") from None


def _log_others(folder: Path, setting: "Setting") -> None:
    """Log which unfinished tunings of other options or data there are, and what differs."""
    for path in sorted(folder.parent.glob(f"*/{BEGUN_JSON}")):
        if path.parent != folder:
            other = json.loads(path.read_text(encoding="utf-8"))["identity"]
            names = sorted({*other, *setting.identity})
            changed = [name for name in names if other.get(name) != setting.identity.get(name)]
            LOG.warning("%s is of another %s and is left; remove it if not needed", path.parent, ", ".join(changed))


def _write(out_dir: Path, trials: "list[Trial]", best: "Trial", objective: str, setting: "Setting") -> Tuning:
    from gotorb.training.trials import OBJECTIVES, training_options

    table = _tabulate(trials)
    chosen = {
        "trial": best.number,
        "objective": {"name": objective, "value": round(best.objective or 0.0, DECIMALS)},
        "epochs": best.epochs,
        "parameters": best.parameters,
        "data_digest": setting.identity["data set"],
        "train": training_options(best.values),
    }
    figure = plot_trials(table, objective, best=best.number, direction=OBJECTIVES[objective])
    write_text(out_dir / layout.TRIALS_CSV, table.to_csv(index=False, lineterminator="\n"))
    figure.savefig(out_dir / layout.TRIALS_PNG, dpi=120)
    write_json(out_dir / layout.BEST_JSON, chosen)
    return Tuning(chosen, table, figure, out_dir)


def _tabulate(trials: "Sequence[Trial]") -> pd.DataFrame:
    """One row a trial: trial, status, objective, epochs, parameters, continues, hyperparameters, message."""
    rows = [
        {
            "trial": trial.number,
            "status": trial.status,
            "objective": None if trial.objective is None else round(trial.objective, DECIMALS),
            "epochs": trial.epochs,
            "parameters": trial.parameters,
            "continues": trial.continues,
            **trial.values,
            "message": trial.message,
        }
        for trial in trials
    ]
    return pd.DataFrame(rows).astype({"objective": float, "continues": "Int64"})
