"""Ids as exact text: names of rows in a survey, a csv or an archive."""

import re
from typing import Any

import numpy as np
import pandas as pd

FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+)(e[+-]?\d+)?|[+-]?\d+e[+-]\d+", re.IGNORECASE)
PERHAPS_FLOAT = re.compile(r"\d+e\d+", re.IGNORECASE)
"""A float, or a hexadecimal name by chance: it is refused where all ids look so."""
BLANKS = ("", "nan", "none", "null", "<na>", "nat", "--", "masked")
"""Texts, in small letters, that stand for no value."""


def is_blank(values: pd.Series) -> pd.Series:
    """Mark values that stand for none: missing ones, empty text, and what programs write for a missing value.

    Parameters
    ----------
    values : Series

    Returns
    -------
    Series of bool

    Examples
    --------
    >>> is_blank(pd.Series(["ZTF18a", None, " ", "nan"])).tolist()
    [False, True, True, True]
    """
    return values.isna() | values.astype(str).str.strip().str.lower().isin(BLANKS)


def find_bad_id(ids: pd.Series | np.ndarray, *, unique: bool = True) -> str:
    """First fault of some ids.

    A number with a decimal point or an exponent was a float: above 2**53 it names another row.

    Parameters
    ----------
    ids : Series or ndarray
        (n,) ids as they were read.
    unique : bool
        Duplicates are a fault.

    Returns
    -------
    str
        The fault, with the value and the row; "" without one.

    Examples
    --------
    >>> find_bad_id(pd.Series(["1", "2.0"]))
    'id 2.0 in row 2, a number with a fraction or an exponent that names no row exactly'
    """
    ids = pd.Series(ids).reset_index(drop=True)
    text = ids.astype(str).str.strip()
    blank = is_blank(ids)
    if blank.any():
        return f"no id in row {_first(blank)} ({blank.sum()} such rows)"
    rounded = text.str.fullmatch(FLOAT) | (ids.dtype.kind == "f")
    if len(ids) and text.str.fullmatch(PERHAPS_FLOAT).all():
        rounded[:] = True
    if rounded.any():
        row = _first(rounded)
        return f"id {text[row - 1]} in row {row}, a number with a fraction or an exponent that names no row exactly"
    twice = text.duplicated()
    if unique and twice.any():
        return f"duplicate id {text[_first(twice) - 1]} in row {_first(twice)} ({twice.sum()} such rows)"
    return ""


def _first(mask: Any) -> int:
    """Row of the first True, counted from 1."""
    return int(np.argmax(np.asarray(mask, bool))) + 1
