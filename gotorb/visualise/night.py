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
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import DataError
from gotorb.evaluation.drift import DRIFT_COLUMNS, measure_drift
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import rounded
from gotorb.evaluation.report import read_predictions
from gotorb.evaluation.thresholds import fit_validation
from gotorb.stamps.images import draw_strips
from gotorb.visualise.flags import find_flags
from gotorb.visualise.pages import HEIGHT, WIDTH, write_page

log = logging.getLogger(__name__)
SCORE = ScoreParams()
N_BINS = 30
AUDIT_COLUMNS = ("id", "source", "best", "ra", "dec", "x", "y", "mag", "ut", "label")
SCORES_CSV, AUDIT_CSV, SUMMARY_JSON, PAGE = "scores.csv", "audit.csv", "summary.json", "night.html"
AUDIT_DIR = "audit_set"
"""Data set of the audit: hidden detections and as many shown ones, for `gotorb eyeball NIGHT --audit`."""
CANDIDATES_DIR = "candidates"
"""Data set of the detections that are shown, the best first, for `gotorb eyeball NIGHT`."""
MOST_CANDIDATES, MOST_PICTURES = 2000, 200
"""Candidates of a night at most, and those of them with a picture on the page."""
TRIPLET = ("science", "template", "difference")


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
    _write_sets(out_dir, read_detections(source, options.archive, scorer.size), table, audit, options)
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
    telescopes, candidates = _histograms(table, summary["threshold"]), _picture_candidates(out_dir, table)
    return write_page(out_dir / PAGE, "night", title=f"Night {summary['name']}", audit_csv=AUDIT_CSV,
                      scores_csv=SCORES_CSV, summary=summary, telescopes=telescopes, candidates=candidates)  # fmt: skip


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
    numbers = {
        name: pd.to_numeric(table[name], errors="coerce") for name in ("best", "mag", "confidence") if name in table
    }
    return summary, table.assign(**numbers, called_real=table["called_real"].astype(int))


def _write_sets(
    out_dir: Path, blocks: Iterator[Detections], table: pd.DataFrame, audit: pd.DataFrame, options: NightOptions
) -> None:
    """Write the stamps of the candidates, best first, and of the audit: hidden detections and as many shown."""
    layout.labels_path(out_dir / CANDIDATES_DIR).unlink(missing_ok=True)  # of an earlier run
    first = table[~table["id"].duplicated()]
    shown = first[first["called_real"].astype(bool)]
    best = shown.sort_values("best", ascending=False, kind="stable").iloc[:MOST_CANDIDATES]
    rng = np.random.default_rng([options.seed, len(table)])
    n_control = min(len(audit), len(shown)) if len(audit) else 0
    control = rng.choice(shown["id"].to_numpy(object), n_control, replace=False)
    audited = np.array(list(dict.fromkeys([*audit["id"], *control])), object)
    rows, stamps, layers = _collect(blocks, {*best["id"], *audited})
    place = pd.Series(np.arange(len(rows)), index=rows["id"])
    if len(audited):  # without labels, scores or order
        hidden = [name for name in ("realbogus", "cnn_realbogus", "number") if name in rows]
        mixed = rng.permutation(place[audited].to_numpy())
        chosen = rows.iloc[mixed].assign(label=layout.UNKNOWN, metalabel="").drop(columns=hidden)
        write_dataset(out_dir / AUDIT_DIR, chosen, [stamps[mixed]], layers=layers)
    if len(best):
        ranked, told = place[best["id"]].to_numpy(), best.set_index("id")
        known = rows.iloc[ranked].assign(label=layout.UNKNOWN, metalabel="")
        planet = told["minor_planet"].to_numpy(object)
        known["object_id"] = np.where(planet != "", planet, known["object_id"])
        write_dataset(out_dir / CANDIDATES_DIR, known, [stamps[ranked]], layers=layers)
        columns = ["score", "mean", "std", "p_real", "confidence"]
        write_csv(out_dir / CANDIDATES_DIR / "night" / layout.PREDICTIONS_CSV, told[columns].reset_index())
        write_json(
            out_dir / CANDIDATES_DIR / "night" / layout.METRICS_JSON, {"threshold": float(told["threshold"].iloc[0])}
        )


def _collect(blocks: Iterator[Detections], wanted: set[str]) -> tuple[pd.DataFrame, np.ndarray, tuple[str, ...]]:
    """Rows and stamps of some ids, the first of each."""
    tables, stamps = [], []
    layers: tuple[str, ...] = ()
    for found in blocks:
        rows = np.flatnonzero(found.table["id"].isin(wanted) & ~found.table["id"].duplicated())
        wanted = wanted - set(found.table["id"].iloc[rows])
        tables.append(found.table.iloc[rows])
        stamps.append(found.stamps[rows])
        layers = tuple(found.layers)
    return pd.concat(tables, ignore_index=True), np.concatenate(stamps), layers


def _picture_candidates(out_dir: Path, table: pd.DataFrame) -> list[dict[str, Any]]:
    """The best candidates with their pictures, as the page shows them."""
    if not layout.labels_path(out_dir / CANDIDATES_DIR).exists():
        return []
    data = open_dataset(out_dir / CANDIDATES_DIR)
    layers = tuple(name for name in TRIPLET if name in data.layers) or data.layers[: len(TRIPLET)]
    numbers = np.arange(min(len(data), MOST_PICTURES))
    strips = draw_strips(data.read_stamps(numbers, layers), layers)
    known = table[~table["id"].duplicated()].set_index("id")
    return [known.loc[id_].to_dict() | {"id": id_, "strip": strip, "uncertain": bool(known.loc[id_, "uncertain"])}
            for id_, strip in zip(data.ids[numbers], strips, strict=True)]  # fmt: skip


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

    Returns
    -------
    dict
        Numbers and lists, for json.
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

    Returns
    -------
    dict
        n_labelled, rate, n_missed, and the 95 % limits of both (interval, n_missed_interval).

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


NIGHTS_PAGE = "nights.html"


def read_trends(nights_dir: Path | str) -> pd.DataFrame:
    """Numbers of several nights, a row each, by the names of their folders.

    Parameters
    ----------
    nights_dir : path
        Folder that holds the folders of `summarise_night`.

    Returns
    -------
    DataFrame
        night, n, shown, unsure, drift (KS distance of the magnitudes and scores from the training set, the largest),
        recall of minor planets and missed (rate of the audit), with low and high of the two.

    Raises
    ------
    DataError
        If there is no night in it.
    """
    paths = sorted(Path(nights_dir).glob(f"*/{SUMMARY_JSON}"))
    if not paths:
        raise DataError(f"no night in {nights_dir}; give the folder that holds the --out-dir of `gotorb night`")
    return pd.DataFrame([_trend(path) for path in paths])


def _trend(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        planets, missed = known["planets"], known.get("missed") or {"rate": None, "interval": None}
        n, drift = max(known["n"], 1), [one["ks"] for one in known["drift"] if one["ks"] is not None]
        recall = planets["n_found"] / planets["n"] if planets["n"] else None
        numbers = {"shown": known["n_shown"] / n, "unsure": known["n_uncertain"] / n, "drift": max(drift, default=None),
                   "recall": recall, "missed": missed["rate"]}  # fmt: skip
        bounds = {"recall": planets["interval"], "missed": missed["interval"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no summary of a night ({error}); move its folder away") from None
    edges = {f"{name}_{end}": None if pair is None else pair[place] for name, pair in bounds.items()
             for place, end in enumerate(("low", "high"))}  # fmt: skip
    return {"night": path.parent.name, "n": known["n"]} | numbers | edges


TRENDS = {"shown": "shown", "unsure": "unsure", "drift": "drift (largest KS distance)",
          "recall": "known minor planets shown", "missed": "real among the hidden"}  # fmt: skip


def write_trends(nights_dir: Path | str) -> Path:
    """Write a page of several nights: each number as a sparkline, and a table.

    Parameters
    ----------
    nights_dir : path
        As for `read_trends`.

    Returns
    -------
    Path
        The page, in that folder.
    """
    table = read_trends(nights_dir)
    lines = [_sparkline(table, name, text) for name, text in TRENDS.items()]
    nights = table.astype(object).where(table.notna(), None).to_dict("records")
    about = {"title": f"{len(table)} nights", "lines": lines, "nights": nights, "trends": TRENDS, "page": PAGE}
    return write_page(Path(nights_dir) / NIGHTS_PAGE, "nights", **about)


def _sparkline(table: pd.DataFrame, name: str, text: str) -> dict[str, Any]:
    """Points of a number over the nights, with its interval where it has one; nights without it leave a gap."""
    value = pd.to_numeric(table[name]).to_numpy(float)
    edges = [pd.to_numeric(table.get(f"{name}_{end}", table[name])).to_numpy(float) for end in ("low", "high")]
    low, high = (np.where(np.isfinite(edge), edge, value) for edge in edges)
    known = np.flatnonzero(np.isfinite(value))
    bottom, top = (float(low[known].min()), float(high[known].max())) if len(known) else (0.0, 1.0)
    x = 4 + (WIDTH - 8) * np.arange(len(table)) / max(len(table) - 1, 1)
    y, y_low, y_high = (
        HEIGHT - 4 - (HEIGHT - 8) * (one - bottom) / ((top - bottom) or 1) for one in (value, low, high)
    )
    places = {"x": x, "y": y, "low": y_low, "high": y_high}
    points = [
        {key: round(float(one[i]), 1) for key, one in places.items()}
        | {"night": table["night"].iloc[i], "value": float(value[i])}
        for i in known
    ]
    runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if len(known) else []
    path = "".join("M" + "L".join(f"{x[i]:.1f} {y[i]:.1f}" for i in run) for run in runs)
    last = float(value[known[-1]]) if len(known) else None
    return {"name": text, "points": points, "path": path, "bottom": bottom, "top": top, "last": last}
