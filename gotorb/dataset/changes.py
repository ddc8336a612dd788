"""A new version of a data set, made from another by removing and relabelling rows, with a record of each change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.card import data_digest, make_card, write_json
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import DataError

REMOVED, FLIPPED = "removed", "flipped"
CHANGE_COLUMNS = ("row", "change", "reason", "label", "metalabel")
RECORD_COLUMNS = ("id", "change", "reason", "image_id", "candidate_id", "ra", "dec", "metalabel", "metalabel_after",
                  "label", "label_after")  # fmt: skip


def removals(rows: np.ndarray, reason: str) -> pd.DataFrame:
    """Changes that take some rows (numbers) out."""
    return pd.DataFrame({"row": rows, "change": REMOVED, "reason": reason}).reindex(columns=CHANGE_COLUMNS)


def flips(rows: np.ndarray, reason: str, *, label: int | np.ndarray, metalabel: str) -> pd.DataFrame:
    """Changes that give some rows (numbers) another label."""
    return pd.DataFrame({"row": rows, "change": FLIPPED, "reason": reason, "label": label, "metalabel": metalabel})


def write_version(source_dir: Path | str, data_dir: Path | str, changes: pd.DataFrame) -> Path:
    """Write a data set that differs from another by the changes given, and changes.csv, which lists them.

    Parameters
    ----------
    source_dir, data_dir : path
        The data set read, which stays as it is, and the one written.
    changes : DataFrame
        Columns of CHANGE_COLUMNS; of several changes of a row the first holds.

    Raises
    ------
    DataError
        If no row would be left, or both folders are one.
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
    write_dataset(
        data_dir,
        table.iloc[kept].reset_index(drop=True),
        (stamps for _, stamps in data.batches(kept)),
        layers=data.layers,
    )
    record = _record(data.table, table, changes)
    record.to_csv(data_dir / layout.CHANGES_CSV, index=False, lineterminator="\n")
    images = data.data_dir / layout.IMAGES_CSV
    if images.exists():
        (data_dir / layout.IMAGES_CSV).write_bytes(images.read_bytes())
    counts = {reason: int(n) for reason, n in record["reason"].value_counts().sort_index().items()}
    card = make_card(data_dir) | {"parent": data_digest(source_dir), "changes": counts}
    write_json(data_dir / layout.CARD_JSON, card)
    return data_dir


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
