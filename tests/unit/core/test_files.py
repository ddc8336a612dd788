"""A file is whole or as it was, wherever its writing is stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.core import files
from gotorb.errors import DataError


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("where", ["before", "within", "fsync", "replace"])
def test_stopped_anywhere_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where, shared):
    path = tmp_path / "data.csv"
    path.write_text("old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    if where == "fsync":
        monkeypatch.setattr(files, "fsync", fail)
    if where == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"), files.whole_file(path, shared=shared) as aside:
        if where == "before":
            fail()
        aside.write_text("half")
        if where == "within":
            fail()
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["data.csv"]


@pytest.mark.parametrize("shared", [False, True])
def test_whole_file_replaces_the_old_one_and_keeps_the_suffix(tmp_path, shared):
    path = tmp_path / "new" / "model.h5"
    for content in ("one", "two"):
        with files.whole_file(path, shared=shared) as aside:
            assert aside.suffix == ".h5" and aside.parent == path.parent
            aside.write_text(content)
        assert path.read_text() == content
    assert listing(path.parent) == ["model.h5"]


def test_two_writers_of_a_shared_file_do_not_meet(tmp_path):
    path = tmp_path / "shard.h5"
    with files.whole_file(path, shared=True) as first, files.whole_file(path, shared=True) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert listing(tmp_path) == ["shard.h5"]


def test_killed_writer_leaves_the_old_file_and_the_next_one_cleans_up(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("old")
    code = (
        "import os, signal; from gotorb.core.files import whole_file\n"
        f"with whole_file({str(path)!r}) as aside:\n"
        "    aside.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    files.write_text(path, "new")
    assert listing(tmp_path) == ["data.csv"]


def test_full_disk_is_a_data_error_that_names_the_file(tmp_path):
    for error in (OSError(28, "No space left on device"), RuntimeError("Can't\n  write data")):
        told = pytest.raises(DataError, match=r"cannot write .*data.csv \(.*\); free space")
        with told as caught, files.reported_writes(tmp_path / "data.csv"):
            raise error
        assert "\n" not in str(caught.value)


def test_equal_content_is_equal_bytes(tmp_path):
    one = files.write_json(tmp_path / "a.json", {"b": [1, 2.5], "a": "ä"})
    two = files.write_json(tmp_path / "b.json", {"a": "ä", "b": [1, 2.5]})
    assert one.read_bytes() == two.read_bytes()
    assert json.loads(one.read_text()) == {"a": "ä", "b": [1, 2.5]}
    assert files.write_csv(tmp_path / "t.csv", pd.DataFrame({"x": [1, 2]})).read_bytes() == b"x\n1\n2\n"


def test_number_that_is_not_json_is_refused_and_the_file_stays(tmp_path):
    path = files.write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}


def test_digests_are_those_of_sha256(tmp_path):
    one, two = files.write_text(tmp_path / "1", "one"), files.write_text(tmp_path / "2", "two")
    assert files.file_digest(one) == hashlib.sha256(b"one").hexdigest()
    assert files.tree_digest([one, two]) != files.tree_digest([two, one])
    states = files.file_states([one, tmp_path / "absent"])
    assert states == [(str(one), 3, one.stat().st_mtime_ns), (str(tmp_path / "absent"), -1, -1)]


def test_content_counts_and_time_does_not(tmp_path):
    one, absent = files.write_text(tmp_path / "1", "one"), tmp_path / "absent"
    before = files.content_states([one, absent])
    assert before == [(str(one), 3, hashlib.sha256(b"one").hexdigest()), (str(absent), -1, "")]
    os.utime(one, (1, 1))
    assert files.content_states([one, absent]) == before
    files.write_text(one, "two")
    assert files.content_states([one])[0][:2] == before[0][:2]
    assert files.content_states([one]) != before[:1]
    (tmp_path / "folder").mkdir()
    assert [Path(name).name for name, *_ in files.content_states([tmp_path])] == ["1"]


def test_large_files_are_read_in_blocks_or_whole(tmp_path):
    path, size = tmp_path / "large", files.WHOLE_BYTES + 12_345
    content = bytearray(np.random.default_rng(1).integers(0, 256, size, np.uint8).tobytes())
    path.write_bytes(content)
    cheap, whole = files.content_states([path]), files.content_states([path], whole=True)
    assert whole[0][2] == hashlib.sha256(content).hexdigest() != cheap[0][2]
    for place in (0, -1):  # the ends are always read
        changed = content.copy()
        changed[place] ^= 1
        path.write_bytes(changed)
        assert files.content_states([path]) != cheap
    content[files.BLOCK + 100] ^= 1  # between two blocks
    path.write_bytes(content)
    assert files.content_states([path]) == cheap
    assert files.content_states([path], whole=True) != whole
