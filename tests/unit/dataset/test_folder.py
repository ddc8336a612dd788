"""Folders of data sets: unfinished ones are not opened, finished ones of another kind are not replaced."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gotorb import clean_data
from gotorb.core import layout
from gotorb.core.params import DatasetParams
from gotorb.dataset import folder as folders
from gotorb.dataset import versions
from gotorb.dataset.check import verify_dataset
from gotorb.dataset.folder import hold_folder, unfinished
from gotorb.dataset.store import open_dataset, run_folder
from gotorb.dataset.versions import make_version, removals, write_version
from gotorb.errors import ConfigError, DataError
from gotorb.eyeball.decisions import Event, Journal, write_labelled
from gotorb.training.model_files import make_run_dir
from tests.unit.apps.small import make_small

ROOT = Path(__file__).parents[3]


class Killed(BaseException):
    """As if the process had been killed here."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_small(tmp_path / "data")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".log" and path.name != ".lock"}


def cut_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, nth: int) -> None:
    """Let the nth call of a function end the process."""
    real, calls = getattr(module, name), []

    def call(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == nth:
            raise Killed
        return real(*args, **options)

    monkeypatch.setattr(module, name, call)


POINTS = [("write_csv", 1), ("write_json", 1), ("make_card", 1), ("write_dataset", 1)]


@pytest.mark.parametrize(("name", "nth"), POINTS)
def test_half_written_versions_are_not_opened_and_are_finished(
    name: str, nth: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = removals(np.array([1, 2]), "test")
    whole = content(write_version(data, tmp_path / "whole", changes))
    with monkeypatch.context() as patch:
        cut_at(patch, versions, name, nth)
        with pytest.raises(Killed):
            write_version(data, tmp_path / "new", changes)
    with pytest.raises(DataError, match="unfinished"):
        open_dataset(tmp_path / "new")
    assert content(write_version(data, tmp_path / "new", changes)) == whole


def test_sums_are_written_before_the_marker_goes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_at(monkeypatch, folders, "write_sums", 1)
    with pytest.raises(Killed), unfinished(data):
        pass
    with pytest.raises(DataError, match="unfinished"):
        open_dataset(data)


def test_finished_data_sets_of_another_kind_are_not_replaced(data: Path, tmp_path: Path) -> None:
    other = make_small(tmp_path / "other", n=30)
    before = content(other)
    for changes in (removals(np.array([1]), "test"), removals(np.array([], int), "none")):
        with pytest.raises(DataError, match="another name"):
            write_version(data, other, changes)
    with pytest.raises(DataError, match="another name"):
        clean_data.clean(data, provider=None, cosmic_rays=False, new_sources=False, out_dir=tmp_path, name="other")
    assert content(other) == before
    write_version(data, tmp_path / "new", removals(np.array([1]), "test"))
    again = content(tmp_path / "new")
    write_version(data, tmp_path / "new", removals(np.array([1]), "test"))
    assert content(tmp_path / "new") == again
    with pytest.raises(DataError, match="another name"):
        write_version(data, tmp_path / "new", removals(np.array([2]), "test"))


def test_finished_folders_keep_their_recipe(data: Path, tmp_path: Path) -> None:
    params, other = DatasetParams(), DatasetParams(test_fraction=0.3)
    made = tmp_path / "made"
    make_version(data, made, params, seed=1)
    before = layout.labels_path(made).read_bytes()
    for changed, seed, named in ((other, 1, "options"), (params, 2, "options")):
        with pytest.raises(DataError, match=rf"made in another way \({named}\)"):
            make_version(data, made, changed, seed=seed)
    assert layout.labels_path(made).read_bytes() == before
    make_version(data, made, params, seed=1)  # the same again
    assert layout.labels_path(made).read_bytes() == before
    (made / layout.RECIPE_FILE).unlink()
    with pytest.raises(DataError, match="unknown recipe"):
        make_version(data, made, params, seed=1)
    (made / layout.UNFINISHED_FILE).touch()  # interrupted: it was never used
    make_version(data, made, other, seed=1)
    assert layout.labels_path(made).read_bytes() != before


def test_exports_do_not_replace_other_data_sets(data: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite")
    journal.append([Event(uuid="1", labeller="=cmd", id="row-0000", kind="real")])
    other = make_small(tmp_path / "other", n=30)
    before = content(other)
    with pytest.raises(DataError, match="another name"):
        write_labelled(data, other, journal.current(), journal.marks())
    assert content(other) == before
    made = write_labelled(data, tmp_path / "labelled", journal.current(), journal.marks())
    assert "'=cmd" in (made / layout.EYEBALL_CSV).read_text()


@pytest.mark.parametrize("name", [layout.CARD_JSON, layout.CHANGES_CSV, layout.LABELS_CSV, layout.STAMPS_H5])
@pytest.mark.parametrize("how", ["flip", "remove"])
def test_all_files_of_a_folder_are_verified(how: str, name: str, data: Path, tmp_path: Path) -> None:
    new = write_version(data, tmp_path / "new", removals(np.array([1]), "test"))
    path = new / name
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2] + b"xx")
    assert any(name in found for found in verify_dataset(new))


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", ".", "..", "a\0b", ".hidden", "a\\b"])
@pytest.mark.parametrize("make", [
    lambda folder, name: run_folder(folder, name).__enter__(), lambda folder, name: make_run_dir(folder, name),
])  # fmt: skip
def test_names_that_lead_out_of_a_folder_are_refused(
    make: Callable[[Path, str], Any], name: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        make(tmp_path / "inside", name)
    assert sorted(path.name for path in tmp_path.rglob("*")) in ([], ["inside"])


HOLD = """
import os, sys
from pathlib import Path
from gotorb.dataset.folder import hold_folder
with hold_folder(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path, warm_python: Path) -> None:
    command = [str(warm_python), "-c", HOLD, str(tmp_path / "folder")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as first:
        assert first.stdin is not None and first.stdout is not None
        pid = int(first.stdout.readline())
        with pytest.raises(DataError, match=f"process {pid} "), hold_folder(tmp_path / "folder"):
            pass
        first.stdin.close()
        assert first.wait(30) == 0
    with hold_folder(tmp_path / "folder"):
        pass
