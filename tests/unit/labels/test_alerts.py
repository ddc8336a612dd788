"""Labels of alert packets: rules by evidence, pasted sources of known flux, and the survey's score kept out of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gotorb.cli import main
from gotorb.core import layout
from gotorb.core.params import AlertsParams
from gotorb.dataset.card import data_digest, make_card
from gotorb.dataset.store import open_dataset
from gotorb.import_data import import_alerts
from gotorb.labels.alerts import SYNTHETIC_RULE, _read_errors, fit_flux, label_alerts, make_alert_rows, paste_source
from gotorb.survey.alerts import find_packets, make_reader, open_packets
from gotorb.survey.alerts.content import read_alert
from tests.unit.streams.kafka import fink, rubin, ztf
from tests.unit.survey.synthetic import real_data

FLUX_TOLERANCE = 0.015
JD = 2_461_000.5
NOTHING = {
    "ssdistnr": np.nan,
    "ssmagnr": np.nan,
    "ssnamenr": None,
    "image_id": "i",
    "xpos": 1.0,
    "ypos": 2.0,
    "fwhm": 2,
}


def make_alerts(*rows: dict[str, Any], survey: str = "rubin") -> pd.DataFrame:
    """Alerts far from the ecliptic, each of an object of its own, with what a row says of them."""
    base = {"survey": survey, "ra": 10.0, "dec": -60.0, "jd": JD, "magpsf": 20.0, "survey_score": 0.5} | NOTHING
    return pd.DataFrame([base | {"candid": str(n), "objectId": f"o{n}"} | row for n, row in enumerate(rows)])


@pytest.mark.parametrize(
    ("row", "survey", "metalabel"),
    [({"ssdistnr": 0.4, "ssnamenr": "Ceres"}, "rubin", "mp"), ({"ssdistnr": 0.6}, "rubin", "unlabelled"),
     ({"ssdistnr": 1.9, "ssmagnr": 21.5}, "ztf", "mp"), ({"ssdistnr": 1.9, "ssmagnr": 22.5}, "ztf", "unlabelled"),
     ({"ssdistnr": -999.0, "ssmagnr": 20.0}, "ztf", "unlabelled"),
     ({"pixelFlags_cr": True}, "rubin", "flagged"), ({"glint_trail": True}, "rubin", "flagged"),
     ({"pixelFlags_saturated": None}, "rubin", "unlabelled"), ({"nbad": 2}, "ztf", "flagged"),
     ({"pixelFlags_saturated": True, "ssdistnr": 0.1}, "rubin", "mp"),
     ({"isDipole": True, "templateFlux": 9e4, "templateFluxErr": 90.0, "psfFlux": -1e3}, "rubin", "dipole"),
     ({"isDipole": True, "templateFlux": 9e3, "templateFluxErr": 90.0, "psfFlux": -1e3}, "rubin", "unlabelled"),
     ({"isDipole": True, "templateFlux": 9e4, "templateFluxErr": 9e3, "psfFlux": -1e3}, "rubin", "unlabelled"),
     ({"distnr": 0.3, "magnr": 16.0, "nneg": 9}, "ztf", "dipole"),
     ({"distnr": 0.3, "magnr": 16.0, "nneg": 3}, "ztf", "unlabelled")],
)  # fmt: skip
def test_labels_need_evidence(row: dict[str, Any], survey: str, metalabel: str) -> None:
    (found,) = label_alerts(make_alerts(row, survey=survey), AlertsParams())["metalabel"]
    assert found == metalabel


@pytest.mark.parametrize(
    ("first", "nights", "vanished"),
    [({}, (20, 25, 30), True), ({}, (20, 25), False), ({}, (1, 2, 3), False),
     ({"ra": 80.0, "dec": 23.0}, (20, 25, 30), False),  # on the ecliptic: perhaps an asteroid that is not known
     ({"ra": 10.3}, (20, 25, 30), False)],  # another field
)  # fmt: skip
def test_a_source_vanished_where_later_nights_do_not_see_it(
    first: dict[str, Any], nights: tuple[int, ...], vanished: bool
) -> None:
    place = {"ra": first["ra"], "dec": first["dec"]} if "dec" in first else {}
    later = [place | {"jd": JD + night, "objectId": "other"} for night in nights]
    rows = label_alerts(make_alerts(first, *later), AlertsParams())
    assert (rows["metalabel"].iloc[0] == "vanished") == vanished
    seen_again = make_alerts(first, *later, {"jd": JD + 1, "objectId": "o0"})
    assert (label_alerts(seen_again, AlertsParams())["label"] == layout.UNKNOWN).all()


def test_the_surveys_own_score_decides_nothing() -> None:
    rows = ({"ssdistnr": 0.1}, {"pixelFlags_bad": True}, {})
    low, high = (label_alerts(make_alerts(*rows).assign(survey_score=score), AlertsParams()) for score in (0.0, 1.0))
    pd.testing.assert_frame_equal(low.drop(columns="peer_survey"), high.drop(columns="peer_survey"))


@pytest.fixture(scope="module")
def real() -> list[tuple[Any, Any]]:
    """Rubin's alerts, and their records as they came."""
    reader = make_reader()
    files = [path for name in ("rubin_wire_v10", "rubin_container_fink_v9")
             for path in find_packets(real_data("alerts") / name)]  # fmt: skip
    return [(read_alert(record, str(path), reader.families), record)
            for path in files for record in reader.read_records(path)]  # fmt: skip


def test_the_packets_psf_gives_the_surveys_flux(real: list[tuple[Any, Any]]) -> None:
    ratios = []
    for alert, record in real:
        source = record["diaSource"]
        if source["snr"] > 20 and source["psfFlux"] > 0:
            variance, psf = _read_errors(record["cutoutDifference"], len(alert.stamp))  # type: ignore[misc]
            ratios.append(fit_flux(alert.stamp[..., 2], variance, psf)[0] / source["psfFlux"])
    assert len(ratios) > 10
    assert abs(np.median(ratios) - 1) < FLUX_TOLERANCE


def test_pasted_sources_return_their_flux(real: list[tuple[Any, Any]]) -> None:
    ratios, pulls = [], []
    for number, (alert, record) in enumerate(real):
        for seed in range(8):
            pasted = paste_source(alert, record, np.random.default_rng([seed, number]))
            if pasted is None:
                break
            assert pasted.stamp.shape == alert.stamp.shape
            np.testing.assert_array_equal(pasted.stamp[..., 1], alert.stamp[..., 1])  # the template is as it was
            variance, psf = _read_errors(record["cutoutDifference"], len(alert.stamp))  # type: ignore[misc]
            flux, error = fit_flux(pasted.stamp[..., 2], variance, psf)
            ratios.append(flux / pasted.flux)
            pulls.append((flux - pasted.flux) / error)
    assert len(ratios) > 200
    assert abs(np.mean(ratios) - 1) < FLUX_TOLERANCE and abs(np.median(ratios) - 1) < FLUX_TOLERANCE
    assert 0.01 < np.std(pulls) < 1  # the new source's own noise, less than that of the sky


def test_a_data_set_says_which_rule_gave_how_many(tmp_path: Path) -> None:
    source = real_data("alerts") / "rubin_wire_v10"
    first, again = (import_alerts([source], out_dir=tmp_path / name, name="set") for name in ("a", "b"))
    assert data_digest(first) == data_digest(again)
    card, data = make_card(first), open_dataset(first)
    assert card["by_metalabel"] == {"dipole": 5, "mp": 14, "syntransient": card["by_rule"][SYNTHETIC_RULE],
                                    "unlabelled": 13}  # fmt: skip
    assert 5 <= card["by_rule"][SYNTHETIC_RULE] <= 13
    pasted = data.table[data.table["metalabel"] == "syntransient"]
    assert pasted["mag"].between(18, 26).all() and pasted["snr"].between(5, 100).all()
    assert set(pasted["host_id"].astype(str)) <= set(data.table.loc[data.table["label"] == -1, "id"].astype(str))
    assert np.isfinite(data.read_stamps(range(len(data)), data.layers)).all()
    only = import_alerts([source], AlertsParams(labels=("asteroid",), size=21), out_dir=tmp_path / "c", name="set")
    assert make_card(only)["by_metalabel"] == {"mp": 14, "unlabelled": 18} and open_dataset(only).size == 21


def test_alerts_with_sources_that_the_survey_pasted_are_left_out(tmp_path: Path) -> None:
    from tests.unit.survey.packets import rubin_record, wire

    for number, flag in enumerate((True, False, None)):
        packet = wire(rubin_record("10.0", alert_id=number + 1, pixelFlags_injected=flag), "10.0")
        (tmp_path / f"{number}.bin").write_bytes(packet)
    found = make_alert_rows(open_packets(find_packets(tmp_path)), AlertsParams())
    assert found.table["id"].tolist() == ["2", "3"]
    assert sum(len(stamps) for stamps, _ in found.batches(2)) == 2


def test_packets_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value, key = fink(3)
    for name, data in {"1.avro": ztf(1), "2.bin": rubin(2), "3.bin": value, "3.key": key}.items():
        (tmp_path / name).write_bytes(data)
    names = [str(tmp_path / name) for name in ("1.avro", "2.bin", "3.bin")]
    assert main(["alerts", "show", *names, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["survey"], one["alert"]) for one in found] == [("ztf", "1"), ("rubin", "2"), ("ztf", "3")]
    assert found[1]["stamp"] == [29, 29, 3] and found[0]["mjd"] == pytest.approx(61000.25, abs=1e-3)
    assert main(["alerts", "show", *names]) == 0
    assert "survey       rubin" in capsys.readouterr().out
    assert main(["alerts", "dataset", str(tmp_path / "absent")]) == 1
