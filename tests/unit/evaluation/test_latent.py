"""Latent maps: clusters stay apart, the same input gives the same bytes."""

import numpy as np
import pandas as pd
import pytest

from gotorb.errors import DataError
from gotorb.evaluation.latent import make_maps, map_latent, plot_latent, principal_axes, reduce_vectors


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Two clouds in sixty dimensions, thirty vectors each."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(centre, 1, (30, 60)) for centre in (0, 6)]).astype(np.float32)


def test_clouds_stay_apart_on_the_map(vectors: np.ndarray) -> None:
    places = map_latent(vectors, seed=1)
    first, second = places[:30], places[30:]
    distance = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert distance > 3 * max(first.std(axis=0).max(), second.std(axis=0).max())


def test_same_vectors_give_the_same_bytes(vectors: np.ndarray) -> None:
    assert map_latent(vectors, seed=1).tobytes() == map_latent(vectors, seed=1).tobytes()


def test_components_are_uncorrelated_and_ordered(vectors: np.ndarray) -> None:
    reduced = reduce_vectors(vectors, n_components=5)
    spread = reduced.std(axis=0)
    assert reduced.shape == (60, 5)
    assert (np.diff(spread) <= 0).all()
    assert np.abs(np.corrcoef(reduced.T) - np.eye(5)).max() < 1e-4


def test_too_few_stamps_are_told(vectors: np.ndarray) -> None:
    with pytest.raises(DataError, match="7 stamps are too few"):
        map_latent(vectors[:7])


def test_map_is_drawn_by_class_and_by_what_is_known(vectors: np.ndarray) -> None:
    rows = pd.DataFrame({"label": [1] * 30 + [0] * 30, "metalabel": ["mp"] * 30 + ["randjunk"] * 30, "score": 0.5})
    places = vectors[:, :2]
    titles = [axes.get_title() for axes in plot_latent(places, rows).axes]
    assert titles[:2] == ["by class (o real, x bogus)", "by real/bogus score"]
    ringed = plot_latent(places, rows.assign(score=np.where(rows.index < 2, 0.2, 0.8)), 0.5)
    assert "32 wrong calls" in ringed.get_suptitle()  # two missed and all 30 bogus
    assert len(ringed.axes[1].collections[-1].get_offsets()) == 32
    both = plot_latent(places, rows.assign(confidence=0.9))
    assert sum(axes.get_title().startswith("by") for axes in both.axes) == 3


def test_axes_found_block_by_block_are_those_of_the_whole(vectors: np.ndarray) -> None:
    mean, axes = principal_axes(vectors, n_components=4, block=7)
    np.testing.assert_allclose((vectors - mean) @ axes, reduce_vectors(vectors, n_components=4), atol=1e-3)


def test_what_is_beyond_the_landmarks_lies_among_its_like(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gotorb.evaluation.latent.MOST_TSNE", 30)
    maps = make_maps(vectors, seed=2)
    assert {name: places.shape for name, places in maps.items()} == {"pca": (60, 2), "tsne": (60, 2)}
    centres = [maps["tsne"][part].mean(axis=0) for part in (slice(0, 30), slice(30, 60))]
    nearer = np.argmin([np.linalg.norm(maps["tsne"] - centre, axis=1) for centre in centres], axis=0)
    np.testing.assert_array_equal(nearer, np.repeat([0, 1], 30))
    assert set(make_maps(vectors[:5])) == {"pca"}


def test_many_stamps_are_placed_among_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gotorb.evaluation.latent.MOST_TSNE", 60)
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1], 100)
    places = map_latent(rng.normal(size=(200, 6)) + 20 * group[:, None], seed=2)
    centres = np.array([np.median(places[group == one], axis=0) for one in (0, 1)])
    nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == group).mean() > 0.95
