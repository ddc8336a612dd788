"""Two scores of the same rows: areas under the ROC curves, recovered fractions and wrong calls, pair by pair."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.core.params import SEED, DecideParams, EvaluateParams
from gotorb.errors import DataError
from gotorb.evaluation.intervals import area_under_roc, count_by_score
from gotorb.evaluation.metrics import FPRS, rounded
from gotorb.evaluation.thresholds import first_within, rates_of_counts

EVALUATE, DECIDE = EvaluateParams(), DecideParams()
MIN_IMAGES = 10
"""Fewer images than this are too few to be resampled."""
SUSPECT_PROBABILITY = 0.9
"""Probability from which a bogus label on a row that was not trained on is not believed."""

Counts = tuple[np.ndarray, np.ndarray]
"""Bogus and real rows at each distinct score, ascending."""


@dataclass(frozen=True, kw_only=True)
class AucComparison:
    """Areas under the ROC curves of two scores of the same rows, with 95 % intervals (NaN without resamples).

    Attributes
    ----------
    auc_a, auc_a_low, auc_a_high : float
        Of the first score.
    auc_b : float
        Of the second score.
    difference, difference_low, difference_high : float
        First minus second; the interval is paired, so free of what both share.
    """

    auc_a: float
    auc_a_low: float
    auc_a_high: float
    auc_b: float
    difference: float
    difference_low: float
    difference_high: float


def compare_auc(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    *,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    rng: np.random.Generator,
) -> AucComparison:
    """Compare the areas under the ROC curves of two scores of the same rows.

    Parameters
    ----------
    labels, scores_a, scores_b : ndarray
        As in `roc_comparison`.
    n_bootstrap : int
        Resamples; 0 for no intervals.
    rng : Generator
        Source of the resamples.

    Raises
    ------
    DataError
        If no real or no bogus row has both scores.

    Examples
    --------
    >>> labels, good, poor = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.1, 0.8, 0.2, 0.9])
    >>> found = compare_auc(labels, good, poor, n_bootstrap=0, rng=np.random.default_rng(1))
    >>> found.auc_a, found.auc_b, found.difference
    (1.0, 0.75, 0.25)
    """
    labels, pair = _usable(labels, scores_a, scores_b)
    auc_a, auc_b = _areas(labels, pair)
    areas = np.array([_areas_of(counts) for counts in _resampled_counts(labels, pair, n_bootstrap, rng)]).reshape(-1, 2)
    low, high = _interval(areas[:, 0])
    change_low, change_high = _interval(areas[:, 0] - areas[:, 1])
    return AucComparison(
        auc_a=auc_a, auc_a_low=low, auc_a_high=high, auc_b=auc_b,
        difference=auc_a - auc_b, difference_low=change_low, difference_high=change_high,
    )  # fmt: skip


def roc_comparison(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    fprs: Sequence[float] = FPRS,
    *,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    rng: np.random.Generator | None = None,
) -> pd.DataFrame:
    """Recovered fraction (TPR) of two scores at the same false-positive rates.

    Rows without a label or either score are left out. Resamples draw the same rows for both scores, real and bogus
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
    labels, pair = _usable(labels, scores_a, scores_b)
    rng = rng or np.random.default_rng(0)
    tpr = _recovered(labels, pair, fprs)
    resampled = np.array([_recovered_of(counts, fprs) for counts in _resampled_counts(labels, pair, n_bootstrap, rng)])
    low, high = np.percentile(resampled[:, 0] - resampled[:, 1], [2.5, 97.5], axis=0)
    return pd.DataFrame(
        {
            "fpr": list(fprs),
            "tpr_a": tpr[0],
            "tpr_b": tpr[1],
            "difference": tpr[0] - tpr[1],
            "difference_low": low,
            "difference_high": high,
            "n_real": int((labels == 1).sum()),
            "n_bogus": int((labels == 0).sum()),
        }
    )


def _usable(labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (m,) and both scores (2, m) of the rows that have all three."""
    usable = np.isin(labels, (0, 1)) & np.isfinite(scores_a) & np.isfinite(scores_b)
    n_real, n_bogus = int((labels[usable] == 1).sum()), int((labels[usable] == 0).sum())
    if n_real == 0 or n_bogus == 0:
        raise DataError(f"{n_real} real and {n_bogus} bogus rows have both scores; one of each is needed to compare")
    return labels[usable], np.stack([scores_a[usable], scores_b[usable]])


def _resampled_counts(
    labels: np.ndarray, pair: np.ndarray, n_bootstrap: int, rng: np.random.Generator
) -> Iterator[list[Counts]]:
    """Counts of each resample: bogus and real rows at each distinct score, for both scores of the same drawn rows."""
    classes = [np.flatnonzero(labels == label) for label in (1, 0)]
    places = [np.unique(scores, return_inverse=True)[1] for scores in pair]
    sizes = [int(place.max()) + 1 for place in places]
    for _ in range(n_bootstrap):
        real, bogus = (rng.choice(rows, len(rows)) for rows in classes)
        yield [
            (np.bincount(place[bogus], minlength=size), np.bincount(place[real], minlength=size))
            for place, size in zip(places, sizes, strict=True)
        ]


def _areas(labels: np.ndarray, pair: np.ndarray) -> tuple[float, float]:
    first, second = _areas_of([count_by_score(labels, scores)[1:] for scores in pair])
    return first, second


def _areas_of(counts: Sequence[Counts]) -> list[float]:
    return [float(area_under_roc(*one)) for one in counts]


def _recovered(labels: np.ndarray, pair: np.ndarray, fprs: Sequence[float]) -> np.ndarray:
    """Recovered fraction of each score, (2, n_fprs)."""
    return _recovered_of([count_by_score(labels, scores)[1:] for scores in pair], fprs)


def _recovered_of(counts: Sequence[Counts], fprs: Sequence[float]) -> np.ndarray:
    curves = [rates_of_counts(*one) for one in counts]
    return np.array([[1 - fnr[first_within(fpr, limit)] for limit in fprs] for fpr, fnr in curves])


def _interval(values: np.ndarray) -> tuple[float, float]:
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _group_masks(rows: pd.DataFrame, columns: tuple[str, ...] = ("metalabel", "ut")) -> dict[str, np.ndarray]:
    """Masks, (n,) of bool, of all rows, each class, and each value of some columns."""
    labels = rows["label"].to_numpy(int)
    masks = {"all": np.ones(len(rows), bool), "real": labels == 1, "bogus": labels == 0}
    for column in columns:
        if column in rows:
            values = rows[column].astype("string").fillna("").to_numpy(str)
            masks |= {f"{column} {value}": values == value for value in sorted(set(values)) if value}
    return masks


def mcnemar(only_one: int, only_other: int) -> float:
    """Two-sided p-value of McNemar's exact test.

    Parameters
    ----------
    only_one, only_other : int
        Rows on which one of the two is wrong alone.

    Returns
    -------
    float
        1 when there are no such rows.

    References
    ----------
    McNemar 1947, Psychometrika 12, 153.

    Examples
    --------
    >>> round(mcnemar(0, 5), 4)
    0.0625
    """
    from scipy.stats import binomtest

    both = only_one + only_other
    return float(binomtest(only_one, both).pvalue) if both else 1.0


def compare_calls(rows: pd.DataFrame, wrong: np.ndarray, wrong_other: np.ndarray) -> pd.DataFrame:
    """Compare wrong calls in each group.

    Parameters
    ----------
    rows : DataFrame
        (n,) label and, where known, metalabel and ut (telescope).
    wrong, wrong_other : ndarray of bool
        (n,) True where each model's call is wrong.

    Returns
    -------
    DataFrame
        group, n, wrong, wrong_other, only_one, only_other (wrong alone), p_value (McNemar, exact, of one group).
    """
    found = []
    for name, inside in _group_masks(rows).items():
        a, b = wrong[inside], wrong_other[inside]
        only_one, only_other = int((a & ~b).sum()), int((b & ~a).sum())
        found.append((name, int(inside.sum()), int(a.sum()), int(b.sum()), only_one, only_other))
    table = pd.DataFrame(found, columns=["group", "n", "wrong", "wrong_other", "only_one", "only_other"])
    pairs = zip(table["only_one"], table["only_other"], strict=True)
    return table.assign(p_value=[mcnemar(int(x), int(y)) for x, y in pairs])


SCORED_COLUMNS = ("id", "label", "metalabel", "mag", "snr", "ut", "host_offset_arcsec", "split", "score")


class Choice(NamedTuple):
    """A chosen model: its name, and for each model its Brier score and by how much it is worse than the best.

    Attributes
    ----------
    name : str
    table : DataFrame
        A row for each model, in the order declared: model, brier, worse, low, high (95 % of the paired difference from
        the smallest Brier score), tied (the difference may be none).
    n_suspects : int
        Rows left out because the models together contradict their label.
    """

    name: str
    table: pd.DataFrame
    n_suspects: int


def choose_model(
    labels: np.ndarray, probabilities: Mapping[str, np.ndarray], images: np.ndarray, *, n_bootstrap: int,
    rng: np.random.Generator,
) -> Choice:  # fmt: skip
    """Choose the model of the smallest Brier score; of those within its noise the last is taken.

    Brier scores use all of a score, not only its rank, so they tell models apart on fewer rows than the AUC does. Rows
    labelled bogus that the models' median calls clearly real are left out: half of such labels are wrong.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus, of rows that no model was trained on.
    probabilities : mapping of str to ndarray
        For each model, in the order declared, calibrated scores (n,).
    images : ndarray
        (n,) image of each row; images are resampled whole, or rows where there are fewer than `MIN_IMAGES`.
    n_bootstrap : int
    rng : numpy.random.Generator

    Returns
    -------
    Choice

    Examples
    --------
    >>> labels, images = np.array([0, 1] * 10), np.arange(20)
    >>> probabilities = {"vgg6": np.full(20, 0.5), "fusion": labels * 0.8 + 0.1}
    >>> choose_model(labels, probabilities, images, n_bootstrap=20, rng=np.random.default_rng(1))[0]
    'fusion'
    """
    median = np.median(list(probabilities.values()), axis=0)
    kept = ~((labels == 0) & (median >= SUSPECT_PROBABILITY))
    errors = {name: (np.asarray(p, float)[kept] - labels[kept]) ** 2 for name, p in probabilities.items()}
    best = min(errors, key=lambda name: errors[name].mean())
    names, place = np.unique(images[kept], return_inverse=True)
    if len(names) < MIN_IMAGES:
        names, place = np.arange(kept.sum()), np.arange(kept.sum())
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), n_bootstrap)
    n_drawn = draws @ np.bincount(place)
    rows = []
    for name, own in errors.items():
        worse = draws @ np.bincount(place, own - errors[best], len(names)) / n_drawn
        low, high = np.quantile(worse, (0.025, 0.975))
        rows.append((name, own.mean(), own.mean() - errors[best].mean(), low, high, bool(low <= 0)))
    table = pd.DataFrame(rows, columns=["model", "brier", "worse", "low", "high", "tied"])
    return Choice(str(table["model"][table["tied"]].iloc[-1]), table, int((~kept).sum()))


class ScoredRows(NamedTuple):
    """Labelled rows with the scores of a model.

    Attributes
    ----------
    name : str
        Of the model.
    rows : DataFrame
        label, score and, where known, metalabel and ut; indexed by row id.
    threshold : float
        Score at or above which the model calls a row real.
    """

    name: str
    rows: pd.DataFrame
    threshold: float


def compare_scored(
    one: ScoredRows, other: ScoredRows, *, n_bootstrap: int = DECIDE.n_bootstrap, seed: int = SEED
) -> dict[str, Any]:
    """Compare two models on the rows that both scored.

    Parameters
    ----------
    one, other : ScoredRows
        Their rows.
    n_bootstrap, seed : int
        Resamples of the paired intervals, and their seed.

    Returns
    -------
    dict
        n_rows, n_real; auc (see `AucComparison`); found, the recovered fractions at fixed FPR; calls, wrong calls of
        each group at the models' own thresholds with McNemar's test.

    Raises
    ------
    DataError
        If no row is in both, or one has another label there.
    """
    a, b = one.rows, other.rows
    shared = a.index.intersection(b.index, sort=True)
    if len(shared) == 0 or not (a.loc[shared, "label"] == b.loc[shared, "label"]).all():
        raise DataError(
            f"{one.name} and {other.name} share {len(shared)} test rows of equal label; compare models of one data "
            "set (--data)"
        )
    rows, labels = a.loc[shared], a.loc[shared, "label"].to_numpy(int)
    scores = [part.loc[shared, "score"].to_numpy(float) for part in (a, b)]
    rng = np.random.default_rng(seed)
    auc = compare_auc(labels, *scores, n_bootstrap=n_bootstrap, rng=rng)
    found = roc_comparison(labels, *scores, n_bootstrap=n_bootstrap, rng=rng).to_dict("records")
    thresholds = (one.threshold, other.threshold)
    wrong = [(part >= limit) != (labels == 1) for part, limit in zip(scores, thresholds, strict=True)]
    calls = compare_calls(rows.reset_index(), *wrong)
    return rounded(
        {"one": one.name, "other": other.name, "n_rows": len(rows), "n_real": int(labels.sum())}
        | {"threshold": one.threshold, "threshold_other": other.threshold}
        | {"auc": asdict(auc), "found": found, "calls": calls.to_dict("records")}
    )
