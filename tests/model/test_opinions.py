"""What a network says of all rows, for the pages: the same as the front door says, asked once."""

import numpy as np
import pytest

from gotorb import classifier, eyeball
from gotorb.dataset.store import open_dataset
from gotorb.errors import ModelError
from tests.model.conftest import Trained


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


def test_a_model_that_cannot_be_used_is_one_line(trained: Trained, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ModelError) as told:
        eyeball.open_rows(trained.data_dir, model=str(tmp_path / "nothing"))
    assert "\n" not in str(told.value) and "nothing" in str(told.value)
