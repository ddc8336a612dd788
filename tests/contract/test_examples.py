"""Examples in docstrings, run as doctests in the folder of `example_project`."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.example_project import make_project
from tests.contract.house import module_name, sources, tree

WITH_EXAMPLES = [
    module_name(path) for path in sources("gotorb", "pipelines", "benchmarks") if ">>> " in path.read_text("utf-8")
]
ROOMS = ("evaluation", "labels", "catalogues", "stamps")
FRONT_DOORS = (
    "label_data", "import_data", "clean_data", "models", "classifier", "classifier.active_learning",
    "hyperparameter_tuning", "eyeball", "visualise",
)  # fmt: skip
SKIPPED = {
    "needs the gotophoto database": (
        "label_data.get_images", "label_data.get_individual_images", "label_data.make",
        "label_data.add_synthetic_transients", "label_data.add_marshall_cands", "clean_data.remove_asteroids",
        "eyeball.get_candidate_data",
    ),
    "needs the network": (
        "catalogues.skybot.look_up", "catalogues.update.renew", "catalogues.vizier.fetch_variables",
        "catalogues.vizier.fetch_galaxies",
    ),
    "trains or evaluates for seconds, or starts a server": (
        "classifier.evaluate", "classifier.benchmark", "classifier.export", "classifier.score_out_of_fold",
        "classifier.score_models_out_of_fold", "classifier.find_label_errors",
        "classifier.active_learning.learning_curves", "eyeball.serve", "eyeball.explore",
        "hyperparameter_tuning.run_model_tuning",
    ),
    "needs a file of others": (
        "import_data.import_alerts", "import_data.import_datapack", "models.import_model",
        "eyeball.import_classifications",
    ),
}  # fmt: skip
"""Why an example is not run -> the functions that have only such ones."""
WITHOUT = ("labels.alerts.paste_source", "visualise.page_name", "visualise.write_block", "visualise.write_reasons")
"""Functions whose arguments only other functions make: a packet with planes of variance, scored detections."""


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which examples run."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("examples")
        make_project(root, patch)
        yield root


@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if name != "gotorb.__main__"])
def test_examples_of_docstrings_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


def test_every_function_of_these_rooms_has_an_example_that_runs() -> None:
    parser, without, skipped = doctest.DocTestParser(), [], []
    for path in sources("gotorb"):
        module = module_name(path).removeprefix("gotorb.")
        for node in tree(path).body if module in FRONT_DOORS or module.split(".")[0] in ROOMS else []:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                examples = parser.get_examples(ast.get_docstring(node) or "")
                if not examples:
                    without.append(f"{module}.{node.name}")
                elif examples[-1].options.get(doctest.SKIP):
                    skipped.append(f"{module}.{node.name}")
    assert sorted(without) == sorted(WITHOUT)
    assert sorted(skipped) == sorted(name for names in SKIPPED.values() for name in names)
