"""Data flows one way and so do imports: a file imports from strictly lower ranks or from its own room."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
RANKS = {
    "errors": 0, "layout": 0,
    "core": 1, "settings": 1, "params": 1, "logs": 1,
    "survey": 2, "catalogues": 2,
    "stamps": 3,
    "labels": 4, "dataset": 4, "portable": 4,
    "training": 5,
    "evaluation": 6, "tracking": 6,
    "simulate": 7,
    "label_data": 8, "import_data": 8, "clean_data": 8, "classifier": 8, "trainer": 8, "models": 8,
    "hyperparameter_tuning": 8, "production": 8, "service": 8, "promotion": 8,
    "active_learning": 9, "eyeball": 9, "visualise": 9, "apps": 9,
    "cli": 10, "__main__": 10, "pipelines": 10, "studies": 10,
}  # fmt: skip
"""Room -> rank, as in docs/architecture.md."""
SAME_RANK = {
    ("params", "settings"), ("logs", "settings"),
    ("tracking", "evaluation"),  # a served model answers with the summary of its posterior
    ("labels", "dataset"),  # labelled rows are written as a data set
    # the front door's own order
    ("classifier", "trainer"), ("trainer", "models"), ("classifier", "models"),
    ("hyperparameter_tuning", "models"), ("hyperparameter_tuning", "classifier"),
    ("production", "classifier"), ("promotion", "classifier"), ("studies", "pipelines"),
    ("visualise", "apps"), ("eyeball", "apps"), ("active_learning", "apps"),
    ("__main__", "cli"),
}  # fmt: skip
"""Who may import whom at equal rank."""
SIMULATE_USERS = {"simulate", "cli", "pipelines", "studies"}
TRAINERS = {"keras", "tensorflow", "keras_tuner"}


class Import(NamedTuple):
    """One imported name: where, of what, and whether it is read with the file."""

    path: Path
    line: int
    module: str
    at_top: bool

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def room(parts: tuple[str, ...]) -> str:
    """Room of a module: the part after `gotorb`, or `pipelines`."""
    if parts[0] != "gotorb":
        return parts[0]
    return parts[1] if len(parts) > 1 else "gotorb"


def room_of(path: Path) -> str:
    return room(path.relative_to(ROOT).with_suffix("").parts)


def sources() -> list[Path]:
    return sorted(path for folder in ("gotorb", "pipelines", "studies") for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {node for branch in ast.walk(tree) if is_typing_block(branch) for node in ast.walk(branch)}
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        for module in names(node):
            yield Import(path, node.lineno, module, node not in inside)  # type: ignore[attr-defined]


def is_typing_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def names(node: ast.AST) -> list[str]:
    """Modules that a statement imports; `from gotorb import layout` is an import of gotorb.layout."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        if node.module == "gotorb":
            return [f"gotorb.{alias.name}" for alias in node.names]
        return [str(node.module)]
    return []


ALL = [found for path in sources() for found in imports(path)]
OWN = [found for found in ALL if found.module.split(".")[0] in ("gotorb", "pipelines")]


def test_every_room_has_a_rank() -> None:
    assert {room_of(path) for path in sources()} <= {*RANKS, "__init__", "gotorb"}


def allowed(importer: str, imported: str) -> bool:
    if importer == imported or imported not in RANKS:
        return True
    return RANKS[imported] < RANKS[importer] or (importer, imported) in SAME_RANK


def test_imports_go_downwards() -> None:
    wrong = [
        found.where
        for found in OWN
        if room_of(found.path) in RANKS and not allowed(room_of(found.path), room(tuple(found.module.split("."))))
    ]
    assert wrong == []


def test_simulate_is_known_only_to_the_edge() -> None:
    users = {room_of(found.path) for found in OWN if found.module.startswith("gotorb.simulate")}
    assert users <= SIMULATE_USERS


def test_mlflow_is_imported_only_by_tracking() -> None:
    assert {room_of(found.path) for found in ALL if found.module.split(".")[0] == "mlflow"} == {"tracking"}


def test_keras_is_read_with_the_file_only_in_training() -> None:
    users = {room_of(found.path) for found in ALL if found.at_top and found.module.split(".")[0] in TRAINERS}
    assert users == {"training"}


@pytest.mark.parametrize("name", ["galsim", "sep"])
def test_simulators_libraries_stay_in_their_room(name: str) -> None:
    assert {room_of(found.path) for found in ALL if found.module.split(".")[0] == name} <= {"simulate"}
