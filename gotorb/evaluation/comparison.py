"""Two scores of the same rows against each other, for instance a new network and the old random forest."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gotorb.errors import DataError
from gotorb.evaluation.metrics import FPRS
from gotorb.evaluation.thresholds import error_rates


def roc_comparison(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    fprs: Sequence[float] = FPRS,
    *,
    n_bootstrap: int = 500,
    rng: np.random.Generator | None = None,
) -> pd.DataFrame:
    """Recovered fraction (TPR) of two scores at the same false-positive rates.

    Rows that lack a label or either score are left out. Resamples draw the same rows for both scores, real and bogus
    apart, so the interval of the difference is free of what both share.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus, others ignored.
    scores_a, scores_b : ndarray
        (n,) larger means more real; NaN where absent. Their scales need not agree.
    fprs : sequence of float
        False-positive rates.
    n_bootstrap : int
        Resamples.
    rng : Generator, optional
        Source of the resamples; a fixed one when left out.

    Returns
    -------
    DataFrame
        Columns fpr, tpr_a, tpr_b, difference (a - b), difference_low, difference_high (95 %), n_real, n_bogus.

    Raises
    ------
    DataError
        If no real or no bogus row has both scores.
    """
    usable = np.isin(labels, (0, 1)) & np.isfinite(scores_a) & np.isfinite(scores_b)
    labels, pair = labels[usable], np.stack([scores_a[usable], scores_b[usable]])
    real, bogus = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if len(real) == 0 or len(bogus) == 0:
        raise DataError(
            f"{len(real)} real and {len(bogus)} bogus rows have both scores; at least one of each is needed to compare"
        )
    rng = rng or np.random.default_rng(0)
    tpr = _recovered(labels, pair, fprs)
    draws = [np.concatenate([rng.choice(real, len(real)), rng.choice(bogus, len(bogus))]) for _ in range(n_bootstrap)]
    resampled = np.array([_recovered(labels[rows], pair[:, rows], fprs) for rows in draws])
    low, high = np.percentile(resampled[:, 0] - resampled[:, 1], [2.5, 97.5], axis=0)
    return pd.DataFrame(
        {
            "fpr": list(fprs),
            "tpr_a": tpr[0],
            "tpr_b": tpr[1],
            "difference": tpr[0] - tpr[1],
            "difference_low": low,
            "difference_high": high,
            "n_real": len(real),
            "n_bogus": len(bogus),
        }
    )


def _recovered(labels: np.ndarray, pair: np.ndarray, fprs: Sequence[float]) -> np.ndarray:
    """(2, n_fprs) recovered fraction of each score."""
    recovered = []
    for scores in pair:
        rates = error_rates(labels, scores)
        places = [int(np.argmax(rates.fpr <= fpr + 1e-12)) for fpr in fprs]
        recovered.append(1 - rates.fnr[places])
    return np.array(recovered)
