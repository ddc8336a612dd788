"""Figures, by the data they show."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.errors import ConfigError
from gotorb.evaluation.figures import (
    confusion_counts,
    draw_figures,
    paper_style,
    plot_error_rates,
    plot_history,
    plot_roc,
    population_rates,
    recovery_table,
    roc_curves,
)
from gotorb.evaluation.report import write_figures
from gotorb.evaluation.stamp_figures import misclassified_rows, plot_layers, plot_posteriors, telling_rows
from gotorb.stamps.images import paint_stamps


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": [1, 1, 1, 0, 0, 0],
            "score": [0.9, 0.8, 0.3, 0.6, 0.2, 0.1],
            "metalabel": ["mp", "syntransient", "mp", "randjunk", "randjunk", "randjunk"],
            "mag": [17.1, 17.2, 19.6, 18.0, np.nan, 20.0],
        }
    )


def test_confusion_counts_by_hand(rows: pd.DataFrame) -> None:
    counts = confusion_counts(rows["label"].to_numpy(), rows["score"].to_numpy(), 0.5)
    assert counts.tolist() == [[2, 1], [1, 2]]


def test_populations_are_shown_apart(rows: pd.DataFrame) -> None:
    assert list(population_rates(rows)) == ["3 all real", "2 minor planets", "1 transients"]
    figure = plot_error_rates(rows, 0.5)
    axes = figure.axes[0]
    assert axes.get_ylim()[0] == pytest.approx(0.5 / 3) and axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.lines][:2] == ["FNR, 3 all real", "FNR, 2 minor planets"]


def test_error_curves_step_where_the_scores_are(rows: pd.DataFrame) -> None:
    line = next(line for line in plot_error_rates(rows, 0.5).axes[0].lines if line.get_label() == "FPR, 3 bogus")
    x, y = line.get_xdata(), line.get_ydata()
    for threshold in (0.05, 0.15, 0.5, 0.7):
        shown = np.asarray(y)[np.searchsorted(np.asarray(x), threshold)]
        assert shown == pytest.approx((rows.loc[rows["label"] == 0, "score"] >= threshold).mean())


def test_roc_curves_end_in_the_corners_and_skip_absent_scores(rows: pd.DataFrame) -> None:
    labels = rows["label"].to_numpy()
    curves = roc_curves(labels, {"new": rows["score"].to_numpy(), "old": np.full(6, np.nan)})
    assert list(curves) == ["new"]
    fpr, tpr = curves["new"]
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1) and (np.diff(fpr) >= 0).all()
    assert len(plot_roc(labels, {"new": rows["score"].to_numpy()}).axes) == 2


def test_recovery_counts_real_rows_by_half_magnitudes() -> None:
    table = recovery_table(np.array([17.1, 17.2, 19.6, np.nan]), np.array([0.9, 0.2, 0.8, 0.9]), 0.5)
    assert table["middle"].tolist() == [17.25, 19.75]
    assert table["recovered"].tolist() == [0.5, 1.0] and table["n"].tolist() == [2, 1]


def test_history_marks_the_best_epoch() -> None:
    figure = plot_history({"loss": [1.0, 0.5, 0.6], "val_loss": [1.1, 0.7, 0.8]}, best_epoch=1)
    lines = figure.axes[0].lines
    assert list(lines[1].get_ydata()) == [1.1, 0.7, 0.8]
    assert lines[2].get_xdata()[0] == 2


def test_worst_calls_come_first(rows: pd.DataFrame) -> None:
    assert misclassified_rows(rows, 0.5).tolist() == [2, 3]
    assert misclassified_rows(rows, 0.85).tolist() == [2, 1]


def test_posterior_examples_are_near_the_threshold_wrong_and_wide() -> None:
    predictions = pd.DataFrame(
        {"mean": [0.5, 0.9, 0.4, 0.8, 0.01, 0.1], "std": [0.1, 0.2, 0.1, 0.3, 0.0, 0.1], "label": [1, 1, 1, 0, 1, 0]}
    )
    assert list(telling_rows(predictions, 0.5).items()) == [
        (0, "near the threshold"), (2, "near the threshold"), (4, "wrong call"), (3, "wrong call"),
        (1, "widest"), (5, "widest"),
    ]  # fmt: skip


def test_titles_tell_the_finding(rows: pd.DataFrame) -> None:
    labels, scores = rows["label"].to_numpy(), rows["score"].to_numpy()
    assert "misses 33.3 % of 3 real\nand accepts 33.3 % of 3 bogus" in plot_error_rates(rows, 0.5).axes[0].get_title()
    figure = plot_roc(labels, {"new": scores}, 0.5)
    assert figure.get_suptitle() == "new finds 66.7 % of the real rows at 1 % false positives"
    (line,) = [one for one in figure.axes[0].lines if str(one.get_label()).startswith("new: AUC 0.8889 (")]
    assert len(line.get_xdata()) == len(roc_curves(labels, {"new": scores})["new"][0])
    point = next(one for one in figure.axes[1].containers if one.get_label() == "threshold 0.500")
    assert (point[0].get_xdata()[0], point[0].get_ydata()[0]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_the_matrix_is_an_inset_and_rates_have_bands(rows: pd.DataFrame) -> None:
    (axes,) = plot_error_rates(rows, 0.5).axes
    assert len(axes.child_axes) == 1 and len(axes.collections) == 2
    assert [text.get_text().split()[0] for text in axes.child_axes[0].texts] == ["2", "1", "1", "2"]


@pytest.mark.parametrize(("style", "width", "shape"), [("page", 7.1, (1, 2)), ("column", 3.4, (2, 1))])
def test_figures_take_the_width_of_a_journal(
    rows: pd.DataFrame, style: str, width: float, shape: tuple[int, int]
) -> None:
    with paper_style(style):
        figure = plot_roc(rows["label"].to_numpy(), {"new": rows["score"].to_numpy()}, 0.5)
    assert figure.get_figwidth() == pytest.approx(width)
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    with pytest.raises(ConfigError, match="poster"), paper_style("poster"):
        pass


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_a_figure_is_the_same_bytes_in_every_format(rows: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    def write(name: str) -> bytes:
        with paper_style("column"):
            return write_figures({name: plot_error_rates(rows, 0.5)}, tmp_path, kind=kind)[0].read_bytes()

    first = write("a")
    assert first == write("b") and first.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[kind])


def test_single_hot_pixel_stays_visible() -> None:
    stamps = np.random.default_rng(0).normal(100, 1, (1, 55, 55, 1))
    stamps[0, 27, 27] = 200
    picture = paint_stamps(stamps, ["science"])[0, 0, ..., 0]
    assert picture[27, 27] == 255 and picture[:20].max() < 150


def test_layers_picture_shows_two_stamps_in_six_layers() -> None:
    stamps = np.random.default_rng(0).normal(size=(3, 21, 21, 6))
    layers = ("science", "template", "difference", "ptp", "min", "max")
    (axes,) = plot_layers(stamps, stamps[1], layers).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(layers)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["real", "bogus"]
    image = axes.images[0].get_array()
    for row, layer in ((0, 0), (1, 4)):
        x, y = round(axes.get_xticks()[layer]), round(axes.get_yticks()[row])
        shown = image[y - 10 : y + 11, x - 10 : x + 11][::-1]  # drawn upwards
        pair = np.stack([stamps[0], stamps[1]])
        np.testing.assert_array_equal(shown, paint_stamps(pair, layers)[row, layer])
        assert (image[y, x + 11] == 255).all()


def test_posterior_picture_shows_the_images_there_are() -> None:
    stamps, samples = np.zeros((2, 21, 21, 2)), np.full((2, 20), 0.3)
    figure = plot_posteriors(stamps, ("ptp", "difference"), samples, ["a", "b"], threshold=0.5)
    assert [axes.get_title() for axes in figure.axes[:1]] == ["difference"]
    assert len(figure.axes) == 4


def test_figures_without_their_data_are_left_out(rows: pd.DataFrame) -> None:
    meta = {"history": {"loss": [1.0]}, "best_epoch": 0, "model": "vgg6"}
    real = rows[rows["label"] == 1].assign(mag=np.nan)
    assert set(draw_figures(real, {"threshold": 0.5}, meta)) == {
        "history",
        "confusion",
        "scores",
        "reliability",
        "retention",
    }
    assert set(draw_figures(rows.assign(label=-1), {"threshold": 0.5}, meta)) == {"history"}
