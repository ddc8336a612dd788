"""A data set made like another camera's: smaller stamps, other layers, a sky level, the same rows."""

from pathlib import Path

import numpy as np
import pytest

from gotorb.dataset.store import open_dataset
from gotorb.errors import ConfigError, DataError
from studies.adapt import adapt_dataset
from tests.unit.tracking.tiny import SIZE, make_data

LAYERS = ("science", "template", "difference")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("source") / "data", n=40)


def test_middle_and_layers_are_kept_and_rows_stay(source: Path, tmp_path: Path) -> None:
    data = open_dataset(adapt_dataset(source, tmp_path / "new", size=SIZE - 2, layers=LAYERS))
    before = open_dataset(source)
    assert data.layers == LAYERS and data.size == SIZE - 2
    assert data.ids.tolist() == before.ids.tolist()
    assert np.array_equal(data.read_stamps(range(40)), before.read_stamps(range(40), LAYERS)[:, 1:-1, 1:-1])


def test_sky_is_one_level_for_each_stamp_in_science_and_template_alone(source: Path, tmp_path: Path) -> None:
    plain = open_dataset(adapt_dataset(source, tmp_path / "plain", size=SIZE, layers=LAYERS)).read_stamps(range(40))
    lit = open_dataset(adapt_dataset(source, tmp_path / "lit", size=SIZE, layers=LAYERS, sky=(3, 40), seed=1))
    added = lit.read_stamps(range(40)) - plain
    assert np.ptp(added[..., :2], axis=(1, 2)).max() < 1e-4
    assert np.allclose(added[..., 0], added[..., 1], atol=1e-4)
    assert not added[..., 2].any()
    levels = added[:, 0, 0, 0]
    assert 1 < levels.min() < 10 and 20 < levels.max() < 80  # the noise is about 1
    again = open_dataset(adapt_dataset(source, tmp_path / "again", size=SIZE, layers=LAYERS, sky=(3, 40), seed=1))
    assert again.read_stamps(range(40)).tobytes() == lit.read_stamps(range(40)).tobytes()


@pytest.mark.parametrize(("size", "sky"), [(SIZE + 2, None), (SIZE - 1, None), (SIZE, (5, 1)), (SIZE, (-1, 1))])
def test_impossible_sizes_and_levels_are_refused(source: Path, tmp_path: Path, size: int, sky: tuple | None) -> None:
    with pytest.raises(ConfigError, match="impossible"):
        adapt_dataset(source, tmp_path / "new", size=size, layers=LAYERS, sky=sky)


def test_absent_layer_is_named(source: Path, tmp_path: Path) -> None:
    narrow = adapt_dataset(source, tmp_path / "narrow", size=SIZE, layers=LAYERS)
    with pytest.raises(DataError, match="no layer 'ptp'"):
        adapt_dataset(narrow, tmp_path / "new", size=SIZE, layers=("ptp",))
