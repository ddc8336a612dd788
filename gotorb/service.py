"""What a registered model answers with, by ``mlflow.pyfunc.load_model`` and ``mlflow models serve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gotorb.tracking.flavor import DEFAULTS

if TYPE_CHECKING:
    import pandas as pd


class Service:
    """Scores of stamps in survey units and, of a model with dropout, what its posterior says.

    Parameters
    ----------
    model : keras.Model
        The network; normalises by itself.
    """

    def __init__(self, model: Any) -> None:
        from gotorb.training.inference import CompiledModel

        self.compiled = CompiledModel(model)

    def predict(self, stamps: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Scores of stamps (n, size, size, n_layers): a row each, with `tracking.flavor.COLUMNS`."""
        import pandas as pd

        from gotorb.evaluation.posterior import summarise_samples

        wanted = DEFAULTS | (params or {})
        batch = np.asarray(stamps["stamps"] if isinstance(stamps, dict) else stamps, np.float32)
        rows = pd.DataFrame({"score": self.compiled.score(batch).astype(float)})
        if self.compiled.dropouts and wanted["n_samples"] > 1:
            samples = self.compiled.sample(batch, int(wanted["n_samples"]), seed=int(wanted["seed"]))
            summary = summarise_samples(samples)
            return rows.assign(mean=summary.mean, std=summary.std, confidence=summary.confidence)
        return rows.assign(mean=np.nan, std=np.nan, confidence=np.nan)


def _load_pyfunc(path: str) -> Service:
    """Load the service (called by MLflow) from the folder of Keras' model; code inside the file is refused."""
    import keras

    from gotorb.training import normalisation  # noqa: F401  Keras finds its layer when the file names it

    return Service(keras.saving.load_model(Path(path) / "model.keras", compile=False, safe_mode=True))
