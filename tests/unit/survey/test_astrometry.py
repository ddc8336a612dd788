"""World coordinates of other surveys' headers: as astropy's high-level interface has them, or refused."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from gotorb.errors import MissingPart
from gotorb.survey.astrometry import read_astrometry, wcs_cards
from gotorb.survey.detections import read_detections
from gotorb.survey.fits import open_frame

NY, NX = 140, 100
TAN = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 50.0, "CRPIX2": 70.0, "CRVAL1": 150.0, "CRVAL2": 15.0,
       "CD1_1": -2e-3, "CD1_2": 1e-5, "CD2_1": 2e-5, "CD2_2": 2e-3, "RADESYS": "ICRS"}  # fmt: skip
TURNED = {"CD1_1": 1e-5, "CD1_2": 2e-3, "CD2_1": -2e-3, "CD2_2": 2e-5}
SWAPPED = TAN | TURNED | {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 15.0, "CRVAL2": 150.0}
GALACTIC = TAN | {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}
NO_CD: dict[str, Any] = dict.fromkeys(("CD1_1", "CD1_2", "CD2_1", "CD2_2"))
SIP = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 2e-4, "B_1_1": -1e-4}
KINDS: dict[str, dict[str, Any]] = {
    "tangential": TAN,
    "swapped": SWAPPED,
    "swapped with SIP": SWAPPED | SIP | {"CTYPE1": "DEC--TAN-SIP", "CTYPE2": "RA---TAN-SIP"},
    "swapped galactic": SWAPPED | {"CTYPE1": "GLAT-CAR", "CTYPE2": "GLON-CAR"},
    "FK4": TAN | {"RADESYS": "FK4", "EQUINOX": 1950.0},
    "FK4 swapped": SWAPPED | {"RADESYS": "FK4", "EQUINOX": 1950.0},
    "FK4 by EPOCH": TAN | {"RADESYS": None, "EPOCH": 1950.0},
    "FK4-NO-E": TAN | {"RADESYS": "FK4-NO-E", "EQUINOX": 1950.0},
    "FK5 of 1975": TAN | {"RADESYS": "FK5", "EQUINOX": 1975.0},
    "FK5 by RADECSYS": TAN | {"RADESYS": None, "RADECSYS": "FK5", "EQUINOX": 2010.0},
    "galactic": GALACTIC,
    "SIP": TAN | SIP,
    "TPV": TAN | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.001, "PV1_4": 0.02, "PV2_1": 1.0,
            "PV2_4": 0.01},
    "ZPN": TAN | {"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_1": 1.0, "PV2_3": 40.0},
    "CAR": TAN | {"CTYPE1": "RA---CAR", "CTYPE2": "DEC--CAR"},
    "pole": TAN | {"CRVAL1": 37.0, "CRVAL2": 89.98},
    "south pole": TAN | {"CRVAL1": 200.0, "CRVAL2": -89.95},
    "RA 0": TAN | {"CRVAL1": 0.001},
    "arcsec": TAN | {"CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRVAL1": 150.0 * 3600, "CRVAL2": 15.0 * 3600,
                     "CD1_1": -7.2, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7.2},
    "radians": TAN | {"CUNIT1": "rad", "CUNIT2": "rad", "CRVAL1": 2.6, "CRVAL2": 0.26,
                      "CD1_1": -3.5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 3.5e-5},
    "CROTA2": TAN | NO_CD | {"CDELT1": -2e-3, "CDELT2": 2e-3, "CROTA2": 30.0},
    "PC001002": TAN | NO_CD | {"CDELT1": -2e-3, "CDELT2": 2e-3, "PC001001": 0.8, "PC001002": -0.6,
                               "PC002001": 0.6, "PC002002": 0.8},
    "three axes": TAN | {"WCSAXES": 3, "CTYPE3": "FREQ", "CRVAL3": 1e9, "CRPIX3": 1.0, "CD3_3": 1.0, "CUNIT3": "Hz"},
    "three axes, time": TAN | {"WCSAXES": 3, "CTYPE3": "TIME", "CRVAL3": 5.0, "CRPIX3": 1.0, "CD3_3": 1.0},
}  # fmt: skip
REFUSED: dict[str, dict[str, Any]] = {
    "ecliptic": TAN | {"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"},
    "solar": TAN | {"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN"},
    "unknown distortion": TAN | {"CTYPE1": "RA---TAN-XYZ", "CTYPE2": "DEC--TAN-XYZ"},
    "DSS plate": TAN | {"CTYPE1": "RA---TAN-DSS", "CTYPE2": "DEC--TAN-DSS"},
    "two right ascensions": TAN | {"CTYPE2": "RA---TAN"},
    "hours": TAN | {"CUNIT1": "h", "CUNIT2": "deg"},
    "no scale": TAN | {"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0},
    "celestial axes 1 and 3": TAN | {"WCSAXES": 3, "CTYPE2": "FREQ", "CTYPE3": "DEC--TAN", "CRVAL3": 15.0,
                                     "CRPIX3": 1.0, "CD3_3": 2e-3, "CD2_2": 1.0, "CD2_1": 0.0, "CD1_2": 0.0},
    "table without its HDU": TAN | {"CPDIS1": "LOOKUP", "DP1": 1.0},
    "SIP and TPV": TAN | SIP | {"PV1_1": 1.0, "PV2_1": 1.0},
    "polynomial distortion": TAN | {"CPDIS1": "Polynomial", "CPDIS2": "Polynomial"},
}  # fmt: skip


def make_header(cards: dict[str, Any]) -> fits.Header:
    return fits.Header({name: value for name, value in cards.items() if value is not None})


def write(path: Path, header: fits.Header, x: np.ndarray, y: np.ndarray, *more: Any) -> Path:
    columns = [fits.Column(name, "D", array=values) for name, values in (("x", x), ("y", y))]
    table = fits.BinTableHDU.from_columns(columns, name="CAT")
    image = fits.ImageHDU(np.zeros((NY, NX), np.float32), header, name="SUB")
    fits.HDUList([fits.PrimaryHDU(), image, table, *more]).writeto(path)
    return path


def check(path: Path, x: np.ndarray, y: np.ndarray, truth: SkyCoord, *, pixel: float = 0.02) -> None:
    """Both ways agree with known positions to a fraction of a pixel."""
    with open_frame(path) as frame:
        table = read_detections(frame, "CAT", wcs_ext="SUB")
        found = frame.to_pixels("SUB", truth.ra.deg, truth.dec.deg)
        scale = frame.astrometry("SUB").scale_arcsec
    np.testing.assert_allclose(found, (x, y), atol=pixel)
    sky = SkyCoord(table["ra"], table["dec"], unit="deg")
    assert sky.separation(truth).arcsec.max() < pixel * scale


X, Y = np.array([10.0, 90.0, 49.0, 4.0]), np.array([14.0, 130.0, 70.0, 137.0])


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_those_of_astropy_in_icrs(tmp_path: Path, kind: str) -> None:
    header = make_header(KINDS[kind])
    with warnings.catch_warnings(action="ignore"):  # of astropy, about old names of cards
        truth = WCS(header).celestial.pixel_to_world(X, Y).icrs
    check(write(tmp_path / "a.fits", header, X, Y), X, Y, truth)


SCAMP = {"PV1_0": 1e-4, "PV1_1": 1.002, "PV1_2": 2e-4, "PV2_0": -1e-4, "PV2_1": 1.001, "PV2_2": -3e-4}


@pytest.mark.parametrize(("header", "degree"), [(TAN, 1), (TAN, 2), (SWAPPED, 1)])
def test_scamp_polynomials_under_the_name_tan_are_obeyed(tmp_path: Path, header: dict[str, Any], degree: int) -> None:
    """SCAMP called them TAN for years; those of degree 1 look like parameters of the sphere."""
    cards = header | (SCAMP if degree == 1 else SCAMP | {"PV1_4": 0.02, "PV1_5": 0.01, "PV2_4": 0.015, "PV2_6": 0.01})
    if header is SWAPPED:
        exchanged = {"PV1": "PV2", "PV2": "PV1"}
        cards = {exchanged[name[:3]] + name[3:] if name[:3] in exchanged else name: cards[name] for name in cards}
    named = {name: f"{header[name][:5]}TPV" for name in ("CTYPE1", "CTYPE2")}
    truth = WCS(make_header(cards | named)).pixel_to_world(X, Y).icrs
    plain = WCS(make_header(header)).pixel_to_world(X, Y).icrs
    assert truth.separation(plain).arcsec.max() > 1
    check(write(tmp_path / "a.fits", make_header(cards), X, Y), X, Y, truth)


def test_parameters_of_a_tangent_plane_that_are_standard_stay(tmp_path: Path) -> None:
    """The longitude axis has four of them; zeros of the latitude axis say nothing."""
    cards = TAN | {"PV1_1": 0.0, "PV1_2": 90.0, "PV1_3": 180.0, "PV2_1": 0.0, "PV2_2": 0.0}
    truth = WCS(make_header(TAN)).pixel_to_world(X, Y).icrs
    check(write(tmp_path / "a.fits", make_header(cards), X, Y), X, Y, truth)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_obeyed_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.fits", make_header(REFUSED[kind]), X, Y)
    with open_frame(path) as frame, pytest.raises(MissingPart, match=r"a\.fits"):
        frame.to_sky("SUB", X, Y)


def tnx_card(axis: str, name: str, surface: int, coefficients: list[float]) -> str:
    limits = "-0.3 0.3 -0.3 0.3"
    numbers = " ".join(f"{value!r}" for value in coefficients)
    return f'wtype=tnx axtype={axis} {name} = "{surface}. 3. 3. 2. {limits} {numbers} "'


def wat_cards(axis: int, text: str) -> dict[str, str]:
    parts = [text[start : start + 68] for start in range(0, len(text), 68)]
    return {f"WAT{axis}_{number:03d}": part for number, part in enumerate(parts, 1)}


def surface_value(surface: int, coefficients: list[float], xi: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """IRAF's surface of order 3 with half cross terms: powers (3), Chebyshev (1) or Legendre (2) polynomials."""
    if surface != 3:
        xi, eta = xi / 0.3, eta / 0.3
    kinds = {
        3: lambda u: [np.ones_like(u), u, u**2],
        1: lambda u: [np.ones_like(u), u, 2 * u**2 - 1],
        2: lambda u: [np.ones_like(u), u, (3 * u**2 - 1) / 2],
    }
    p, q = kinds[surface](xi), kinds[surface](eta)
    terms = [p[i] * q[j] for j in range(3) for i in range(3 - j)]
    return sum(c * term for c, term in zip(coefficients, terms, strict=True))


@pytest.mark.parametrize("surface", [1, 2, 3])
def test_polynomials_of_iraf_are_obeyed(tmp_path: Path, surface: int) -> None:
    """TNX by hand: linear part, polynomial in degrees, then the gnomonic inverse."""
    rng = np.random.default_rng(surface)
    parts = [rng.normal(0, 0.004, 6).round(6).tolist() for _ in range(2)]
    cards = TAN | {"CTYPE1": "RA---TNX", "CTYPE2": "DEC--TNX", "WAT0_001": "system=image"}
    cards |= wat_cards(1, tnx_card("ra", "lngcor", surface, parts[0]))
    cards |= wat_cards(2, tnx_card("dec", "latcor", surface, parts[1]))
    px, py = X + 1 - TAN["CRPIX1"], Y + 1 - TAN["CRPIX2"]
    xi, eta = TAN["CD1_1"] * px + TAN["CD1_2"] * py, TAN["CD2_1"] * px + TAN["CD2_2"] * py
    xi, eta = (u + surface_value(surface, part, xi, eta) for u, part in zip((xi, eta), parts, strict=True))
    truth = SkyCoord(TAN["CRVAL1"], TAN["CRVAL2"], unit="deg").skyoffset_frame()
    rho, theta = np.hypot(xi, eta), np.arctan2(xi, eta)
    sky = SkyCoord(truth.origin).directional_offset_by(
        theta * units.rad, np.degrees(np.arctan(np.radians(rho))) * units.deg
    )
    check(write(tmp_path / "a.fits", make_header(cards), X, Y), X, Y, sky)
    flat = SkyCoord(*read_astrometry(make_header(TAN)).to_sky(X, Y), unit="deg")
    assert flat.separation(sky).arcsec.max() > 5  # the polynomial matters


@pytest.mark.parametrize("sign", [1, -1])
def test_distortion_tables_of_other_hdus_are_obeyed(tmp_path: Path, sign: int) -> None:
    shift = sign * np.outer(np.linspace(0, 3, 8), np.ones(6)).astype(np.float32)
    header, tables = make_header(TAN), []
    for axis in (1, 2):
        header[f"CPDIS{axis}"] = "LOOKUP"
        for record in (f"EXTVER: {axis}", "NAXES: 2", "AXIS.1: 1", "AXIS.2: 2"):
            header.append(fits.Card(f"DP{axis}", record), end=True)
        tables.append(fits.ImageHDU(axis * shift, name="WCSDVARR", ver=axis))
        tables[-1].header.update({"CRPIX1": 1.0, "CRPIX2": 1.0, "CRVAL1": 1.0, "CRVAL2": 1.0, "CDELT1": 20.0,
                                  "CDELT2": 20.0})  # fmt: skip
    path = write(tmp_path / "a.fits", header, X, Y, *tables)
    with fits.open(path) as hdus:
        truth = WCS(hdus["SUB"].header, hdus).pixel_to_world(X, Y).icrs
    check(path, X, Y, truth)
    flat = SkyCoord(*read_astrometry(make_header(TAN)).to_sky(X, Y), unit="deg")
    assert flat.separation(truth).arcsec.max() > 5


def test_headers_with_the_same_world_coordinates_have_equal_cards() -> None:
    one, other = make_header(TAN), make_header(TAN)
    one["OBSERVER"] = "somebody"
    assert wcs_cards(one) == wcs_cards(other)
    other["CRPIX1"] = 51.0
    assert wcs_cards(one) != wcs_cards(other)
