"""Batches from disk: what is turned, what is not, and that all repeats."""

from dataclasses import replace

import numpy as np
import pytest

from gotorb.dataset.store import Dataset, open_dataset
from gotorb.stamps.batches import turn_stamps
from gotorb.training.data import Stream, draw_orientations, weigh_classes
from tests.model.blobs import make_blobs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_blobs(tmp_path_factory.mktemp("stream"), n=50, size=21))


@pytest.fixture
def stream(data: Dataset) -> Stream:
    return Stream(data=data, layers=("difference", "science"), batch_size=16, class_weights={0: 1.0, 1: 3.0})


def test_validation_stamps_come_in_order_and_unturned(stream: Stream, data: Dataset) -> None:
    rows = np.arange(10, 50)
    for _ in range(2):
        batches = list(stream.validation(rows).as_numpy_iterator())
        assert [len(labels) for _, labels, _ in batches] == [16, 16, 8]
        stamps, labels, weights = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        np.testing.assert_array_equal(stamps, data.read_stamps(rows, ("difference", "science")))
        np.testing.assert_array_equal(labels[:, 0], data.labels[rows])
        np.testing.assert_array_equal(weights, np.where(data.labels[rows] == 1, 3.0, 1.0))


def epoch(stream: Stream, *, seed: int, augment: bool, skip: int = 0) -> tuple[np.ndarray, np.ndarray]:
    batches = list(stream.training(np.arange(50), seed=seed, augment=augment).skip(skip).take(4).as_numpy_iterator())
    return np.concatenate([stamps for stamps, _, _ in batches]), np.concatenate([labels for _, labels, _ in batches])


def test_each_training_epoch_holds_each_row_once_in_a_new_order(stream: Stream, data: Dataset) -> None:
    first, second = (epoch(stream, seed=1, augment=False, skip=skip)[0] for skip in (0, 4))
    expected = np.sort(data.read_stamps(range(50), ("difference",)).sum(axis=(1, 2, 3)))
    for stamps in (first, second):
        np.testing.assert_allclose(np.sort(stamps[..., :1].sum(axis=(1, 2, 3))), expected, rtol=1e-5)
    assert not np.array_equal(first, second)


def test_training_repeats_with_the_seed_and_only_turns_stamps(stream: Stream) -> None:
    stamps, labels = epoch(stream, seed=1, augment=True)
    again, _ = epoch(stream, seed=1, augment=True)
    np.testing.assert_array_equal(stamps, again)
    assert not np.array_equal(stamps, epoch(stream, seed=2, augment=True)[0])
    assert set(labels[:, 0]) == {0.0, 1.0}


def test_the_eight_orientations_are_distinct_and_move_pixels_only() -> None:
    stamp = np.random.default_rng(0).random((1, 5, 5, 2))
    turned = [turn_stamps(stamp, np.array([k]))[0] for k in range(8)]
    assert len({one.tobytes() for one in turned}) == 8
    for one in turned:
        np.testing.assert_array_equal(np.sort(one.ravel()), np.sort(stamp.ravel()))
        np.testing.assert_array_equal(one[2, 2], stamp[0, 2, 2])
    assert set(draw_orientations(200, np.random.default_rng(0))) == set(range(8))


def test_balanced_weights_give_both_classes_the_same_total() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    weights = weigh_classes(labels, "balanced")
    assert weights[0] * 30 == pytest.approx(weights[1] * 10) == pytest.approx(20)
    assert weigh_classes(labels, None) == {0: 1.0, 1: 1.0}


def test_some_training_stamps_are_disturbed_far_from_the_source_and_no_others(data: Dataset, stream: Stream) -> None:
    disturbed = replace(stream, disturb=0.4, fwhm=2.0)
    plain, changed = epoch(stream, seed=1, augment=True)[0], epoch(disturbed, seed=1, augment=True)[0]
    np.testing.assert_array_equal(changed, epoch(disturbed, seed=1, augment=True)[0])
    np.testing.assert_array_equal(changed[:16, 8:13, 8:13], plain[:16, 8:13, 8:13])  # later batches turn otherwise
    assert 1 <= (changed[:16] != plain[:16]).any(axis=(1, 2, 3)).sum() <= 13
    rows = np.arange(10, 50)
    stamps = np.concatenate([block for block, _, _ in disturbed.validation(rows).as_numpy_iterator()])
    np.testing.assert_array_equal(stamps, data.read_stamps(rows, ("difference", "science")))


def test_soft_labels_reach_training_and_not_validation(data: Dataset) -> None:
    soft = np.linspace(0, 1, 50)
    table = data.table.assign(label_probability=soft, label_weight=2.0)
    stream = Stream(
        data=replace(data, table=table), layers=("difference",), batch_size=50, class_weights={0: 1.0, 1: 3.0}
    )
    _, targets, weights = next(iter(stream.training(np.arange(50), seed=1, augment=False).as_numpy_iterator()))
    np.testing.assert_allclose(np.sort(targets[:, 0]), soft, atol=1e-6)
    np.testing.assert_allclose(weights, 2 * (1 + 2 * targets[:, 0]), atol=1e-5)
    _, labels, _ = next(iter(stream.validation(np.arange(50)).as_numpy_iterator()))
    np.testing.assert_array_equal(labels[:, 0], data.labels)
