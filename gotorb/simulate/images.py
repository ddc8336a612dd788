"""FITS files of a visit, and their rows in the tables `image` and `candidate`."""

from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from numpy.typing import NDArray

from gotorb.core import layout
from gotorb.core.constants import MJD_ZERO
from gotorb.simulate.detection import detect_stars
from gotorb.simulate.exposure import Exposure
from gotorb.simulate.plan import CAMERA, Camera, Field, Tan, Visit
from gotorb.simulate.visit import VisitResult

Array = NDArray[np.floating]
WORK_DIR = "/gotophoto/work"
"""Root of the paths in the database; nothing is ever written there."""
WORK_FOLDER, STORED_FOLDER = "reduced", "final"
FILTER = "L"
CANDIDATES_PER_IMAGE = 10_000
PHOTOMETRY_COLUMNS = [
    *("id", "x", "y", "ra", "dec", "mag", "mag_err", "snr"),
    *("fwhm", "ellipticity", "flux", "isdiffpos", "realbogus", "cnn_realbogus"),
]
CANDIDATE_COLUMNS = ("id", "image_id", "x", "y", "ra", "dec", "mag", "fwhm", "realbogus", "cnn_realbogus")
IMAGE_COLUMNS = (
    *("id", "image_type", "filepath", "ra_c", "dec_c"),
    *("jd", "quality", "ncoadds", "instrument", "relatedimage"),
)
TABLE_KINDS = {"id": ">i8", "isdiffpos": "S1"}
"""Types of the columns of binary tables that are no float64."""


def _exposure_name(visit: Visit, number: int, unit: int) -> str:
    """File name of a single exposure."""
    return f"r{visit.run + number:07d}_UT{unit}.fits"


def _difference_name(visit: Visit, unit: int, method: str) -> str:
    """File name of a difference image."""
    return f"r{visit.run:07d}_UT{unit}-{method}.fits"


def _work_path(visit: Visit, name: str) -> str:
    """Path of a file as the database knows it."""
    return f"{WORK_DIR}/{WORK_FOLDER}/{visit.night}/{name}"


def _stored_path(out_dir: Path, visit: Visit, name: str) -> Path:
    """Path of a file in storage."""
    return out_dir / layout.STORAGE_DIR / STORED_FOLDER / visit.night / name


def _candidate_ids(visit: Visit, n: int) -> NDArray[np.int64]:
    """Ids of a visit's detections: known without asking any other visit."""
    return visit.image_id * CANDIDATES_PER_IMAGE + np.arange(n, dtype=np.int64)


def write_visit(out_dir: Path, field: Field, result: VisitResult, scores: pd.DataFrame) -> None:
    """Write the exposures and the difference image of one visit.

    Parameters
    ----------
    out_dir : Path
        Folder of the survey.
    field : Field
        The pointing.
    result : VisitResult
        Images and detections.
    scores : DataFrame
        Columns realbogus and cnn_realbogus in the order of the detections.
    """
    visit = result.visit
    for number, exposure in enumerate(result.exposures):
        path = _stored_path(out_dir, visit, _exposure_name(visit, number, field.unit))
        _write(path, _exposure_hdus(exposure, field, visit))
    path = _stored_path(out_dir, visit, _difference_name(visit, field.unit, result.method))
    _write(path, _difference_hdus(field, result, scores))


def _write(path: Path, hdus: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path, overwrite=True, output_verify="ignore")  # checks cost a fifth


def _header(grid: Tan, mjd: float, zero_point: float, field: Field, camera: Camera = CAMERA) -> fits.Header:
    own = [
        ("JD", mjd + MJD_ZERO, "[d] UTC, middle of the exposure or visit"),
        ("EXPTIME", camera.exposure_s, "[s]"),
        ("INSTRUME", f"UT{field.unit}", "unit telescope"),
        ("FILTER", FILTER),
        ("MAGZP", zero_point, "[mag] of one count"),
        ("PIXSCALE", camera.pixel_arcsec, "[arcsec]"),
        ("BUNIT", "electron"),
        ("GAIN", 1.0, "electron per count"),
        ("SATURATE", camera.full_well),
    ]
    return fits.Header([*grid.cards().items(), *own])


def _exposure_hdus(exposure: Exposure, field: Field, visit: Visit) -> list:
    header = _header(exposure.grid, exposure.mjd_utc, exposure.zero_point, field)
    table = detect_stars(exposure.image, grid=exposure.grid, zero_point=exposure.zero_point)
    return [
        fits.PrimaryHDU(header=_primary(header)),
        fits.ImageHDU(exposure.image, header, name="IMAGE"),
        _table_hdu(table, "PHOTOMETRY"),
    ]


def _difference_hdus(field: Field, result: VisitResult, scores: pd.DataFrame) -> list:
    visit = result.visit
    header = _header(result.grid, visit.mjd_utc, CAMERA.image_zero_point, field)
    header["NCOADD"] = len(result.exposures)
    for number in range(len(result.exposures)):
        header[f"COADD{number + 1}"] = _exposure_name(visit, number, field.unit)
    header["COMBINE"] = (result.method, "how exposures were combined")
    header["CONVOLVE"] = (result.difference.convolved, "which image was convolved")
    header["FWHM"] = (round(result.difference.fwhm, 4), "[pixel] of point sources in the difference")
    planes = {"IMAGE": result.science, "TEMPLATE": result.template, "DIFFERENCE": result.difference.image}
    return [
        fits.PrimaryHDU(header=_primary(header)),
        *(fits.ImageHDU(plane, header, name=name) for name, plane in planes.items()),
        _table_hdu(_photometry(result, scores), "PHOTOMETRY_DIFF"),
    ]


def _primary(header: fits.Header) -> fits.Header:
    """The survey's own keys without the world coordinates: a primary HDU holds no pixels."""
    places = ("CTYPE", "CUNIT", "CRVAL", "CRPIX", "CD1_", "CD2_")
    return fits.Header([card for card in header.cards if not card.keyword.startswith(places)])


def _photometry(result: VisitResult, scores: pd.DataFrame) -> pd.DataFrame:
    """The columns of PHOTOMETRY_DIFF."""
    table = result.detections.table.copy()
    table["id"] = _candidate_ids(result.visit, len(table))
    table[["realbogus", "cnn_realbogus"]] = scores[["realbogus", "cnn_realbogus"]].to_numpy()
    return table[PHOTOMETRY_COLUMNS]


def _table_hdu(table: pd.DataFrame, name: str) -> fits.BinTableHDU:
    rows = np.empty(len(table), dtype=[(key, TABLE_KINDS.get(key, ">f8")) for key in table.columns])
    for key in table.columns:
        rows[key] = table[key].to_numpy()
    return fits.BinTableHDU(rows, name=name)


def image_rows(field: Field, result: VisitResult, quality: int) -> pd.DataFrame:
    """Rows of the table `image`: the difference image and its exposures.

    Parameters
    ----------
    field : Field
        The pointing.
    result : VisitResult
        Images of one visit.
    quality : int
        Quality flag of the visit.

    Returns
    -------
    DataFrame
    """
    visit, n = result.visit, len(result.exposures)
    names = [_exposure_name(visit, number, field.unit) for number in range(n)]
    rows = {
        "id": visit.image_id + np.arange(n + 1),
        "image_type": ["DIFFERENCE"] + n * ["SCIENCE"],
        "filepath": [_work_path(visit, name) for name in (_difference_name(visit, field.unit, result.method), *names)],
        "ra_c": field.ra,
        "dec_c": field.dec,
        "jd": np.array([visit.mjd_utc, *(exposure.mjd_utc for exposure in result.exposures)]) + MJD_ZERO,
        "quality": quality,
        "ncoadds": [n] + n * [1],
        "instrument": f"UT{field.unit}",
        "relatedimage": visit.image_id,
    }
    return pd.DataFrame(rows, columns=list(IMAGE_COLUMNS))


def candidate_rows(result: VisitResult, scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table `candidate`.

    Parameters
    ----------
    result : VisitResult
        Detections of one visit.
    scores : DataFrame
        Columns realbogus and cnn_realbogus in the order of the detections.

    Returns
    -------
    DataFrame
    """
    table = _photometry(result, scores).assign(image_id=result.visit.image_id)
    return table[list(CANDIDATE_COLUMNS)]


def truth_rows(result: VisitResult) -> pd.DataFrame:
    """Rows of truth.csv.

    Parameters
    ----------
    result : VisitResult
        Detections of one visit and their truth.

    Returns
    -------
    DataFrame
    """
    ids = {"candidate_id": _candidate_ids(result.visit, len(result.truth)), "image_id": result.visit.image_id}
    return pd.concat([pd.DataFrame(ids), result.truth], axis=1)
