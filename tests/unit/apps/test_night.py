"""A night's page and a detection's reasons: counts, drift, recall, audit, and who else says what."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from gotorb import models
from gotorb.core import layout
from gotorb.errors import DataError
from gotorb.evaluation.drift import cliffs_delta, measure_drift
from gotorb.eyeball import open_rows
from gotorb.visualise import night, why, write_reasons
from gotorb.visualise.night import NightOptions, describe_night, draw_audit, estimate_missed, summarise_night
from tests.model.blobs import make_blobs
from tests.unit.apps.test_scoring import write_model_folder
from tests.unit.cli.conftest import Said, gotorb, project  # noqa: F401

SIZE = 25


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    keras.utils.set_random_seed(5)
    network = models.bayesian_vgg6((SIZE, SIZE, 3), dropout=0.1, block1=2, block2=2, dense=4)
    return str(write_model_folder(tmp_path_factory.mktemp("models") / "bayesian", network))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blobs(tmp_path_factory.mktemp("data") / "data", n=40, size=SIZE)


def test_the_page_of_a_night_and_the_audit_of_what_is_hidden(
    model: str,
    data_dir: Path,
    tmp_path: Path,
    gotorb: Callable[..., Said],  # noqa: F811
) -> None:
    threshold = float(pd.read_csv(_scores(model, data_dir, tmp_path / "a"))["best"].median())
    options = NightOptions(n_samples=2, threshold=threshold, data=data_dir, n_audit=10)
    page = summarise_night(data_dir, model, tmp_path / "b", options)
    rows, audit = pd.read_csv(page.parent / night.SCORES_CSV), pd.read_csv(page.parent / night.AUDIT_CSV)
    summary = json.loads((page.parent / night.SUMMARY_JSON).read_text())
    assert summary["n"] == 40 == summary["n_shown"] + summary["n_hidden"]
    assert summary["n_shown"] == (rows["called_real"] == 1).sum() == pytest.approx(20, abs=1)
    hidden = set(rows.loc[rows["called_real"] == 0, "id"])
    assert len(audit) == 10 and set(audit["id"]) <= hidden and audit["label"].isna().all()
    assert [one["verdict"] for one in summary["drift"]] == ["same", "same"]  # mag, score: the same rows
    audit.assign(label=[1] + [0] * 9).to_csv(page.parent / night.AUDIT_CSV, index=False)
    said = gotorb("night", "--audit", str(page.parent / night.AUDIT_CSV))
    assert said.code == 0 and "10 labelled, 10.00 % of the hidden are real" in said.out
    assert gotorb("night", "--out", "x").code == 1


def test_a_finished_night_is_not_replaced_by_another(model: str, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "night"
    _scores(model, data_dir, out)
    before = (out / night.SCORES_CSV).read_bytes()
    with pytest.raises(DataError, match=r"made in another way \(options\)"):
        summarise_night(data_dir, model, out, NightOptions(n_samples=3))
    with pytest.raises(DataError, match=r"source\)"):
        summarise_night(make_blobs(tmp_path / "other", n=40, size=SIZE), model, out, NightOptions(n_samples=2))
    _scores(model, data_dir, out)
    assert (out / night.SCORES_CSV).read_bytes() == before
    (out / layout.UNFINISHED_FILE).touch()
    with pytest.raises(DataError, match="unfinished"):
        night.read_night(out)


def _scores(model: str, data_dir: Path, out: Path) -> Path:
    return summarise_night(data_dir, model, out, NightOptions(n_samples=2)).parent / night.SCORES_CSV


def make_rows(n: int) -> pd.DataFrame:
    best = np.linspace(0, 1, n)
    planet = np.where(np.arange(n) % 2, "", "7")
    return pd.DataFrame(
        {"id": [str(row) for row in range(n)], "best": best, "called_real": best >= 0.5, "uncertain": False, "ut": "1",
         "minor_planet": planet, "source": "x", "mag": 18.0}
    )  # fmt: skip


def test_recall_is_that_of_known_minor_planets() -> None:
    rows = make_rows(20)
    found = describe_night(rows, 0.5, None, 0)["planets"]
    known = rows[rows["minor_planet"] != ""]
    assert (found["n"], found["n_found"]) == (10, int(known["called_real"].sum()))
    assert {one["id"] for one in found["missed"]} == set(known.loc[~known["called_real"], "id"])


def test_an_audit_is_random_of_the_hidden_and_its_estimate_covers_the_truth() -> None:
    rng, inside = np.random.default_rng(0), 0
    rows = make_rows(2000)
    truth = rng.random(2000) < 0.05
    hidden = ~rows["called_real"].to_numpy()
    for _ in range(60):
        audit = draw_audit(rows, 200, rng)
        found = estimate_missed(audit.assign(label=truth[audit["id"].astype(int)].astype(int)), int(hidden.sum()))
        low, high = found["interval"]
        inside += low <= truth[hidden].mean() <= high
    assert inside >= 52  # 95 % of 60, less three sigma
    with pytest.raises(DataError, match="no row of the audit sample has a label"):
        estimate_missed(draw_audit(rows, 5, rng), 10)


def test_drift_needs_an_effect_not_only_many_rows() -> None:
    rng = np.random.default_rng(1)
    before = pd.DataFrame({"mag": rng.normal(18, 1, 50_000), "fwhm": rng.normal(3, 1, 50_000)})
    now = pd.DataFrame({"mag": rng.normal(18.05, 1, 50_000), "fwhm": rng.normal(4, 1, 50_000)})
    found = {one["name"]: one for one in measure_drift(now, before, ("mag", "fwhm", "snr"))}
    assert found["mag"]["p_value"] < 1e-3 and found["mag"]["verdict"] == "same"
    assert found["fwhm"]["verdict"] == "shifted" and list(found) == ["mag", "fwhm"]
    assert cliffs_delta(np.arange(5.0), np.arange(5.0)) == 0


def test_why_names_neighbours_slices_and_other_models(model: str, data_dir: Path, tmp_path: Path) -> None:
    reason, *more = why.explain("row-00003", data_dir, model, others=[model, str(tmp_path / "gone")], n_samples=3)
    assert not more and len(reason.neighbours) == why.N_SHOWN_NEIGHBOURS
    assert "row-00003" not in {one.id for one in reason.neighbours}
    slices = {one["name"]: one for one in reason.slices}
    assert slices["all of its label"]["n"] == 19
    mine, gone = reason.others
    assert mine["score"] == pytest.approx(float(reason.scored.table["best"].iloc[0])) and "gone" in gone["problem"]
    text = why.tell(reason)
    assert "row-00003" in text and "like it" in text and "wrong" in text
    page: Any = write_reasons([reason], tmp_path / "why.html").read_text()
    assert "row-00003" in page and page.count("<figure") == why.N_SHOWN_NEIGHBOURS
    with pytest.raises(DataError, match="no row 'absent'"):
        why.explain("absent", data_dir, model)


def test_slices_leave_the_row_itself_and_other_labels_out() -> None:
    row = pd.Series({"id": "a", "label": layout.REAL, "metalabel": "mp", "ut": "", "mag": 18.2, "fwhm": np.nan})
    rows = pd.DataFrame(
        {"id": list("abcd"), "label": [1, 1, 1, 0], "metalabel": "mp", "ut": "", "mag": [18.2, 18.9, 19.1, 18.3],
         "fwhm": np.nan, "wrong": [True, True, False, True], "flags": [["edge"], ["edge"], [], []]}
    )  # fmt: skip
    found = {one["name"]: (one["n"], one["n_wrong"]) for one in why.measure_slices(row, ["edge"], rows)}
    assert found == {"all of its label": (2, 1), "metalabel mp": (2, 1), "mag 18 to 19": (1, 1), "flag edge": (1, 1)}


def test_candidates_are_written_best_first_with_their_pictures(model: str, data_dir: Path, tmp_path: Path) -> None:
    threshold = float(pd.read_csv(_scores(model, data_dir, tmp_path / "a"))["best"].median())
    page = summarise_night(data_dir, model, tmp_path / "b", NightOptions(n_samples=2, threshold=threshold, n_audit=0))
    rows = pd.read_csv(page.parent / night.SCORES_CSV, dtype={"id": str}).sort_values("best", ascending=False)
    shown = rows[rows["called_real"] == 1]
    opened = open_rows(page.parent / night.CANDIDATES_DIR)
    assert opened.data.ids.tolist() == shown["id"].tolist() and opened.opinions.threshold == pytest.approx(threshold)
    np.testing.assert_allclose(opened.table["score"], shown["best"], atol=1e-6)
    text = page.read_text()
    assert text.count('<figure class="card') == len(shown)
    places = [text.index(f'difference of {id_}"') for id_ in shown["id"]]
    assert places == sorted(places)


def test_nights_together_are_a_page_of_trends(tmp_path: Path, gotorb: Callable[..., Said]) -> None:  # noqa: F811
    for number, missed in enumerate((0.02, None, 0.05)):
        rows = make_rows(20 + 10 * number)
        summary = describe_night(rows, 0.5, None, 5) | {"missed": None}
        if missed is not None:
            summary["missed"] = {"rate": missed, "interval": [0.01, 0.1]}
        folder = tmp_path / f"2026-11-0{number + 1}"
        folder.mkdir()
        (folder / night.SUMMARY_JSON).write_text(json.dumps(summary))
    table = night.read_trends(tmp_path)
    assert table["night"].tolist() == ["2026-11-01", "2026-11-02", "2026-11-03"] and table["n"].tolist() == [20, 30, 40]
    assert table["missed"].tolist()[::2] == [0.02, 0.05] and table["drift"].isna().all()
    said = gotorb("night", "--summary", str(tmp_path))
    text = Path(said.out.split()[-1]).read_text()
    assert said.code == 0 and text.count("<circle") == 3 + 3 + 0 + 3 + 2 and "real among the hidden" in text
    (tmp_path / "2026-11-01" / night.SUMMARY_JSON).write_text("{}")
    with pytest.raises(DataError, match="2026-11-01"):
        night.read_trends(tmp_path)
    with pytest.raises(DataError, match="empty"):
        night.read_trends(tmp_path / "empty")
