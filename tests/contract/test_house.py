"""The structure of the code holds its limits; see docs/architecture.md."""

import pytest

from tests.contract.house import (
    LEAST_DOCUMENTED,
    LIMITS,
    ORDER,
    House,
    draw_tree,
    drawn,
    imports,
    module_name,
    modules,
    room,
    sources,
)

TRAINERS = {"keras", "tensorflow", "keras_tuner"}
SIMULATE_USERS = {"simulate", "cli", "pipelines", "studies"}
HOUSE = House()
ALL = [found for path in sources("gotorb", "pipelines", "studies") for found in imports(path)]
DETAILS = {
    "names at the top": HOUSE.names_at_the_top,
    "modules with one importer below 60 lines": HOUSE.small_single,
    "circles": HOUSE.circles,
    "imports against the order": HOUSE.against_order,
    "dataclasses over five fields built by position": HOUSE.wide_dataclasses,
    "functions with more than five positional arguments": HOUSE.wide_functions,
    "function bodies over 50 lines": HOUSE.long_functions,
}


@pytest.mark.parametrize("name", LIMITS)
def test_figures_hold_their_limits(name: str) -> None:
    details = DETAILS[name]() if name in DETAILS else []
    assert HOUSE.figures()[name] <= LIMITS[name], "\n".join(details)


def test_public_functions_document_their_parameters() -> None:
    n_documented, n_public, without = HOUSE.documented()
    assert n_documented >= LEAST_DOCUMENTED * n_public, "\n".join(without)


def test_architecture_shows_the_tree() -> None:
    assert drawn() == draw_tree(), "run `python -m tests.contract.house --draw`"


def test_every_constant_has_one_home() -> None:
    assert HOUSE.repeated_constants() == []


def test_every_room_has_a_place_in_the_order() -> None:
    assert {room(name) for name in modules()} - {"gotorb"} == set(ORDER)


def users(library: str, *, at_top: bool = False) -> set[str]:
    """Rooms that import a library (or one of its modules), anywhere or at module level."""
    return {
        room(module_name(found.path))
        for found in ALL
        if (found.module == library or found.module.startswith(f"{library}.")) and (found.at_top or not at_top)
    }


def test_simulator_is_imported_only_at_the_edge() -> None:
    assert users("gotorb.simulate") <= SIMULATE_USERS


def test_mlflow_is_imported_only_by_tracking() -> None:
    assert users("mlflow") == {"tracking"}


@pytest.mark.parametrize("name", sorted(TRAINERS))
def test_keras_is_imported_at_module_level_only_by_training(name: str) -> None:
    assert users(name, at_top=True) <= {"training"}


@pytest.mark.parametrize("name", ["sep"])
def test_simulation_libraries_stay_in_their_room(name: str) -> None:
    assert users(name) <= {"simulate"}
