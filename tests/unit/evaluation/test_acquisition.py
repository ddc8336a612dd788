"""Rows to ask people about: where the posterior disagrees, spread out, and never the same row twice."""

import numpy as np
import pytest

from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.posterior import METHODS, Scale, choose_rows

IDS = np.array([f"r{i:03d}" for i in range(300)])


def pool(seed=1):
    """100 sure rows, 100 of which all networks say one half, 100 about which the networks disagree."""
    rng = np.random.default_rng(seed)
    sure = np.full((100, 20), 0.99)
    torn = rng.uniform(0.48, 0.52, (100, 20))
    disputed = rng.choice([0.02, 0.98], (100, 20))
    return np.concatenate([sure, torn, disputed])


def rng():
    return np.random.default_rng(3)


def test_bald_asks_where_networks_disagree_and_margin_where_they_cannot_tell():
    bald = choose_rows(IDS, pool(), 50, method="bald", rng=rng())
    margin = choose_rows(IDS, pool(), 50, method="margin", rng=rng())
    assert (bald["row"] >= 200).all()
    assert (margin["row"] >= 100).all() and margin["row"].between(100, 199).mean() > 0.5
    assert (np.diff(bald["value"]) <= 0).all()


def test_random_is_a_fair_control():
    rows = choose_rows(IDS, pool(), 150, method="random", rng=rng())["row"]
    counts = np.bincount(rows // 100, minlength=3)
    assert (counts > 30).all()


@pytest.mark.parametrize("method", METHODS)
def test_no_row_is_ever_chosen_twice(method):
    taken: list[str] = []
    features = np.random.default_rng(4).normal(size=(300, 8))
    generator = rng()
    for _ in range(8):
        taken += choose_rows(IDS, pool(), 40, method=method, taken=taken, features=features.__getitem__, rng=generator)[
            "id"
        ].tolist()
    assert len(taken) == len(set(taken)) == 300
    assert choose_rows(IDS, pool(), 40, method=method, taken=taken, rng=generator).empty


def test_guard_spreads_the_choice_over_what_differs():
    """250 copies of one thing and 50 different ones, all equally disputed."""
    samples = np.tile([0.02, 0.98], (300, 10))
    features = np.zeros((300, 5))
    features[250:] = np.random.default_rng(5).normal(size=(50, 5))
    plain = choose_rows(IDS, samples, 40, rng=rng())["row"]
    guarded = choose_rows(IDS, samples, 40, features=features.__getitem__, rng=rng())["row"]
    different = [int((rows >= 250).sum()) for rows in (plain, guarded)]
    assert different[1] > 2 * different[0]


def test_same_seed_same_choice():
    first, again = (choose_rows(IDS, pool(), 20, rng=rng())["id"].tolist() for _ in range(2))
    assert first == again


def test_impossible_calls_are_told():
    with pytest.raises(ConfigError, match="unknown acquisition 'entropy'; choose one of bald, margin, random"):
        choose_rows(IDS, pool(), 5, method="entropy", rng=rng())
    with pytest.raises(ConfigError, match=r"^0 rows .* at least 1"):
        choose_rows(IDS, pool(), 0, rng=rng())
    with pytest.raises(DataError, match="300 posteriors for 300 rows of 299 ids"):
        choose_rows(np.append(IDS[:-1], IDS[0]), pool(), 5, rng=rng())


def test_margin_is_the_default_and_asks_beside_the_threshold() -> None:
    samples = np.repeat(np.linspace(0.01, 0.99, len(IDS))[:, None], 5, axis=1)
    found = choose_rows(IDS, samples, 3, scale=Scale(0.2, 2.0), rng=rng())
    assert np.abs(samples[found["row"], 0] - 0.2).max() < 0.02
    plain = choose_rows(IDS, samples, 3, rng=rng())
    assert np.abs(samples[plain["row"], 0] - 0.5).max() < 0.02
