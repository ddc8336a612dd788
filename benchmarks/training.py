"""Training from hdf5, compared with plain Keras on an array in memory."""

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.memory import make_blocks, make_table
from benchmarks.rows import Row
from gotorb.dataset.store import open_dataset, write_dataset

LAYERS, SIZE, BATCH_SIZE = ("science", "template", "difference", "ptp"), 55, 64
N_TRAIN, N_VALIDATION = 1_024, 128
N_EPOCHS, N_ROUNDS = 3, 3
N_MATRIX, N_PRODUCTS = 2_048, 6
Times = list[float]


def measure() -> list[Row]:
    """Stamps per CPU second of the cheapest epoch, firsts left out; the ways take turns on the same machine."""
    from gotorb.training.data import Rows, Stream
    from gotorb.training.fit import prepare_process
    from gotorb.training.recipe import Recipe

    logging.getLogger("gotorb").setLevel(logging.WARNING)
    prepare_process(1, 2)
    recipe = Recipe(
        epochs=N_EPOCHS, patience=N_EPOCHS, monitor="val_loss", learning_rate=1e-3, optimizer="adam", augment=True,
        seed=1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        n = N_TRAIN + N_VALIDATION
        data = open_dataset(write_dataset(Path(folder) / "data", make_table(n), make_blocks(n)))
        rows = Rows(np.arange(N_TRAIN), np.arange(N_TRAIN, n), np.arange(0), 0)
        stream = Stream(data=data, layers=LAYERS, batch_size=BATCH_SIZE, class_weights={0: 1.0, 1: 1.0})
        ways: dict[str, Callable[[], tuple[Times, Times]]] = {
            "stream": lambda: fit_stream(stream, rows, recipe, Path(folder)),
            "plain": lambda: fit_plain(stream, rows, recipe),
        }
        seconds: dict[str, Times] = {name: [] for name in ways}
        losses: dict[str, Times] = {}
        rates: Times = []
        for _ in range(N_ROUNDS):
            for name, way in ways.items():
                times, losses[name] = way()
                seconds[name] += times[1:]
            rates.append(matmul_rate())
    if losses["stream"] != losses["plain"]:
        raise AssertionError(f"the two ways do not learn the same: {losses}")
    speed = {name: N_TRAIN / min(times) for name, times in seconds.items()}
    reached = speed["stream"] * step_flops() / BATCH_SIZE / 1e9
    return [
        Row("train", speed["stream"], speed["plain"], "stamps/CPU s"),
        Row("train_flops", reached, max(rates), "Gflop/CPU s"),
    ]


def fit_stream(stream, rows, recipe, folder: Path) -> tuple[Times, Times]:
    """CPU seconds and loss of each epoch by our way, the state written after each."""
    from gotorb.training.fit import fit_network

    model, clock = make_network(), Clock()
    fitted = fit_network(model, stream, rows, recipe, on_epoch=clock, state=(folder / "state.npz", {}))
    fitted.finish()
    return clock.seconds(), fitted.history["loss"]


def fit_plain(stream, rows, recipe) -> tuple[Times, Times]:
    """The same by Keras' own `fit` on arrays: orders and orientations are drawn alike and made beforehand, untimed."""
    from gotorb.stamps.batches import turn_stamps
    from gotorb.training.data import draw_orientations
    from gotorb.training.recipe import compile_network

    model, times, losses = make_network(), [], []
    compile_network(model, recipe)
    labels, data = stream.data.labels.astype(np.float32)[:, None], stream.data
    held_out = (data.read_stamps(rows.validation, LAYERS), labels[rows.validation], np.ones(N_VALIDATION, np.float32))
    for epoch in range(recipe.epochs):
        rng = np.random.default_rng([recipe.seed, epoch])
        order = rng.permutation(rows.train)
        stamps = data.read_stamps(order, LAYERS)
        for start in range(0, len(order), BATCH_SIZE):
            part = stamps[start : start + BATCH_SIZE]
            part[:] = turn_stamps(part, draw_orientations(len(part), rng))
        weights = np.ones(len(order), np.float32)
        started = time.process_time()
        done = model.fit(
            stamps, labels[order], BATCH_SIZE, sample_weight=weights, validation_data=held_out,
            validation_batch_size=BATCH_SIZE, shuffle=False, verbose=0,
        )  # fmt: skip
        times.append(time.process_time() - started)
        losses += done.history["loss"]
    return times, losses


def make_network():
    """bayesian_vgg6 with the same first weights each time."""
    import keras

    from gotorb import models

    keras.utils.set_random_seed(1)
    return models.bayesian_vgg6((SIZE, SIZE, len(LAYERS)))


class Clock:
    """Takes the CPU time at the end of each epoch."""

    def __init__(self) -> None:
        self.ticks = [time.process_time()]

    def __call__(self, epoch: int, numbers: dict[str, float]) -> None:
        """Take the time."""
        self.ticks.append(time.process_time())

    def seconds(self) -> Times:
        """Of each epoch."""
        return np.diff(self.ticks).tolist()


def matmul_rate() -> float:
    """Products of float32 matrices by TensorFlow [Gflop per CPU second]: what a core can do just now."""
    import tensorflow as tf

    multiply = tf.function(tf.linalg.matmul)
    matrix = tf.random.stateless_normal((N_MATRIX, N_MATRIX), (1, 2))
    multiply(matrix, matrix).numpy()
    started = time.process_time()
    for _ in range(N_PRODUCTS):
        multiply(matrix, matrix).numpy()
    return N_PRODUCTS * 2 * N_MATRIX**3 / (time.process_time() - started) / 1e9


def step_flops() -> float:
    """Operations of a training step: three times those of the kernels forward, for both gradients cost as much."""
    model, total = make_network(), 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            places = np.prod(layer.output.shape[1:-1], dtype=int)
            total += 2 * int(places) * int(np.prod(layer.kernel.shape))
    return 3.0 * total * BATCH_SIZE
