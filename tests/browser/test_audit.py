"""A night as one flow: scored, its audit labelled blind on the page, the miss rate in the summary."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from gotorb import models
from gotorb.classifier.sources import IMAGES, find_kind
from gotorb.core import layout
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError
from gotorb.eyeball.exchange import audit_set, record_audit
from gotorb.visualise import night
from gotorb.visualise.night import NightOptions, summarise_night
from tests.browser.conftest import LabelServer, wait_until
from tests.model.blobs import make_blobs
from tests.unit.apps.test_scoring import write_model_folder
from tests.unit.survey.synthetic import real_data

SIZE, N = 25, 40


@pytest.fixture
def model(tmp_path: Path) -> str:
    keras.utils.set_random_seed(5)
    network = models.bayesian_vgg6((SIZE, SIZE, 3), dropout=0.1, block1=2, block2=2, dense=4)
    return str(write_model_folder(tmp_path / "model", network))


def score_night(source: Path, model: str, tmp_path: Path) -> Path:
    """Folder of a night, half of whose detections are hidden, eight of these in the audit."""
    first = summarise_night(source, model, tmp_path / "first", NightOptions(n_samples=2, n_audit=0))
    threshold = float(pd.read_csv(first.parent / night.SCORES_CSV)["best"].median())
    options = NightOptions(n_samples=2, threshold=threshold, n_audit=8)
    return summarise_night(source, model, tmp_path / "nights" / "one", options).parent


def _survey_folder(tiny_survey: Path) -> Path:
    found = next(path for path in sorted(tiny_survey.rglob("*")) if find_kind(path)[0] == IMAGES)
    return found if found.is_dir() else found.parent


@pytest.fixture(params=["blobs", "survey", "packets"])
def scored_night(request: pytest.FixtureRequest, model: str, tmp_path: Path) -> Path:
    """A night of a data set, of the embedded survey's images, and of ZTF's alert packets."""
    if request.param == "survey":
        source = _survey_folder(request.getfixturevalue("tiny_survey"))
    else:
        source = real_data("ztf_packets") if request.param == "packets" else make_blobs(tmp_path / "s", n=N, size=SIZE)
    return score_night(source, model, tmp_path)


def test_a_night_is_audited_on_the_page(page: Any, serve: Callable[..., LabelServer], scored_night: Path) -> None:
    scores = pd.read_csv(scored_night / night.SCORES_CSV, dtype={"id": str}).set_index("id")
    hidden = set(pd.read_csv(scored_night / night.AUDIT_CSV, dtype=str)["id"])
    data = open_dataset(audit_set(scored_night))
    assert len(hidden) == 8 and len(data) == 16 and hidden < set(data.ids)
    assert scores.loc[[id_ for id_ in data.ids if id_ not in hidden], "called_real"].eq(1).all()
    assert (data.labels == layout.UNKNOWN).all() and not {"realbogus", "cnn_realbogus"} & set(data.table)
    server = serve(scored_night, "--audit", "--labeller", "ann")
    page.goto(server.url)
    seen = []
    for step in range(16):
        wait_until(page, f"document.getElementById('place').textContent.startsWith('{step + 1} of 16')")
        wait_until(page, "document.querySelector('#panel .id') !== null")
        page.wait_for_timeout(50)
        seen.append(page.inner_text("#panel .id"))
        page.keyboard.press("r" if step % 4 == 0 else "b")
    wait_until(page, "document.getElementById('status').textContent === 'saved'")
    server.kill()
    found = record_audit(scored_night)
    n_real = sum(id_ in hidden for id_ in seen[::4])
    assert (found["n_labelled"], found["rate"], found["n_shown_real"]) == (8, n_real / 8, 4 - n_real)
    audit = pd.read_csv(scored_night / night.AUDIT_CSV, dtype={"id": str}).set_index("id")["label"]
    assert {id_ for id_ in audit.index if audit[id_] == 1} == hidden & set(seen[::4])
    summary = json.loads((scored_night / night.SUMMARY_JSON).read_text())
    assert summary["missed"]["rate"] == n_real / 8
    page.goto((scored_night / night.PAGE).as_uri())
    assert f"{100 * n_real / 8:.2f} % of the hidden detections are real" in page.inner_text("main")
    assert page.locator("figure.card img").count() == min(summary["n_shown"], night.MOST_PICTURES)
    trends = night.read_trends(scored_night.parent)
    assert trends["missed"].tolist() == [n_real / 8]
    page.goto(night.write_trends(scored_night.parent).as_uri())
    assert f"{n_real / 8:.3f}" in page.inner_text("main table")


def test_an_audit_without_labels_or_without_a_night_is_refused(model: str, tmp_path: Path) -> None:
    scored_night = score_night(make_blobs(tmp_path / "s", n=N, size=SIZE), model, tmp_path)
    with pytest.raises(DataError, match="--audit"):
        record_audit(scored_night)
    with pytest.raises(DataError, match=str(tmp_path)):
        audit_set(tmp_path)
    assert np.isnan(pd.read_csv(scored_night / night.AUDIT_CSV)["label"]).all()
