"""Variants of a recipe compared with the recipe itself, on the same detections and the same injected sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gotorb.errors import DataError
from gotorb.evaluation.comparison import compare_auc
from gotorb.evaluation.injections import compare_recovery, slice_rows
from gotorb.evaluation.metrics import rounded
from gotorb.evaluation.thresholds import fnr_at_fpr

FPR = 0.02
SHOWN_SLICES = ("faint", "nuclear", "off the nucleus", "no host")
INTRODUCTION = (
    "Written by `make ablations`. Trainings of each variant, of other seeds: {n_seeds}; a line is their mean. "
    "Evaluated on {n_detections} detections ({n_real} real) and {n_injected} injected transients of fields that no "
    'variant was trained on. "own test" is the AUC that a variant gives itself, on its own test rows and labels. '
    '"missed" is at {fpr:g} % false positives. "found" are fractions of the injected transients of S/N 5 and '
    "more (faint: S/N 5 to 10; nuclear: within 1.5 arcsec of the host's centre), at the threshold where {fpr:g} % "
    "of a variant's bogus validation rows are called real. Differences are to the first line, with 95 % "
    "intervals from pairs of the same rows: bootstrap for AUC, paired Wald for fractions, over all trainings "
    "together. They do not hold the scatter from one training to another, which the last column shows."
)


@dataclass(frozen=True)
class Training:
    """Scores of a training.

    Attributes
    ----------
    detections : DataFrame
        is_real, snr, score; the same rows in each training.
    injected : DataFrame
        mag, snr, host_offset_arcsec, found; the same rows in each training.
    n_train : int
        Rows that it learned from.
    own_auc : float
        On its own test rows.
    """

    detections: pd.DataFrame
    injected: pd.DataFrame
    n_train: int
    own_auc: float


def compare_variants(variants: Mapping[str, Sequence[Training]], baseline: str) -> dict[str, Any]:
    """Measure each variant and its difference to the baseline.

    Parameters
    ----------
    variants : mapping of str to sequence of Training
        Name of a variant -> its trainings, one of each seed, in the same order of seeds.
    baseline : str
        Which of them the others are compared with.

    Raises
    ------
    DataError
        If the variants were evaluated on different rows.
    """
    base = variants[baseline]
    for name, trainings in variants.items():
        for one, other in zip(trainings, base, strict=True):
            if not one.detections["is_real"].equals(other.detections["is_real"]) or len(one.injected) != len(
                other.injected
            ):
                raise DataError(f"variant {name!r} has other rows than {baseline!r}; run all of them again")
    report = {name: _measure(trainings, base) for name, trainings in variants.items()}
    labels = base[0].detections["is_real"]
    counts = {"n_detections": len(labels), "n_real": int(labels.sum()), "n_injected": len(base[0].injected)}
    return rounded({"baseline": baseline, "n_seeds": len(base), "fpr": FPR, "variants": report} | counts)


def _measure(trainings: Sequence[Training], base: Sequence[Training]) -> dict[str, Any]:
    labels = [one.detections["is_real"].to_numpy(int) for one in trainings]
    scores, theirs = ([one.detections["score"].to_numpy(float) for one in part] for part in (trainings, base))
    pairs = [
        compare_auc(truth, ours, other, rows=one.detections)
        for one, truth, ours, other in zip(trainings, labels, scores, theirs, strict=True)
    ]
    aucs = [pair.auc_a for pair in pairs]
    missed = [fnr_at_fpr(truth, ours, FPR) for truth, ours in zip(labels, scores, strict=True)]
    found: dict[str, Any] = {
        "n_train": int(np.mean([one.n_train for one in trainings])),
        "own_auc": float(np.mean([one.own_auc for one in trainings])),
        "auc": float(np.mean(aucs)),
        "auc_by_seed": aucs,
        "auc_difference": float(np.mean([pair.difference for pair in pairs])),
        # the trainings share their rows, so the mean of their intervals is the interval of their mean at most
        "auc_difference_low": float(np.mean([pair.difference_low for pair in pairs])),
        "auc_difference_high": float(np.mean([pair.difference_high for pair in pairs])),
        "missed": float(np.mean(missed)),
    }
    rows = pd.concat([one.injected for one in trainings], ignore_index=True)
    ours, other = (np.concatenate([one.injected["found"].to_numpy(bool) for one in part]) for part in (trainings, base))
    masks, against = slice_rows(rows), compare_recovery(rows, ours, other)
    fractions = {name: float(ours[inside].mean()) if inside.any() else None for name, inside in masks.items()}
    return found | {"injections": {name: {"fraction": fractions[name]} | against[name] for name in masks}}


def format_variants(report: Mapping[str, Any]) -> str:
    """The report as a page of markdown."""
    names = {"n_seeds": report["n_seeds"], "fpr": 100 * report["fpr"]}
    names |= {key: report[key] for key in ("n_detections", "n_real", "n_injected")}
    head = ["variant", "rows learned", "own test", "AUC", "difference", "missed", *(f"{s} found" for s in SHOWN_SLICES)]
    head.append("AUC of each seed")
    lines = ["# What each part of the recipe is worth", "", INTRODUCTION.format(**names), ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, one in report["variants"].items():
        own = name == report["baseline"]
        change = "" if own else _interval(*(one[f"auc_difference{end}"] for end in ("", "_low", "_high")), factor=1)
        cells = [name, str(one["n_train"]), f"{one['own_auc']:.4f}", f"{one['auc']:.4f}", change]
        cells += [f"{100 * one['missed']:.1f} %", *(_found(one["injections"][part], own) for part in SHOWN_SLICES)]
        lines.append(f"| {' | '.join([*cells, ', '.join(f'{auc:.4f}' for auc in one['auc_by_seed'])])} |")
    return "\n".join(lines) + "\n"


def _found(part: Mapping[str, Any], own: bool) -> str:
    if part["fraction"] is None:
        return "no source"
    text = f"{100 * part['fraction']:.1f} %"
    return text if own else f"{text} ({_interval(part['difference'], part['low'], part['high'], factor=100)})"


def _interval(value: float, low: float, high: float, *, factor: float) -> str:
    digits = 4 if factor == 1 else 1
    return f"{factor * value:+.{digits}f}, {factor * low:+.{digits}f} to {factor * high:+.{digits}f}"
