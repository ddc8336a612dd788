"""Positions of a data set that cannot be right are found; those of a sound one are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from gotorb.core import layout
from gotorb.dataset import check
from gotorb.dataset.card import make_card
from gotorb.dataset.check import verify_dataset
from gotorb.dataset.folder import write_sums
from gotorb.dataset.store import write_dataset

NY, NX, N = 300, 400, 20
CARDS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 200.0, "CRPIX2": 150.0, "CRVAL1": 150.0, "CRVAL2": 15.0,
         "CDELT1": -5e-4, "CDELT2": 5e-4}  # fmt: skip
Change = Callable[[pd.DataFrame], dict[str, Any]]


def in_radians(table: pd.DataFrame) -> dict[str, Any]:
    return {"ra": np.radians(table["ra"]), "dec": np.radians(table["dec"])}


def in_hours(table: pd.DataFrame) -> dict[str, Any]:
    return {"ra": table["ra"] / 15}


@pytest.fixture(autouse=True)
def no_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOTORB_MPC_CATALOGUE", "")


def make_rows() -> pd.DataFrame:
    """Rows of one image, as its WCS has them."""
    rng = np.random.default_rng(2)
    x, y = rng.uniform(10, [[NX - 10], [NY - 10]], (2, N))
    ra, dec = WCS(fits.Header(CARDS)).all_pix2world(x, y, 0)
    ids = [f"r{i}" for i in range(N)]
    place = {"id": ids, "image_id": "a", "candidate_id": ids, "x": x, "y": y, "ra": ra, "dec": dec}
    known = {"metalabel": ["mp"] * 5 + ["randjunk"] * 15, "label": [1] * 5 + [0] * 15}
    return pd.DataFrame(place | known | {"rule": "a rule", "code_version": "1"})


def write(
    folder: Path, change: Change | None = None, *, stamps: np.ndarray | None = None, image: dict[str, Any] | None = None
) -> Path:
    """A data set with its list of images and the image's file."""
    rows = make_rows()
    rows = rows.assign(**(change(rows) if change else {}))
    if stamps is None:
        stamps = np.random.default_rng(1).normal(0, 1, (N, 15, 15, 6)).astype(np.float32)
    data_dir = write_dataset(folder / "data", rows, [stamps])
    facts = {"image_id": "a", "filepath": str(folder / "a.fits"), "ra_c": 150.0, "dec_c": 15.0, "jd": 2457804.625}
    facts |= {"state": "labelled", "radius_deg": 0.14, "n_expected": 6, "n_matched": 5} | (image or {})
    pd.DataFrame([facts]).to_csv(data_dir / layout.IMAGES_CSV, index=False)
    write_sums(data_dir)
    pixels = fits.ImageHDU(np.zeros((NY, NX), np.float32), fits.Header(CARDS), "DIFFERENCE")
    fits.HDUList([fits.PrimaryHDU(), pixels]).writeto(folder / "a.fits")
    return data_dir


def test_a_sound_data_set_has_no_findings(tmp_path: Path) -> None:
    assert verify_dataset(write(tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_radians, "outside image a (they look like radians)"),
        (in_hours, "they look like hours"),
        (lambda t: {"ra": t["dec"], "dec": t["ra"] - 75}, "outside image a"),
        (lambda t: {"dec": t["dec"] + 3.0}, "outside image a: 20 of 20 rows"),
        (lambda t: {"dec": t["dec"].where(t.index != 7, 16.0)}, "outside image a: 1 of 20 rows"),
        (lambda t: {"dec": t["dec"] + 0.004}, "14.4 arcsec from the WCS at x, y"),
        (lambda t: {"x": t["x"] + 5}, "arcsec from the WCS at x, y"),
        (lambda t: {"x": t["x"] + 1000}, "rows are outside image a"),
        (lambda t: {"x": t["x"].to_numpy()[::-1]}, "do not follow x, y"),
    ],
)  # fmt: skip
def test_wrong_positions_are_found(tmp_path: Path, change: Change, words: str) -> None:
    findings = verify_dataset(write(tmp_path, change))
    assert any(words in line for line in findings), findings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_radians, "they look like radians"),
        (in_hours, "they look like hours"),
        (lambda t: {"dec": t["dec"] + 3.0}, "arcsec from the WCS at x, y"),
    ],
)
def test_older_lists_of_images_without_a_radius_do(tmp_path: Path, change: Change, words: str) -> None:
    findings = verify_dataset(write(tmp_path, change, image={"radius_deg": np.nan}))
    assert any(words in line for line in findings), findings


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"jd": 57804.125}, "looks like MJD"),
        ({"jd": np.nan}, "epoch jd nan"),
        ({"ra_c": np.nan}, "no place on the sky"),
        ({"dec_c": -95.0}, "no place on the sky"),
        ({"n_expected": 37, "n_matched": 0}, "matched 0 of 37 expected minor planets"),
    ],
)
def test_wrong_facts_of_an_image_are_found(tmp_path: Path, image: dict[str, Any], words: str) -> None:
    assert any(words in line for line in verify_dataset(write(tmp_path, image=image)))


@pytest.mark.parametrize("layer", ["science", "difference"])
@pytest.mark.parametrize("value", [0.0, 3.5])
def test_empty_stamps_are_found(tmp_path: Path, layer: str, value: float) -> None:
    stamps = np.random.default_rng(1).normal(0, 1, (N, 15, 15, 6)).astype(np.float32)
    stamps[[3, 8], ..., layout.LAYERS.index(layer)] = value
    assert verify_dataset(write(tmp_path, stamps=stamps)) == [
        "stamp is empty in the science image or the difference: r3, r8"
    ]


def test_a_survey_without_templates_is_sound(tmp_path: Path) -> None:
    stamps = np.random.default_rng(1).normal(0, 1, (N, 15, 15, 6)).astype(np.float32)
    stamps[..., layout.LAYERS.index("template")] = 0
    assert verify_dataset(write(tmp_path, stamps=stamps)) == []


@pytest.mark.parametrize(
    ("ra", "dec", "words"),
    [((0, 2 * np.pi), (-0.5, 1.4), "radians"), ((0, 24), (-30, 80), "hours"), ((0, 360), (-30, 80), "")],
)
def test_units_of_an_archive_are_seen_in_its_numbers(
    tmp_path: Path, ra: tuple[float, float], dec: tuple[float, float], words: str
) -> None:
    rng = np.random.default_rng(4)
    rows = pd.concat([make_rows()] * 3, ignore_index=True)
    ids = [f"r{i}" for i in range(len(rows))]
    rows = rows.assign(id=ids, candidate_id=ids, ra=rng.uniform(*ra, len(rows)), dec=rng.uniform(*dec, len(rows)))
    stamps = rng.normal(0, 1, (len(rows), 15, 15, 6)).astype(np.float32)
    findings = verify_dataset(write_dataset(tmp_path / "data", rows, [stamps]))
    assert [words in line for line in findings] == ([True] if words else [])


def test_known_minor_planets_labelled_bogus_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows()
    planets = pd.DataFrame({"name": [f"P{i}" for i in range(8)], "ra": rows["ra"][5:13].to_numpy(), "mag": 17.0})
    planets["dec"] = rows["dec"][5:13].to_numpy()

    class Known(check.Pympc):
        def find(self, field: Any) -> pd.DataFrame:
            return planets.copy()

    (tmp_path / "mpc.csv").write_text("orbits")
    monkeypatch.setenv("GOTORB_MPC_CATALOGUE", str(tmp_path / "mpc.csv"))
    monkeypatch.setattr(check, "Pympc", Known)
    monkeypatch.setattr(check, "describe", lambda *_: type("Status", (), {"fits": True}))
    data_dir = write(tmp_path)
    assert any("known minor planet labelled bogus in image a: r5, r6" in line for line in verify_dataset(data_dir))
    planets["dec"] += 6.0 / 3600
    (found,) = [line for line in verify_dataset(data_dir) if "known minor planets" in line]
    assert "-6.0 in declination" in found


@pytest.mark.parametrize(
    ("image", "planets"),
    [
        (
            {"offset_ra_arcsec": 0.25, "offset_dec_arcsec": -0.5},
            {"n_expected": 6, "n_matched": 5, "offset_ra_arcsec": 0.25, "offset_dec_arcsec": -0.5},
        ),
        ({"n_expected": np.nan, "offset_ra_arcsec": np.nan, "offset_dec_arcsec": np.nan}, None),
    ],
)
def test_the_card_counts_minor_planets_expected_and_matched(
    tmp_path: Path, image: dict[str, Any], planets: dict[str, Any] | None
) -> None:
    assert make_card(write(tmp_path, image=image)).get("minor_planets") == planets
