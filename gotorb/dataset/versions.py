"""New versions of a data set: divided for training, or cleaned with a record of each change."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.files import whole_file, write_csv, write_json
from gotorb.core.params import DatasetParams
from gotorb.dataset.card import data_digest, make_card
from gotorb.dataset.check import find_leaks
from gotorb.dataset.folder import check_recipe, is_finished, unfinished
from gotorb.dataset.split import assign_splits
from gotorb.dataset.store import Dataset, open_dataset, write_dataset
from gotorb.errors import DataError

Soften = Callable[[pd.DataFrame], pd.DataFrame]
NOISE_RULE = "flipped on purpose"
"""Rule of rows whose label was flipped to measure the effect of label noise."""
REMOVED, FLIPPED = "removed", "flipped"
CHANGE_COLUMNS = ("row", "change", "reason", "label", "metalabel")
RECORD_COLUMNS = ("id", "change", "reason", "image_id", "candidate_id", "ra", "dec", "metalabel", "metalabel_after",
                  "label", "label_after")  # fmt: skip


def make_version(
    source_dir: Path, data_dir: Path, params: DatasetParams, *, seed: int, soften: Soften | None = None
) -> dict[str, Any]:
    """Divide a data set's rows into train, validation and test, and write them as a new one with its card.

    Parameters
    ----------
    source_dir, data_dir : Path
        The data set read and the one written.
    params : DatasetParams
        Fractions and link radius.
    seed : int
        Decides the order in which groups are placed.
    soften : callable, optional
        Adds soft labels to the divided rows (`gotorb.labels.soft.find_softener`).

    Returns
    -------
    dict
        The card.

    Raises
    ------
    DataError
        If the rows cannot be divided, a class is absent, anything leaks, or the folder holds a finished data set of
        another kind.
    """
    data = open_dataset(source_dir)
    recipe = {"parent": data_digest(source_dir), "options": (params.model_dump(), seed)}
    check_recipe(Path(data_dir), recipe)
    kept = np.flatnonzero(~data.table["metalabel"].isin(params.without))
    table = data.table.iloc[kept].reset_index(drop=True)
    _check_classes(table["label"].to_numpy(), source_dir)
    split = assign_splits(
        table,
        test_fraction=params.test_fraction,
        validation_fraction=params.validation_fraction,
        seed=seed,
        link_radius_arcsec=params.link_radius_arcsec,
        grouping=params.grouping,
    )
    table = table.assign(**{layout.SPLIT_COLUMN: split})
    leaks = find_leaks(table, link_radius_arcsec=params.link_radius_arcsec)
    if len(leaks) and params.grouping == "linked":
        raise DataError(f"{len(leaks)} leaks between splits of {source_dir}; report this as a bug")
    table = _flip_labels(table, params.label_noise, seed=seed)
    n_flipped = int((table["label"].to_numpy() != data.labels[kept]).sum())
    table = table if soften is None else soften(table)
    with unfinished(Path(data_dir), recipe):
        write_dataset(data_dir, table, (stamps for _, stamps in data.batches(kept)), layers=data.layers)
        card = make_card(data_dir, labelled_dir=source_dir) | {"n_leaks": len(leaks), "n_flipped": n_flipped}
        write_json(data_dir / layout.CARD_JSON, card)
    return card


def _flip_labels(table: pd.DataFrame, fraction: float, *, seed: int) -> pd.DataFrame:
    """Give a random part of the train and validation rows the wrong label, to measure the effect of label noise.

    Parameters
    ----------
    table : DataFrame
        Rows with label, split and perhaps rule, which names the flipped rows.
    fraction : float
        Of the labelled rows of train and validation.
    seed : int
        Decides which.

    Returns
    -------
    DataFrame
        The same rows.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [1, 0, -1, 1], "split": ["train", "train", "train", "test"], "rule": ""})
    >>> _flip_labels(rows, 1.0, seed=0)["label"].tolist()
    [0, 1, -1, 1]
    """
    drawn = np.random.default_rng([seed, 5]).random(len(table)) < fraction
    flipped = drawn & (table[layout.SPLIT_COLUMN] != "test") & (table["label"] != layout.UNKNOWN)
    table = table.assign(label=table["label"].where(~flipped, 1 - table["label"]))
    return table.assign(rule=table["rule"].where(~flipped, NOISE_RULE)) if "rule" in table else table


def _check_classes(labels: np.ndarray, source_dir: Path) -> None:
    for label, name in ((layout.REAL, "real"), (layout.BOGUS, "bogus")):
        if not (labels == label).any():
            raise DataError(
                f"no {name} row among the {len(labels)} of {layout.labels_path(source_dir)}; "
                "a classifier needs both classes: label more images or check the rules"
            )


def removals(rows: np.ndarray, reason: str) -> pd.DataFrame:
    """Changes that take some rows out.

    Parameters
    ----------
    rows : ndarray of int
        Row numbers.
    reason : str
        For the record.

    Returns
    -------
    DataFrame
        Columns of CHANGE_COLUMNS.
    """
    return pd.DataFrame({"row": rows, "change": REMOVED, "reason": reason}).reindex(columns=CHANGE_COLUMNS)


def flips(rows: np.ndarray, reason: str, *, label: int | np.ndarray, metalabel: str) -> pd.DataFrame:
    """Changes that give some rows another label.

    Parameters
    ----------
    rows : ndarray of int
        Row numbers.
    reason : str
        For the record.
    label : int or ndarray
        The new label, or (n,) labels.
    metalabel : str
        The new metalabel.

    Returns
    -------
    DataFrame
        Columns of CHANGE_COLUMNS.
    """
    return pd.DataFrame({"row": rows, "change": FLIPPED, "reason": reason, "label": label, "metalabel": metalabel})


def write_version(source_dir: Path | str, data_dir: Path | str, changes: pd.DataFrame) -> Path:
    """Write a data set that differs from another by the changes given, and changes.csv, which lists them.

    Parameters
    ----------
    source_dir, data_dir : path
        The data set read, which stays as it is, and the one written.
    changes : DataFrame
        Columns of CHANGE_COLUMNS; of several changes of a row the first holds.

    Returns
    -------
    Path
        `data_dir`.

    Raises
    ------
    DataError
        If no row would be left, both folders are one, or the folder holds a finished data set of another kind.
    """
    data, data_dir = open_dataset(source_dir), Path(data_dir)
    if data_dir.resolve() == data.data_dir.resolve():
        raise DataError(f"{data_dir} would be changed in place; give the new version another name")
    changes = changes.drop_duplicates("row", keep="first").sort_values("row")
    flipped, gone = changes[changes["change"] == FLIPPED], changes.loc[changes["change"] == REMOVED, "row"]
    table = data.table.copy()
    places = flipped["row"].to_numpy(int)
    table.loc[places, "label"] = flipped["label"].to_numpy(int)
    for name in ("metalabel", "rule"):
        if name in table:
            table.loc[places, name] = flipped["metalabel" if name == "metalabel" else "reason"].to_numpy(str)
    kept = np.setdiff1d(np.arange(len(table)), gone.to_numpy(int))
    if len(kept) == 0:
        raise DataError(f"all {len(table)} rows of {source_dir} would be removed; nothing is written")
    record, parent = _record(data.table, table, changes), data_digest(source_dir)
    if is_finished(data_dir):
        _check_same_version(data_dir, parent, record)
        return data_dir
    with unfinished(data_dir):
        rows = table.iloc[kept].reset_index(drop=True)
        write_dataset(data_dir, rows, (stamps for _, stamps in data.batches(kept)), layers=data.layers)
        write_csv(data_dir / layout.CHANGES_CSV, record)
        images = data.data_dir / layout.IMAGES_CSV
        if images.exists():
            with whole_file(data_dir / layout.IMAGES_CSV) as aside:
                aside.write_bytes(images.read_bytes())
        counts = {reason: int(n) for reason, n in record["reason"].value_counts().sort_index().items()}
        card = make_card(data_dir) | {"parent": parent, "changes": counts}
        write_json(data_dir / layout.CARD_JSON, card)
    return data_dir


def _check_same_version(data_dir: Path, parent: str, record: pd.DataFrame) -> None:
    """Refuse to replace a finished data set, unless it is what would be written again.

    Raises
    ------
    DataError
        If it has another parent or other changes.
    """
    card, changes = data_dir / layout.CARD_JSON, data_dir / layout.CHANGES_CSV
    try:
        same = json.loads(card.read_text(encoding="utf-8")).get("parent") == parent
        same = same and changes.read_text(encoding="utf-8") == record.to_csv(index=False, lineterminator="\n")
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        raise DataError(
            f"{data_dir} holds a finished data set that was made in another way; it is not replaced: choose another "
            "name, or remove the folder"
        )


def _record(before: pd.DataFrame, after: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    rows = changes["row"].to_numpy(int)
    new = after.iloc[rows].reset_index(drop=True)
    gone = (changes["change"] == REMOVED).to_numpy()
    record = before.iloc[rows].reset_index(drop=True).assign(
        change=changes["change"].to_numpy(),
        reason=changes["reason"].to_numpy(),
        metalabel_after=new["metalabel"].mask(gone, ""),
        label_after=new["label"].astype("Int64").mask(gone),
    )  # fmt: skip
    return record.reindex(columns=list(RECORD_COLUMNS))


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
    reason = reasons.reindex(rows.index).fillna("").to_numpy()
    return _list(rows.index, "removed", rows, None, reason)


def _come(rows: pd.DataFrame, reasons: pd.Series) -> pd.DataFrame:
    rule = rows["rule"] if "rule" in rows else pd.Series("", index=rows.index)
    table = _list(rows.index, "added", None, rows, reasons.reindex(rows.index).fillna(rule).to_numpy())
    return table.assign(metalabel=table["metalabel_after"])


def _list(
    ids: pd.Index, change: str | np.ndarray, before: pd.DataFrame | None, after: pd.DataFrame | None, reason: np.ndarray
) -> pd.DataFrame:
    """Rows of a `Diff`."""
    columns: dict[str, object] = {"id": ids, "change": change}
    for name, blank in (("metalabel", ""), ("label", pd.NA)):
        columns[name] = blank if before is None else before[name].to_numpy()
        columns[f"{name}_after"] = blank if after is None else after[name].to_numpy()
    return pd.DataFrame(columns | {"reason": reason})


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
    reason = np.where(change == "edited", edited, reasons.reindex(both).fillna("").to_numpy())
    table = _list(both, change, before, after, reason)
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
