"""Wrong labels planted into a real training are found by networks that have not seen them."""

import numpy as np
import pandas as pd

from gotorb import classifier
from gotorb.core import layout
from gotorb.core.params import Params
from gotorb.dataset.store import open_dataset, write_dataset
from tests.model.blobs import make_blobs


def test_planted_errors_of_a_data_set_are_ranked_first(tmp_path):
    data = open_dataset(make_blobs(tmp_path / "data", size=25))
    flipped = np.random.default_rng(2).choice(np.flatnonzero(data.labels == 1), 15, replace=False)
    table = data.table.copy()
    table.loc[flipped, ["label", "metalabel"]] = [0, "randjunk"]
    noisy = write_dataset(tmp_path / "noisy", table, [data.read_stamps(range(len(data)))])
    params = Params.model_validate({"seed": 1, "train": {"epochs": 5, "threads": 2}, "peers": {"n_folds": 2}})
    found = classifier.find_label_errors(noisy, params=params)
    assert np.isin(data.ids[flipped], found.rows["id"].head(25)).mean() > 0.8
    noise = found.noise.set_index("metalabel")["n_suspects"]
    assert 10 <= noise["randjunk"] <= 20
    listed = pd.read_csv(noisy / layout.LABEL_ERRORS_CSV)
    assert listed["id"].tolist() == found.rows["id"].tolist()
