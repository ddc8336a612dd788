"""A small data set on disk."""

import numpy as np
import pandas as pd
import pytest

from gotorb.dataset.store import write_dataset


def make_table(n=40, n_images=8):
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "id": [f"row{i:03d}" for i in range(n)],
            "image_id": [f"im{i % n_images}" for i in range(n)],
            "ra": rng.uniform(10, 50, n),
            "dec": rng.uniform(-20, 20, n),
            "label": np.arange(n) % 2,
            "metalabel": np.where(np.arange(n) % 2, "mp", "randjunk"),
            "object_id": [f"mp:{i}" if i % 2 else "" for i in range(n)],
            "host_id": "",
        }
    )


def make_stamps(n=40, size=9):
    return np.random.default_rng(4).normal(size=(n, size, size, 6)).astype(np.float32)


@pytest.fixture
def data_dir(tmp_path):
    return write_dataset(tmp_path / "data_x", make_table(), [make_stamps()])
