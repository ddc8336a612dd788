"""Our promoted model beside other classifiers whose scores came with the stamps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.store import read_table
from gotorb.evaluation.peers import compare_peers

PREFIX = "peer_"


def judge_peers(
    evaluations_dir: Path, data_dir: Path, promotion_path: Path, *, n_bootstrap: int = 500, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compare the posterior mean of the promoted model with every ``peer_`` column on the test rows.

    Parameters
    ----------
    evaluations_dir : Path
        Holds a folder with predictions for each model.
    data_dir : Path
        The divided data set.
    promotion_path : Path
        json that names the promoted model.
    n_bootstrap, seed
        Resamples for the intervals, and their seed.

    Returns
    -------
    dict
        See `evaluation.peers.compare_peers`.
    """
    model = json.loads(promotion_path.read_text())["model"]
    predictions = pd.read_csv(evaluations_dir / model / layout.PREDICTIONS_CSV, dtype={"id": str})
    table = read_table(data_dir)
    peers = [name for name in table if name.startswith(PREFIX)]
    rows = predictions[predictions["split"] == "test"].merge(table[["id", *peers]], on="id", validate="one_to_one")
    others = {name.removeprefix(PREFIX): rows[name].to_numpy(float) for name in peers}
    ours = rows["mean"].fillna(rows["score"]).to_numpy(float)
    rng = np.random.default_rng(seed)
    return compare_peers(rows["label"].to_numpy(int), ours, others, n_bootstrap=n_bootstrap, rng=rng)
