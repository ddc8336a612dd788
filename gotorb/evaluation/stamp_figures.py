"""Figures of stamps: examples, wrong calls, and posteriors next to their images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gotorb.dataset.store import Dataset
from gotorb.evaluation.figures import GREY, REAL_COLOUR, is_narrow, new_figure, text_size
from gotorb.evaluation.posterior import posterior_density
from gotorb.stamps.images import paint_stamps

IMAGE_LAYERS = ("science", "template", "difference")
INCH_PER_STAMP = 1.35
GAP = 4
"""Pixels between stamps."""
WHITE = 255
GRID = np.linspace(0, 1, 401)


def plot_stamps(stamps: np.ndarray, layers: Sequence[str], captions: Sequence[str], *, title: str) -> Figure:
    """Plot stamps as rows and their layers as columns.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers) stamps, at least one.
    layers : sequence of str
        Names of the layers, above the columns.
    captions : sequence of str
        (n,) text to the left of each row.
    title : str
        Title of the figure.

    Returns
    -------
    Figure

    Examples
    --------
    >>> stamps = np.random.default_rng(1).normal(size=(2, 21, 21, 2))
    >>> plot_stamps(stamps, ["science", "difference"], ["a", "b"], title="Two stamps")._suptitle.get_text()
    'Two stamps'
    """
    n, size, n_layers = len(stamps), stamps.shape[1], len(layers)
    figure = new_figure(INCH_PER_STAMP * n_layers + 1.4, INCH_PER_STAMP * n + 0.7)
    axes = figure.subplots()
    axes.imshow(_tile(stamps, layers), origin="upper")
    places = np.arange(max(n, n_layers)) * (size + GAP) + (size - 1) / 2
    axes.set_xticks(places[:n_layers], layers, fontsize=text_size(10))
    axes.set_yticks(places[:n], captions, fontsize=text_size(9))
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_frame_on(False)
    figure.suptitle(title)
    figure.set_layout_engine("constrained", rect=(0.045, 0, 0.955, 1))  # the layout underestimates the captions
    return figure


def _tile(stamps: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    """Join stamps as rows and their layers as columns to one image, which is drawn much faster than many."""
    n, size, _, n_layers = stamps.shape
    image = np.full((n, size + GAP, n_layers, size + GAP, 3), WHITE, np.uint8)
    image[:, :size, :, :size] = np.moveaxis(paint_stamps(stamps, layers)[:, :, ::-1], 1, 2)  # y goes up
    return image.reshape(n * (size + GAP), n_layers * (size + GAP), 3)[:-GAP, :-GAP]


def plot_layers(stamps_real: np.ndarray, stamps_bogus: np.ndarray, layers: Sequence[str]) -> Figure:
    """Plot all layers of one real and one bogus stamp as two rows.

    Parameters
    ----------
    stamps_real, stamps_bogus : ndarray
        (size, size, n_layers), or (n, size, size, n_layers), of which the first is shown.
    layers : sequence of str
        Names of the layers.

    Returns
    -------
    Figure

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> data = open_dataset("data/dataset")
    >>> figure = plot_layers(data.read_stamps([1]), data.read_stamps([0]), data.layers)
    >>> [text.get_text() for text in figure.axes[0].get_xticklabels()]
    ['science', 'template', 'difference', 'ptp', 'min', 'max']
    """
    pair = np.stack([np.asarray(stamps).reshape(-1, *stamps.shape[-3:])[0] for stamps in (stamps_real, stamps_bogus)])
    return plot_stamps(pair, layers, ["real", "bogus"], title="The layers of a stamp")


def plot_posteriors(
    stamps: np.ndarray, layers: Sequence[str], samples: np.ndarray, captions: Sequence[str], *, threshold: float,
    title: str = "Posteriors near the threshold, of wrong calls, and the widest",
) -> Figure:  # fmt: skip
    """Plot posteriors of scores, each with its images.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers) stamps.
    layers : sequence of str
        Names of the layers; science, template and difference are shown if present.
    samples : ndarray
        (n, n_samples) posterior samples.
    captions : sequence of str
        (n,) text above each curve.
    threshold : float
        Threshold, marked on each curve.
    title : str
        Title of the figure.

    Returns
    -------
    Figure

    Examples
    --------
    >>> stamps = np.random.default_rng(1).normal(size=(1, 21, 21, 2))
    >>> samples = np.array([[0.7, 0.8, 0.9]])
    >>> len(plot_posteriors(stamps, ["science", "difference"], samples, ["real, mp"], threshold=0.5).axes)
    3
    """
    shown = [name for name in IMAGE_LAYERS if name in layers]
    n, n_shown = len(stamps), len(shown)
    pictures = paint_stamps(stamps[..., [list(layers).index(name) for name in shown]], shown)
    figure = new_figure(INCH_PER_STAMP * n_shown + 4.2, (2.6 if is_narrow() else 1.6) * n + 0.7)
    wide = 2.0 if is_narrow() else 2.8
    grid = figure.subplots(n, n_shown + 1, squeeze=False, width_ratios=[1] * n_shown + [wide])
    for row in range(n):
        for column, name in enumerate(shown):
            axes = grid[row, column]
            axes.imshow(pictures[row, column], origin="lower")
            axes.xaxis.set_visible(False)
            axes.yaxis.set_visible(False)
            if row == 0:
                axes.set_title(name, fontsize=text_size(10))
        _draw_posterior(grid[row, -1], samples[row], captions[row], threshold)
    grid[-1, -1].set_xlabel("real/bogus score")
    figure.suptitle(title)
    return figure


def _draw_posterior(axes: Axes, samples: np.ndarray, caption: str, threshold: float) -> None:
    density = posterior_density(samples, GRID)
    axes.fill_between(GRID, density, color=REAL_COLOUR, alpha=0.3)
    axes.plot(GRID, density, color=REAL_COLOUR)
    axes.plot(samples, np.zeros(len(samples)), "|", color="black", ms=9)
    axes.axvline(threshold, color=GREY, ls="--", lw=1)
    axes.set(xlim=(-0.02, 1.02), ylim=(0, None), yticks=[])
    axes.set_title(caption, fontsize=text_size(9), loc="left")


N_EXAMPLES = 8
N_POSTERIORS = 2


def draw_stamps(
    data: Dataset, numbers: np.ndarray, predictions: pd.DataFrame, samples: np.ndarray | None, *,
    threshold: float, seed: int,
) -> dict[str, Figure]:  # fmt: skip
    """Draw figures of random stamps, of wrong calls, and of instructive posteriors.

    Parameters
    ----------
    data : Dataset
        Data set with the stamps, whose layers are all shown.
    numbers : ndarray of int
        (n,) row numbers.
    predictions : DataFrame
        (n,) predictions of these rows.
    samples : ndarray, optional
        (n, n_samples) posterior samples.
    threshold : float
        Score at or above which a row is called real.
    seed : int
        Seed of the random examples.

    Returns
    -------
    dict of Figure
        examples, misclassified and posteriors; those without rows are left out.

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> data = open_dataset("data/dataset")
    >>> rows = data.table.assign(score=0.9, mean=0.9, std=0.1, confidence=0.8).head(4)
    >>> sorted(draw_stamps(data, np.arange(4), rows, None, threshold=0.5, seed=1))
    ['examples', 'misclassified']
    """
    figures = {}
    for name, chosen, title in (
        ("examples", random_rows(predictions, np.random.default_rng(seed)), "Randomly chosen stamps"),
        ("misclassified", misclassified_rows(predictions, threshold), f"The worst wrong calls at {threshold:.3f}"),
    ):
        if len(chosen):
            captions = [describe_row(predictions.iloc[row]) for row in chosen]
            figures[name] = plot_stamps(data.read_stamps(numbers[chosen]), data.layers, captions, title=title)
    if samples is not None and len(predictions):
        reasons = telling_rows(predictions, threshold)
        chosen = np.array(list(reasons), int)
        captions = [describe_posterior(predictions.iloc[row], why) for row, why in reasons.items()]
        stamps = data.read_stamps(numbers[chosen])
        figures["posteriors"] = plot_posteriors(stamps, data.layers, samples[chosen], captions, threshold=threshold)
    return figures


def random_rows(predictions: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Choose up to four real and four bogus rows at random.

    Parameters
    ----------
    predictions : DataFrame
        Rows with label.
    rng : numpy.random.Generator
        Generator of the choice.

    Returns
    -------
    ndarray of int
        Indices, real rows first.

    Examples
    --------
    >>> random_rows(pd.DataFrame({"label": [0, 1]}), np.random.default_rng(1)).tolist()
    [1, 0]
    """
    places = [rng.permutation(np.flatnonzero(predictions["label"] == label))[: N_EXAMPLES // 2] for label in (1, 0)]
    return np.concatenate(places)


def misclassified_rows(predictions: pd.DataFrame, threshold: float) -> np.ndarray:
    """Choose up to eight wrong calls.

    Parameters
    ----------
    predictions : DataFrame
        Rows with label and score.
    threshold : float
        Score at or above which a row is called real.

    Returns
    -------
    ndarray of int
        Indices: the worst missed real rows, then the worst accepted bogus rows.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [1, 0, 1], "score": [0.2, 0.1, 0.9], "mean": [0.2, 0.1, 0.9]})
    >>> misclassified_rows(rows, 0.5)
    array([0])
    """
    labels, scores = predictions["label"].to_numpy(), predictions["score"].to_numpy(float)
    missed = np.flatnonzero((labels == 1) & (scores < threshold))
    accepted = np.flatnonzero((labels == 0) & (scores >= threshold))
    missed, accepted = missed[np.argsort(scores[missed])], accepted[np.argsort(-scores[accepted])]
    n_missed = min(len(missed), max(N_EXAMPLES // 2, N_EXAMPLES - len(accepted)))
    return np.concatenate([missed[:n_missed], accepted[: N_EXAMPLES - n_missed]])


def telling_rows(predictions: pd.DataFrame, threshold: float) -> dict[int, str]:
    """Choose rows with instructive posteriors: nearest to the threshold, worst wrong calls, widest.

    Parameters
    ----------
    predictions : DataFrame
        Rows with label, mean and std.
    threshold : float
        Score at or above which a row is called real.

    Returns
    -------
    dict of str
        Reason by index, up to `N_POSTERIORS` of each kind, each row at most once.

    Examples
    --------
    >>> telling_rows(pd.DataFrame({"label": [1, 0], "mean": [0.6, 0.9], "std": [0.1, 0.2]}), 0.5)
    {0: 'near the threshold', 1: 'near the threshold'}
    """
    mean, std, labels = (predictions[name].to_numpy(float) for name in ("mean", "std", "label"))
    off = np.abs(mean - threshold)
    wrong = np.isin(labels, (0, 1)) & ((mean >= threshold) != (labels == 1))
    kinds = {"near the threshold": off, "wrong call": np.where(wrong, -off, np.nan), "widest": -std}
    found: dict[int, str] = {}
    for reason, key in kinds.items():
        ranked = [int(place) for place in np.argsort(key, kind="stable") if np.isfinite(key[place])]
        found |= dict.fromkeys([place for place in ranked if place not in found][:N_POSTERIORS], reason)
    return found


def describe_row(row: "pd.Series[Any]") -> str:
    """Describe a row by label, score, confidence and magnitude.

    Parameters
    ----------
    row : Series
        Row of predictions.

    Returns
    -------
    str
        One line for each known value.

    Examples
    --------
    >>> row = pd.Series({"label": 1, "metalabel": "mp", "score": 0.9, "confidence": np.nan, "mag": 18.0})
    >>> describe_row(row).split("\\n")
    ['real (mp)', 'score 0.900', 'mag 18.0']
    """
    lines = [_label(row), f"score {row['score']:.3f}"]
    if np.isfinite(row["confidence"]):
        lines.append(f"confidence {row['confidence']:.2f}")
    if np.isfinite(pd.to_numeric(row["mag"], errors="coerce")):
        lines.append(f"mag {float(row['mag']):.1f}")
    return "\n".join(lines)


def describe_posterior(row: "pd.Series[Any]", why: str) -> str:
    """Describe a row by the reason for its choice, its label and its posterior.

    Parameters
    ----------
    row : Series
        Row of predictions.
    why : str
        Reason, from `telling_rows`.

    Returns
    -------
    str
        Two lines.

    Examples
    --------
    >>> row = pd.Series({"label": 0, "metalabel": "", "mean": 0.5, "std": 0.1})
    >>> describe_posterior(row, "widest").split("\\n")
    ['widest:', 'bogus, 0.50 ± 0.10']
    """
    return f"{why}:\n{_label(row)}, {row['mean']:.2f} ± {row['std']:.2f}"


def _label(row: "pd.Series[Any]") -> str:
    label = {1: "real", 0: "bogus"}.get(int(row["label"]), "unlabelled")
    return f"{label} ({row['metalabel']})" if row["metalabel"] else label
