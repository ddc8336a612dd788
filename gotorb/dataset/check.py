"""Everything that can be wrong with a data set on disk, found without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.core.files import file_digest
from gotorb.dataset.store import DATA_FILES, Dataset, open_dataset
from gotorb.errors import DataError

LABEL_OF = {
    "mp": layout.REAL,
    "syntransient": layout.REAL,
    "synfading": layout.REAL,
    "synvariable": layout.REAL,
    "randjunk": layout.BOGUS,
    "glxresid": layout.BOGUS,
    "synflash": layout.BOGUS,
}
PROVENANCE = ("rule", "image_id", "code_version")
LISTED = 5


def verify_dataset(data_dir: Path | str) -> list[str]:
    """Look for whatever is wrong with a data set.

    Parameters
    ----------
    data_dir : path
        The data set.

    Returns
    -------
    list of str
        One line for each finding: bytes that changed since the files were written, csv and hdf5 that disagree,
        stamps that are not finite or occur twice, detections that stand twice or have both labels, values
        that cannot be, and rows without provenance. Empty when all is well.
    """
    data_dir = Path(data_dir)
    findings = list(_changed_bytes(data_dir))
    try:
        data = open_dataset(data_dir)
    except DataError as error:
        return [*findings, str(error)]
    return [*findings, *_check_rows(data.table), *_check_images(data), *_check_stamps(data)]


def _changed_bytes(data_dir: Path) -> Iterator[str]:
    path = data_dir / layout.SUMS_FILE
    if not path.exists():
        yield f"no {path.name} in {data_dir}: flipped bytes cannot be found"
        return
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in path.read_text().splitlines())}
    for name in DATA_FILES:
        if name not in sums:
            yield f"{path} does not know {name}"
        elif (data_dir / name).exists() and file_digest(data_dir / name) != sums[name]:
            yield f"{name} is not the file that was written: bytes were flipped or edited"


def _check_rows(table: pd.DataFrame) -> Iterator[str]:
    yield from _tell("label is not 1, 0 or -1", table, ~table["label"].isin([1, 0, -1]))
    expected = table["metalabel"].map(LABEL_OF)
    yield from _tell("label contradicts its metalabel", table, expected.notna() & (expected != table["label"]))
    if "candidate_id" in table:
        made = table["metalabel"].isin(layout.SYNTHETIC) | (table["candidate_id"] == "")
        key = table["image_id"] + "/" + table["candidate_id"]
        twice = ~made & key[~made].duplicated(keep=False).reindex(table.index, fill_value=False)
        yield from _tell("detection stands twice", table, twice)
    for name, low, high in (("ra", 0, 360), ("dec", -90, 90), ("missing_fraction", 0, 1)):
        if name in table:
            yield from _tell(f"{name} outside {low} to {high}", table, (table[name] < low) | (table[name] > high))
    for name in PROVENANCE:
        if name in table:
            unknown = (table[name] == "") & (table["label"] != layout.UNKNOWN)
            yield from _tell(f"no {name}: nobody knows what made the row", table, unknown)


def _check_images(data: Dataset) -> Iterator[str]:
    path = data.data_dir / layout.IMAGES_CSV
    if path.exists():
        known = pd.read_csv(path, dtype=str, keep_default_na=False)["image_id"]
        yield from _tell(f"image is not in {path.name}", data.table, ~data.table["image_id"].isin(known))


def _check_stamps(data: Dataset) -> Iterator[str]:
    broken, twice = np.zeros(len(data), bool), np.zeros(len(data), bool)
    seen: dict[int, int] = {}
    try:
        for rows, stamps in data.batches():
            broken[rows] = ~np.isfinite(stamps).all(axis=(1, 2, 3))
            for row, stamp in zip(rows, stamps, strict=True):
                twice[row] = seen.setdefault(hash(stamp.tobytes()), row) != row
    except OSError as error:
        yield f"{layout.STAMPS_H5} cannot be read ({error})"
        return
    yield from _tell("stamp holds NaN or infinity", data.table, pd.Series(broken))
    yield from _tell("stamp has the pixels of an earlier one", data.table, pd.Series(twice))


def _tell(what: str, table: pd.DataFrame, wrong: pd.Series) -> Iterator[str]:
    ids = table["id"][wrong.to_numpy(bool)]
    if len(ids):
        more = f", ... ({len(ids)} rows)" if len(ids) > LISTED else ""
        yield f"{what}: {', '.join(ids.iloc[:LISTED])}{more}"
