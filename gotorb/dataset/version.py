"""A data set ready for training: another one, divided into train, validation and test."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.card import make_card, write_json
from gotorb.dataset.leaks import find_leaks
from gotorb.dataset.split import assign_splits
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import DataError
from gotorb.params import DatasetParams

FLIPPED = "flipped on purpose"


def make_version(source_dir: Path, data_dir: Path, params: DatasetParams, *, seed: int) -> dict[str, Any]:
    """Divide a data set's rows and write them as a new one with its card.

    Parameters
    ----------
    source_dir, data_dir : Path
        The data set read and the one written.
    params : DatasetParams
        Fractions and link radius.
    seed : int
        Decides the order in which groups are placed.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    DataError
        If the rows cannot be divided, a class is absent, or anything leaks.
    """
    data = open_dataset(source_dir)
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
    table = flip_labels(table, params.label_noise, seed=seed)
    write_dataset(data_dir, table, (stamps for _, stamps in data.batches(kept)), layers=data.layers)
    n_flipped = int((table["label"].to_numpy() != data.labels[kept]).sum())
    card = make_card(data_dir) | {"n_leaks": len(leaks), "n_flipped": n_flipped}
    write_json(data_dir / layout.CARD_JSON, card)
    return card


def flip_labels(table: pd.DataFrame, fraction: float, *, seed: int) -> pd.DataFrame:
    """Give a random part of the train and validation rows the wrong label, to see what noise does; rule tells which.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [1, 0, -1, 1], "split": ["train", "train", "train", "test"], "rule": ""})
    >>> flip_labels(rows, 1.0, seed=0)["label"].tolist()
    [0, 1, -1, 1]
    """
    drawn = np.random.default_rng([seed, 5]).random(len(table)) < fraction
    flipped = drawn & (table[layout.SPLIT_COLUMN] != "test") & (table["label"] != layout.UNKNOWN)
    table = table.assign(label=table["label"].where(~flipped, 1 - table["label"]))
    return table.assign(rule=table["rule"].where(~flipped, FLIPPED)) if "rule" in table else table


def _check_classes(labels: np.ndarray, source_dir: Path) -> None:
    for label, name in ((layout.REAL, "real"), (layout.BOGUS, "bogus")):
        if not (labels == label).any():
            raise DataError(
                f"no {name} row among the {len(labels)} of {layout.labels_path(source_dir)}; "
                "a classifier needs both classes: label more images or check the rules"
            )
