"""Figures of `gotorb figure`: what they hold, and what they refuse."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError
from gotorb.evaluation.figures import paper_style
from gotorb.evaluation.paper_figures import PAPER_FIGURES, Material, draw_paper_figure
from gotorb.evaluation.report import make_predictions
from tests.unit.apps.small import make_small

CELLS = [{"mag": mag, "offset": offset, "n": 20, "n_found": found, "fraction": found / 20, "low": 0.0, "high": 1.0}
         for offset in ("0-1", "no host") for mag, found in ((17.0, 20), (18.0, 15), (19.0, 2))]  # fmt: skip


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """40 scored rows with posteriors, of which four are wrong calls."""
    data = open_dataset(make_small(tmp_path_factory.mktemp("data") / "data"))
    rng = np.random.default_rng(4)
    mean = np.where(data.labels == 1, 0.8, 0.2)
    mean[:4] = 1 - mean[:4]
    samples = np.clip(mean[:, None] + rng.normal(0, 0.05, (40, 20)), 0, 1)
    return Material(
        rows=make_predictions(data.table, samples.mean(axis=1), samples), samples=samples, layers=data.layers,
        threshold=0.5, read_stamps=data.read_stamps, read_vectors=lambda: samples, name="bayes", cells=CELLS,
    )  # fmt: skip


@pytest.mark.parametrize("style", ["page", "column"])
@pytest.mark.parametrize("name", sorted(set(PAPER_FIGURES) - {"latent"}))
def test_each_figure_has_its_numbers_and_its_width(material: Material, name: str, style: str) -> None:
    with paper_style(style):
        drawn = draw_paper_figure(name, material)
    assert drawn.figure.get_figwidth() == pytest.approx({"page": 7.1, "column": 3.4}[style])
    assert isinstance(drawn.data, pd.DataFrame) and len(drawn.data)


def test_wrong_calls_are_shown_with_whole_captions(material: Material) -> None:
    drawn = draw_paper_figure("misclassified", material)
    assert sorted(drawn.data["id"]) == [f"row-{row:04d}" for row in range(4)]
    captions = [text.get_text() for text in drawn.figure.axes[0].get_yticklabels()]
    assert all("score" in text and "confidence" in text and "mag" in text for text in captions)


def test_what_is_absent_is_told(material: Material) -> None:
    right = material.rows.assign(score=material.rows["label"])
    for name, without in (
        ("injections", replace(material, cells=None)),
        ("posteriors", replace(material, samples=None)),
        ("misclassified", replace(material, rows=right)),
        ("roc", replace(material, rows=material.rows[material.rows["label"] == 1])),
    ):
        with pytest.raises(DataError, match=r".{20}"):
            draw_paper_figure(name, without)
