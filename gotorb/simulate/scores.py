"""The survey's two older scores: a forest on catalogue features and a small network on pixels, both mediocre.

They are trained on fields of their own, which no survey contains.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier

from gotorb.errors import SurveyError
from gotorb.simulate.detection import FEATURES, Detections

Array = NDArray[np.floating]
MIN_PER_CLASS = 5


@dataclass(frozen=True)
class Scorers:
    """Trained scores; both give values from 0 (bogus) to 1 (real)."""

    forest: RandomForestClassifier
    network: MLPClassifier

    def score(self, detections: Detections) -> pd.DataFrame:
        """Columns realbogus and cnn_realbogus of each detection, rounded to 1e-4."""
        if len(detections.table) == 0:
            return pd.DataFrame({"realbogus": [], "cnn_realbogus": []}, dtype=float)
        old = self.forest.predict_proba(_features(detections.table))[:, 1]
        new = self.network.predict_proba(_pixels(detections.patches))[:, 1]
        return pd.DataFrame({"realbogus": np.round(old, 4), "cnn_realbogus": np.round(new, 4)})


def train_scorers(samples: list[tuple[Detections, Array]], seed: int) -> Scorers:
    """Train both scores on (detections, 1 real or 0 bogus) of the training fields.

    Raises
    ------
    SurveyError
        If the training fields hold fewer than five detections of a class.
    """
    real = np.concatenate([answer for _, answer in samples]).astype(int) if samples else np.zeros(0, dtype=int)
    if min(real.sum(), (1 - real).sum()) < MIN_PER_CLASS:
        raise SurveyError(
            f"{real.sum()} real and {(1 - real).sum()} bogus detections in the training fields, {MIN_PER_CLASS} of "
            "each needed for the old scores; raise survey.n_training_fields or survey.size in params.yaml"
        )
    features = np.concatenate([_features(detections.table) for detections, _ in samples])
    pixels = np.concatenate([_pixels(detections.patches) for detections, _ in samples])
    forest = RandomForestClassifier(60, max_depth=6, min_samples_leaf=4, class_weight="balanced", random_state=seed)
    network = MLPClassifier((16,), alpha=0.1, solver="lbfgs", max_iter=60, tol=0.0, random_state=seed)
    return Scorers(forest.fit(features, real), _fit_quietly(network, pixels, real))


def _fit_quietly(network: MLPClassifier, pixels: Array, real: NDArray) -> MLPClassifier:
    """Fit with a fixed number of steps; that they do not converge is meant."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(pixels, real)


def _features(table: pd.DataFrame) -> Array:
    values = table[list(FEATURES)].to_numpy(dtype=float)
    return np.sign(values) * np.log1p(np.abs(values))


def _pixels(patches: Array) -> Array:
    flat = patches.reshape(len(patches), -1).astype(float)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
