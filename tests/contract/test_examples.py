"""Examples in docstrings, run as doctests."""

import doctest
import importlib

import pytest

from tests.contract.house import module_name, sources

WITH_EXAMPLES = [
    module_name(path) for path in sources("gotorb", "pipelines", "benchmarks") if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if name != "gotorb.__main__"])
def test_examples_of_docstrings_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
