"""What a data set holds, in a few numbers, and the digest by which it is known."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from gotorb import layout
from gotorb.dataset.store import file_digest, open_dataset


def tree_digest(paths: Iterable[Path]) -> str:
    """Hex sha256 over the digests of several files, in the order given."""
    return hashlib.sha256("".join(map(file_digest, paths)).encode()).hexdigest()


def data_digest(data_dir: Path | str) -> str:
    """Hex sha256 over the digests of a data set's csv and hdf5: the identity of its content."""
    return tree_digest([layout.labels_path(data_dir), layout.stamps_path(data_dir)])


def make_card(data_dir: Path | str) -> dict[str, Any]:
    """Counts and identity of a data set, as plain values for json.

    Returns
    -------
    dict
        digest, n_rows, size, layers, counts by label, by metalabel and by split.
    """
    data = open_dataset(data_dir)
    table = data.table
    card: dict[str, Any] = {
        "digest": data_digest(data_dir),
        "n_rows": len(table),
        "size_pixel": data.size,
        "layers": list(data.layers),
        "by_label": _counts(table, "label"),
        "by_metalabel": _counts(table, "metalabel"),
    }
    for name in ("image_id", "object_id", "host_id"):
        if name in table:
            card[f"n_{name.removesuffix('_id')}s"] = int(table[name].replace("", None).nunique())
    if layout.SPLIT_COLUMN in table:
        card["by_split"] = {
            part: _counts(rows, "metalabel") | {"rows": len(rows)}
            for part, rows in table.groupby(layout.SPLIT_COLUMN, sort=True)
        }
    return card


def _counts(table: pd.DataFrame, column: str) -> dict[str, int]:
    return {str(value): int(count) for value, count in table[column].value_counts().sort_index().items()}


def write_json(path: Path | str, content: dict[str, Any]) -> Path:
    """Write json with sorted keys, so that equal content is equal bytes."""
    return write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path | str, text: str) -> Path:
    """Write a text file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    return part.replace(path)
