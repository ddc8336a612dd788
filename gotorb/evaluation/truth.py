"""Labels and models of a simulated survey against its truth, which no other part of the package reads.

Labels are compared row by row. Models are evaluated on every detection of the held-out images, labelled or not:
the sample of a real night.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.executor import Workers
from gotorb.core.params import SEED, EvaluateParams, LabelParams
from gotorb.core.settings import read_settings
from gotorb.dataset.store import open_dataset, read_table, run_folder
from gotorb.errors import DataError
from gotorb.evaluation.comparison import roc_comparison
from gotorb.evaluation.evaluate import load_with_meta, score_rows
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import CLEAR_SNR, FPRS, fpr_name, measure_scores, rounded
from gotorb.evaluation.report import OLD_SCORES
from gotorb.evaluation.thresholds import choose_threshold, find_balance, measure_errors
from gotorb.labels.image import LabelOptions, cut_detections
from gotorb.labels.jobs import make_shards, read_images

EVALUATE, LABEL = EvaluateParams(), LabelParams()
SCORE_COLUMNS = ("candidate_id", "image_id", "kind", "is_real", "mag", "snr")


class TruthTest(NamedTuple):
    """Results of models on detections whose truth is known.

    Attributes
    ----------
    report : dict
        n_images, kinds, and for each model and old score its metrics; for each model the comparison with the old
        random forest at fixed false-positive rates, and the clear detections apart.
    scores : DataFrame
        Every detection: SCORE_COLUMNS, and a column of scores for each model.
    """

    report: dict[str, Any]
    scores: pd.DataFrame


def read_truth(survey_dir: Path) -> pd.DataFrame:
    """Read the true nature of each candidate of a simulated survey.

    Parameters
    ----------
    survey_dir : Path
        The simulated survey.

    Returns
    -------
    DataFrame
        candidate_id, kind, is_real and more.
    """
    return pd.read_csv(Path(survey_dir) / layout.TRUTH_CSV, dtype={"candidate_id": str})


def check_labels(data_dir: Path, survey_dir: Path) -> dict[str, Any]:
    """Measure the purity of a data set's labels.

    Parameters
    ----------
    data_dir : Path
        The data set.
    survey_dir : Path
        The simulated survey that it was made from.

    Returns
    -------
    dict
        As `_measure_purity`.
    """
    return _measure_purity(join_truth(read_table(data_dir), read_truth(survey_dir)))


def evaluate_on_truth(
    model_dirs: Sequence[Path],
    detections_dir: Path,
    survey_dir: Path,
    *,
    n_samples: int = EVALUATE.n_samples,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    seed: int = SEED,
) -> TruthTest:
    """Evaluate models on every detection of the held-out images against truth, next to the survey's old scores.

    Parameters
    ----------
    model_dirs : sequence of Path
        Folders of trained models.
    detections_dir : Path
        Every detection of images that no model was trained on, from `cut_images`.
    survey_dir : Path
        The simulated survey that they are of.
    n_samples, n_bootstrap, seed
        Posterior samples, resamples of intervals, and seed of both.

    Returns
    -------
    TruthTest
        The report and the scores.
    """
    data = open_dataset(detections_dir)
    rows = join_truth(data.table, read_truth(survey_dir))
    rows = rows.assign(label=rows["is_real"], metalabel=rows["kind"])
    report: dict[str, Any] = {"n_images": int(rows["image_id"].nunique()), "n_detections": len(rows)}
    report["kinds"] = {kind: int(count) for kind, count in rows["kind"].value_counts().sort_index().items()}
    report["old_scores"] = {
        name: measure_scores(
            rows.assign(score=rows[name]), 0.5, n_bootstrap=n_bootstrap, rng=np.random.default_rng(seed)
        )
        for name in OLD_SCORES
    }
    scores = rows[list(SCORE_COLUMNS)]
    report["models"] = {}
    for model_dir in model_dirs:
        name, (model, meta) = Path(model_dir).name, load_with_meta(model_dir)
        found = score_rows(model, meta, data, n_samples=n_samples, seed=seed)
        report["models"][name] = _measure_model(rows.assign(score=found), float(meta["threshold"]), n_bootstrap, seed)
        scores = scores.assign(**{name: found.round(6)})
    return TruthTest(rounded(report), scores)


def read_thresholds(path: Path | str, fpr: float) -> dict[str, float]:
    """Read the threshold of each model at a true FPR from the report of `evaluate_on_truth`.

    Parameters
    ----------
    path : path
        The report as json.
    fpr : float
        One of `gotorb.evaluation.metrics.FPRS`.

    Returns
    -------
    dict
        Model -> threshold; empty where the report or the FPR is missing.
    """
    models = json.loads(Path(path).read_text(encoding="utf-8"))["models"] if Path(path).exists() else {}
    found = {name: known.get("threshold_at_fpr", {}).get(fpr_name(fpr)) for name, known in models.items()}
    return {name: float(threshold) for name, threshold in found.items() if threshold is not None}


def cut_images(
    images_dir: Path, image_ids: Collection[str], options: LabelOptions, *, out_dir: Path,
    name: str = "detections", n_processes: int = LABEL.n_processes,
) -> Path:  # fmt: skip
    """Cut every detection of some images of another data set.

    Parameters
    ----------
    images_dir : Path
        A data set that knows the images.
    image_ids : collection of str
        Images whose detections are wanted.
    options : LabelOptions
        How stamps are cut (`gotorb.label_data.cut_options`).
    out_dir : Path
        Parent of the new folder.
    name : str
        Of the new folder.
    n_processes : int
        Workers.

    Returns
    -------
    Path
        The unlabelled data set ``out_dir/name``.
    """
    wanted = set(image_ids)
    tasks = [task for task in read_images(images_dir, read_settings()) if task.image_id in wanted]
    with run_folder(out_dir, name) as data_dir:
        make_shards(data_dir, tasks, cut_detections, options, workers=Workers(n_processes), title="cut")
    return data_dir


def _measure_model(rows: pd.DataFrame, threshold: float, n_bootstrap: int, seed: int) -> dict[str, Any]:
    scores = rows["score"].to_numpy(float)
    metrics = measure_scores(rows, threshold, n_bootstrap=n_bootstrap, rng=np.random.default_rng(seed))
    against = roc_comparison(
        rows["label"].to_numpy(int),
        scores,
        rows[OLD_SCORES[0]].to_numpy(float),
        n_bootstrap=n_bootstrap,
        rng=np.random.default_rng(seed),
    )
    labels, clear = rows["label"].to_numpy(int), (rows["snr"] >= CLEAR_SNR).to_numpy()
    return metrics | {
        "against_old_random_forest": against.to_dict(orient="records"),
        "clear": _measure_clear(labels[clear], scores[clear], metrics["threshold"]),
        "threshold_at_fpr": {fpr_name(fpr): choose_threshold(labels, scores, max_fpr=fpr) for fpr in FPRS},
    }


def _measure_clear(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """Errors of clear detections at the model's threshold, and at the best one for these rows: the upper limit."""
    balanced = find_balance(labels, scores)
    found = {"at_threshold": measure_errors(labels, scores, threshold)}
    return found | {
        "min_snr": CLEAR_SNR,
        "balanced_threshold": balanced,
        "at_balanced": measure_errors(labels, scores, balanced),
    }


FROM_DETECTIONS = ("mp", "randjunk")
"""Metalabels whose rows are detections of their own; the others are made of several sources."""


def join_truth(table: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Join the rows of a data set that are detections with their true nature.

    Parameters
    ----------
    table : DataFrame
        Rows with candidate_id.
    truth : DataFrame
        candidate_id, kind, is_real (1 or 0).

    Returns
    -------
    DataFrame
        The rows of metalabel mp or randjunk, or without one, with kind and is_real.

    Raises
    ------
    DataError
        If a detection is not in the truth: the two are not of one survey.
    """
    own = table[table["metalabel"].isin([*FROM_DETECTIONS, ""])]
    known = truth.assign(candidate_id=truth["candidate_id"].astype(str))[["candidate_id", "kind", "is_real"]]
    joined = own.merge(known, on="candidate_id", how="left", validate="many_to_one")
    unknown = joined["is_real"].isna()
    if unknown.any():
        raise DataError(
            f"candidate {joined['candidate_id'][unknown].iloc[0]} is not in {layout.TRUTH_CSV}; "
            "the labels are of another survey: run the label stage again"
        )
    return joined.assign(is_real=joined["is_real"].astype(int))


def _measure_purity(rows: pd.DataFrame) -> dict[str, Any]:
    """Measure the fraction of right labels of each metalabel, with 95 % Wilson intervals and counts of true kinds.

    Parameters
    ----------
    rows : DataFrame
        From `join_truth`: label, metalabel, kind, is_real.

    Returns
    -------
    dict
        For each metalabel: n, n_right, purity, low, high, kinds (counts).
    """
    purity = {}
    for name, part in rows.groupby("metalabel"):
        n, n_right = len(part), int((part["label"] == part["is_real"]).sum())
        low, high = wilson_interval(n_right, n) or (None, None)
        kinds = {kind: int(count) for kind, count in part["kind"].value_counts().sort_index().items()}
        purity[name] = {"n": n, "n_right": n_right, "purity": n_right / n, "low": low, "high": high, "kinds": kinds}
    return rounded(purity)
