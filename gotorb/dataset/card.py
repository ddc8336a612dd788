"""The card of a data set: its content in a few numbers, and the digest that identifies it."""

from pathlib import Path
from typing import Any

import pandas as pd

from gotorb.core import layout
from gotorb.core.files import tree_digest
from gotorb.core.untrusted import check_regular, read_json
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError


def data_digest(data_dir: Path | str) -> str:
    """Hex sha256 over the digests of a data set's csv and hdf5: the identity of its content.

    Parameters
    ----------
    data_dir : path
        The data set.

    Returns
    -------
    str
        64 hex digits.
    """
    return tree_digest([layout.labels_path(data_dir), layout.stamps_path(data_dir)])


def make_card(data_dir: Path | str, *, labelled_dir: Path | str | None = None) -> dict[str, Any]:
    """Counts and identity of a data set, as plain values for json.

    Parameters
    ----------
    data_dir : path
        The data set.
    labelled_dir : path, optional
        Data set with the list of images that its rows come from; itself when left out.

    Returns
    -------
    dict
        digest, n_rows, size, layers, counts by label, by metalabel, by rule and by split;
        for a data set that was labelled by
        minor planets those expected and matched, and the median offset of detection minus catalogue [arcsec].
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
    if "rule" in table:
        card["by_rule"] = _counts(table[table["rule"].fillna("") != ""], "rule")
    if planets := _count_planets(Path(labelled_dir or data_dir) / layout.IMAGES_CSV):
        card["minor_planets"] = planets
    if layout.SPLIT_COLUMN in table:
        card["by_split"] = {
            part: _counts(rows, "metalabel") | {"rows": len(rows)}
            for part, rows in table.groupby(layout.SPLIT_COLUMN, sort=True)
        }
    return card


def _count_planets(path: Path) -> dict[str, Any]:
    """Minor planets of all images of a list; nothing where it does not tell."""
    if not path.exists():
        return {}
    images = pd.read_csv(path)
    if "n_expected" not in images or images["n_expected"].isna().all():
        return {}
    offsets = {name: images[name].median() for name in ("offset_ra_arcsec", "offset_dec_arcsec")}
    counts = {name: int(images[name].sum()) for name in ("n_expected", "n_matched")}
    return counts | {name: None if pd.isna(value) else round(float(value), 3) for name, value in offsets.items()}


def read_card(data_dir: Path | str) -> dict[str, Any]:
    """Card that was written with a data set; a new one where there is none.

    Parameters
    ----------
    data_dir : path

    Returns
    -------
    dict
        As `make_card` gives it.

    Raises
    ------
    DataError
        If it is no json, or too large.
    """
    path = Path(data_dir) / layout.CARD_JSON
    if not path.exists():
        return make_card(data_dir)
    try:
        check_regular(path)
        card: dict[str, Any] = dict(read_json(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a card ({error}); make the data set again") from None
    return card


def _counts(table: pd.DataFrame, column: str) -> dict[str, int]:
    return {str(value): int(count) for value, count in table[column].value_counts().sort_index().items()}
