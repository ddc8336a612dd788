"""Parts of an evaluation and their files; headline numbers and curves for DVC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.files import whole_file, write_csv, write_json
from gotorb.core.untrusted import check_header
from gotorb.dataset.store import check_labels
from gotorb.errors import DataError
from gotorb.evaluation.comparison import roc_comparison
from gotorb.evaluation.metrics import Metrics, fpr_name, measure_scores, reliability_table, rounded
from gotorb.evaluation.posterior import PLAIN, Scale, summarise_samples
from gotorb.evaluation.thresholds import error_rates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OLD_SCORES = ("realbogus", "cnn_realbogus")
"""Columns of scores by earlier classifiers, compared with when the data set has them."""

PREDICTION_COLUMNS = (
    "id", "label", "metalabel", "split", "mag", "score", "mean", "std", "p_real", "confidence", "bald",
)  # fmt: skip
ROW_COLUMNS = ("image_id", "object_id", "snr", "ut", "missing_fraction", "host_offset_arcsec", "tag")
"""Columns of the data set that intervals and breakdowns need, copied where it has them."""
DPI = 120
HEADLINE_DIGITS = 4
THRESHOLD_GRID = np.linspace(0, 1, 101)
MOST_POINTS = 400
"""Points of a curve for DVC at most."""
LEVEL = 2
"""Of png's compression: quicker than the usual 6, and no larger on stamps of noise."""


@dataclass(frozen=True)
class Evaluation:
    """Performance of a model on rows it was not trained on.

    Attributes
    ----------
    metrics : dict
        As in metrics.json: those of the test rows, and under ``validation`` those of the validation rows.
    predictions : DataFrame
        As in predictions.csv: one row per stamp.
    figures : dict
        Name of a figure -> matplotlib Figure; written as ``<name>.png``.
    out_dir : Path
        Folder of the files.
    curves : dict
        Name of a curve -> its points (`make_curves`); written as ``<name>.csv``.
    """

    metrics: Metrics
    predictions: pd.DataFrame
    figures: "dict[str, Figure]" = field(default_factory=dict)
    out_dir: Path = Path()
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def plots(self) -> list[Path]:
        """Files of the figures."""
        return [self.out_dir / f"{name}.png" for name in self.figures]


def make_predictions(
    table: pd.DataFrame, scores: np.ndarray, samples: np.ndarray | None, scale: Scale = PLAIN
) -> pd.DataFrame:
    """Join rows with their scores and posterior summaries.

    Parameters
    ----------
    table : DataFrame
        Rows with id, label, metalabel, split, and mag when known.
    scores : ndarray
        (n,) deterministic scores.
    samples : ndarray, optional
        (n, n_samples) posterior samples; the summaries are empty without them.
    scale : Scale
        The model's threshold and temperature.
    """
    copied = [name for name in (*ROW_COLUMNS, *OLD_SCORES) if name in table]
    predictions = table.reindex(columns=[*PREDICTION_COLUMNS[:5], *copied])
    predictions["score"] = scores
    summary = None if samples is None else summarise_samples(samples, scale)
    for name in ("mean", "std", "p_real", "confidence", "bald"):
        predictions[name] = np.nan if summary is None else getattr(summary, name)
    return predictions[[*PREDICTION_COLUMNS, *copied]].reset_index(drop=True)


def add_tags(table: pd.DataFrame, data_dir: Path | str) -> pd.DataFrame:
    """Rows with the first tag that annotators gave them, where the data set was exported from eyeball with tags.

    Parameters
    ----------
    table : DataFrame
        Rows with id.
    data_dir : path
        Folder of the data set.

    Returns
    -------
    DataFrame
        With the column tag, empty for rows without one; unchanged without tags.
    """
    path = Path(data_dir) / layout.EYEBALL_CSV
    if not path.exists():
        return table
    votes = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "tags" not in votes or not votes["tags"].any():
        return table
    first = votes.loc[votes["tags"] != ""].drop_duplicates("id").set_index("id")["tags"].str.split(",").str[0]
    return table.assign(tag=table["id"].map(first).fillna(""))


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Predictions of an evaluation, from its folder or the csv itself.

    Parameters
    ----------
    path : path
        Folder of an evaluation, or its csv.

    Returns
    -------
    DataFrame

    Raises
    ------
    DataError
        If there is none, or a column is missing.
    """
    found = Path(path) / layout.PREDICTIONS_CSV if Path(path).is_dir() else Path(path)
    try:
        check_header(found)
        table = pd.read_csv(
            found,
            dtype={"id": str, "ut": str, "image_id": str, "object_id": str},
            keep_default_na=False,
            na_values=[""],
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{found} cannot be read as csv ({str(error).strip()}); give the folder of an evaluation, "
            "as classifier.evaluate() or `make repro` writes it"
        ) from None
    absent = [name for name in ("id", "label", "split", "score", "mag") if name not in table]
    if absent:
        raise DataError(f"no column {absent[0]!r} in {found} (has {', '.join(table.columns)}); evaluate again")
    return table.assign(label=check_labels(table, where=found))


def measure_predictions(
    predictions: pd.DataFrame, threshold: float, *, split: str, n_bootstrap: int, seed: int
) -> Metrics:
    """Measure the labelled rows of one part, and compare with the survey's older scores where there are any.

    Parameters
    ----------
    predictions : DataFrame
        From `make_predictions`.
    threshold : float
    split : str
        Part that is measured.
    n_bootstrap, seed : int

    Returns
    -------
    dict
    """
    labelled = predictions["label"].isin((layout.REAL, layout.BOGUS))
    rows = predictions[labelled & (predictions["split"] == split)]
    metrics = measure_scores(rows, threshold, n_bootstrap=n_bootstrap, rng=np.random.default_rng(seed))
    return metrics | {"comparison": rounded(_compare_old(rows, n_bootstrap, seed))}


def _compare_old(rows: pd.DataFrame, n_bootstrap: int, seed: int) -> dict[str, Any]:
    compared = {}
    for name in OLD_SCORES:
        old = pd.to_numeric(rows[name], errors="coerce").to_numpy(float) if name in rows else np.empty(0)
        known = np.isfinite(old)
        if known.any() and rows["label"].to_numpy()[known].min() != rows["label"].to_numpy()[known].max():
            table = roc_comparison(
                rows["label"].to_numpy(int), rows["score"].to_numpy(float), old,
                n_bootstrap=n_bootstrap, rng=np.random.default_rng(seed),
            )  # fmt: skip
            compared[name] = {fpr_name(row["fpr"]): row for row in table.to_dict("records")}
    return compared


def make_headline(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float | None]:
    """Pick the few numbers of a report that runs are compared by.

    Parameters
    ----------
    metrics : mapping
        As `gotorb.evaluation.metrics.measure_scores` returns them.
    prefix : str
        Put before each name.

    Returns
    -------
    dict
        auc; missed, the FNR at 1 % FPR. Four digits, None where undefined.
    """
    found = {"auc": metrics["auc"], "missed": metrics["fnr_at_fpr"][fpr_name(0.01)]}
    return {f"{prefix}{name}": round_headline(value) for name, value in found.items()}


def round_headline(value: float | None) -> float | None:
    """Round a headline number to four digits.

    Parameters
    ----------
    value : float or None
        The number; None where it is undefined.

    Returns
    -------
    float or None
        The same, rounded.

    Examples
    --------
    >>> round_headline(0.123456)
    0.1235
    """
    return None if value is None else round(float(value), HEADLINE_DIGITS)


def make_curves(predictions: pd.DataFrame, history: Mapping[str, Sequence[float]]) -> dict[str, pd.DataFrame]:
    """Points of the curves that DVC overlays for several revisions.

    Parameters
    ----------
    predictions : DataFrame
        Scored rows of one part; those of unknown label are ignored.
    history : mapping
        Quantity of the training -> its value after each epoch.

    Returns
    -------
    dict
        history; and, of rows with both classes, roc (fpr, tpr), error_rates (threshold, fpr, fnr) and reliability
        (mean_score, fraction_real, n).
    """
    epochs = pd.DataFrame(dict(history))
    curves = {"history": epochs.assign(epoch=np.arange(1, len(epochs) + 1))}
    rows = predictions[predictions["label"].isin((layout.REAL, layout.BOGUS))]
    labels, scores = rows["label"].to_numpy(int), rows["score"].to_numpy(float)
    if len(set(labels.tolist())) < 2:
        return curves
    rates = error_rates(labels, scores)
    places = np.searchsorted(rates.thresholds, THRESHOLD_GRID)
    corners = np.unique(np.linspace(0, len(rates.fpr) - 1, MOST_POINTS).round().astype(int))[::-1]
    curves["roc"] = pd.DataFrame({"fpr": rates.fpr[corners], "tpr": 1 - rates.fnr[corners]})
    curves["error_rates"] = pd.DataFrame(
        {"threshold": THRESHOLD_GRID, "fpr": rates.fpr[places], "fnr": rates.fnr[places]}
    )
    curves["reliability"] = reliability_table(labels, scores)[["mean_score", "fraction_real", "n"]]
    return curves


def write_evaluation(evaluation: Evaluation) -> None:
    """Write metrics.json, predictions.csv, curves and one png per figure; equal content gives equal bytes.

    Parameters
    ----------
    evaluation : Evaluation
    """
    out_dir = evaluation.out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    write_json(out_dir / layout.METRICS_JSON, evaluation.metrics)
    write_scores(out_dir / layout.PREDICTIONS_CSV, evaluation.predictions)
    for name, curve in evaluation.curves.items():
        write_csv(out_dir / f"{name}.csv", curve, float_format="%.4f")
    write_figures(evaluation.figures, out_dir)


def write_scores(path: Path, table: pd.DataFrame) -> None:
    """Write a table of scores as csv, whole or not at all.

    Parameters
    ----------
    path : Path
        The csv.
    table : DataFrame
        Written without its index, with six digits.
    """
    write_csv(path, table, float_format="%.6f")


def write_figures(figures: "Mapping[str, Figure]", out_dir: Path, *, kind: str = "png", dpi: int = DPI) -> list[Path]:
    """Write one file per figure, each whole or not at all.

    Parameters
    ----------
    figures : mapping of str to Figure
    out_dir : Path
    kind : {"png", "pdf", "svg"}
    dpi : int
        Pixels of an inch.

    Returns
    -------
    list of Path
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = {name: out_dir / f"{name}.{kind}" for name in figures}
    for name, path in paths.items():
        with whole_file(path) as aside:
            _save_figure(figures[name], aside, kind, dpi)
    return list(paths.values())


VARYING = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}, "svg": {"Date": None}}
"""Notes of versions and times in a file, left out so that equal figures are equal bytes."""


def _save_figure(figure: "Figure", path: Path, kind: str, dpi: int) -> None:
    """Save a figure without the program's version and the time."""
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": LEVEL}} if kind == "png" else {}
    figure.savefig(path, format=kind, dpi=dpi, metadata=VARYING[kind], **options)
