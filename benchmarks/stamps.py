"""Cutting the stamps of one image and its exposures, beside the plain astropy way."""

import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from benchmarks.rows import Row
from gotorb.stamps.layers import Extensions, cut_planes
from gotorb.survey.frames import open_frame

SIDE, SIZE, N_DETECTIONS, N_EXPOSURES, N_REPEATS = 2048, 55, 100, 3, 5
PLANES = ("IMAGE", "TEMPLATE", "DIFFERENCE")


def measure() -> list[Row]:
    """Milliseconds per detection for six planes, both ways on the same files; medians."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        stacked = _write(Path(folder, "stacked.fits"), PLANES, rng)
        exposures = [_write(Path(folder, f"exposure{i}.fits"), PLANES[:1], rng) for i in range(N_EXPOSURES)]
        x, y = rng.uniform(0, SIDE, (2, N_DETECTIONS))
        sky = SkyCoord.from_pixel(x, y, WCS(fits.getheader(stacked, "DIFFERENCE")))
        times = [(_ours(stacked, exposures, sky), _plain(stacked, exposures, sky)) for _ in range(N_REPEATS)]
    ours, plain = np.median(times, axis=0) * 1000 / N_DETECTIONS
    return [Row("stamp_milliseconds", float(ours), float(plain), "ms")]


def _write(path: Path, names: tuple[str, ...], rng: np.random.Generator) -> Path:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [SIDE / 2, SIDE / 2]
    wcs.wcs.cdelt = [-1.24 / 3600, 1.24 / 3600]
    pixels = (rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32) for _ in names)
    hdus = [fits.ImageHDU(plane, wcs.to_header(), name) for plane, name in zip(pixels, names, strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def _ours(stacked: Path, exposures: list[Path], sky: SkyCoord) -> float:
    started = time.perf_counter()
    with open_frame(stacked) as frame:
        cut_planes(frame, exposures, sky.ra.deg, sky.dec.deg, size=SIZE, extensions=Extensions())
    return time.perf_counter() - started


def _plain(stacked: Path, exposures: list[Path], sky: SkyCoord) -> float:
    """For each detection and plane: read the header's WCS and cut by sky position."""
    started = time.perf_counter()
    with fits.open(stacked) as hdus:
        planes = [hdus[name] for name in PLANES]
        for path in exposures:
            with fits.open(path) as exposure:
                planes = [*planes, exposure["IMAGE"].copy()]
        for position in sky:
            for plane in planes:
                Cutout2D(plane.data, position, SIZE, wcs=WCS(plane.header), mode="partial", fill_value=np.nan)
    return time.perf_counter() - started
