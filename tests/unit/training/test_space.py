"""The space of a tuning and the oracles that draw from it, without any training."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gotorb.errors import ConfigError
from gotorb.training.networks import bayesian_vgg6
from gotorb.training.trials import COMPLETED, FAILED, Task, Trial, training_options
from gotorb.training.tuning import SPACE, Range, choose_best, count_parameters, make_oracle, make_space, read_task, tell

SHAPE = (21, 21, 4)
OPTIONS: dict[str, Any] = {"max_epochs": 4, "seed": 5}
N_TRIALS = {"hyperband": 10, "random": 12, "bayesian": 4}
QUICK = ("hyperband", "random")


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Makes a new oracle."""

    def make_one(method: str = "random", space: Any = None, **options: Any) -> Any:
        options = {"max_trials": N_TRIALS[method]} | OPTIONS | options
        return make_oracle(method, space or make_space(), "val_loss", folder=tmp_path, **options)

    return make_one


def ask_all(oracle: Any, *, max_epochs: int = 4) -> list[Task]:
    """All tasks of an oracle that is told a made-up objective: the dense units' distance from 200."""
    tasks: list[Task] = []
    firsts: dict[int, int] = {}
    while (asked := oracle.create_trial(f"worker {len(tasks)}")).status == "RUNNING":
        tasks.append(read_task(asked, max_epochs, firsts))
        tell(oracle, asked, finished(tasks[-1], abs(tasks[-1].values["dense"] - 200.0)), "val_loss")
    return tasks


def finished(task: Task, objective: float | None) -> Trial:
    status = FAILED if objective is None else COMPLETED
    return Trial(**asdict(task), tuning="", status=status, objective=objective, best_epoch=0)


@pytest.mark.parametrize("method", [*QUICK, pytest.param("bayesian", marks=pytest.mark.slow)])
def test_no_configuration_above_the_limit_is_given_out(make: Any, method: str) -> None:
    limit = 40_000
    tasks = ask_all(make(method, fits=lambda values: count_parameters(SHAPE, values) <= limit))
    counts = [count_parameters(SHAPE, task.values) for task in tasks]
    assert len(tasks) == N_TRIALS[method]
    assert max(counts) <= limit < max(count_parameters(SHAPE, task.values) for task in ask_all(make()))


def test_a_limit_that_nothing_fits_is_told(make: Any) -> None:
    oracle = make(fits=lambda values: False)
    with pytest.raises(ConfigError, match="none of 50 random configurations has few enough parameters"):
        oracle.create_trial("worker")


def test_default_space_at_goto_size_can_be_counted() -> None:
    values = {"block1": 16, "scale_up": 16, "dense": 256}
    assert count_parameters((55, 55, 4), values) == 222_113


@pytest.mark.parametrize("method", QUICK)
def test_every_point_lies_in_the_space_and_comes_again_for_the_same_seed(make: Any, method: str) -> None:
    tasks, again = (ask_all(make(method)) for _ in range(2))
    assert tasks == again
    assert tasks != ask_all(make(method, seed=6))
    for task in tasks:
        assert list(task.values) == list(SPACE)
        for name, limits in SPACE.items():
            value = task.values[name]
            assert limits.low <= value <= limits.high if isinstance(limits, Range) else value in limits
            assert not isinstance(limits, Range) or not limits.step or value % limits.step == 0


def test_a_failed_trial_is_not_continued(make: Any) -> None:
    oracle = make("hyperband")
    firsts: dict[int, int] = {}
    for number in range(8):
        asked = oracle.create_trial(f"worker {number}")
        task = read_task(asked, 4, firsts)
        assert task.continues != 0
        tell(oracle, asked, finished(task, None if number == 0 else float(number)), "val_loss")


def test_hyperband_of_27_epochs_has_the_budget_that_params_yaml_names(make: Any) -> None:
    tasks = ask_all(make("hyperband", max_trials=None, max_epochs=27))
    spent = [task.epochs - (0 if task.continues is None else tasks[task.continues].epochs) for task in tasks]
    assert (len(tasks), sum(spent), max(task.epochs for task in tasks)) == (154, 1004, 27)
    going_on = [task for task in tasks if task.continues is not None]
    assert going_on
    for task in going_on:
        earlier = tasks[task.continues or 0]
        assert (task.values, task.first) == (earlier.values, earlier.first) and task.epochs > earlier.epochs


def test_a_narrower_space_is_kept_to(make: Any) -> None:
    space = make_space({"dense": [64, 72], "activation": ["elu"], "dropout": 0.1})
    assert (space["dense"], space["dropout"]) == (Range(64, 72, 8), Range(0.1, 0.1))
    for task in ask_all(make(space=space)):
        assert task.values["dense"] in (64, 72)
        assert (task.values["activation"], task.values["dropout"]) == ("elu", 0.1)


@pytest.mark.parametrize(
    ("narrower", "says"),
    [
        ({"depth": 3}, "no hyperparameter 'depth'"),
        ({"dense": [64, 1024]}, r"within 64 to 512 in steps of 8"),
        ({"dense": [65, 80]}, "in steps of 8"),
        ({"dropout": [0.5, 0.1]}, "space has dropout"),
        ({"dropout": "much"}, "space has dropout"),
        ({"activation": ["relu", "tanh"]}, "give relu or leaky_relu or elu"),
        ({"activation": []}, "space has activation"),
    ],
)
def test_a_space_outside_the_space_is_refused(narrower: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_space(narrower)


def test_a_point_of_the_space_is_a_network() -> None:
    values = {
        "block1": 8, "scale_up": 16, "dense": 64, "initializer": "he_uniform", "activation": "elu", "dropout": 0.2,
        "l2": 1e-5, "learning_rate": 3e-4,
    }  # fmt: skip
    options = training_options(values)
    network = bayesian_vgg6(SHAPE, options["dropout"], **options["model_kwargs"])
    assert network.count_params() == count_parameters(SHAPE, values)
    assert network.get_layer("conv2a").filters == 24 and network.get_layer("drop").rate == 0.2


def test_the_best_is_the_earliest_of_equals_and_never_a_failed_one() -> None:
    tasks = [Task(number, {}, 1, None, number) for number in range(4)]
    trials = [finished(task, objective) for task, objective in zip(tasks, (None, 0.5, 0.7, 0.5), strict=True)]
    low, high = choose_best(trials, "min"), choose_best(trials, "max")
    assert low is not None and high is not None and (low.number, high.number) == (1, 2)
    assert choose_best(trials[:1], "min") is None
