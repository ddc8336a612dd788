"""Does another network of about equal cost tell real from bogus better than bayesian_vgg6? Not part of `make bench`.

``python -m benchmarks.networks data/dataset`` trains each candidate with several seeds, keeps every result in
networks.json as soon as it is there (a run that was stopped goes on), and writes docs/networks.md.
Candidates that do not win stay here, out of the package.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
RESULTS_JSON, PAGE = HERE / "networks.json", HERE.parent / "docs" / "networks.md"
INTRODUCTION = """# Other networks

Would another network of about equal cost tell real from bogus better than `bayesian_vgg6`? Each candidate was
trained on the embedded survey's data set with {n_seeds} seeds ({epochs} epochs, cosine schedule from
{learning_rate}, batches of {batch_size}) and judged on its {n_real} real and {n_bogus} bogus test rows: the
area under the ROC curve (AUC) of all rows, of synthetic transients alone, and of the faintest third of the real
rows, each against all bogus ones. The mean over seeds stands with the standard deviation of the seeds; in
brackets the mean difference to `bayesian_vgg6`, seed by seed, with its standard error. A candidate belongs in
the package when it wins by more than the scatter on all rows and loses in neither slice; the others stay in
`benchmarks/networks.py`.

- `bayesian_resnet`: pre-activation residual network (He et al. 2016), two blocks behind a stem.
- `bayesian_separable`: depthwise separable convolutions (Chollet 2017) in place of three of the four, and wider.

Networks that branch have their posterior sampled pass by pass, which is slower than the tree of masks of a chain.

Repeat with `python -m benchmarks.networks data/dataset`; finished trainings are kept in `benchmarks/networks.json`.
This page is made by that command.

"""
SEEDS = (1, 2, 3)
OPTIONS: dict[str, Any] = {"epochs": 20, "schedule": "cosine", "learning_rate": 1e-3, "batch_size": 64, "threads": 2}
REFERENCE = "bayesian_vgg6"
FAINT_FRACTION = 1 / 3
SLICES = {"auc": "all", "synthetic": "synthetic", "faint": "faintest third"}


def bayesian_resnet(input_shape: tuple[int, int, int], dropout: float = 0.01):
    """Pre-activation residual network (He et al. 2016, arXiv:1603.05027): a stem, two blocks, a dense layer."""
    import keras

    stamps, x = start(input_shape)
    options = kernel_options()
    x = keras.layers.Conv2D(16, 3, name="stem", **options)(x)
    x = keras.layers.SpatialDropout2D(dropout, name="drop0")(keras.layers.MaxPooling2D(2, name="pool0")(x))
    for block, filters in enumerate((32, 48), start=1):
        x = keras.layers.ReLU(name=f"relu{block}")(normalised(x, f"norm{block}"))
        kept = keras.layers.Conv2D(filters, 1, name=f"skip{block}", **options)(x)
        y = keras.layers.Conv2D(filters, 3, padding="same", name=f"conv{block}a", **options)(x)
        y = keras.layers.SpatialDropout2D(dropout, name=f"drop{block}a")(y)
        y = keras.layers.ReLU(name=f"relu{block}a")(normalised(y, f"norm{block}a"))
        y = keras.layers.Conv2D(filters, 3, padding="same", name=f"conv{block}b", **options)(y)
        y = keras.layers.SpatialDropout2D(dropout, name=f"drop{block}b")(y)
        x = keras.layers.MaxPooling2D(2 * block, name=f"pool{block}")(keras.layers.Add(name=f"add{block}")([kept, y]))
    return finish(stamps, keras.layers.ReLU(name="relu")(normalised(x, "norm")), dropout, "bayesian_resnet")


def bayesian_separable(input_shape: tuple[int, int, int], dropout: float = 0.01):
    """Depthwise separable convolutions (Chollet 2017, arXiv:1610.02357) in place of three of the four, and wider."""
    import keras

    stamps, x = start(input_shape)
    x = keras.layers.Conv2D(16, 3, activation="relu", name="conv1a", **kernel_options())(x)
    x = keras.layers.SpatialDropout2D(dropout, name="drop1a")(x)
    for name, filters, pool in (("1b", 32, 2), ("2a", 64, 1), ("2b", 64, 4)):
        x = keras.layers.SeparableConv2D(filters, 3, activation="relu", name=f"conv{name}", **separable_options())(x)
        x = keras.layers.SpatialDropout2D(dropout, name=f"drop{name}")(x)
        x = keras.layers.MaxPooling2D(pool, name=f"pool{name}")(x) if pool > 1 else x
    return finish(stamps, x, dropout, "bayesian_separable")


def start(input_shape: tuple[int, int, int]):
    """Stamps and their layers, each of unit length, as in our own networks."""
    from gotorb.training.networks import _normalised_input

    return _normalised_input(input_shape)


def finish(stamps, x, dropout: float, name: str):
    """The dense end of bayesian_vgg6."""
    import keras

    x = keras.layers.Flatten(name="latent")(x)
    x = keras.layers.Dense(256, activation="relu", name="dense", **kernel_options())(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    return keras.Model(stamps, keras.layers.Dense(1, activation="sigmoid", name="score")(x), name=name)


def normalised(x, name: str):
    """Batch normalisation whose running means keep up with short trainings."""
    import keras

    return keras.layers.BatchNormalization(momentum=0.9, name=name)(x)


def kernel_options() -> dict[str, Any]:
    """As in bayesian_vgg6."""
    import keras

    return {"kernel_initializer": "he_uniform", "kernel_regularizer": keras.regularizers.L2(1e-4)}


def separable_options() -> dict[str, Any]:
    """The same for both kernels of a separable convolution."""
    import keras

    names = ("depthwise", "pointwise")
    start = {f"{name}_initializer": "he_uniform" for name in names}
    return start | {f"{name}_regularizer": keras.regularizers.L2(1e-4) for name in names}


CANDIDATES: dict[str, Callable[..., Any] | str] = {
    REFERENCE: REFERENCE,
    "bayesian_resnet": bayesian_resnet,
    "bayesian_separable": bayesian_separable,
}


def main() -> None:
    """Train what is not yet in the results, then write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument("data_dir", help="a divided data set, for instance data/dataset")
    data_dir = parser.parse_args().data_dir
    results = json.loads(RESULTS_JSON.read_text()) if RESULTS_JSON.exists() else {}
    for seed in SEEDS:
        for name in CANDIDATES:
            key = f"{name} {seed}"
            if key not in results:
                results[key] = measure(data_dir, name, seed)
                RESULTS_JSON.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
                print(key, results[key], flush=True)
    counts = {name: results[f"{REFERENCE} {SEEDS[0]}"][name] for name in ("n_real", "n_bogus")}
    PAGE.write_text(INTRODUCTION.format(n_seeds=len(SEEDS), **OPTIONS, **counts) + table(results))


def measure(data_dir: str, name: str, seed: int) -> dict[str, float]:
    """Train once: area under the ROC curve of test rows, all and in slices, and CPU seconds per epoch."""
    from gotorb import classifier
    from gotorb.dataset.store import open_dataset

    ticks = [time.process_time()]
    with tempfile.TemporaryDirectory() as folder:
        model, meta = classifier.train(
            data_dir, CANDIDATES[name], seed=seed, out_dir=folder, name="model", patience=OPTIONS["epochs"],
            on_epoch=lambda *_: ticks.append(time.process_time()), **OPTIONS,
        )  # fmt: skip
    data = open_dataset(data_dir)
    rows = np.flatnonzero(np.isin(data.ids, meta["split"]["test"]))
    scores = classifier.predict(model, data.read_stamps(rows, meta["layers"]))
    areas = {slice_: _auc(data.labels[rows], scores, kept) for slice_, kept in slices(data.table.iloc[rows]).items()}
    found = areas | {"epoch_cpu_s": float(np.median(np.diff(ticks)[1:])), "parameters": model.count_params()}
    counts = {name: int((data.labels[rows] == label).sum()) for name, label in (("n_real", 1), ("n_bogus", 0))}
    return {key: round(value, 6) for key, value in (found | counts).items()}


def slices(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Which rows are compared: all; real ones that were injected; real ones of the faintest third. Bogus ones all."""
    from gotorb.core import layout

    bogus = (table["label"] == layout.BOGUS).to_numpy()
    faint = table["mag"] >= table["mag"][~bogus].quantile(1 - FAINT_FRACTION)
    injected = table["metalabel"].isin(layout.SYNTHETIC)
    return {"auc": bogus | ~bogus, "synthetic": bogus | injected.to_numpy(), "faint": bogus | faint.to_numpy()}


def _auc(labels: np.ndarray, scores: np.ndarray, kept: np.ndarray) -> float:
    from gotorb.evaluation.intervals import area_under_roc, count_by_score

    return float(area_under_roc(*count_by_score(labels[kept], scores[kept])[1:]))


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown: mean over seeds and their standard deviation, and the paired difference to the reference."""
    lines = [
        "| network | parameters | CPU s per epoch | " + " | ".join(f"AUC, {text}" for text in SLICES.values()) + " |",
        "|---|---:|---:|" + "---:|" * len(SLICES),
    ]
    for name in CANDIDATES:
        runs = [results[f"{name} {seed}"] for seed in SEEDS]
        cells = [f"{_spread([run[key] for run in runs])}{_gain(results, name, key)}" for key in SLICES]
        seconds = np.mean([run["epoch_cpu_s"] for run in runs])
        lines.append(f"| `{name}` | {runs[0]['parameters']:.0f} | {seconds:.2f} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _gain(results: dict[str, dict[str, float]], name: str, key: str) -> str:
    if name == REFERENCE:
        return ""
    pairs = [results[f"{name} {seed}"][key] - results[f"{REFERENCE} {seed}"][key] for seed in SEEDS]
    return f" ({np.mean(pairs):+.4f} ± {np.std(pairs, ddof=1) / np.sqrt(len(pairs)):.4f})"


if __name__ == "__main__":
    main()
