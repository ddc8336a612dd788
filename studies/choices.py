"""Simulated choices between models of known quality on noisy labels: how often each rule takes the right one.

``python -m studies.choices`` writes reports/choices.json and its table, reports/choices.md. Each choice has 600
validation rows in 12 images, of whose bogus labels 1 % are on real sources, 720 transients injected into these images,
and three models: their areas under the ROC curve against truth are about 0.997, 0.989 and 0.983. The order declared is
drawn for each choice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.core.files import write_json, write_text
from gotorb.evaluation.calibration import expit, fit_calibration
from gotorb.evaluation.comparison import Injected, choose_model
from gotorb.evaluation.intervals import area_influence, wilson_interval

N_CHOICES, N_ROWS, N_IMAGES, N_INJECTED, CONTAMINATION = 50, 600, 12, 60, 0.01
REAL_FRACTION, N_BOOTSTRAP = 0.45, 500
GAINS = {"best": 4.2, "middling": 3.0, "worst": 2.6}
"""Model -> its signal for a source of S/N 10, in units of its own noise: the qualities of fusion and our networks."""
SHARED, OF_IMAGE, TAIL = 1.2, 0.4, 4
"""Scatter of the logits that all models of a stamp share, and that all stamps of an image share; degrees of freedom of
each model's own noise (Student's t)."""


class Rows(NamedTuple):
    """A simulated choice: labels, truth, images, calibrated scores of each model, injected transients."""

    labels: np.ndarray
    truth: np.ndarray
    images: np.ndarray
    probabilities: dict[str, np.ndarray]
    injected: Injected


def simulate_choice(seed: int, gains: dict[str, float]) -> Rows:
    """Simulate the rows of a choice.

    Parameters
    ----------
    seed : int
    gains : dict of str to float
        Signal of each model; the order declared is drawn.

    Returns
    -------
    Rows
    """
    rng = np.random.default_rng(seed)
    gains = {name: gains[name] for name in rng.permutation(sorted(gains)).tolist()}
    truth = (rng.random(N_ROWS) < REAL_FRACTION).astype(int)
    wrong = (truth == 1) & (rng.random(N_ROWS) < CONTAMINATION * (1 - REAL_FRACTION) / REAL_FRACTION)
    labels, images = np.where(wrong, 0, truth), rng.integers(0, N_IMAGES, N_ROWS)
    of_image = rng.normal(0, OF_IMAGE, N_IMAGES)
    snr = np.where(truth == 1, np.exp(rng.normal(np.log(19), 0.6, N_ROWS)), 10.0)
    logits = _draw_logits(truth, snr, of_image[images], gains, rng)
    where = np.repeat(np.arange(N_IMAGES), N_INJECTED)
    rows = pd.DataFrame({"image_id": [f"image {number}" for number in where]})
    rows["snr"] = np.exp(rng.uniform(np.log(4), np.log(60), len(rows)))
    rows["host_offset_arcsec"] = np.where(rng.random(len(rows)) < 0.2, np.nan, rng.uniform(0, 8, len(rows)))
    shown = _draw_logits(np.ones(len(rows), int), rows["snr"].to_numpy(), of_image[where], gains, rng)
    scaled, found = {}, {}
    for name, own in logits.items():
        calibration = fit_calibration(labels, expit(own))
        scaled[name], found[name] = calibration.apply(expit(own)), calibration.apply(expit(shown[name]))
    return Rows(labels, truth, np.array([f"image {number}" for number in images]), scaled, Injected(rows, found))


def _draw_logits(
    truth: np.ndarray, snr: np.ndarray, of_image: np.ndarray, gains: dict[str, float], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Logits of each model: a faint source gives little signal, a bogus row always the same."""
    shared = of_image + rng.normal(0, SHARED, len(truth))
    strength = np.clip(np.log2(snr / 5), 0, 1.6) * truth - (1 - truth)
    return {name: gain * strength + shared + rng.standard_t(TAIL, len(truth)) for name, gain in gains.items()}


def by_rule(rows: Rows) -> str:
    """Take the model that `gotorb.evaluation.comparison.choose_model` takes.

    Parameters
    ----------
    rows : Rows

    Returns
    -------
    str
    """
    return choose_model(
        rows.labels, rows.probabilities, rows.images, injected=rows.injected, n_bootstrap=N_BOOTSTRAP,
        rng=np.random.default_rng(0),
    ).name  # fmt: skip


def by_auc(rows: Rows) -> str:
    """Take the model of the largest area under the ROC curve.

    Parameters
    ----------
    rows : Rows

    Returns
    -------
    str
    """
    return max(rows.probabilities, key=lambda name: area_influence(rows.labels, rows.probabilities[name])[0])


def by_brier(rows: Rows) -> str:
    """Take the model of the smallest Brier score, without a look at its noise.

    Parameters
    ----------
    rows : Rows

    Returns
    -------
    str
    """
    return min(rows.probabilities, key=lambda name: float(((rows.probabilities[name] - rows.labels) ** 2).mean()))


RULES: dict[str, Callable[[Rows], str]] = {
    "Brier, injected transients, order": by_rule, "validation AUC": by_auc, "plain Brier": by_brier,
}  # fmt: skip


def run_choices(n_choices: int = N_CHOICES, gains: dict[str, float] | None = None) -> dict[str, Any]:
    """Make simulated choices and count those in which each rule takes the best model.

    Parameters
    ----------
    n_choices : int
    gains : dict of str to float, optional
        Signal of each model; the largest is right.

    Returns
    -------
    dict
        n_choices, auc (of each model against truth, mean), and for each rule n_right, fraction, low, high (95 %).
    """
    gains = gains or GAINS
    right, areas = max(gains, key=lambda name: gains[name]), dict.fromkeys(gains, 0.0)
    counts = dict.fromkeys(RULES, 0)
    for seed in range(n_choices):
        rows = simulate_choice(seed, gains)
        for name, rule in RULES.items():
            counts[name] += rule(rows) == right
        for name, scores in rows.probabilities.items():
            areas[name] += area_influence(rows.truth, scores)[0] / n_choices
    report: dict[str, Any] = {"n_choices": n_choices, "auc": {name: round(area, 4) for name, area in areas.items()}}
    for name, n_right in counts.items():
        low, high = wilson_interval(n_right, n_choices) or (None, None)
        report[name] = {"n_right": n_right, "fraction": n_right / n_choices, "low": low, "high": high}
    return report


def format_choices(report: dict[str, Any]) -> str:
    """Format a report of `run_choices` as a table of markdown.

    Parameters
    ----------
    report : dict

    Returns
    -------
    str
    """
    areas = ", ".join(f"{area:.4f}" for area in report["auc"].values())
    lines = [f"AUC of the models against truth: {areas}.", "", "| rule | right model chosen |", "|---|---|"]
    for name in RULES:
        one = report[name]
        interval = f"{100 * one['low']:.0f} to {100 * one['high']:.0f} %"
        lines.append(f"| {name} | {one['n_right']} of {report['n_choices']} ({interval}) |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write reports/choices.json and reports/choices.md."""
    report = run_choices()
    write_json(Path("reports/choices.json"), report)
    write_text(Path("reports/choices.md"), format_choices(report))


if __name__ == "__main__":
    main()
