"""The minor-planet recipe labels what it should and nothing else."""

import numpy as np
import pandas as pd
import pytest

from gotorb.labels.image import MatchRules, label_detections

ARCSEC = 1 / 3600


def detections_at(*offsets_arcsec, positive=True, realbogus=0.5):
    n = len(offsets_arcsec)
    return pd.DataFrame(
        {
            "id": [str(i) for i in range(n)],
            "x": np.arange(n, dtype=float),
            "y": 0.0,
            "ra": 100 + np.array(offsets_arcsec) * ARCSEC,
            "dec": 0.0,
            "mag": 18.0,
            "fwhm": 2.5,
            "snr": 10.0,
            "realbogus": realbogus,
            "cnn_realbogus": 0.5,
            "positive": positive,
        }
    )


def planets_at(*offsets_arcsec, mag=18.0):
    return pd.DataFrame(
        {
            "name": [f"planet {i}" for i in range(len(offsets_arcsec))],
            "ra": 100 + np.array(offsets_arcsec) * ARCSEC,
            "dec": 0.0,
            "mag": mag,
        }
    )


def label(detections, planets, **rules):
    return label_detections(detections, planets, MatchRules(**rules), rng=np.random.default_rng(1))


@pytest.mark.parametrize(("offset", "n_real"), [(0.0, 1), (0.999, 1), (1.001, 0)])
def test_match_radius_holds_at_its_border(offset, n_real):
    rows = label(detections_at(offset, 500), planets_at(0.0), extra_bogus=0)
    assert (rows["metalabel"] == "mp").sum() == n_real


@pytest.mark.parametrize(("mag", "n_real"), [(20.19, 1), (20.2, 0), (np.nan, 0)])
def test_magnitude_limit_holds_at_its_border(mag, n_real):
    assert (label(detections_at(0.0), planets_at(0.0, mag=mag))["label"] == 1).sum() == n_real


def test_faint_planet_is_neither_real_nor_bogus():
    assert label(detections_at(0.2), planets_at(0.0, mag=21.5)).empty


def test_negative_detection_is_no_minor_planet():
    assert label(detections_at(0.0, positive=False), planets_at(0.0)).empty


def test_as_many_bogus_as_matches_and_the_extra_ones():
    rows = label(detections_at(0, 100, 200, *range(300, 1300, 10)), planets_at(0, 100, 200), extra_bogus=4)
    assert rows["metalabel"].tolist() == ["mp"] * 3 + ["randjunk"] * 7
    assert rows["label"].tolist() == [1] * 3 + [0] * 7


def test_bogus_keep_away_from_every_planet():
    rows = label(detections_at(*np.arange(0, 40, 0.5)), planets_at(20.25), extra_bogus=1000)
    bogus = rows[rows["label"] == 0]
    assert (abs((bogus["ra"] - 100) / ARCSEC - 20.25) > 5).all()
    assert len(bogus) == 80 - 20


def test_planet_goes_to_its_nearest_detection():
    rows = label(detections_at(0.6, -0.3), planets_at(0.0), extra_bogus=0)
    assert rows["id"].tolist() == ["1"]
    assert rows["object_id"].tolist() == ["mp:planet 0"]


def test_old_score_cuts_are_off_unless_asked_for():
    both = detections_at(0.0, 500.0, realbogus=0.0), planets_at(0.0)
    assert len(label(*both)) == 2
    assert label(*both, min_realbogus=0.01)["metalabel"].tolist() == ["randjunk"]
    high = detections_at(0.0, 500.0, realbogus=0.7), planets_at(0.0)
    assert label(*high, max_bogus_realbogus=0.6)["metalabel"].tolist() == ["mp"]


def test_no_planets_give_only_the_extra_bogus():
    rows = label(detections_at(*range(0, 1000, 10)), planets_at(), extra_bogus=4)
    assert rows["metalabel"].tolist() == ["randjunk"] * 4
