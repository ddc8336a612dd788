"""A data set ready for training: the rows of another one, divided into train, validation and test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.card import make_card, write_json
from gotorb.dataset.split import assign_splits, find_leaks
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import DataError
from gotorb.params import DatasetParams

FindSuspects = Callable[[pd.DataFrame], np.ndarray]


def make_version(
    source_dir: Path, data_dir: Path, params: DatasetParams, *, seed: int, find_suspects: FindSuspects | None = None
) -> dict[str, Any]:
    """Divide a data set's rows and write them as a new one with its card.

    Parameters
    ----------
    source_dir, data_dir : Path
        The data set read and the one written.
    params : DatasetParams
        Fractions and link radius.
    seed : int
        Decides the order in which groups are placed.
    find_suspects : callable, optional
        Tells which rows of a table are left out because their label is doubtful, (n,) of bool.

    Returns
    -------
    dict
        The card; ``n_left_out`` counts the suspects.

    Raises
    ------
    DataError
        If the rows cannot be divided, a class is absent, or anything leaks.
    """
    data = open_dataset(source_dir)
    suspect = np.zeros(len(data), bool) if find_suspects is None else find_suspects(data.table)
    rows = np.flatnonzero(~suspect)
    table = data.table.iloc[rows].reset_index(drop=True)
    _check_classes(table["label"].to_numpy(), source_dir)
    split = assign_splits(
        table,
        test_fraction=params.test_fraction,
        validation_fraction=params.validation_fraction,
        seed=seed,
        link_radius_arcsec=params.link_radius_arcsec,
    )
    table = table.assign(**{layout.SPLIT_COLUMN: split})
    leaks = find_leaks(table, link_radius_arcsec=params.link_radius_arcsec)
    if len(leaks):
        raise DataError(f"{len(leaks)} groups of {source_dir} stand in several splits; report this as a bug")
    write_dataset(data_dir, table, (stamps for _, stamps in data.batches(rows)), layers=data.layers)
    card = make_card(data_dir) | {"n_left_out": int(suspect.sum())}
    write_json(data_dir / layout.CARD_JSON, card)
    return card


def _check_classes(labels: np.ndarray, source_dir: Path) -> None:
    for label, name in ((layout.REAL, "real"), (layout.BOGUS, "bogus")):
        if not (labels == label).any():
            raise DataError(
                f"no {name} row among the {len(labels)} of {layout.labels_path(source_dir)}; "
                "a classifier needs both classes: label more images or check the rules"
            )
