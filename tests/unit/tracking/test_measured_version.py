"""A model on measured features in the registry: loaded, served, scored and promoted like a network."""

from pathlib import Path

import mlflow
import numpy as np
import pytest

from gotorb import classifier, models
from gotorb.core import layout
from gotorb.features import FeatureSet
from gotorb.tracking.registry import load_registered, register
from gotorb.tracking.runs import md5, track_stage
from gotorb.training.measured import Measured, Sigmoid, write_measured
from gotorb.training.trees import fit_trees
from tests.unit.tracking.tiny import LAYERS, make_params

SIZE, N = 15, 20


@pytest.fixture
def stamps() -> np.ndarray:
    return np.random.default_rng(2).normal(0, 300, (N, SIZE, SIZE, len(LAYERS))).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path, stamps: np.ndarray) -> Path:
    features = FeatureSet(SIZE, LAYERS)
    rows = features.measure(stamps)
    trees = fit_trees(rows, np.arange(N) % 2.0, np.ones(N), n_trees=40, seed=0, threads=1)
    spread = np.maximum(rows.std(axis=0), 1e-3)
    model = Measured(
        features=features, trees=trees, calibration=Sigmoid(0.8, 0.1), mean=rows.mean(axis=0), spread=spread
    )
    return write_measured(tmp_path / layout.MODEL_H5, model)


def test_it_is_registered_loaded_and_served(project: Path, path: Path, stamps: np.ndarray) -> None:
    with track_stage("train", make_params()) as run:
        run.log_model(path, tags={"network": "measured"})
    registered = register("gotorb", run.run_id, md5(path), {"layers": ",".join(LAYERS), "threshold": "0.4"})
    model, _ = load_registered(registered.uri)
    assert isinstance(model, Measured)
    expected = classifier.predict(path, stamps)
    np.testing.assert_array_equal(classifier.predict(model, stamps), expected)
    origin = models.find_model(registered.uri)
    assert origin.layers == LAYERS and origin.threshold == 0.4
    rows = mlflow.pyfunc.load_model(registered.uri).predict(stamps).astype({"mean": float, "score": float})
    np.testing.assert_allclose(rows["score"], expected, atol=1e-6)
    samples = classifier.dropout_pred(path, stamps, nsamples=20, seed=0)
    np.testing.assert_allclose(rows["mean"], samples.mean(axis=1), atol=1e-6)
    assert rows["confidence"].between(0, 1).all()
    assert set(mlflow.models.get_model_info(registered.uri).flavors) == {"python_function"}
