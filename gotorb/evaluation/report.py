"""Report of an evaluation: metrics, predictions, curves and figures as files, headline numbers, and model cards.

References
----------
Mitchell et al. 2019 (FAT*, arXiv:1810.03993): model cards.
"""

from collections.abc import Iterator, Mapping, Sequence
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
"""Columns of earlier classifiers' scores, compared with ours if the data set has them."""
PREDICTION_COLUMNS = (
    "id", "label", "metalabel", "split", "mag", "score", "mean", "std", "p_real", "confidence", "bald",
)  # fmt: skip
ROW_COLUMNS = ("image_id", "object_id", "snr", "ut", "missing_fraction", "host_offset_arcsec", "tag")
"""Columns of the data set for intervals and breakdowns, copied if present."""
DPI = 120
HEADLINE_DIGITS = 4
THRESHOLD_GRID = np.linspace(0, 1, 101)
MOST_POINTS = 400
"""Most points of a curve for DVC."""
LEVEL = 2
"""Compression level of png: faster than the default 6, and no larger for noisy stamps."""


@dataclass(frozen=True)
class Evaluation:
    """Performance of a model on rows that it was not trained on.

    Attributes
    ----------
    metrics : dict
        Content of metrics.json: metrics of the test rows, and under ``validation`` those of the validation rows.
    predictions : DataFrame
        Content of predictions.csv: one row per stamp.
    figures : dict
        Name -> matplotlib Figure; written as ``<name>.png``.
    out_dir : Path
        Folder of the files.
    curves : dict
        Name -> points of a curve (`make_curves`); written as ``<name>.csv``.
    """

    metrics: Metrics
    predictions: pd.DataFrame
    figures: "dict[str, Figure]" = field(default_factory=dict)
    out_dir: Path = Path()
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def plots(self) -> list[Path]:
        """Files of the figures.

        Returns
        -------
        list of Path
        """
        return [self.out_dir / f"{name}.png" for name in self.figures]


def make_predictions(
    table: pd.DataFrame, scores: np.ndarray, samples: np.ndarray | None, scale: Scale = PLAIN
) -> pd.DataFrame:
    """Join rows with their scores and posterior summaries.

    Parameters
    ----------
    table : DataFrame
        Rows with id, label, metalabel, split, and mag if known.
    scores : ndarray
        (n,) plain scores.
    samples : ndarray, optional
        (n, n_samples) posterior samples; without them the summaries are NaN.
    scale : Scale
        Threshold and temperature of the model.

    Returns
    -------
    DataFrame
        `PREDICTION_COLUMNS`, and those of `ROW_COLUMNS` and `OLD_SCORES` that the table has.

    Examples
    --------
    >>> table = pd.DataFrame({"id": ["a"], "label": [1]})
    >>> make_predictions(table, np.array([0.9]), np.array([[0.8, 0.9]]))[["id", "score", "mean"]].values.tolist()
    [['a', 0.9, 0.8500000000000001]]
    """
    copied = [name for name in (*ROW_COLUMNS, *OLD_SCORES) if name in table]
    predictions = table.reindex(columns=[*PREDICTION_COLUMNS[:5], *copied])
    predictions["score"] = scores
    summary = None if samples is None else summarise_samples(samples, scale)
    for name in ("mean", "std", "p_real", "confidence", "bald"):
        predictions[name] = np.nan if summary is None else getattr(summary, name)
    return predictions[[*PREDICTION_COLUMNS, *copied]].reset_index(drop=True)


def add_tags(table: pd.DataFrame, data_dir: Path | str) -> pd.DataFrame:
    """Add the first tag that annotators gave to each row, if the data set was exported from eyeball with tags.

    Parameters
    ----------
    table : DataFrame
        Rows with id.
    data_dir : path
        Folder of the data set.

    Returns
    -------
    DataFrame
        Rows with the column tag, empty where missing; unchanged for a data set without tags.

    Examples
    --------
    >>> rows = pd.DataFrame({"id": ["a", "b"]})
    >>> add_tags(rows, "data/dataset").columns.tolist()  # no annotator gave a tag
    ['id']
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
    """Read the predictions of an evaluation.

    Parameters
    ----------
    path : path
        Folder of an evaluation, or its csv.

    Returns
    -------
    DataFrame
        Predictions with labels as numbers.

    Raises
    ------
    DataError
        If the file is missing or broken, or has no column of scores.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = pd.DataFrame({"id": ["a"], "label": [1], "split": "test", "score": [0.9], "mag": [18.0]})
    ...     rows.to_csv(Path(folder) / "predictions.csv", index=False)
    ...     read_predictions(folder)["score"].tolist()
    [0.9]
    """
    found = Path(path) / layout.PREDICTIONS_CSV if Path(path).is_dir() else Path(path)
    try:
        check_header(found)
        text = dict.fromkeys(("id", "ut", "image_id", "object_id"), str)
        table = pd.read_csv(found, dtype=text, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise DataError(
            f"{found} cannot be read as csv ({str(error).strip()}); give the folder of an evaluation by "
            "classifier.evaluate() or `make repro`"
        ) from None
    absent = [name for name in ("id", "label", "split", "score", "mag") if name not in table]
    if absent:
        raise DataError(f"no column {absent[0]!r} in {found} (has {', '.join(table.columns)}); evaluate again")
    return table.assign(label=check_labels(table, where=found))


def measure_predictions(
    predictions: pd.DataFrame, threshold: float, *, split: str, n_bootstrap: int, seed: int
) -> Metrics:
    """Measure the labelled rows of one part, and compare them with the survey's older scores if it has any.

    Parameters
    ----------
    predictions : DataFrame
        From `make_predictions`.
    threshold : float
        Score at or above which a row is called real.
    split : str
        Part to measure.
    n_bootstrap, seed : int
        Number of resamples, and their seed.

    Returns
    -------
    dict
        As from `metrics.measure_scores`, and comparison: for each older score the recovered fractions at fixed FPR.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "score": [0.1, 0.2, 0.8, 0.9], "split": "test"})
    >>> measure_predictions(rows, 0.5, split="test", n_bootstrap=10, seed=1)["auc"]
    1.0
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
    """Pick the headline numbers by which runs are compared.

    Parameters
    ----------
    metrics : mapping
        From `gotorb.evaluation.metrics.measure_scores`.
    prefix : str
        Prefix of the names.

    Returns
    -------
    dict
        auc; missed, the FNR at 1 % FPR. Four digits, None where undefined.

    Examples
    --------
    >>> make_headline({"auc": 0.987654, "fnr_at_fpr": {"1_percent": None}}, "test_")
    {'test_auc': 0.9877, 'test_missed': None}
    """
    found = {"auc": metrics["auc"], "missed": metrics["fnr_at_fpr"][fpr_name(0.01)]}
    return {f"{prefix}{name}": round_headline(value) for name, value in found.items()}


def round_headline(value: float | None) -> float | None:
    """Round a headline number to four digits.

    Parameters
    ----------
    value : float or None
        Number; None where undefined.

    Returns
    -------
    float or None
        Rounded number.

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
        Scored rows of one part; rows of unknown label are ignored.
    history : mapping
        Quantity of the training -> value after each epoch.

    Returns
    -------
    dict of DataFrame
        history; for rows of both classes also roc (fpr, tpr), error_rates (threshold, fpr, fnr) and reliability
        (mean_score, fraction_real, n).

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 1], "score": [0.1, 0.9]})
    >>> {name: len(curve) for name, curve in make_curves(rows, {"loss": [0.5, 0.4]}).items()}
    {'history': 2, 'roc': 3, 'error_rates': 101, 'reliability': 2}
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
        Evaluation with its folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = pd.DataFrame({"id": ["a"], "score": [0.9]})
    ...     write_evaluation(Evaluation({"auc": 0.99}, rows, out_dir=Path(folder)))
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['metrics.json', 'predictions.csv']
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
        File to write.
    table : DataFrame
        Table, written without its index and with six digits.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_scores(Path(folder) / "scores.csv", pd.DataFrame({"id": ["a"], "score": [0.5]}))
    ...     (Path(folder) / "scores.csv").read_text().split()
    ['id,score', 'a,0.500000']
    """
    write_csv(path, table, float_format="%.6f")


def write_figures(figures: "Mapping[str, Figure]", out_dir: Path, *, kind: str = "png", dpi: int = DPI) -> list[Path]:
    """Write one file per figure, each whole or not at all.

    Parameters
    ----------
    figures : mapping of str to Figure
        Figures by name.
    out_dir : Path
        Folder of the files.
    kind : {"png", "pdf", "svg"}
        Format.
    dpi : int
        Pixels per inch.

    Returns
    -------
    list of Path
        Written files.

    Examples
    --------
    >>> import tempfile
    >>> from gotorb.evaluation.figures import new_figure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write_figures({"empty": new_figure()}, Path(folder), kind="svg")]
    ['empty.svg']
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = {name: out_dir / f"{name}.{kind}" for name in figures}
    for name, path in paths.items():
        with whole_file(path) as aside:
            _save_figure(figures[name], aside, kind, dpi)
    return list(paths.values())


VARYING = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}, "svg": {"Date": None}}
"""Metadata with versions and times, left out so that equal figures give equal bytes."""


def _save_figure(figure: "Figure", path: Path, kind: str, dpi: int) -> None:
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": LEVEL}} if kind == "png" else {}
    figure.savefig(path, format=kind, dpi=dpi, metadata=VARYING[kind], **options)


CARD_GROUPS = {
    "by_metalabel": "metalabel",
    "by_mag": "magnitude",
    "by_snr": "S/N",
    "by_telescope": "telescope",
    "by_host_offset": "arcsec from the host",
    "by_edge": "pixels",
}
NOT_FOR = (
    "stamps of another camera, pixel scale or subtraction than in the data set: their scores have no meaning",
    "stamps with a missing layer, or with layers in another order",
    "a real fraction far from that of the validation rows, without a correction (`gotorb threshold`)",
    "classes of transients: its only classes are real and bogus",
)


def make_model_card(
    name: str, metrics: Mapping[str, Any], data_card: Mapping[str, Any], *, layers: list[str], notes: str = ""
) -> str:
    """Make the card of a model: data, results and limits, as markdown for its users.

    Parameters
    ----------
    name : str
        Name of the network.
    metrics : mapping
        Content of its metrics.json.
    data_card : mapping
        Card of its data set.
    layers : list of str
        Layers of its input.
    notes : str
        Notes of the maintainers, at the end.

    Returns
    -------
    str
        Page in markdown.

    Examples
    --------
    >>> from gotorb.dataset.card import make_card
    >>> from gotorb.dataset.store import open_dataset
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "score": [0.1, 0.6, 0.7, 0.9], "split": "test"})
    >>> metrics = measure_predictions(rows, 0.5, split="test", n_bootstrap=10, seed=1)
    >>> card = make_card(open_dataset("data/dataset").data_dir)
    >>> make_model_card("vgg6", metrics, card, layers=["science", "difference"]).splitlines()[0]
    '# vgg6'
    """
    interval = f"{_number(metrics['auc_low'])} to {_number(metrics['auc_high'])}"
    at = metrics["at_threshold"]
    lines = [
        f"# {name}",
        "",
        f"Tells real from bogus detections in stamps of {data_card['size_pixel']} pixels; layers {', '.join(layers)}, "
        "raw values in the survey's units.",
        "",
        "## Data",
        "",
        f"{data_card['n_rows']} rows, digest `{str(data_card['digest'])[:12]}`: {_counts(data_card['by_metalabel'])}.",
        "",
        "## Test rows",
        "",
        f"* {metrics['n_real']} real, {metrics['n_bogus']} bogus; AUC {_number(metrics['auc'])} (95 % {interval})",
        f"* threshold {_number(metrics['threshold'])}, chosen on validation rows",
        f"* at it FPR {_rate(at, 'fpr')}, FNR {_rate(at, 'fnr')}",
        *_honest(metrics),
        f"* calibration error {_number(metrics['ece'])}, Brier score {_number(metrics['brier'])}",
        *_calibrated(metrics),
        *_robust(metrics),
        "",
        "| group | rows | FPR | FNR |",
        "|---|---|---|---|",
        *(line for key, title in CARD_GROUPS.items() for line in _group_lines(title, metrics.get(key) or {})),
        "",
        "Intervals are 95 % (Wilson; DeLong on the logit scale for AUC); rows of one image or object count together.",
        "",
        "## Not for",
        "",
        *(f"* {text}" for text in NOT_FOR),
    ]
    return "\n".join([*lines, *(["", notes] if notes else [])]) + "\n"


def _honest(metrics: Mapping[str, Any]) -> Iterator[str]:
    """FPR corrected for real sources among the bogus labels, and purity of a night, if measured."""
    found, night = metrics.get("corrected") or {}, metrics.get("night") or {}
    if found.get("fpr") is not None:
        yield (
            f"* {100 * found['contamination']:.1f} % of the bogus labels look like real sources; without them FPR "
            f"{_rate(found, 'fpr')}"
        )
    if night.get("purity") is not None:
        yield (
            f"* purity where {100 * night['real_fraction']:g} % of the detections are real: "
            f"{100 * night['purity']:.1f} %, at least {100 * night['purity_limit']:.1f} %"
        )


def _calibrated(metrics: Mapping[str, Any]) -> list[str]:
    found = metrics.get("calibrated") or {}
    known = [f"{name} {_number(found[name]['ece'])}" for name in ("temperature", "isotonic") if name in found]
    return [f"* calibration error after {', after '.join(known)}"] if known else []


def _robust(metrics: Mapping[str, Any]) -> list[str]:
    found = {kind: part for kind, part in (metrics.get("robustness") or {}).items() if part["n"]}
    counts = [f"{part['changed']} of {part['n']} clear {kind}" for kind, part in found.items()]
    return [f"* calls that a hot pixel beyond three PSF widths changes: {', '.join(counts)}"] if counts else []


def _group_lines(title: str, groups: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, errors in sorted(groups.items()):
        n = errors["n_bogus"] + errors["n_real"]
        lines.append(f"| {title} {name} | {n} | {_rate(errors, 'fpr')} | {_rate(errors, 'fnr')} |")
    return lines


def _rate(errors: Mapping[str, Any], name: str) -> str:
    if errors[name] is None:
        return ""
    return f"{100 * errors[name]:.1f} % ({100 * errors[f'{name}_low']:.1f} to {100 * errors[f'{name}_high']:.1f})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
