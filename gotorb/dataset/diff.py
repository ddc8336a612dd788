"""Differences between two versions of a data set: rows added, removed, flipped, moved or edited."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.dataset.store import Dataset, open_dataset

IDENTITY = ("id", "label", "metalabel", layout.SPLIT_COLUMN)


@dataclass(frozen=True)
class Diff:
    """Rows that differ.

    Attributes
    ----------
    rows : DataFrame
        id, change (added, removed, flipped, moved: to another split, edited: another column, repainted: other
        pixels), metalabel and label before and after, reason (from the newer version's changes.csv or
        the columns that differ).
    n_same : int
        Rows alike in both.
    """

    rows: pd.DataFrame
    n_same: int

    def summary(self) -> pd.DataFrame:
        """Counts by change, metalabel and reason."""
        counts = self.rows.groupby(["change", "metalabel", "reason"], sort=True).size()
        return counts.rename("n_rows").reset_index()


def compare_datasets(old_dir: Path | str, new_dir: Path | str) -> Diff:
    """Compare two data sets row by row.

    Parameters
    ----------
    old_dir, new_dir : path
        Folders of the data sets.

    Returns
    -------
    Diff

    Raises
    ------
    DataError
        If one of them cannot be opened.
    """
    old, new = open_dataset(old_dir), open_dataset(new_dir)
    reasons = _reasons(new)
    before, after = (data.table.set_index("id") for data in (old, new))
    removed, added = before.index.difference(after.index, sort=False), after.index.difference(before.index, sort=False)
    rows = [_gone(before.loc[removed], reasons), _come(after.loc[added], reasons)]
    both = before.index.intersection(after.index, sort=False)
    changed = _changed(old, new, both, reasons)
    rows = pd.concat([*rows, changed], ignore_index=True)
    return Diff(rows, len(both) - len(changed))


def _reasons(data: Dataset) -> pd.Series:
    """Reason of each id that the newer version's own record names."""
    path = data.data_dir / layout.CHANGES_CSV
    if not path.exists():
        return pd.Series(dtype=str)
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("id")["reason"]


def _gone(rows: pd.DataFrame, reasons: pd.Series) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": rows.index, "change": "removed", "metalabel": rows["metalabel"].to_numpy(), "metalabel_after": "",
            "label": rows["label"].to_numpy(), "label_after": pd.NA,
            "reason": reasons.reindex(rows.index).fillna("").to_numpy(),
        }
    )  # fmt: skip


def _come(rows: pd.DataFrame, reasons: pd.Series) -> pd.DataFrame:
    rule = rows["rule"] if "rule" in rows else pd.Series("", index=rows.index)
    return pd.DataFrame(
        {
            "id": rows.index, "change": "added", "metalabel": rows["metalabel"].to_numpy(),
            "metalabel_after": rows["metalabel"].to_numpy(), "label": pd.NA, "label_after": rows["label"].to_numpy(),
            "reason": reasons.reindex(rows.index).fillna(rule).to_numpy(),
        }
    )  # fmt: skip


def _changed(old: Dataset, new: Dataset, both: pd.Index, reasons: pd.Series) -> pd.DataFrame:
    """Rows of both versions that are not alike, each with the weightiest of its changes."""
    before, after = (data.table.set_index("id").loc[both] for data in (old, new))
    flipped = (before["label"] != after["label"]) | (before["metalabel"] != after["metalabel"])
    moved = pd.Series(False, index=both)
    if layout.SPLIT_COLUMN in before and layout.SPLIT_COLUMN in after:
        moved = before[layout.SPLIT_COLUMN] != after[layout.SPLIT_COLUMN]
    edited = _edited_columns(before, after)
    repainted = pd.Series(_repainted(old, new, both), index=both)
    kinds = [flipped, moved, edited != "", repainted]
    change = np.select([kind.to_numpy(bool) for kind in kinds], ["flipped", "moved", "edited", "repainted"], "")
    table = pd.DataFrame(
        {
            "id": both, "change": change, "metalabel": before["metalabel"].to_numpy(),
            "metalabel_after": after["metalabel"].to_numpy(), "label": before["label"].to_numpy(),
            "label_after": after["label"].to_numpy(),
            "reason": np.where(change == "edited", edited, reasons.reindex(both).fillna("").to_numpy()),
        }
    )  # fmt: skip
    return table[change != ""]


def _edited_columns(before: pd.DataFrame, after: pd.DataFrame) -> pd.Series:
    """Names of the other columns whose values differ, joined; "" for none."""
    names = [name for name in before.columns if name in after.columns and name not in IDENTITY]
    differs = {name: ~((before[name] == after[name]) | (before[name].isna() & after[name].isna())) for name in names}
    return pd.DataFrame(differs, index=before.index).apply(lambda row: " ".join(row.index[row]), axis=1)


def _repainted(old: Dataset, new: Dataset, both: pd.Index) -> np.ndarray:
    """True for rows with different pixels, (len(both),)."""
    if len(both) == 0 or (old.size, old.layers) != (new.size, new.layers):
        return np.full(len(both), (old.size, old.layers) != (new.size, new.layers))
    places = [pd.Index(data.ids).get_indexer(both) for data in (old, new)]
    parts = zip(old.batches(places[0]), new.batches(places[1]), strict=True)
    return np.concatenate([(first != second).any(axis=(1, 2, 3)) for (_, first), (_, second) in parts])
