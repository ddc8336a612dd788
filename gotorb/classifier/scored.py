"""Detections with their scores, posterior summary and call."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.classifier.scores import Scorer, fit_stamps, scale_of, score_batch
from gotorb.classifier.sources import Detections, read_detections
from gotorb.core import layout
from gotorb.core.params import BATCH_SIZE, ArchiveParams
from gotorb.evaluation.posterior import Scale, summarise_samples

log = logging.getLogger(__name__)
MAX_TRAINING = 4000
"""Rows of a training set that are scored for comparison."""
CENTRAL = (5, 95)
"""Percentiles of the samples between which the score is taken to lie."""
SUMMARIES = ("score", "mean", "std", "p_real", "confidence", "best")


@dataclass(frozen=True)
class Scored:
    """Detections, and their scores.

    Attributes
    ----------
    found : Detections
        The detections.
    table : DataFrame
        The detections' columns and `SUMMARIES` (``best`` is the posterior mean, else the plain score; NaN where
        there is no posterior), ``called_real`` and ``uncertain`` (the threshold lies within the central samples).
    samples : ndarray or None
        (n, n_samples).
    fitted : ndarray
        (n, size, size, n_layers) as the model took them.
    """

    found: Detections
    table: pd.DataFrame
    samples: np.ndarray | None
    fitted: np.ndarray


def score_block(
    scorer: Scorer, found: Detections, source: Path, *, n_samples: int, seed: int, threshold: float
) -> Scored:
    """Score a block of detections, with the samples that `gotorb score` draws for it.

    Parameters
    ----------
    scorer : Scorer
    found : Detections
    source : Path
        Source of the detections, for messages.
    n_samples : int
        Posterior samples per detection; 0 for none.
    seed : int
    threshold : float
        Score at or above which a detection is called real.

    Returns
    -------
    Scored

    Raises
    ------
    DataError
        If the stamps do not fit the model.
    """
    table = found.table
    fitted = fit_stamps(scorer, found.stamps, found.layers, source)
    parts = list(_score(scorer, fitted, n_samples, seed + found.first))
    plain = np.concatenate([part for part, _ in parts]) if parts else np.empty(0)
    drawn = [part for _, part in parts if part is not None]
    samples = np.concatenate(drawn) if drawn else None
    return Scored(found, _summarise(table, plain.astype(float), samples, scale_of(scorer, threshold)), samples, fitted)


def score_training(scorer: Scorer, data_dir: Path, *, n_samples: int, seed: int, threshold: float) -> pd.DataFrame:
    """Score the training set's rows that are the survey's own detections, `MAX_TRAINING` or a few more of them.

    Parameters
    ----------
    scorer : Scorer
    data_dir : Path
        The data set.
    n_samples, seed, threshold
        As for `score_block`.

    Returns
    -------
    DataFrame
        As `Scored.table`.
    """
    parts, taken = [], 0
    for found in read_detections(data_dir, ArchiveParams(), scorer.size):
        part = score_block(scorer, found, data_dir, n_samples=n_samples, seed=seed, threshold=threshold).table
        parts.append(part[~part["metalabel"].isin((*layout.SYNTHETIC, layout.INJECTED))])
        taken += len(parts[-1])
        if taken >= MAX_TRAINING:
            break
    log.info("%d training rows of %s compared", taken, data_dir)
    return pd.concat(parts, ignore_index=True)


def _score(
    scorer: Scorer, stamps: np.ndarray, n_samples: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    for start in range(0, len(stamps), BATCH_SIZE):
        found = score_batch(scorer, stamps[start : start + BATCH_SIZE], n_samples, seed + start)
        yield found.plain, found.samples


def _summarise(table: pd.DataFrame, plain: np.ndarray, samples: np.ndarray | None, scale: Scale) -> pd.DataFrame:
    threshold = scale.threshold
    if samples is None:
        empty = dict.fromkeys(("mean", "std", "p_real", "confidence"), np.nan)
        return table.assign(score=plain, **empty, best=plain, called_real=plain >= threshold, uncertain=False)
    summary = summarise_samples(samples, scale)
    low, high = np.percentile(samples, CENTRAL, axis=1)
    return table.assign(
        score=plain, mean=summary.mean, std=summary.std, p_real=summary.p_real, confidence=summary.confidence,
        best=summary.mean, called_real=summary.mean >= threshold, uncertain=(low < threshold) & (threshold < high),
    )  # fmt: skip
