"""Models from outside are read in this process, but for tests that ask for a process of its own."""

import sys
from pathlib import Path

import pytest

from gotorb.core.untrusted import read_apart
from gotorb.training import importing
from tests.shared import read_here


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in this process: a start of TensorFlow for each file would take minutes."""
    monkeypatch.setattr(importing, "read_apart", read_here)


@pytest.fixture
def apart(here: None, warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in a process of its own, as users do."""
    monkeypatch.setattr(importing, "read_apart", read_apart)
    monkeypatch.setattr(sys, "executable", str(warm_python))
