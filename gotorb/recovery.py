"""How many injected transients models find, at their own thresholds and at one common false-positive rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb import classifier
from gotorb.dataset.split import labelled_rows
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.evaluation.recovery import compare_recovery, measure_recovery, plot_recovery_difference, plot_recovery_map
from gotorb.evaluation.thresholds import choose_threshold
from gotorb.params import N_SAMPLES, SEED, RecoveryParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure


RECOVERY = RecoveryParams()
SCORE_COLUMNS = ("id", "image_id", "mag", "snr", "host_id", "host_offset_arcsec")


class Recovery(NamedTuple):
    """What came of it.

    Attributes
    ----------
    report : dict
        n, fpr, and for each model thresholds and recovery (see `evaluation.recovery.measure_recovery`) at its own
        threshold and at the common FPR; for each pair of models the comparison at that FPR.
    figures : dict
        ``recovery_<model>`` and ``recovery_<model>_minus_<model>``, at the common FPR.
    scores : DataFrame
        Every injected source: SCORE_COLUMNS, and for each model its score and, in ``<model>_found``, whether it is
        found at the common FPR.
    """

    report: dict[str, Any]
    figures: dict[str, Figure]
    scores: pd.DataFrame

    @property
    def slices(self) -> dict[str, dict[str, float | None]]:
        """Found fraction of each slice for each model at the common FPR."""
        return {
            model: {name: part["fraction"] for name, part in known["at_fpr"]["slices"].items()}
            for model, known in self.report["models"].items()
        }


class Finds(NamedTuple):
    """Which sources a model calls real."""

    own_threshold: float
    threshold: float
    scores: np.ndarray
    at_own: np.ndarray
    at_fpr: np.ndarray


def judge_recovery(
    model_dirs: Sequence[Path | str],
    injected_dir: Path | str,
    data_dir: Path | str,
    *,
    fpr: float = RECOVERY.fpr,
    n_samples: int = N_SAMPLES,
    seed: int = SEED,
) -> Recovery:
    """Show injected transients to models.

    Parameters
    ----------
    model_dirs : sequence of path
        Folders of trained models.
    injected_dir : path
        Data set of injected sources (`gotorb.simulate.transients.add_transients`).
    data_dir : path
        The divided data set of the models; the common FPR is that of its bogus validation rows.
    fpr : float
        Fraction of the bogus validation rows that each model may call real.
    n_samples, seed : int
        Posterior samples per stamp, and their seed.
    """
    injected, data = open_dataset(injected_dir), open_dataset(data_dir)
    found = {Path(path).name: _find(path, injected, data, fpr, n_samples, seed) for path in model_dirs}
    rows = injected.table
    scores = rows[list(SCORE_COLUMNS)]
    report: dict[str, Any] = {"n": len(rows), "fpr": fpr, "models": {}, "differences": {}}
    figures: dict[str, Figure] = {}
    for name, finds in found.items():
        thresholds = {"threshold": round(finds.own_threshold, 6), "threshold_at_fpr": round(finds.threshold, 6)}
        report["models"][name] = thresholds | {
            "at_threshold": measure_recovery(rows, finds.at_own),
            "at_fpr": measure_recovery(rows, finds.at_fpr),
        }
        scores = scores.assign(**{name: finds.scores.round(6), f"{name}_found": finds.at_fpr.astype(int)})
        title = f"{name}: injected sources found, {100 * fpr:g} % of bogus accepted"
        figures[f"recovery_{name}"] = plot_recovery_map(rows, finds.at_fpr, title=title)
    for one, other in combinations(found, 2):
        both = found[one].at_fpr, found[other].at_fpr
        report["differences"][f"{one} minus {other}"] = compare_recovery(rows, *both)
        figures[f"recovery_{one}_minus_{other}"] = plot_recovery_difference(
            rows, *both, title=f"found by {one} minus found by {other} (below: by one of them alone)"
        )
    return Recovery(report, figures, scores)


def _find(model_dir: Path | str, injected: Dataset, data: Dataset, fpr: float, n_samples: int, seed: int) -> Finds:
    _, meta = classifier.load(model_dir)
    validation = labelled_rows(data.table, "validation")
    known = classifier.score_rows(model_dir, None, data, validation, n_samples=n_samples, seed=seed)
    threshold = choose_threshold(data.labels[validation], known, max_fpr=fpr)
    scores = classifier.score_rows(model_dir, None, injected, n_samples=n_samples, seed=seed)
    own = float((meta or {})["threshold"])
    return Finds(own, threshold, scores, scores >= own, scores >= threshold)
