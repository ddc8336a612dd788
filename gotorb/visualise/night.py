"""Summary of a night: detections shown and hidden, drift, recall of known minor planets, and an audit sample."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.classifier.scored import SUMMARIES, score_block, score_training
from gotorb.classifier.scores import Scorer, load_scorer
from gotorb.classifier.sources import Detections, read_detections
from gotorb.core import layout
from gotorb.core.files import file_states, write_csv, write_json
from gotorb.core.params import SEED, ArchiveParams, ScoreParams
from gotorb.core.settings import Settings, read_settings
from gotorb.dataset.folder import check_finished, whole_folder
from gotorb.dataset.store import write_dataset
from gotorb.errors import DataError
from gotorb.evaluation.drift import DRIFT_COLUMNS, measure_drift
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import rounded
from gotorb.evaluation.report import read_predictions
from gotorb.evaluation.thresholds import fit_validation
from gotorb.visualise.flags import find_flags
from gotorb.visualise.pages import HEIGHT, WIDTH, write_page

log = logging.getLogger(__name__)
SCORE = ScoreParams()
N_BINS = 30
AUDIT_COLUMNS = ("id", "source", "best", "ra", "dec", "x", "y", "mag", "ut", "label")
SCORES_CSV, AUDIT_CSV, SUMMARY_JSON, PAGE = "scores.csv", "audit.csv", "summary.json", "night.html"
AUDIT_DIR = "audit_set"
"""Data set of the audit: hidden detections and as many shown ones, for `gotorb eyeball NIGHT --audit`."""


@dataclass(frozen=True, kw_only=True)
class NightOptions:
    """Options of a night's scores and of its page.

    Attributes
    ----------
    n_samples, seed : int
        Posterior samples, and the seed of these and of the audit sample.
    threshold : float, optional
        The model's own when None.
    data : path, optional
        The training set, with which the night is compared.
    evaluation : path, optional
        Evaluation of the model; its validation rows tell the scores between which a person decides, so that `keep` of
        each class is called right or marked as unsure. Else a row is unsure where the threshold lies in its posterior.
    keep : float
    n_audit : int
        Hidden detections drawn for annotators.
    archive : ArchiveParams
        How to read stamp archives.
    """

    n_samples: int = SCORE.n_samples
    seed: int = SEED
    threshold: float | None = SCORE.threshold
    data: Path | str | None = SCORE.data
    evaluation: Path | str | None = SCORE.evaluation
    keep: float = SCORE.keep
    n_audit: int = SCORE.n_audit
    archive: ArchiveParams = field(default_factory=ArchiveParams)


def summarise_night(source: Path | str, model: str, out_dir: Path | str, options: NightOptions | None = None) -> Path:
    """Score all detections of a night and write its page, with csv of scores, csv of the audit sample, and json.

    Parameters
    ----------
    source : path
        Folder of images, or any other source of detections, such as a stream that keeps its packets.
    model : str
        As for `load_scorer`.
    out_dir : path
        Where the files go.
    options : NightOptions, optional
        Samples, threshold, training set, size of the audit.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        If nothing can be scored, or the folder holds another night, model or options.
    """
    options, source, out_dir, settings = options or NightOptions(), Path(source), Path(out_dir), read_settings()
    scorer = load_scorer(model)
    threshold = scorer.threshold if options.threshold is None else options.threshold
    if not source.exists():
        raise DataError(f"no {source}; give the folder of a night's images")
    recipe = {"model": (scorer.name, scorer.version), "options": asdict(options), "source": _states(source)}
    with whole_folder(out_dir, recipe):
        return _write_night(source, scorer, out_dir, options, threshold=threshold, settings=settings)


def _states(source: Path) -> list[tuple[str, int, int]]:
    """Sizes and times of a source's files."""
    return file_states([source] if source.is_file() else sorted(one for one in source.iterdir() if one.is_file()))


def _write_night(
    source: Path, scorer: Scorer, out_dir: Path, options: NightOptions, *, threshold: float, settings: Settings
) -> Path:
    blocks = read_detections(source, options.archive, scorer.size)
    parts = list(_score(scorer, source, blocks, options, threshold=threshold, settings=settings))
    if not parts or not sum(map(len, parts)):
        raise DataError(f"no detection in {source}; give a folder of difference images")
    table, sets = _mark_unsure(pd.concat(parts, ignore_index=True), options)
    audit = draw_audit(table, options.n_audit, np.random.default_rng(options.seed))
    _write_audit_set(out_dir / AUDIT_DIR, read_detections(source, options.archive, scorer.size), table, audit, options)
    before = None if options.data is None else score_training(
        scorer, Path(options.data), n_samples=options.n_samples, seed=options.seed, threshold=threshold
    )  # fmt: skip
    summary = describe_night(table, threshold, before, len(audit)) | {
        "name": source.name, "model": scorer.name, "version": scorer.version, "n_samples": options.n_samples,
        "asked_minor_planets": bool(settings.gotorb_mpc_catalogue), "for_person": sets,
    }  # fmt: skip
    rows = table.assign(called_real=table["called_real"].astype(int), uncertain=table["uncertain"].astype(int))
    write_csv(out_dir / SCORES_CSV, rows.round(dict.fromkeys(SUMMARIES, 6)), inert=True)
    write_csv(out_dir / AUDIT_CSV, audit, inert=True)
    write_json(out_dir / SUMMARY_JSON, rounded(summary))
    return _draw_page(out_dir, summary, table)


def _mark_unsure(table: pd.DataFrame, options: NightOptions) -> tuple[pd.DataFrame, dict[str, float] | None]:
    """Rows with those that a person decides on marked, and the scores between which they lie."""
    if options.evaluation is None:
        return table, None
    known = read_predictions(options.evaluation)
    posterior = pd.to_numeric(known["mean"], errors="coerce") if "mean" in known else known["score"]
    sets = fit_validation(known.assign(score=posterior.fillna(known["score"])), options.keep)
    low, high = sorted((sets.low, sets.high))
    unsure = sets.for_person(table["best"].to_numpy(float))
    return table.assign(uncertain=unsure), {"keep": sets.keep, "low": low, "high": high}


def _draw_page(out_dir: Path, summary: dict[str, Any], table: pd.DataFrame) -> Path:
    telescopes = _histograms(table, summary["threshold"])
    return write_page(out_dir / PAGE, "night", title=f"Night {summary['name']}", audit_csv=AUDIT_CSV,
                      scores_csv=SCORES_CSV, summary=summary, telescopes=telescopes)  # fmt: skip


def redraw_night(night_dir: Path | str, missed: dict[str, Any]) -> Path:
    """Write a night's summary and page again with the miss rate of its audit.

    Parameters
    ----------
    night_dir : path
        Folder of `summarise_night`.
    missed : dict
        As from `estimate_missed`.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        If the folder is not that of a night.
    """
    summary, table = read_night(night_dir)
    summary |= {"missed": missed}
    write_json(Path(night_dir) / SUMMARY_JSON, rounded(summary))
    return _draw_page(Path(night_dir), summary, table)


def read_night(night_dir: Path | str) -> tuple[dict[str, Any], pd.DataFrame]:
    """Summary and scored rows of a night.

    Parameters
    ----------
    night_dir : path
        Folder of `summarise_night`.

    Returns
    -------
    summary : dict
    table : DataFrame

    Raises
    ------
    DataError
        If the folder is not that of a night.
    """
    check_finished(Path(night_dir))
    try:
        summary = json.loads((Path(night_dir) / SUMMARY_JSON).read_text(encoding="utf-8"))
        table = pd.read_csv(Path(night_dir) / SCORES_CSV, dtype={"id": str, "ut": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{night_dir} is no night ({error}); give the --out-dir of `gotorb night`") from None
    return summary, table.assign(best=pd.to_numeric(table["best"]), called_real=table["called_real"].astype(int))


def _write_audit_set(
    data_dir: Path, blocks: Iterator[Detections], table: pd.DataFrame, audit: pd.DataFrame, options: NightOptions
) -> None:
    """Write the stamps of the audit's hidden detections and of as many shown ones, without labels, scores or order."""
    if audit.empty:
        return
    rng = np.random.default_rng([options.seed, len(table)])
    shown = table.loc[table["called_real"].astype(bool), "id"].to_numpy(object)
    wanted = {*audit["id"], *rng.choice(shown, min(len(audit), len(shown)), replace=False)}
    tables, stamps = [], []
    layers: tuple[str, ...] = ()
    for found in blocks:
        rows = np.flatnonzero(found.table["id"].isin(wanted) & ~found.table["id"].duplicated())
        wanted -= set(found.table["id"].iloc[rows])
        tables.append(found.table.iloc[rows])
        stamps.append(found.stamps[rows])
        layers = tuple(found.layers)
    rows = pd.concat(tables, ignore_index=True).assign(label=layout.UNKNOWN, metalabel="")
    mixed = rng.permutation(len(rows))
    hidden = [name for name in ("realbogus", "cnn_realbogus", "number") if name in rows]
    write_dataset(data_dir, rows.iloc[mixed].drop(columns=hidden), [np.concatenate(stamps)[mixed]], layers=layers)


def _score(
    scorer: Scorer, source: Path, blocks: Iterator[Detections], options: NightOptions, *, threshold: float,
    settings: Settings,
) -> Iterator[pd.DataFrame]:  # fmt: skip
    for found in blocks:
        scored = score_block(scorer, found, source, n_samples=options.n_samples, seed=options.seed, threshold=threshold)
        flags, planets = find_flags(found, settings)
        yield scored.table.assign(
            source=found.name, flags=["; ".join(one) for one in flags], minor_planet=planets, threshold=threshold,
            model_name=scorer.name, model_version=scorer.version,
        )  # fmt: skip


def draw_audit(table: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw a random sample of the hidden detections for annotators.

    Parameters
    ----------
    table : DataFrame
        With called_real and `AUDIT_COLUMNS`.
    n : int
        Largest number of rows.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        `AUDIT_COLUMNS`, label empty.
    """
    hidden = np.flatnonzero(~table["called_real"].to_numpy(bool))
    chosen = np.sort(rng.choice(hidden, min(n, len(hidden)), replace=False))
    return table.iloc[chosen].assign(label="").reindex(columns=list(AUDIT_COLUMNS)).reset_index(drop=True)


def describe_night(table: pd.DataFrame, threshold: float, before: pd.DataFrame | None, n_audit: int) -> dict[str, Any]:
    """Numbers of a night, as plain values.

    Parameters
    ----------
    table : DataFrame
        Every detection with ``best``, ``called_real``, ``uncertain``, ``ut``, ``minor_planet``.
    threshold : float
        From which a detection is shown.
    before : DataFrame, optional
        The training set, scored.
    n_audit : int
        Size of the audit sample.
    """
    shown = table["called_real"].to_numpy(bool)
    known = (table["minor_planet"] != "").to_numpy()
    found = int((known & shown).sum())
    return {
        "threshold": threshold, "n": len(table), "n_sources": int(table["source"].nunique()),
        "n_shown": int(shown.sum()), "n_hidden": int((~shown).sum()), "n_uncertain": int(table["uncertain"].sum()),
        "drift": [] if before is None else measure_drift(table, before, DRIFT_COLUMNS),
        "compared": before is not None,
        "planets": {"n": int(known.sum()), "n_found": found, "interval": wilson_interval(found, int(known.sum())),
                    "missed": table.loc[known & ~shown, ["id", "minor_planet", "mag", "best"]].to_dict("records")},
        "missed": None, "audit": {"n": n_audit, "examples": _miss_rates(n_audit, int((~shown).sum()))},
    }  # fmt: skip


def _miss_rates(n: int, n_hidden: int) -> list[dict[str, Any]]:
    """Miss rates of all hidden detections that some numbers of real ones in the audit sample would imply."""
    rows = []
    for hits in sorted({k for k in (0, 1, 2, 5, 10) if k <= n}):
        interval = wilson_interval(hits, n)
        if interval is not None:
            low, high = interval
            rows.append({"hits": hits, "rate": hits / n, "low": low, "high": high, "n_low": round(low * n_hidden),
                         "n_high": round(high * n_hidden)})  # fmt: skip
    return rows


def estimate_missed(audit: pd.DataFrame, n_hidden: int) -> dict[str, Any]:
    """Miss rate among the hidden detections from a labelled audit sample.

    Parameters
    ----------
    audit : DataFrame
        `draw_audit`'s rows, ``label`` filled in: 1 real, 0 bogus; others are left out.
    n_hidden : int
        Detections that were hidden.

    Raises
    ------
    DataError
        If no row is labelled.

    Examples
    --------
    >>> found = estimate_missed(pd.DataFrame({"label": ["1", "0", "0", "", "0"]}), 1000)
    >>> found["n_labelled"], found["rate"], found["n_missed"]
    (4, 0.25, 250)
    """
    labels = pd.to_numeric(audit["label"], errors="coerce")
    labels = labels[labels.isin([0, 1])]
    interval = wilson_interval(int(labels.sum()), len(labels))
    if interval is None:
        raise DataError("no row of the audit sample has a label; write 1 (real) or 0 (bogus) into its column label")
    rate = float(labels.mean())
    return {"n_labelled": len(labels), "rate": rate, "interval": interval, "n_missed": round(rate * n_hidden),
            "n_missed_interval": [round(edge * n_hidden) for edge in interval]}  # fmt: skip


def _histograms(table: pd.DataFrame, threshold: float) -> list[dict[str, Any]]:
    """Bars of each telescope's scores, on a scale of roots: the hidden are many."""
    found = []
    for name, rows in table.groupby("ut", sort=True):
        counts, edges = np.histogram(rows["best"], N_BINS, (0, 1))
        heights = np.sqrt(counts / max(counts.max(), 1)) * (HEIGHT - 4)
        bars = [
            {"x": round(low * WIDTH, 2), "y": round(HEIGHT - high, 2), "height": round(high, 2), "n": int(n),
             "kind": "shown" if low >= threshold else "hidden"}
            for low, high, n in zip(edges, heights, counts, strict=False)
        ]  # fmt: skip
        shown = int(rows["called_real"].sum())
        found.append({"name": f"UT{name}" if name else "all", "n": len(rows), "n_shown": shown, "bars": bars,
                      "width": round(WIDTH / N_BINS - 0.6, 2), "median": float(rows["best"].median()),
                      "cut": round(threshold * WIDTH, 2)})  # fmt: skip
    return found
