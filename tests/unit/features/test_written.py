"""Features where users meet them: in the csv of scores, and in the explanation of a score."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.classifier.scores import COLUMNS, Scorer, find_features, score_source
from gotorb.core.params import ArchiveParams
from gotorb.dataset.store import open_dataset
from gotorb.features import FeatureSet
from gotorb.training.measured import Measured, Sigmoid
from gotorb.training.trees import fit_trees
from gotorb.visualise.why import UNUSUAL_SPREADS, find_unusual
from tests.model.blobs import make_blobs

LAYERS = ("science", "template", "difference")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blobs(tmp_path_factory.mktemp("written") / "data", n=60, size=21)


@pytest.fixture(scope="module")
def scorer(data_dir: Path) -> Scorer:
    data, features = open_dataset(data_dir), FeatureSet(21, LAYERS, 2.9)
    rows = features.measure(data.read_stamps(range(60), LAYERS))
    trees = fit_trees(rows, data.labels.astype(float), np.ones(60), n_trees=20, seed=0, threads=1)
    spread = np.maximum(rows.std(axis=0), 1e-3)
    model = Measured(features=features, trees=trees, calibration=Sigmoid(), mean=rows.mean(axis=0), spread=spread)
    return Scorer(model=model, layers=LAYERS, name="measured", version="1")


def test_the_csv_has_a_column_for_each_feature(scorer: Scorer, data_dir: Path, tmp_path: Path) -> None:
    n = score_source(scorer, data_dir, tmp_path / "a.csv", archive=ArchiveParams(), n_samples=4, features=True)
    found, features = pd.read_csv(tmp_path / "a.csv"), find_features(scorer)
    assert n == 60 and features.fwhm == 2.9
    assert list(found.columns) == [*COLUMNS, *features.names]
    measured = features.measure(open_dataset(data_dir).read_stamps(range(60), LAYERS))
    np.testing.assert_allclose(found[list(features.names)].to_numpy(), measured, rtol=6e-6, atol=1e-9)
    score_source(scorer, data_dir, tmp_path / "b.csv", archive=ArchiveParams(), n_samples=4)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "b.csv"), found[list(COLUMNS)])


def test_a_dipole_is_unusual_among_stars_and_a_star_is_not(data_dir: Path) -> None:
    data, features = open_dataset(data_dir), FeatureSet(21, LAYERS)
    stamps = data.read_stamps(range(60), LAYERS)
    measured = features.measure(stamps)
    real = measured[data.labels == 1]
    bogus = stamps[data.labels == 0][:1]
    found = find_unusual(features, bogus, real)
    assert found and all(abs(one.spreads) > UNUSUAL_SPREADS for one in found)
    assert found == sorted(found, key=lambda one: -abs(one.spreads))
    stars = [len(find_unusual(features, stamps[row : row + 1], real)) for row in np.flatnonzero(data.labels == 1)]
    assert np.median(stars) < len(found)
    assert find_unusual(features, bogus, real[:0]) == []
