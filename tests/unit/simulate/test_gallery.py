"""The gallery shows the pixels of the survey, and its file stays small."""

from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.core import layout
from studies import gallery


def test_stamps_show_asteroids_in_difference_and_not_in_template(tiny_survey: Path) -> None:
    stamps = gallery.cut_stamps(tiny_survey, "asteroid", 6)
    truth = pd.read_csv(tiny_survey / layout.TRUTH_CSV)
    assert stamps.shape == (min(6, (truth["kind"] == "asteroid").sum()), 55, 55, 3)
    core = np.nansum(stamps[:, 25:30, 25:30], axis=(1, 2))
    assert (core[:, 2] > 100).all()
    assert np.median(core[:, 1] / core[:, 2]) < 0.3


def test_figure_has_three_lines_for_each_group_and_a_small_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    figure = gallery.plot_stamps({"one": rng.normal(size=(2, 55, 55, 3)), "two": np.full((1, 55, 55, 3), np.nan)})
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 3 * (2 + 1)
    gallery.write_png(figure, tmp_path / "grid.png")
    assert 1000 < (tmp_path / "grid.png").stat().st_size < 100_000
