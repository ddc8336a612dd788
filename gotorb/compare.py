"""Two models on the same rows: what differs, and whether by more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError
from gotorb.evaluation.comparison import compare_auc, roc_comparison
from gotorb.evaluation.judge import score_rows_of
from gotorb.evaluation.metrics import rounded
from gotorb.evaluation.report import read_predictions
from gotorb.evaluation.significance import compare_calls
from gotorb.models import find_model
from gotorb.params import SEED, DecideParams

TEST = "test"
DECIDE = DecideParams()
SCORE_COLUMNS = ("id", "label", "metalabel", "mag", "snr", "ut", "host_offset_arcsec", "split")


def read_scores(name: str, data_dir: Path | str) -> tuple[pd.DataFrame, float]:
    """Scores of labelled test rows, and the threshold, of an evaluation or a model.

    Parameters
    ----------
    name : str
        Folder of an evaluation (with predictions.csv), folder of a model, ``model.h5``, or registry address.
    data_dir : path
        Divided data set that models score; evaluations have their own scores.

    Raises
    ------
    DataError, ModelError
        If there is no such evaluation or model.
    """
    if (Path(name) / layout.PREDICTIONS_CSV).exists() and not (Path(name) / layout.MODEL_H5).exists():
        rows, threshold = read_predictions(name), _threshold_of(Path(name))
    else:
        origin, data = find_model(name), open_dataset(data_dir)
        rows = data.table.assign(score=score_rows_of(origin.model, origin.layers, data))
        threshold = origin.threshold
    inside = (rows["split"] == TEST) & rows["label"].isin((layout.REAL, layout.BOGUS))
    return rows[inside].reindex(columns=[*SCORE_COLUMNS, "score"]).set_index("id"), threshold


def _threshold_of(folder: Path) -> float:
    import json

    for path in (folder / layout.METRICS_JSON, Path("reports") / f"{folder.name}.json"):
        if path.exists():
            return float(json.loads(path.read_text())["threshold"])
    raise DataError(f"no {layout.METRICS_JSON} in {folder} tells its threshold; evaluate again")


def compare_models(
    one: str,
    other: str,
    *,
    data_dir: Path | str = DECIDE.data_dir,
    n_bootstrap: int = DECIDE.n_bootstrap,
    seed: int = SEED,
) -> dict[str, Any]:
    """Compare two models or evaluations on the rows that both have.

    Parameters
    ----------
    one, other : str
        As `read_scores` takes them.
    data_dir : path
        Divided data set that models score.
    n_bootstrap : int
        Resamples of the paired intervals.
    seed : int
        Of the resamples.

    Returns
    -------
    dict
        n_rows, n_real; auc (see `evaluation.comparison.AucComparison`); found, the recovered fractions at fixed FPR;
        calls, wrong calls of each group at the models' own thresholds with McNemar's test.

    Raises
    ------
    DataError
        If no row is in both, or one has another label there.
    """
    (a, threshold_a), (b, threshold_b) = read_scores(one, data_dir), read_scores(other, data_dir)
    shared = a.index.intersection(b.index, sort=True)
    if len(shared) == 0 or not (a.loc[shared, "label"] == b.loc[shared, "label"]).all():
        raise DataError(
            f"{one} and {other} share {len(shared)} test rows of equal label; compare models of one data set (--data)"
        )
    rows, labels = a.loc[shared], a.loc[shared, "label"].to_numpy(int)
    scores = [part.loc[shared, "score"].to_numpy(float) for part in (a, b)]
    rng = np.random.default_rng(seed)
    auc = compare_auc(labels, *scores, n_bootstrap=n_bootstrap, rng=rng)
    found = roc_comparison(labels, *scores, n_bootstrap=n_bootstrap, rng=rng).to_dict("records")
    wrong = [(part >= t) != (labels == 1) for part, t in zip(scores, (threshold_a, threshold_b), strict=True)]
    calls = compare_calls(rows.reset_index(), *wrong)
    counts = {"one": one, "other": other, "n_rows": len(rows), "n_real": int(labels.sum())}
    thresholds = {"threshold": threshold_a, "threshold_other": threshold_b}
    return rounded(counts | thresholds | {"auc": vars(auc), "found": found, "calls": calls.to_dict("records")})
