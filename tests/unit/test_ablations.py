"""Variants next to their baseline: differences of trainings known to be better, worse or evaluated elsewhere."""

import numpy as np
import pandas as pd
import pytest

from gotorb.errors import DataError
from studies.ablation_table import Training, compare_variants, format_variants


def judged(quality: float, seed: int, n: int = 400) -> Training:
    """A training whose scores of the same rows are the better, the larger its quality."""
    labels = np.arange(n) % 4 == 0
    noise = np.random.default_rng(seed).normal(size=n)
    detections = pd.DataFrame({"is_real": labels.astype(int), "snr": 10.0, "score": quality * labels + noise})
    where = np.random.default_rng(0)  # the sources are the same in each training
    injected = pd.DataFrame({"mag": 18.0, "snr": where.uniform(5, 20, n), "host_offset_arcsec": where.uniform(0, 3, n)})
    found = np.random.default_rng(seed + 100).random(n) < min(quality / 4, 1)
    return Training(detections, injected.assign(found=found.astype(int)), 1000, 0.99)


@pytest.fixture(scope="module")
def report() -> dict:
    variants = {name: [judged(quality, seed) for seed in (1, 2)] for name, quality in (("base", 3.0), ("worse", 1.5))}
    return compare_variants(variants, "base")


def test_worse_variant_differs_with_an_interval_below_zero(report: dict) -> None:
    worse = report["variants"]["worse"]
    assert worse["auc_difference"] < 0 and worse["auc_difference_high"] < 0
    assert worse["missed"] > report["variants"]["base"]["missed"]
    nuclear = worse["injections"]["nuclear"]
    assert nuclear["difference"] < 0 and nuclear["high"] < 0 and nuclear["p_value"] < 0.01


def test_baseline_differs_from_itself_by_nothing(report: dict) -> None:
    base = report["variants"]["base"]
    assert base["auc_difference"] == 0
    assert base["injections"]["all"]["difference"] == 0
    assert len(base["auc_by_seed"]) == report["n_seeds"] == 2


def test_page_has_a_line_for_each_variant_with_its_intervals(report: dict) -> None:
    lines = [line for line in format_variants(report).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(report["variants"])
    assert lines[3].count(" to ") == 4
    assert " to " not in lines[2] and "no source" in lines[2]
    assert len({line.count("|") for line in lines}) == 1


def test_variants_judged_on_other_rows_are_refused() -> None:
    with pytest.raises(DataError, match="other rows"):
        compare_variants({"a": [judged(3, 1)], "b": [judged(3, 1, n=200)]}, "a")
