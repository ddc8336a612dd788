"""Wrong calls of two models on the same rows, group by group."""

import numpy as np
import pandas as pd


def group_masks(rows: pd.DataFrame, columns: tuple[str, ...] = ("metalabel", "ut")) -> dict[str, np.ndarray]:
    """(n,) of bool for all rows, each class, and each value of some columns."""
    labels = rows["label"].to_numpy(int)
    masks = {"all": np.ones(len(rows), bool), "real": labels == 1, "bogus": labels == 0}
    for column in columns:
        if column in rows:
            values = rows[column].astype("string").fillna("").to_numpy(str)
            masks |= {f"{column} {value}": values == value for value in sorted(set(values)) if value}
    return masks


def mcnemar(only_one: int, only_other: int) -> float:
    """Two-sided p-value of McNemar's exact test: rows on which one of two is wrong alone.

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
        (n,) whether each model's call is wrong.

    Returns
    -------
    DataFrame
        group, n, wrong, wrong_other, only_one, only_other (wrong alone), p_value (McNemar, exact, of one group).
    """
    found = []
    for name, inside in group_masks(rows).items():
        a, b = wrong[inside], wrong_other[inside]
        only_one, only_other = int((a & ~b).sum()), int((b & ~a).sum())
        found.append((name, int(inside.sum()), int(a.sum()), int(b.sum()), only_one, only_other))
    table = pd.DataFrame(found, columns=["group", "n", "wrong", "wrong_other", "only_one", "only_other"])
    pairs = zip(table["only_one"], table["only_other"], strict=True)
    return table.assign(p_value=[mcnemar(int(x), int(y)) for x, y in pairs])
