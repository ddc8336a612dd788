"""Scores of all rows for the pages: equal to those of the front door, and computed once."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from gotorb import classifier, eyeball
from gotorb.dataset.store import open_dataset
from gotorb.errors import ModelError
from tests.model.blobs import SIZE, make_blobs
from tests.model.conftest import Trained


@pytest.fixture
def forks(warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model runs in a fork of the waiting python; one test here leaves it to a true process."""
    monkeypatch.setattr(sys, "executable", str(warm_python))


@pytest.mark.usefixtures("forks")
def test_rows_get_the_models_own_scores_and_are_asked_once(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = eyeball.open_rows(trained.data_dir, model=str(trained.run_dir), seed=4)
    data = open_dataset(trained.data_dir)
    layers = trained.meta["layers"]
    stamps = (block for _, block in data.batches(layers=layers))
    samples = classifier.dropout_pred(trained.run_dir, stamps, seed=4)
    np.testing.assert_allclose(rows.opinions.samples, samples, atol=1e-3)
    np.testing.assert_allclose(rows.table["score"], samples.mean(axis=1), atol=1e-3)
    vectors = classifier.latentvec_pred(trained.run_dir, data)
    centred = vectors - vectors.mean(axis=0)
    far = np.linalg.norm(centred[0] - centred[1])
    assert np.linalg.norm(rows.opinions.vectors[0] - rows.opinions.vectors[1]) == pytest.approx(far, rel=0.2)
    assert set(rows.opinions.places) == {"pca", "tsne"}
    monkeypatch.setattr("subprocess.run", None)
    again = eyeball.open_rows(trained.data_dir, model=str(trained.run_dir), seed=4)
    assert again.table.equals(rows.table)


@pytest.mark.long("a true process imports TensorFlow")
def test_a_model_that_cannot_be_used_is_one_line(trained: Trained, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ModelError) as told:
        eyeball.open_rows(trained.data_dir, model=str(tmp_path / "nothing"))
    assert "\n" not in str(told.value) and "nothing" in str(told.value)


@pytest.mark.usefixtures("forks")
def test_of_larger_stamps_the_model_sees_the_middle_as_in_scores(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir = make_blobs(tmp_path / "data", n=20, size=SIZE + 8)
    with caplog.at_level(logging.INFO):
        rows = eyeball.open_rows(data_dir, model=str(trained.run_dir), seed=4)
    middle = open_dataset(data_dir).read_stamps(range(20), trained.meta["layers"])[:, 4:-4, 4:-4]
    samples = classifier.dropout_pred(trained.run_dir, middle, seed=4)
    np.testing.assert_allclose(rows.opinions.samples, samples, atol=1e-3)
    assert f"stamps of {SIZE + 8} pixels; model model sees the {SIZE} in the middle" in caplog.text


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize(("size", "says"), [(SIZE - 2, "too few"), (SIZE + 1, "half a pixel off")])
def test_stamps_that_do_not_fit_are_told_with_what_to_do(
    trained: Trained, tmp_path: Path, size: int, says: str
) -> None:
    data_dir = make_blobs(tmp_path / "data", n=4, size=size)
    with pytest.raises(ModelError, match=rf"takes stamps of {SIZE} pixels, .*data has {size}, .*{says}; use a model"):
        eyeball.open_rows(data_dir, model=str(trained.run_dir))
