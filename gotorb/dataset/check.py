"""Checks of a data set on disk: broken or changed files, impossible rows, and leaks between its splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.files import file_digest
from gotorb.core.params import DatasetParams
from gotorb.dataset.folder import settled_files
from gotorb.dataset.sky import check_sky
from gotorb.dataset.split import LINK_COLUMNS, pairs_on_sky
from gotorb.dataset.store import DATA_FILES, Dataset, open_dataset
from gotorb.errors import DataError
from gotorb.survey.ids import is_blank
from gotorb.survey.sanity import find_empty

DATASET = DatasetParams()
KINDS = {"image_id": "image", "object_id": "object", "host_id": "galaxy"}
COLUMNS = ["kind", "what", "splits", "n_rows"]


def find_leaks(table: pd.DataFrame, *, link_radius_arcsec: float = DATASET.link_radius_arcsec) -> pd.DataFrame:
    """Images, objects (minor planets), galaxies and places on the sky that occur in more than one split.

    Parameters
    ----------
    table : DataFrame
        Rows with split and any of image_id, object_id, host_id, ra and dec (deg).
    link_radius_arcsec : float
        Rows closer than this are one place.

    Returns
    -------
    DataFrame
        kind (image, object, galaxy, sky), what, splits, n_rows; empty when nothing leaks.

    Raises
    ------
    DataError
        If the rows are not divided.

    Examples
    --------
    >>> rows = pd.DataFrame({"image_id": ["a", "a", "b"], "split": ["train", "test", "test"]})
    >>> find_leaks(rows).to_dict("records")
    [{'kind': 'image', 'what': 'a', 'splits': 'test+train', 'n_rows': 2}]
    """
    if layout.SPLIT_COLUMN not in table:
        raise DataError("the data set is not divided (no column 'split'); the stage `dataset` divides it")
    found = [_shared(KINDS[name], table[name], table) for name in LINK_COLUMNS if name in table]
    return pd.concat([*found, _sky(table, link_radius_arcsec)], ignore_index=True)


def find_pixel_leaks(data: Dataset) -> pd.DataFrame:
    """Stamps of different splits that hold the same pixels in a layer.

    Layers without any structure (all pixels alike: no data there) do not count.

    Parameters
    ----------
    data : Dataset

    Returns
    -------
    DataFrame
        As `find_leaks`, of kind pixels; `what` names the layer and the first row's id.
    """
    digests = np.concatenate([_layer_digests(stamps) for _, stamps in data.batches()])
    found = []
    for i, layer in enumerate(data.layers):
        leaks = _shared("pixels", pd.Series(digests[:, i]), data.table)
        first = {digest: data.ids[row] for row, digest in reversed(list(enumerate(digests[:, i])))}
        found.append(leaks.assign(what=[f"{layer} of {first[digest]}" for digest in leaks["what"]]))
    return pd.concat(found, ignore_index=True)


def _layer_digests(stamps: np.ndarray) -> np.ndarray:
    """Digest of each layer of each stamp, (n, n_layers) of str; "" for a layer of one value."""
    return np.array([[_digest(layer) for layer in np.moveaxis(stamp, -1, 0)] for stamp in stamps], dtype=object)


def _digest(layer: np.ndarray) -> str:
    return "" if layer.min() == layer.max() else hashlib.blake2b(layer.tobytes(), digest_size=16).hexdigest()


def _shared(kind: str, values: pd.Series, table: pd.DataFrame) -> pd.DataFrame:
    """Values that occur in more than one split."""
    known = ~is_blank(values).to_numpy()
    parts = table[layout.SPLIT_COLUMN][known].groupby(values.astype(str).to_numpy()[known])
    return _rows(kind, ((what, splits) for what, splits in parts if splits.nunique() > 1))


def _sky(table: pd.DataFrame, radius_arcsec: float) -> pd.DataFrame:
    splits = table[layout.SPLIT_COLUMN].to_numpy(str)
    pairs = pairs_on_sky(table, radius_arcsec)
    torn = pairs[:, splits[pairs[0]] != splits[pairs[1]]].T
    places = (
        (f"ra {table['ra'].iloc[a]:.5f} dec {table['dec'].iloc[a]:.5f}", pd.Series(splits[[a, b]])) for a, b in torn
    )
    return _rows("sky", places)


def _rows(kind: str, shared: Iterable[tuple[object, pd.Series]]) -> pd.DataFrame:
    rows = [(kind, str(what), "+".join(sorted(set(splits))), len(splits)) for what, splits in shared]
    return pd.DataFrame(rows, columns=COLUMNS)


LABEL_OF = {
    "mp": layout.REAL,
    "syntransient": layout.REAL,
    "synfading": layout.REAL,
    "synvariable": layout.REAL,
    "randjunk": layout.BOGUS,
    "glxresid": layout.BOGUS,
    "synflash": layout.BOGUS,
}
NEVER_EMPTY = ("science", "difference")
"""Layers of one value in which nothing was seen; some surveys have no template."""
PROVENANCE = ("rule", "image_id", "code_version")
LISTED = 5


def verify_dataset(data_dir: Path | str) -> list[str]:
    """Check a data set for errors.

    Parameters
    ----------
    data_dir : path
        The data set.

    Returns
    -------
    list of str
        One line for each finding: bytes that changed since the files were written, csv and hdf5 that disagree,
        stamps that are not finite, empty or occur twice, duplicate detections or ones with both labels, values
        that cannot be, positions off their image (`dataset.sky`), and rows without provenance. Empty when all is well.
    """
    data_dir = Path(data_dir)
    findings = list(_changed_bytes(data_dir))
    try:
        data = open_dataset(data_dir)
    except DataError as error:
        return [*findings, str(error)]
    checks = (_check_rows(data.table), _check_images(data), check_sky(data), _check_stamps(data))
    return [*findings, *(line for check in checks for line in check)]


def _changed_bytes(data_dir: Path) -> Iterator[str]:
    path = data_dir / layout.SUMS_FILE
    if not path.exists():
        yield f"no {path.name} in {data_dir}: flipped bytes cannot be found"
        return
    lines = (line.partition("  ") for line in path.read_text(errors="replace").splitlines())
    sums = {name: digest for digest, _, name in lines}
    for name in [*DATA_FILES, *sorted({*sums, *settled_files(data_dir)} - set(DATA_FILES))]:
        if name not in sums:
            yield f"{path} does not know {name}: it was added later"
        elif not name.isprintable() or not name or Path(name).name != name:
            yield f"{path} names {name!r}, which is no file of the folder"
        elif not (data_dir / name).is_file():
            yield f"{name} is missing"
        elif file_digest(data_dir / name) != sums[name]:
            yield f"{name} is not the file that was written: bytes were flipped or edited"


def _check_rows(table: pd.DataFrame) -> Iterator[str]:
    yield from _tell("label is not 1, 0 or -1", table, ~table["label"].isin([1, 0, -1]))
    expected = table["metalabel"].map(LABEL_OF)
    yield from _tell("label contradicts its metalabel", table, expected.notna() & (expected != table["label"]))
    if "candidate_id" in table:
        made = table["metalabel"].isin(layout.SYNTHETIC) | (table["candidate_id"] == "")
        key = table["image_id"] + "/" + table["candidate_id"]
        twice = ~made & key[~made].duplicated(keep=False).reindex(table.index, fill_value=False)
        yield from _tell("duplicate detection", table, twice)
    for name, low, high in (("ra", 0, 360), ("dec", -90, 90), ("missing_fraction", 0, 1)):
        if name in table:
            yield from _tell(f"{name} outside {low} to {high}", table, (table[name] < low) | (table[name] > high))
    for name in PROVENANCE:
        if name in table:
            unknown = (table[name] == "") & (table["label"] != layout.UNKNOWN)
            yield from _tell(f"no {name}: the origin of the row is unknown", table, unknown)


def _check_images(data: Dataset) -> Iterator[str]:
    path = data.data_dir / layout.IMAGES_CSV
    if path.exists():
        known = pd.read_csv(path, dtype=str, keep_default_na=False)["image_id"]
        yield from _tell(f"image is not in {path.name}", data.table, ~data.table["image_id"].isin(known))


def _check_stamps(data: Dataset) -> Iterator[str]:
    broken, empty, twice = (np.zeros(len(data), bool) for _ in range(3))
    shown = [i for i, name in enumerate(data.layers) if name in NEVER_EMPTY]
    seen: dict[int, int] = {}
    try:
        for rows, stamps in data.batches():
            broken[rows] = ~np.isfinite(stamps).all(axis=(1, 2, 3))
            empty[rows] = find_empty(stamps[..., shown]).any(axis=1)
            for row, stamp in zip(rows, stamps, strict=True):
                twice[row] = seen.setdefault(hash(stamp.tobytes()), row) != row
    except DataError as error:
        yield str(error)
        return
    yield from _tell("stamp holds NaN or infinity", data.table, pd.Series(broken))
    yield from _tell("stamp is empty in the science image or the difference", data.table, pd.Series(empty))
    yield from _tell("stamp has the pixels of an earlier one", data.table, pd.Series(twice & ~empty))


def _tell(what: str, table: pd.DataFrame, wrong: pd.Series) -> Iterator[str]:
    ids = table["id"][wrong.to_numpy(bool)]
    if len(ids):
        more = f", ... ({len(ids)} rows)" if len(ids) > LISTED else ""
        yield f"{what}: {', '.join(ids.iloc[:LISTED])}{more}"
