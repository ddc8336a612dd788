"""Comparison of scores of the same rows: paired ROC areas, recovered fractions and wrong calls; choice of a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.core.params import SEED, DecideParams, EvaluateParams, RecoveryParams
from gotorb.errors import DataError
from gotorb.evaluation.intervals import (
    MIN_GROUPS,
    area_influence,
    auc_interval,
    count_by_score,
    find_groups,
    quantile_95,
    variance_of_sum,
)
from gotorb.evaluation.metrics import DETECTABLE_SNR, FPRS, is_faint, is_nuclear, rounded
from gotorb.evaluation.thresholds import first_within, rates_of_counts

EVALUATE, DECIDE, RECOVERY = EvaluateParams(), DecideParams(), RecoveryParams()
SUSPECT_PROBABILITY = 0.9
"""Probability of being real at which a held-out row labelled bogus becomes a suspect."""

FPR_FACTORS = np.array([0.5, 1.0, 1.5, 2.0, 2.5])
"""Multiples of the FPR over which found fractions are averaged: a single threshold depends on few bogus rows."""

Counts = tuple[np.ndarray, np.ndarray]
"""Bogus and real rows at each distinct score, ascending."""


@dataclass(frozen=True, kw_only=True)
class AucComparison:
    """Areas under the ROC curves of two scores of the same rows, with 95 % intervals (DeLong).

    Attributes
    ----------
    auc_a, auc_a_low, auc_a_high : float
        Area of the first score.
    auc_b : float
        Area of the second score.
    difference, difference_low, difference_high : float
        First minus second, with a paired interval.
    """

    auc_a: float
    auc_a_low: float
    auc_a_high: float
    auc_b: float
    difference: float
    difference_low: float
    difference_high: float


def compare_auc(
    labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray, *, rows: pd.DataFrame | None = None
) -> AucComparison:
    """Compare the areas under the ROC curves of two scores of the same rows.

    Parameters
    ----------
    labels, scores_a, scores_b : ndarray
        As in `roc_comparison`.
    rows : DataFrame, optional
        (n,) image_id and object_id: rows of the same image or object are not independent (`intervals.find_groups`).

    Returns
    -------
    AucComparison

    Raises
    ------
    DataError
        If no real or no bogus row has both scores.

    Examples
    --------
    >>> labels, good, poor = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.1, 0.8, 0.2, 0.9])
    >>> found = compare_auc(labels, good, poor)
    >>> found.auc_a, found.auc_b, found.difference
    (1.0, 0.75, 0.25)
    """
    usable = _find_usable(labels, scores_a, scores_b)
    labels, a, b = labels[usable], scores_a[usable], scores_b[usable]
    groups = () if rows is None else find_groups(rows[usable])
    (auc_a, influence), (auc_b, other) = area_influence(labels, a), area_influence(labels, b)
    low, high = auc_interval(labels, a, groups)
    variance, n_groups = variance_of_sum(influence - other, groups)
    half = quantile_95(n_groups) * float(np.sqrt(variance))
    return AucComparison(
        auc_a=auc_a, auc_a_low=low, auc_a_high=high, auc_b=auc_b, difference=auc_a - auc_b,
        difference_low=auc_a - auc_b - half, difference_high=auc_a - auc_b + half,
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
    """Compare the recovered fractions (TPR) of two scores at the same false-positive rates.

    Rows without a label or either score are left out. Real and bogus rows are resampled separately, with the same rows
    for both scores, so the interval of the difference is a paired one.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus, others ignored.
    scores_a, scores_b : ndarray
        (n,) larger means more real; NaN where absent. Their scales may differ.
    fprs : sequence of float
        False-positive rates.
    n_bootstrap : int
        Number of resamples.
    rng : Generator, optional
        Generator of the resamples; default: a fixed one.

    Returns
    -------
    DataFrame
        Columns fpr, tpr_a, tpr_b, difference (a - b), difference_low, difference_high (95 %), n_real, n_bogus.

    Raises
    ------
    DataError
        If no real or no bogus row has both scores.

    Examples
    --------
    >>> labels, good, poor = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.1, 0.8, 0.2, 0.9])
    >>> roc_comparison(labels, good, poor, (0.1,), n_bootstrap=10)[["tpr_a", "tpr_b"]].values.tolist()
    [[1.0, 0.5]]
    """
    usable = _find_usable(labels, scores_a, scores_b)
    labels, pair = labels[usable], np.stack([scores_a[usable], scores_b[usable]])
    rng = rng or np.random.default_rng(0)
    tpr = _recovered_of([count_by_score(labels, scores)[1:] for scores in pair], fprs)
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


def _find_usable(labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray) -> np.ndarray:
    usable = np.isin(labels, (0, 1)) & np.isfinite(scores_a) & np.isfinite(scores_b)
    n_real, n_bogus = int((labels[usable] == 1).sum()), int((labels[usable] == 0).sum())
    if n_real == 0 or n_bogus == 0:
        raise DataError(f"{n_real} real and {n_bogus} bogus rows have both scores; give at least one of each")
    return usable


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


def _recovered_of(counts: Sequence[Counts], fprs: Sequence[float]) -> np.ndarray:
    """Recovered fraction of each score at each FPR, (2, n_fprs)."""
    curves = [rates_of_counts(*one) for one in counts]
    return np.array([[1 - fnr[first_within(fpr, limit)] for limit in fprs] for fpr, fnr in curves])


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
        Rows that only the one, or only the other, gets wrong.

    Returns
    -------
    float
        p-value; 1 without such rows.

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
        group, n, wrong, wrong_other, only_one, only_other (rows that only one gets wrong), p_value (exact McNemar).

    Examples
    --------
    >>> rows, right = pd.DataFrame({"label": [1, 0, 0]}), np.zeros(3, bool)
    >>> compare_calls(rows, np.array([True, False, True]), right)[["group", "wrong", "only_one"]].values.tolist()
    [['all', 2, 2], ['real', 1, 1], ['bogus', 1, 1]]
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


class Injected(NamedTuple):
    """Injected transients, which decide between models of equal Brier score.

    Attributes
    ----------
    rows : DataFrame
        (m,) image_id, snr, host_offset_arcsec of sources in images that no model was trained on.
    probabilities : mapping of str to ndarray
        Calibrated scores (m,) of each model.
    fpr : float
        Fraction of the rows labelled bogus, without suspects, that each model may call real. Found fractions are
        averaged over 0.5 to 2.5 times this rate.
    """

    rows: pd.DataFrame
    probabilities: Mapping[str, np.ndarray]
    fpr: float = RECOVERY.fpr


class Choice(NamedTuple):
    """A chosen model, the comparison of all, and the step that decided.

    Attributes
    ----------
    name : str
        Chosen model.
    table : DataFrame
        A row for each model, in the order declared: model, brier, worse, low, high (paired difference from the smallest
        Brier score, 95 %), tied (the interval holds 0); with injected transients also found (fraction of the faint and
        nuclear ones), fewer, fewer_low, fewer_high (difference from the best tied model) and even (tied, and that
        interval holds 0).
    n_suspects : int
        Rows left out because their label is contradicted.
    decided_by : {"brier", "injected", "order"}
        Step that decided.
    """

    name: str
    table: pd.DataFrame
    n_suspects: int
    decided_by: str


def choose_model(
    labels: np.ndarray, probabilities: Mapping[str, np.ndarray], images: np.ndarray, *,
    suspects: np.ndarray | None = None, injected: Injected | None = None, n_bootstrap: int, rng: np.random.Generator,
) -> Choice:  # fmt: skip
    """Choose a model in three steps; a difference whose 95 % interval holds 0 decides nothing.

    1. The Brier score. It uses the value of a score, not only its rank, so it separates models on fewer rows than AUC.
    2. Among tied models, the recovery of faint and nuclear injected transients at an equal FPR.
    3. Among models that are still tied, the last in the order declared.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus, of rows that no model was trained on.
    probabilities : mapping of str to ndarray
        Calibrated scores (n,) of each model, in the order declared.
    images : ndarray
        (n,) image of each row; whole images are resampled, or rows if there are fewer than `MIN_GROUPS` images.
    suspects : ndarray of bool, optional
        (n,) rows labelled bogus that a classifier which never saw them calls clearly real; default: by the median of
        the models. They are left out, because half of such labels are wrong.
    injected : Injected, optional
        Injected transients for step 2.
    n_bootstrap : int
        Number of resamples.
    rng : numpy.random.Generator
        Generator of the resamples.

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
    if suspects is None:
        suspects = np.median(list(probabilities.values()), axis=0) >= SUSPECT_PROBABILITY
    kept = ~((labels == 0) & suspects)
    known = {name: np.asarray(p, float)[kept] for name, p in probabilities.items()}
    labels, images = labels[kept], images[kept]
    place, draws = _draw_images(images, injected, n_bootstrap, rng)
    rows, sources = place[: len(labels)], place[len(labels) :]
    table = _compare_brier(labels, known, rows, draws)
    names, decided = table["model"][table["tied"]].tolist(), "brier"
    if len(names) > 1 and injected is not None:
        found = _compare_found(labels, known, injected, names, (draws[:, rows], draws[:, sources]))
        table = table.merge(found, on="model", how="left").assign(even=lambda t: t["even"].eq(True))
        names, decided = table["model"][table["even"]].tolist(), "injected"
    return Choice(str(names[-1]), table, int((~kept).sum()), decided if len(names) == 1 else "order")


def _draw_images(
    images: np.ndarray, injected: Injected | None, n_bootstrap: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Group of each row and injected source, and number of draws of each group, (n_bootstrap, n_groups)."""
    both = images if injected is None else np.append(images, injected.rows["image_id"].to_numpy(str))
    names, place = np.unique(both, return_inverse=True)
    if len(names) < MIN_GROUPS:
        names, place = both, np.arange(len(both))
    return place, rng.multinomial(len(names), np.full(len(names), 1 / len(names)), n_bootstrap)


def _compare_brier(
    labels: np.ndarray, known: Mapping[str, np.ndarray], place: np.ndarray, draws: np.ndarray
) -> pd.DataFrame:
    errors = {name: (p - labels) ** 2 for name, p in known.items()}
    best = min(errors, key=lambda name: errors[name].mean())
    rows, n_groups = [], draws.shape[1]
    n_drawn = np.maximum(draws @ np.bincount(place, minlength=n_groups), 1)
    for name, own in errors.items():
        low, high = np.quantile(draws @ np.bincount(place, own - errors[best], n_groups) / n_drawn, (0.025, 0.975))
        rows.append((name, own.mean(), own.mean() - errors[best].mean(), low, high, bool(low <= 0)))
    return pd.DataFrame(rows, columns=["model", "brier", "worse", "low", "high", "tied"])


def _compare_found(
    labels: np.ndarray, known: Mapping[str, np.ndarray], injected: Injected, names: Sequence[str],
    weights: tuple[np.ndarray, np.ndarray],
) -> pd.DataFrame:  # fmt: skip
    """Found fractions of faint and nuclear sources; each resample has a threshold from its own bogus rows."""
    snr, offset = (injected.rows[name].to_numpy(float) for name in ("snr", "host_offset_arcsec"))
    wanted = is_faint(snr) | ((snr >= DETECTABLE_SNR) & is_nuclear(offset))
    of_bogus, of_sources = (
        np.vstack([np.ones(part.shape[1]), part]) for part in (weights[0][:, labels == 0], weights[1][:, wanted])
    )
    found = {
        name: np.mean([
            _find_at_fpr(known[name][labels == 0], injected.probabilities[name][wanted], fpr, (of_bogus, of_sources))
            for fpr in injected.fpr * FPR_FACTORS
        ], axis=0)
        for name in names
    }  # fmt: skip
    best, rows = max(found, key=lambda name: found[name][0]), []
    for name, own in found.items():
        fewer = found[best] - own
        low, high = np.quantile(fewer[1:], (0.025, 0.975))
        rows.append((name, own[0], fewer[0], low, high, bool(low <= 0)))
    return pd.DataFrame(rows, columns=["model", "found", "fewer", "fewer_low", "fewer_high", "even"])


def _find_at_fpr(
    bogus: np.ndarray, sources: np.ndarray, fpr: float, weights: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Found fraction, (n_draws,), of weighted sources above the score at which weighted bogus rows exceed the FPR."""
    order = np.argsort(-bogus, kind="stable")
    above = np.cumsum(weights[0][:, order], axis=1)
    first = (above <= fpr * above[:, -1:] + 1e-9).sum(axis=1)
    limits = bogus[order][np.minimum(first, len(bogus) - 1)]
    drawn = np.maximum(weights[1].sum(axis=1), 1e-9)
    return np.asarray((weights[1] * (sources > limits[:, None])).sum(axis=1) / drawn)


class ScoredRows(NamedTuple):
    """Labelled rows with the scores of a model.

    Attributes
    ----------
    name : str
        Name of the model.
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
        Scored rows of each model.
    n_bootstrap, seed : int
        Resamples of the paired intervals, and their seed.

    Returns
    -------
    dict
        n_rows, n_real; auc (see `AucComparison`); found, the recovered fractions at fixed FPR; calls, wrong calls of
        each group at the models' own thresholds, with McNemar's test.

    Raises
    ------
    DataError
        If no row is in both, or a label differs between them.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "score": [0.1, 0.2, 0.8, 0.9]}, index=list("abcd"))
    >>> other = rows.assign(score=[0.1, 0.8, 0.2, 0.9])
    >>> found = compare_scored(ScoredRows("new", rows, 0.5), ScoredRows("old", other, 0.5), n_bootstrap=10)
    >>> found["auc"]["difference"], found["calls"][0]["only_other"]
    (0.25, 2)
    """
    a, b = one.rows, other.rows
    shared = a.index.intersection(b.index, sort=True)
    if len(shared) == 0 or not (a.loc[shared, "label"] == b.loc[shared, "label"]).all():
        raise DataError(
            f"{one.name} and {other.name} share {len(shared)} test rows, not all of equal label; compare models of one "
            "data set (--data)"
        )
    rows, labels = a.loc[shared], a.loc[shared, "label"].to_numpy(int)
    scores = [part.loc[shared, "score"].to_numpy(float) for part in (a, b)]
    rng = np.random.default_rng(seed)
    auc = compare_auc(labels, *scores, rows=rows)
    found = roc_comparison(labels, *scores, n_bootstrap=n_bootstrap, rng=rng).to_dict("records")
    thresholds = (one.threshold, other.threshold)
    wrong = [(part >= limit) != (labels == 1) for part, limit in zip(scores, thresholds, strict=True)]
    calls = compare_calls(rows.reset_index(), *wrong)
    return rounded(
        {"one": one.name, "other": other.name, "n_rows": len(rows), "n_real": int(labels.sum())}
        | {"threshold": one.threshold, "threshold_other": other.threshold}
        | {"auc": asdict(auc), "found": found, "calls": calls.to_dict("records")}
    )
