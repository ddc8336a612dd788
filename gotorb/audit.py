"""Check labels and models of a simulated survey against its truth, which nothing else may read.

Labels are checked row by row. Models are checked on every detection of the held-out images, labelled or not:
the sample a night really brings.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb import classifier, label_data, layout
from gotorb.dataset.store import Dataset, open_dataset, read_table
from gotorb.evaluation.comparison import roc_comparison
from gotorb.evaluation.metrics import measure_scores, rounded
from gotorb.evaluation.purity import join_truth, measure_purity
from gotorb.labels.image import cut_detections
from gotorb.labels.parallel import Workers
from gotorb.labels.runs import make_shards, read_images, run_folder
from gotorb.settings import read_settings

OLD_SCORES = ("realbogus", "cnn_realbogus")


def read_truth(survey_dir: Path) -> pd.DataFrame:
    """What each candidate of a simulated survey really is."""
    return pd.read_csv(Path(survey_dir) / layout.TRUTH_CSV, dtype={"candidate_id": str})


def audit_labels(data_dir: Path, survey_dir: Path) -> dict[str, Any]:
    """Purity of a data set's labels; see `evaluation.purity.measure_purity`."""
    return measure_purity(join_truth(read_table(data_dir), read_truth(survey_dir)))


def audit_models(
    model_dirs: Sequence[Path],
    data_dir: Path,
    survey_dir: Path,
    *,
    images_dir: Path,
    out_dir: Path,
    n_samples: int = 20,
    n_bootstrap: int = 500,
    n_processes: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge models on every detection of the held-out images against truth, beside the survey's old scores.

    Parameters
    ----------
    model_dirs : sequence of Path
        Folders of trained models.
    data_dir : Path
        The divided data set they were trained on.
    survey_dir : Path
        The simulated survey.
    images_dir : Path
        The data set that `label_data.make` wrote, which knows the images.
    out_dir : Path
        Where the stamps of the held-out images are written, in a folder ``audit``.
    n_samples, n_bootstrap, seed
        Posterior samples, resamples of intervals, and seed of both.
    n_processes : int
        Worker processes that cut stamps.

    Returns
    -------
    dict
        n_images, kinds, and for each model and old score its metrics; for each model the comparison with the
        old random forest at fixed false-positive rates.
    """
    table = read_table(data_dir)
    held_out = sorted(set(table.loc[table[layout.SPLIT_COLUMN] == "test", "image_id"]))
    data = open_dataset(_cut_all(images_dir, held_out, out_dir, n_processes))
    rows = join_truth(data.table, read_truth(survey_dir))
    rows = rows.assign(label=rows["is_real"], metalabel=rows["kind"])
    report: dict[str, Any] = {"n_images": len(held_out), "n_detections": len(rows)}
    report["kinds"] = {kind: int(count) for kind, count in rows["kind"].value_counts().sort_index().items()}
    report["old_scores"] = {
        name: measure_scores(
            rows.assign(score=rows[name]), 0.5, n_bootstrap=n_bootstrap, rng=np.random.default_rng(seed)
        )
        for name in OLD_SCORES
    }
    report["models"] = {
        Path(model_dir).name: _audit_model(model_dir, data, rows, n_samples, n_bootstrap, seed)
        for model_dir in model_dirs
    }
    return rounded(report)


def _cut_all(images_dir: Path, image_ids: Collection[str], out_dir: Path, n_processes: int) -> Path:
    """Unlabelled data set of every detection of some images."""
    settings, options = read_settings(), label_data.cut_options(open_dataset(images_dir).size)
    tasks = [task for task in read_images(images_dir, settings) if task.image_id in image_ids]
    with run_folder(out_dir, "audit") as data_dir:
        make_shards(data_dir, tasks, cut_detections, options, workers=Workers(n_processes), title="cut")
    return data_dir


def _audit_model(
    model_dir: Path, data: Dataset, rows: pd.DataFrame, n_samples: int, n_bootstrap: int, seed: int
) -> dict[str, Any]:
    _, meta = classifier.load(model_dir)
    scores = classifier.score_rows(model_dir, None, data, n_samples=n_samples, seed=seed)
    metrics = measure_scores(
        rows.assign(score=scores), (meta or {})["threshold"], n_bootstrap=n_bootstrap, rng=np.random.default_rng(seed)
    )
    against = roc_comparison(
        rows["label"].to_numpy(int),
        scores,
        rows[OLD_SCORES[0]].to_numpy(float),
        n_bootstrap=n_bootstrap,
        rng=np.random.default_rng(seed),
    )
    return metrics | {"against_old_random_forest": against.to_dict(orient="records")}
