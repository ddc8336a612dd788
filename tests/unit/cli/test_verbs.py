"""The README's main verbs as commands: each calls its front door, prints what was made, and tells the next step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, create_autospec

import pandas as pd
import pytest

import gotorb as package
from gotorb.core import layout
from gotorb.dataset.store import read_table, write_dataset
from tests.model.blobs import make_blobs
from tests.model.conftest import STAYS_GRAPH, run_eagerly
from tests.unit.cli.conftest import Said
from tests.unit.dataset.conftest import make_stamps, make_table

Call = Callable[..., Said]


@pytest.fixture
def labelled(project: Path) -> Path:
    """A labelled data set whose rows have candidate ids."""
    rows = make_table(120, 40).assign(candidate_id=[str(1000 + i) for i in range(120)], n_seen=3, ncoadd=3)
    rows.loc[0, "n_seen"] = 1
    return write_dataset(project / "labelled", rows, [make_stamps(len(rows))])


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Any], MagicMock]:
    """Replace a front door by a record of its calls that refuses what the true one would."""

    def replace(module: str, name: str, result: Any) -> MagicMock:
        double = create_autospec(getattr(getattr(package, module), name), return_value=result)
        monkeypatch.setattr(getattr(package, module), name, double)
        return double

    return replace


@pytest.mark.parametrize(
    ("module", "name", "words", "given"),
    [
        ("label_data", "make", ("label", "--n-images", "3", "--no-resume"), {"n_images": 3, "resume": False}),
        ("label_data", "add_synthetic_transients", ("synthetic", "old", "--negative-fraction", "0.3"),
         {"data_dir": Path("old"), "negative_fraction": 0.3}),
        ("label_data", "add_marshall_cands", ("marshall", "l.csv", "old"),
         {"csv_path": Path("l.csv"), "data_dir": Path("old")}),
        ("clean_data", "relabel", ("relabel", "l.csv", "old", "--name", "n"),
         {"csv_path": Path("l.csv"), "data_dir": Path("old"), "name": "n"}),
        ("clean_data", "clean", ("clean", "old", "--new-sources", "--n-keep", "0"),
         {"data_dir": Path("old"), "new_sources": True, "n_keep": 0}),
    ],
)  # fmt: skip
def test_commands_that_make_data_sets(
    gotorb: Call, door: Any, module: str, name: str, words: tuple[str, ...], given: dict[str, Any]
) -> None:
    front = door(module, name, Path("made"))
    said = gotorb(*words)
    assert (said.code, said.out) == (0, "made\n")
    assert said.err.splitlines()[-1].startswith("next: gotorb data card made")
    assert front.call_args.kwargs == given and front.call_args.args == ()


def test_stage_of_the_project_from_its_params(gotorb: Call, door: Any, project: Path) -> None:
    (project / layout.PARAMS_YAML).write_text("seed: 2\nlabel: {provider: pympc}\nclean: {variables: v.csv}\n")
    front = door("label_data", "add_synthetic_transients", Path("made"))
    assert gotorb("synthetic", "old", "--params", layout.PARAMS_YAML, "--min-mag", "17").code == 0
    given = front.call_args.kwargs
    assert (given["provider"], given["variables"], given["seed"], given["min_mag"]) == ("pympc", "v.csv", 2, 17)


def test_clean_and_relabel_write_new_versions(gotorb: Call, labelled: Path, project: Path) -> None:
    assert gotorb("clean", str(labelled), "--cosmic-rays", "--name", "cleaned").out == f"{project / 'cleaned'}\n"
    assert len(read_table(project / "cleaned")) == 119
    pd.DataFrame({"photometry_id": [1003], "label": [0]}).to_csv("people.csv", index=False)
    assert gotorb("relabel", "people.csv", str(labelled), "--name", "relabelled").code == 0
    assert read_table(project / "relabelled")["label"].sum() == 59


def test_marshall_without_a_database_is_one_line(gotorb: Call, labelled: Path) -> None:
    pd.DataFrame({"photometry_id": [1], "label": [0]}).to_csv("people.csv", index=False)
    said = gotorb("marshall", "people.csv", str(labelled))
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1].startswith("gotorb: GOTOPHOTO_DB_NAME is not set in .env")


def test_dataset_is_divided(gotorb: Call, labelled: Path, project: Path) -> None:
    said = gotorb("dataset", str(labelled), "divided", "--test-fraction", "0.3", "--seed", "1")
    assert (said.code, said.out, said.err) == (0, "divided: 120 rows\n", "next: gotorb train divided\n")
    counts = read_table(project / "divided")["split"].value_counts()
    assert counts["test"] == pytest.approx(36, abs=4) and set(counts.index) == {"train", "validation", "test"}


def test_import_of_a_folder_that_is_none_is_one_line(gotorb: Call) -> None:
    for path in ("nowhere", "nowhere.hkl"):
        said = gotorb("import", path)
        assert said.code == 1 and "nowhere" in said.err.splitlines()[-1]


@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_train_evaluate_and_benchmark(gotorb: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gotorb.evaluation.report._save_figure", lambda figure, path, *_: path.touch())
    data, other = (str(make_blobs(project / name, n=80, size=21, seed=seed)) for name, seed in (("a", 1), ("b", 2)))
    words = ("--model", "vgg6", "--epochs", "1", "--layers", "difference", "--out-dir", "models", "--name", "quick")
    with run_eagerly():
        said = gotorb("train", data, *words, "--model-kwargs", "{dense: 8}")
    assert (said.code, said.out, said.err.splitlines()[-1]) == (
        0, "models/quick\n", "next: gotorb evaluate models/quick",
    )  # fmt: skip
    quick = ("--n-samples", "2", "--n-bootstrap", "10")
    for command, folder in (
        (("evaluate", "models/quick", "--data-dir", data), Path("models/quick")),
        (("benchmark", "models/quick", other), Path("models/quick/benchmark_b")),
    ):
        said = gotorb(*command, *quick)
        numbers, out_dir = said.out.splitlines()
        assert said.code == 0 and numbers.startswith("AUC ") and "FNR" in numbers
        assert Path(out_dir).resolve() == folder.resolve()
        assert (folder / layout.METRICS_JSON).exists() and (folder / layout.PREDICTIONS_CSV).exists()


def test_explore_names_the_page(gotorb: Call, door: Any) -> None:
    front = door("eyeball", "explore", Path("map.html"))
    assert gotorb("explore", "d", "--model", "m", "--out-path", "map.html", "--most-stamps", "9").out == "map.html\n"
    assert front.call_args.kwargs == {
        "data_dir": Path("d"), "model": "m", "out_path": Path("map.html"), "most_stamps": 9,
    }  # fmt: skip
    assert gotorb("explore", "d", "--model", "m").code == 2


def test_training_options_reach_the_front_door(gotorb: Call, door: Any) -> None:
    front = door("classifier", "train", (object(), {"run_dir": "there"}))
    words = (
        "--freeze",
        "conv",
        "--threads",
        "null",
        "--no-augment",
        "--learning-rate",
        "3e-5",
        "--layers",
        "ptp",
        "min",
    )
    assert gotorb("train", "d", *words).out == "there\n"
    assert front.call_args.kwargs == {
        "data_dir": Path("d"), "freeze": "conv", "threads": None, "augment": False, "learning_rate": 3e-5,
        "layers": ["ptp", "min"],
    }  # fmt: skip
    assert gotorb("train", "d", "--model", "resnet").code == 2
