"""What train, validation and test have in common although they must not: the check behind the division."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.split import LINK_COLUMNS, pairs_on_sky
from gotorb.dataset.store import Dataset
from gotorb.errors import DataError
from gotorb.params import DatasetParams

DATASET = DatasetParams()
KINDS = {"image_id": "image", "object_id": "object", "host_id": "galaxy"}
COLUMNS = ["kind", "what", "splits", "n_rows"]


def find_leaks(table: pd.DataFrame, *, link_radius_arcsec: float = DATASET.link_radius_arcsec) -> pd.DataFrame:
    """Images, objects (minor planets), galaxies and places on the sky that stand in more than one split.

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
    """Stamps of different splits that hold the same pixels in a layer, whatever their rows say.

    Layers without any structure (all pixels alike: no data there) do not count.

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
    """(n, n_layers) of str; "" for a layer of one value."""
    return np.array([[_digest(layer) for layer in np.moveaxis(stamp, -1, 0)] for stamp in stamps], dtype=object)


def _digest(layer: np.ndarray) -> str:
    return "" if layer.min() == layer.max() else hashlib.blake2b(layer.tobytes(), digest_size=16).hexdigest()


def _shared(kind: str, values: pd.Series, table: pd.DataFrame) -> pd.DataFrame:
    """Values that occur in more than one split."""
    known = values.notna().to_numpy() & (values.astype(str) != "").to_numpy()
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
