"""The report of a pipeline: the verdict follows the numbers, the page holds them, and text of the data stays text."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from gotorb.core import layout
from gotorb.core.params import DatasetParams
from gotorb.dataset.store import write_dataset
from gotorb.dataset.versions import make_version
from gotorb.errors import DataError
from gotorb.evaluation.metrics import measure_scores
from gotorb.visualise.report_page import compare_models, compare_pairs, describe_verdict, open_results, write_report

N = 300
EVIL = "<img src=x onerror=alert(1)>"


def make_rows(noise: float, n: int = N) -> pd.DataFrame:
    """Scored test rows; the less noise, the better the model."""
    rng = np.random.default_rng(int(1000 * noise))
    labels = np.arange(n) % 2
    scores = np.clip(labels + noise * rng.normal(size=n), 0, 1)
    return pd.DataFrame({
        "id": [f"row{k}" for k in range(n)], "label": labels, "split": "test", "mag": 18.0 + labels, "score": scores,
        "metalabel": np.where(labels == 1, "mp", EVIL), "mean": scores, "std": 0.1, "p_real": scores,
        "confidence": np.abs(scores - 0.5), "bald": 0.0, "snr": 8.0,
    })  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pipeline with a good and a bad model."""
    return make_project(tmp_path_factory.mktemp("report"))


def make_project(here: Path, *, n: int = N, size: int = 9) -> Path:
    """Reports, evaluations and data of a pipeline with two models, without truth or injections."""
    noises = {"vgg6": 0.8, "bayesian_vgg6": 0.2}
    (here / "params.yaml").write_text(yaml.safe_dump({"seed": 1, "train": {"models": list(noises)}}))
    (here / "reports").mkdir()
    for name, noise in noises.items():
        rows = make_rows(noise, n)
        metrics = measure_scores(rows, 0.5, n_bootstrap=20, rng=np.random.default_rng(0))
        (here / "reports" / f"{name}.json").write_text(json.dumps(metrics))
        folder = here / "evaluations" / name
        folder.mkdir(parents=True)
        rows.to_csv(folder / "predictions.csv", index=False)
    table = make_rows(0.2, n)[["id", "label", "metalabel", "split", "mag"]].assign(
        image_id=[str(k // 2 % 30) for k in range(n)]
    )
    stamps = np.random.default_rng(0).normal(size=(n, size, size, 2)).astype(np.float32)
    write_dataset(here / "data" / "dataset", table, [stamps], layers=["science", "difference"])
    return here


def promote(project: Path, **decision: object) -> None:
    (project / "reports" / "promotion.json").write_text(json.dumps({"name": "gotorb", **decision}))


def test_verdict_names_champion_and_what_it_beats(project: Path) -> None:
    promote(project, model="bayesian_vgg6", champion=True)
    results = open_results(project)
    told = describe_verdict(results, results.read("promotion.json"))
    assert told.startswith("bayesian_vgg6 is the champion.") and "better than vgg6" in told


def test_verdict_of_a_worse_choice_says_so(project: Path) -> None:
    promote(project, model="vgg6", champion=False, reason="test AUC is below")
    results = open_results(project)
    told = describe_verdict(results, results.read("promotion.json"))
    assert "not champion: test AUC is below" in told and "worse than bayesian_vgg6" in told


def test_pairs_are_compared_on_the_same_rows(project: Path) -> None:
    (pair,) = compare_pairs(open_results(project))
    assert pair["better"] == "bayesian_vgg6" and pair["n"] == N
    assert pair["low"] <= pair["difference"] <= pair["high"] < 0


def test_unknown_numbers_are_dashes(project: Path) -> None:
    rows = {row["name"]: row for row in compare_models(open_results(project))}
    assert (
        rows["bayesian_vgg6"]["faint"][0]
        == rows["bayesian_vgg6"]["truth_auc"][0]
        == rows["bayesian_vgg6"]["speed"][0]
        == "–"
    )
    assert float(rows["bayesian_vgg6"]["test_auc"][0]) > float(rows["vgg6"]["test_auc"][0])


def test_page_holds_all_and_fetches_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    promote(project, model="bayesian_vgg6", champion=True)
    page = write_report(project)
    text = page.read_text(encoding="utf-8")
    assert page == project / "report.html" and page.stat().st_size < 8e6
    assert EVIL not in text and "&lt;img src=x" in text
    assert "<script" not in text and 'src="http' not in text and "default-src &#39;none&#39;" in text
    assert text.count("data:image/svg+xml") == 4 and "Worst wrong calls" in text and "Least certain" in text


def test_expected_and_matched_minor_planets_go_from_labels_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path, n=120)
    monkeypatch.chdir(project)
    promote(project, model="bayesian_vgg6", champion=True)
    assert "minor planets brighter" not in write_report(project).read_text(encoding="utf-8")
    labelled, data_dir = project / "data" / "labelled", project / "data" / "dataset"
    data_dir.rename(labelled)
    images = pd.DataFrame({
        "image_id": ["a", "b"], "n_expected": [7, 4], "n_matched": [6, 2],
        "offset_ra_arcsec": [0.1, 0.3], "offset_dec_arcsec": [-0.5, -0.1],
    })  # fmt: skip
    images.to_csv(labelled / layout.IMAGES_CSV, index=False)
    make_version(labelled, data_dir, DatasetParams(grouping="none"), seed=1)
    told = " ".join(write_report(project).read_text(encoding="utf-8").split())
    assert "Of 11 minor planets brighter than the limit on pixels with data, 8 were detected" in told
    assert "+0.20 arcsec in right ascension and -0.30 in declination" in told


def test_a_folder_without_evaluations_is_refused(tmp_path: Path) -> None:
    (tmp_path / layout.PARAMS_YAML).write_text("seed: 1\n")
    with pytest.raises(DataError, match="make repro"):
        open_results(tmp_path)
