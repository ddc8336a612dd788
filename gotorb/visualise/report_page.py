"""The report of a finished pipeline as one page: which model is in production, how good each one is, and why."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from itertools import combinations, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.params import EyeballParams, find_params
from gotorb.dataset.card import read_card
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import DataError, TrackingError
from gotorb.evaluation import model_figures
from gotorb.evaluation.comparison import compare_auc
from gotorb.evaluation.injections import equal_fpr
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.report import read_predictions
from gotorb.evaluation.stamp_figures import misclassified_rows
from gotorb.stamps.images import draw_strips
from gotorb.visualise.pages import write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_HTML = "report.html"
DATASET = Path("data", "dataset")
N_LEAST_CERTAIN = 8
INJECTED = {"found": "detectable", "faint": "faint", "nuclear": "nuclear"}
"""Columns of the table of models, and the slices of the injected transients that they show."""
PACKAGES = ("gotorb", "tensorflow", "keras", "scikit-learn", "numpy", "astropy", "mlflow", "dvc")


@dataclass(frozen=True, kw_only=True)
class Results:
    """Reports and predictions of a finished pipeline, read when they are asked for.

    Attributes
    ----------
    folder : Path
        Folder of the pipeline: the project, a study or a source.
    names : tuple of str
        Models, in the order of params.yaml.
    """

    folder: Path
    names: tuple[str, ...]

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Model -> its metrics on the test rows."""
        return {name: self.read(f"{name}.json") for name in self.names}

    @cached_property
    def predictions(self) -> dict[str, pd.DataFrame]:
        """Model -> labelled test rows with their scores."""
        tables = {name: read_predictions(self.folder / "evaluations" / name) for name in self.names}
        wanted = (layout.REAL, layout.BOGUS)
        return {
            name: rows[(rows["split"] == "test") & rows["label"].isin(wanted)].reset_index(drop=True)
            for name, rows in tables.items()
        }

    @property
    def speeds(self) -> dict[str, float]:
        """Model -> stamps scored per second on this machine, for models that were evaluated on it."""
        path = self.folder / layout.SPEED_JSON
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def decision(self) -> dict[str, Any]:
        """The promotion's decision, with the versions of this checkout's registry where it made them."""
        receipt = self.folder / layout.RECEIPT_JSON
        return json.loads(receipt.read_text(encoding="utf-8")) if receipt.exists() else self.read("promotion.json")

    def read(self, name: str) -> dict[str, Any]:
        """Content of a report; empty where the pipeline has none.

        Parameters
        ----------
        name : str
            File below reports/.

        Returns
        -------
        dict
            Content of the json.
        """
        path = self.folder / "reports" / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def of_model(self, report: str, name: str) -> dict[str, Any]:
        """A model's part of a report; empty where there is none.

        Parameters
        ----------
        report, name : str
            File below reports/, and the model.

        Returns
        -------
        dict
            Content of that part.
        """
        return self.read(report).get("models", {}).get(name, {})


def open_results(folder: Path | str = ".") -> Results:
    """Find the models that a finished pipeline evaluated.

    Parameters
    ----------
    folder : path
        Folder with params.yaml, reports/ and evaluations/.

    Returns
    -------
    Results

    Raises
    ------
    DataError
        If no model was evaluated there.
    """
    folder = Path(folder)
    wanted = find_params(folder / layout.PARAMS_YAML).judged_models
    names = [
        name
        for name in wanted
        if (folder / "reports" / f"{name}.json").exists()
        and (folder / "evaluations" / name / layout.PREDICTIONS_CSV).exists()
    ]
    if not names:
        raise DataError(
            f"no evaluation of {', '.join(wanted)} in {folder.resolve()}; run `make repro`, "
            "or `gotorb dvc pull` for the results of a commit"
        )
    return Results(folder=folder, names=tuple(names))


def write_report(folder: Path | str = ".", out_path: Path | str | None = None) -> Path:
    """Write the report of a finished pipeline as one page that fetches nothing.

    Parameters
    ----------
    folder : path
        Folder of the pipeline.
    out_path : path, optional
        The page; report.html in that folder when left out.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        If no model was evaluated there.
    """
    results = open_results(folder)
    decision = results.decision
    leader = decision.get("model") if decision.get("model") in results.names else results.names[0]
    data = open_dataset(results.folder / DATASET)
    values = {
        "title": f"gotorb: {', '.join(results.names)}",
        "verdict": describe_verdict(results, decision),
        "decision": decision,
        "leader": leader,
        "models": compare_models(results),
        "differences": compare_pairs(results),
        "figures": {name: _embed_figure(figure) for name, figure in _draw(results).items()},
        "maps": _embed_maps(results, str(leader)),
        "stamps": _show_stamps(results.predictions[str(leader)], data, results.metrics[str(leader)]["threshold"]),
        "layers": list(data.layers),
        "dataset": DATASET.as_posix(),
        "eyeball": f"http://127.0.0.1:{EyeballParams().port}/#id=",
        "card": read_card(data.data_dir),
        "purity": results.read("purity.json"),
        "truth": results.read("truth.json"),
        "injected": results.read("injections.json"),
        "provenance": _find_provenance(results.folder) | _find_runs(results),
    }
    out = Path(out_path) if out_path else results.folder / REPORT_HTML
    return write_page(out, "report", style="report.css", script=None, **values)


def describe_verdict(results: Results, decision: Mapping[str, Any]) -> str:
    """Describe in two or three sentences which model is champion, how good it is, and whether another one is better.

    Parameters
    ----------
    results : Results
        Of a pipeline.
    decision : mapping
        Content of reports/promotion.json; empty before the promotion.

    Returns
    -------
    str
        Sentences.
    """
    name = decision.get("model")
    if name not in results.names:
        return f"{len(results.names)} models were evaluated; none was promoted yet."
    known = results.metrics[name]
    state = "is the champion" if decision.get("champion") else "is the best model of this pipeline, but not champion"
    words = [f"{name} {state}{_because(decision)}."]
    words.append(
        f"On {known['n_real'] + known['n_bogus']} held-out rows its AUC is {_with_interval(known, 'auc', 3)}, and it "
        f"misses {_percent(known['fnr_at_fpr']['1_percent'])} of the real ones at 1\u00a0% false positives."
    )
    pairs = [pair for pair in compare_pairs(results) if name in pair["names"]]
    for verb, others in (("better than", _others(pairs, name)), ("worse than", _others(pairs, name, worse=True))):
        words += [f"It is {verb} {' and '.join(others)} on the same rows."] if others else []
    return " ".join(words)


def _others(pairs: list[dict[str, Any]], name: str, *, worse: bool = False) -> list[str]:
    """Models whose AUC is below (above, for `worse`) that of a model by more than the paired interval."""
    sides = {pair["names"][pair["names"][0] == name]: pair["better"] for pair in pairs}
    return [other for other, better in sides.items() if better == (other if worse else name)]


def _because(decision: Mapping[str, Any]) -> str:
    return f": {decision['reason']}" if decision.get("reason") else ""


def compare_models(results: Results) -> list[dict[str, Any]]:
    """Numbers of each model for the table of models, as text with intervals.

    Parameters
    ----------
    results : Results
        Of a pipeline.

    Returns
    -------
    list of dict
        name, and for each column its value and interval as text; a dash where unknown.
    """
    return [_model_row(results, name) for name in results.names]


def _model_row(results: Results, name: str) -> dict[str, Any]:
    known, truth = results.metrics[name], results.of_model("truth.json", name)
    injected = results.of_model("injections.json", name)
    slices = equal_fpr(injected)["slices"] if injected else {}
    row: dict[str, Any] = {"name": name}
    for part, numbers in (("test", known), ("truth", truth)):
        row[f"{part}_auc"] = _cell(numbers, "auc", digits=4)
        row[f"{part}_missed"] = _missed(numbers)
    row |= {title: _fraction(slices.get(wanted)) for title, wanted in INJECTED.items()}
    row["ece"] = (f"{known['ece']:.3f}", "") if known.get("ece") is not None else NOTHING
    row["hot_pixel"] = _changed(known.get("robustness") or {})
    speed = results.speeds.get(name)
    row["speed"] = NOTHING if speed is None else (f"{speed:,.0f}", "")
    return row


NOTHING = ("–", "")


def _cell(known: Mapping[str, Any], name: str, *, digits: int) -> tuple[str, str]:
    if known.get(name) is None:
        return NOTHING
    low, high = known.get(f"{name}_low"), known.get(f"{name}_high")
    return f"{known[name]:.{digits}f}", "" if low is None else f"{low:.{digits}f}–{high:.{digits}f}"


def _missed(known: Mapping[str, Any]) -> tuple[str, str]:
    """Missed fraction at 1 % false positives, with Wilson's interval for the number of real rows."""
    rate = known.get("fnr_at_fpr", {}).get("1_percent")
    if rate is None:
        return NOTHING
    bounds = wilson_interval(round(rate * known["n_real"]), known["n_real"]) or (rate, rate)
    return _percent(rate), _percents(*bounds)


def _changed(robustness: Mapping[str, Any]) -> tuple[str, str]:
    """Clear detections whose call a hot pixel far away changes, real and bogus."""
    parts = [robustness.get(kind, {}) for kind in ("real", "bogus")]
    if not all(part.get("n") for part in parts):
        return NOTHING
    counts = ", ".join(f"{part['changed']} of {part['n']}" for part in parts)
    return " / ".join(_percent(part["fraction"]) for part in parts), counts


def _fraction(known: Mapping[str, Any] | None) -> tuple[str, str]:
    if not known or known.get("fraction") is None:
        return NOTHING
    return _percent(known["fraction"]), _percents(known["low"], known["high"])


def _with_interval(known: Mapping[str, Any], name: str, digits: int) -> str:
    value, interval = _cell(known, name, digits=digits)
    return f"{value} ({interval})" if interval else value


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\u00a0%"


def _percents(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}\u00a0%"


def compare_pairs(results: Results) -> list[dict[str, Any]]:
    """Difference between the AUCs of each pair of models on the same test rows.

    Parameters
    ----------
    results : Results
        Of a pipeline.

    Returns
    -------
    list of dict
        names, difference, low, high (95 %, paired), n, better (a name; None inside the interval), and injected: the
        differences between the fractions of injected transients found at the same FPR of validation rows.
    """
    known = results.read("injections.json").get("differences", {})
    pairs = []
    for one, other in combinations(results.names, 2):
        pair = _compare(one, other, results.predictions)
        pair["injected"] = known.get(f"{one} minus {other}", {})
        pairs.append(pair)
    return pairs


def _compare(one: str, other: str, predictions: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    both = predictions[one].merge(predictions[other][["id", "score"]], on="id", suffixes=("", "_other"))
    labels, ours, theirs = (both[name].to_numpy() for name in ("label", "score", "score_other"))
    found = compare_auc(labels.astype(int), ours, theirs, rows=both)
    low, high = found.difference_low, found.difference_high
    better = None if low <= 0 <= high else one if low > 0 else other
    numbers = {"difference": found.difference, "low": low, "high": high, "n": len(both)}
    return {"names": (one, other), "better": better} | numbers


def _draw(results: Results) -> dict[str, Figure]:
    figures = {
        "ROC": model_figures.plot_model_rocs(results.predictions),
        "Error rates": model_figures.plot_model_errors(results.predictions),
        "Reliability": model_figures.plot_model_reliability(results.predictions),
    }
    injected = {name: results.of_model("injections.json", name) for name in results.names}
    cells = {name: equal_fpr(known)["cells"] for name, known in injected.items() if known}
    if cells:
        figures["Injected transients found"] = model_figures.plot_model_recovery(cells)
    return figures | {"Groups of rows": model_figures.plot_model_slices(results.metrics)}


def _embed_figure(figure: Figure) -> str:
    """Address that holds a figure as SVG, so that it prints sharp; its text is drawn as paths."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue().encode()).decode()}"


def _embed_maps(results: Results, leader: str) -> dict[str, str]:
    """Maps of the injected transients that the leading model finds, over magnitude and distance from the host."""
    folder = results.folder / "evaluations" / "injections"
    pairs = (names for names in permutations(results.names, 2) if leader in names)
    names = [f"recovery_{leader}", *(f"recovery_{one}_minus_{other}" for one, other in pairs)]
    paths = {name: folder / f"{name}.png" for name in names if (folder / f"{name}.png").exists()}
    return {
        name.removeprefix("recovery_").replace(
            "_minus_", " minus "
        ): f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        for name, path in paths.items()
    }


def _show_stamps(rows: pd.DataFrame, data: Dataset, threshold: float) -> dict[str, list[dict[str, Any]]]:
    """The worst wrong calls and the least certain rows of a model, each with the picture of its layers."""
    wrong = misclassified_rows(rows, threshold)
    unsure = np.argsort(rows["confidence"].to_numpy(float), kind="stable")[:N_LEAST_CERTAIN]
    chosen = {"Worst wrong calls": wrong, "Least certain": unsure if rows["confidence"].notna().any() else wrong[:0]}
    return {title: _pictures(rows.iloc[places], data) for title, places in chosen.items() if len(places)}


def _pictures(rows: pd.DataFrame, data: Dataset) -> list[dict[str, Any]]:
    places = data.table.reset_index(drop=True).reset_index().set_index("id")["index"].loc[rows["id"]].to_numpy(int)
    strips = draw_strips(data.read_stamps(places), data.layers)
    return [
        row.to_dict() | {"strip": strip, "word": "real" if row["label"] == layout.REAL else "bogus"}
        for strip, (_, row) in zip(strips, rows.iterrows(), strict=True)
    ]


def _find_provenance(folder: Path) -> dict[str, str]:
    """Commit, versions and the command that repeats the results."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--tags"], cwd=folder, capture_output=True, text=True, check=False
    ).stdout.strip()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    again = f"git checkout {commit.removesuffix('-dirty')} && make repro" if commit else "make repro"
    found = {"commit": commit or "not in git", "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
    return found | {"versions": versions, "to repeat": again}


def _find_runs(results: Results) -> dict[str, str]:
    """MLflow's id of the run that trained each model; nothing where the tracking store cannot be reached."""
    from gotorb.tracking.contents import md5
    from gotorb.tracking.runs import find_run

    experiment = find_params(results.folder / layout.PARAMS_YAML).promote.name
    paths = {name: results.folder / "models" / name / layout.MODEL_H5 for name in results.names}
    try:
        runs = {name: find_run(md5(path), experiment) for name, path in paths.items() if path.exists()}
    except TrackingError:
        return {}
    return {f"MLflow run of {name}": run for name, run in runs.items() if run}
