"""A data set ready for training: another one, divided into train, validation and test."""

from pathlib import Path
from typing import Any

import numpy as np

from gotorb import layout
from gotorb.dataset.card import make_card, write_json
from gotorb.dataset.leaks import find_leaks
from gotorb.dataset.split import assign_splits
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import DataError
from gotorb.params import DatasetParams


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
    table = data.table
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
        raise DataError(f"{len(leaks)} leaks between splits of {source_dir}; report this as a bug")
    write_dataset(data_dir, table, (stamps for _, stamps in data.batches()), layers=data.layers)
    card = make_card(data_dir)
    write_json(data_dir / layout.CARD_JSON, card)
    return card


def _check_classes(labels: np.ndarray, source_dir: Path) -> None:
    for label, name in ((layout.REAL, "real"), (layout.BOGUS, "bogus")):
        if not (labels == label).any():
            raise DataError(
                f"no {name} row among the {len(labels)} of {layout.labels_path(source_dir)}; "
                "a classifier needs both classes: label more images or check the rules"
            )
