"""Every command that reads images takes the adapter of your own survey, from its option or from .env."""

import os
from pathlib import Path

import pytest

from gotorb import cli, label_data
from gotorb.core.settings import read_settings
from gotorb.errors import ConfigError
from gotorb.simulate.archive import survey_environment

COMMANDS = [
    ["label", "--provider", "pympc"],
    ["score", "m.onnx", "here", "--out-path", "x.csv"],
    ["visualise", "here", "--model", "m.onnx", "--out-dir", "x"],
    ["night", "here", "--model", "m.onnx", "--out-dir", "x"],
    ["eyeball", "here"],
]


@pytest.fixture(autouse=True)
def undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the changes of an adapter after the test."""
    monkeypatch.setattr(label_data, "_ADAPTED", [])
    monkeypatch.setattr(label_data, "FIRST_PIXEL", 0)
    monkeypatch.setattr(label_data, "get_images", label_data.get_images)
    monkeypatch.setenv("GOTORB_ADAPTER", "")


def write_adapter(path: Path, first_pixel: int) -> Path:
    path.write_text(f"from gotorb import label_data\nlabel_data.FIRST_PIXEL = {first_pixel}\n")
    return path


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("way", ["option", "env", "both"])
def test_the_adapter_is_run_before_the_command(
    project: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], way: str
) -> None:
    write_adapter(project / "mine.py", 7)
    write_adapter(project / "other.py", 3)
    if way != "option":
        (project / ".env").write_text(f"GOTORB_ADAPTER={'other.py' if way == 'both' else 'mine.py'}\n")
        monkeypatch.delenv("GOTORB_ADAPTER", raising=False)
        (project / "deep").mkdir()
        monkeypatch.chdir(project / "deep")
    given = [] if way == "env" else ["--adapter", str(project / "mine.py")]
    assert cli.main([*words, *given]) == 1  # there are no images
    assert label_data.FIRST_PIXEL == 7
    assert Path(os.environ["GOTORB_ADAPTER"]).name == "mine.py"  # for worker processes


def test_an_absent_adapter_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", "m.onnx", "here", "--out-path", "x.csv", "--adapter", "none.py"]) == 1
    assert "none.py" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"none\.py"):
        label_data.use_adapter("none.py")


def test_functions_replaced_by_hand_win_over_env(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOTORB_ADAPTER", str(write_adapter(project / "mine.py", 7)))
    label_data.get_images = lambda n_images: None
    label_data.use_adapter()
    assert label_data.FIRST_PIXEL == 0


def test_the_embedded_survey_knows_no_adapter(tiny_survey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOTORB_ADAPTER", "/nowhere/mine.py")
    with survey_environment("embedded", tiny_survey):
        assert read_settings().gotorb_adapter == ""
        label_data.use_adapter()
