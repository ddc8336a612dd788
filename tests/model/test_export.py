"""ONNX files give the scores of the model."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gotorb import classifier, models
from gotorb.errors import ConfigError
from gotorb.training.export import export_onnx
from tests.model.conftest import Trained


def test_onnxruntime_gives_the_scores_of_the_model(trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    stamps = np.random.default_rng(1).normal(size=(70, 55, 55, 4)).astype(np.float32)
    stamps[3] = 0
    session = onnxruntime.InferenceSession(export_onnx(trained.model, tmp_path / "model.onnx"))
    scores = session.run(None, {"stamps": stamps})[0][:, 0]
    np.testing.assert_allclose(scores, classifier.predict(trained.model, stamps), atol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("tf2onnx") is not None, reason="tf2onnx is installed")
def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.onnx needs tf2onnx.*pip install tf2onnx onnxruntime"):
        export_onnx(models.vgg6((20, 20, 1)), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
