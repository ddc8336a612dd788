"""Check labels and models of a simulated survey against its truth, which nothing else may read.

Labels are checked row by row. Models are checked on every detection of the held-out images, labelled or not:
the sample a night really brings.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb import classifier, label_data, layout
from gotorb.dataset.store import open_dataset, read_table
from gotorb.evaluation.comparison import roc_comparison
from gotorb.evaluation.metrics import measure_errors, measure_scores, rounded
from gotorb.evaluation.purity import join_truth, measure_purity
from gotorb.evaluation.thresholds import find_balance
from gotorb.labels.image import cut_detections
from gotorb.labels.parallel import Workers
from gotorb.labels.runs import make_shards, read_images, run_folder
from gotorb.params import SEED, EvaluateParams
from gotorb.settings import read_settings

EVALUATE = EvaluateParams()
OLD_SCORES = ("realbogus", "cnn_realbogus")
CLEAR_SNR = 7.0
"""Detections at or above this S/N are judged apart, too: the others are partly beyond anybody's telling."""


SCORE_COLUMNS = ("candidate_id", "image_id", "kind", "is_real", "mag", "snr")


class Audit(NamedTuple):
    """What came of it.

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
    """What each candidate of a simulated survey really is."""
    return pd.read_csv(Path(survey_dir) / layout.TRUTH_CSV, dtype={"candidate_id": str})


def audit_labels(data_dir: Path, survey_dir: Path) -> dict[str, Any]:
    """Purity of a data set's labels; see `evaluation.purity.measure_purity`."""
    return measure_purity(join_truth(read_table(data_dir), read_truth(survey_dir)))


def audit_models(
    model_dirs: Sequence[Path],
    detections_dir: Path,
    survey_dir: Path,
    *,
    n_samples: int = EVALUATE.n_samples,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    seed: int = SEED,
) -> Audit:
    """Judge models on every detection of the held-out images against truth, beside the survey's old scores.

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
    Audit
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
        found = classifier.score_rows(model_dir, None, data, n_samples=n_samples, seed=seed)
        name, threshold = Path(model_dir).name, float((classifier.load(model_dir)[1] or {})["threshold"])
        report["models"][name] = _audit_model(rows.assign(score=found), threshold, n_bootstrap, seed)
        scores = scores.assign(**{name: found.round(6)})
    return Audit(rounded(report), scores)


def cut_images(
    images_dir: Path, image_ids: Collection[str], *, out_dir: Path, name: str = "audit", n_processes: int = 1
) -> Path:
    """Unlabelled data set, ``out_dir/name``, of every detection of some images of another data set."""
    settings, options = read_settings(), label_data.cut_options(open_dataset(images_dir).size)
    tasks = [task for task in read_images(images_dir, settings) if task.image_id in set(image_ids)]
    with run_folder(out_dir, name) as data_dir:
        make_shards(data_dir, tasks, cut_detections, options, workers=Workers(n_processes), title="cut")
    return data_dir


def _audit_model(rows: pd.DataFrame, threshold: float, n_bootstrap: int, seed: int) -> dict[str, Any]:
    scores = rows["score"].to_numpy(float)
    metrics = measure_scores(rows, threshold, n_bootstrap=n_bootstrap, rng=np.random.default_rng(seed))
    against = roc_comparison(
        rows["label"].to_numpy(int),
        scores,
        rows[OLD_SCORES[0]].to_numpy(float),
        n_bootstrap=n_bootstrap,
        rng=np.random.default_rng(seed),
    )
    clear = (rows["snr"] >= CLEAR_SNR).to_numpy()
    apart = _judge_clear(rows["label"].to_numpy(int)[clear], scores[clear], metrics["threshold"])
    return metrics | {"against_old_random_forest": against.to_dict(orient="records"), "clear": apart}


def _judge_clear(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """Clear detections at the model's threshold, and at the best one for these very rows: the most to hope for."""
    balanced = find_balance(labels, scores)
    found = {"at_threshold": measure_errors(labels, scores, threshold)}
    return found | {
        "min_snr": CLEAR_SNR,
        "balanced_threshold": balanced,
        "at_balanced": measure_errors(labels, scores, balanced),
    }
