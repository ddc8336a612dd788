"""A stage depends on every file of code that it imports: dvc.yaml misses none, or results would be stale unnoticed."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gotorb.core import layout
from pipelines import stage_deps
from pipelines.repro import SOURCES_YAML, source_stages

ROOT = Path(__file__).parents[2]


def source_trees() -> dict[str, dict[str, Any]]:
    known = yaml.safe_load(SOURCES_YAML.read_text())
    places = {name: Path(change.get("folder", f"{layout.SOURCES_DIR}/x")) for name, change in known.items()}
    return {name: source_stages(change, Path("/data"), places[name]) for name, change in known.items()}


def test_dvc_yaml_is_what_the_imports_say() -> None:
    assert stage_deps.stale_stages() == {}, "run python -m pipelines.stage_deps --write"


def test_writing_restores_a_stale_list_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "dvc.yaml").read_text()
    stale = re.sub(r"(?s)(  label:.*?)gotorb/label_data.py,\s+", r"\1", text, count=1)
    stale = stale.replace("[pipelines/survey.py", "[pipelines/gone.py", 1)
    (tmp_path / "dvc.yaml").write_text(stale)
    monkeypatch.setattr(stage_deps, "DVC_YAML", tmp_path / "dvc.yaml")
    assert set(stage_deps.stale_stages()) == {"survey", "label"}
    stage_deps.write_deps()
    assert (tmp_path / "dvc.yaml").read_text() == text


@pytest.mark.parametrize("source", ["gotophoto", "own", "archive", "packets", "large"])
def test_stages_of_a_source_name_files_of_the_project(source: str) -> None:
    """Not folders: outside of its own folder DVC reads no .dvcignore, and would hash __pycache__."""
    for name, stage in source_trees()[source]["stages"].items():
        body = stage.get("do", stage)
        code = [Path(dep.removeprefix("../../")) for dep in body["deps"] if dep.startswith("../../")]
        script = stage_deps.stage_script(body["cmd"])
        assert script.relative_to(ROOT) == code[0], name
        assert [path for path in code if not (ROOT / path).is_file()] == [], name


def test_an_import_inside_a_function_counts() -> None:
    """The label stage reads SkyBoT's code only when params ask for it."""
    label = stage_deps.code_deps(ROOT / "pipelines" / "label.py", fold=False)
    assert any("skybot" in path for path in label)


def test_an_import_for_type_checkers_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, {"pipelines/a.py": "if TYPE_CHECKING:\n    import gotorb.x.y\n", "gotorb/x/y.py": "A = 1"})
    monkeypatch.setattr(stage_deps, "ROOT", tmp_path)
    assert stage_deps.code_deps(tmp_path / "pipelines/a.py") == ["pipelines/a.py"]


def test_a_folder_stands_for_all_its_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = {
        "pipelines/a.py": "from gotorb.x import y, z\nfrom gotorb.w import v\n",
        "gotorb/x/__init__.py": '"""No code."""\n', "gotorb/x/y.py": "A = 1\n", "gotorb/x/z.py": "A = 1\n",
        "gotorb/w/v.py": "import gotorb.errors\n", "gotorb/w/unused.py": "A = 1\n", "gotorb/errors.py": "A = 1\n",
    }  # fmt: skip
    write_tree(tmp_path, code)
    monkeypatch.setattr(stage_deps, "ROOT", tmp_path)
    assert stage_deps.code_deps(tmp_path / "pipelines/a.py") == ["pipelines/a.py", "gotorb/w/v.py", "gotorb/x"]


def write_tree(root: Path, code: dict[str, str]) -> None:
    for path, text in code.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
