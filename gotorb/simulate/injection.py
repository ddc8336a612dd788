"""Paste artificial point sources into a user's own images: the same sources into each plane and each exposure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sep
from astropy.io import fits
from numpy.typing import NDArray
from scipy import ndimage

from gotorb.core.files import write_csv
from gotorb.errors import ConfigError, ImageError, MissingPart
from gotorb.simulate.psf import add_stamp
from gotorb.simulate.subtraction import robust_noise
from gotorb.survey.astrometry import Astrometry, read_astrometry

Array = NDArray[np.floating]
PSF_HALF, MAX_STARS, MIN_STARS = 14, 100, 5
CHANGED_PLANES = ("IMAGE", "DIFFERENCE")
EDGE_PIXEL = 20
FAR_PIXEL = -1e6
"""Stands for places off an exposure that have no pixel there."""


def inject(
    image_path: Path,
    out_path: Path,
    *,
    n_sources: int,
    mag_range: tuple[float, float],
    rng: np.random.Generator,
    exposure_paths: Sequence[Path] = (),
) -> pd.DataFrame:
    """Add point sources at random places to a copy of a difference-image file, and to copies of its exposures.

    Planes IMAGE and DIFFERENCE gain the source with Poisson noise; each exposure gains it at its own world
    coordinates with its own PSF and zero point. TEMPLATE stays. What was added is
    listed in ``<out_path stem>-injected.csv``.

    Parameters
    ----------
    image_path, exposure_paths : Path
        Survey files; the header key MAGZP of each IMAGE is the magnitude of one count.
    out_path : Path
        Copy of the image; copies of exposures go to the same folder under their own names with ``-injected``.
    n_sources : int
        Sources added.
    mag_range : tuple of float
        Brightest and faintest magnitude.
    rng : numpy.random.Generator
        Source of places, magnitudes and Poisson noise.

    Returns
    -------
    DataFrame
        x, y (0-based pixel centres), ra, dec [deg], mag, flux [count].

    Raises
    ------
    ConfigError
        If a copy would replace its original, or the magnitudes are the wrong way round.
    ImageError
        If too few stars show the PSF or the zero point is missing.
    """
    image_path, out_path = Path(image_path), Path(out_path)
    _check(image_path, out_path, n_sources, mag_range)
    with _open(image_path) as hdus:
        image, header = _plane(hdus, "IMAGE", image_path)
        sources = _draw_sources(image, header, n_sources, mag_range, rng=rng, path=image_path)
        _paste_all(hdus, sources, image, header, rng=rng, path=image_path)
        out_path.parent.mkdir(parents=True, exist_ok=True)
        hdus.writeto(out_path, overwrite=True)
    for path in map(Path, exposure_paths):
        _inject_exposure(path, exposure_copy(path, out_path), sources, rng)
    write_csv(sources_path(out_path), sources)
    return sources


def sources_path(out_path: Path) -> Path:
    """The csv of what was added.

    Parameters
    ----------
    out_path : Path
        Copy of the image.

    Returns
    -------
    Path
    """
    return out_path.with_name(f"{out_path.stem}-injected.csv")


def exposure_copy(path: Path, out_path: Path) -> Path:
    """Path of the changed copy of an exposure.

    Parameters
    ----------
    path : Path
        Original exposure.
    out_path : Path
        Copy of the image.

    Returns
    -------
    Path
    """
    return out_path.with_name(f"{path.stem}-injected{path.suffix}")


def _check(image_path: Path, out_path: Path, n_sources: int, mag_range: tuple[float, float]) -> None:
    if out_path.resolve() == image_path.resolve():
        raise ConfigError(f"--out {out_path} is the original image; name another file")
    if not mag_range[0] < mag_range[1] or n_sources < 1:
        raise ConfigError(
            f"{n_sources} sources of magnitude {mag_range[0]} to {mag_range[1]}; give one or more, bright limit first"
        )


def _open(path: Path) -> fits.HDUList:
    try:
        return fits.open(path, memmap=False)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path} ({error}); give a FITS file of the survey") from None


def _plane(hdus: fits.HDUList, name: str, path: Path) -> tuple[Array, fits.Header]:
    if name not in hdus:
        raise MissingPart(f"no HDU {name!r} in {path} (has {', '.join(hdu.name for hdu in hdus)}); give a survey image")
    return np.ascontiguousarray(hdus[name].data, dtype=np.float32), hdus[name].header


def _astrometry(header: fits.Header, path: Path) -> Astrometry:
    try:
        return read_astrometry(header)
    except ValueError as error:
        raise MissingPart(f"{path} has a WCS that cannot be used ({error}); solve it again") from None


def _draw_sources(
    image: Array, header: fits.Header, n: int, mag_range: tuple[float, float], *, rng: np.random.Generator, path: Path
) -> pd.DataFrame:
    """Random places with data, apart from the edge, uniform magnitudes; flux from the header's zero point."""
    zero_point = read_zero_point(header, path)
    good = np.isfinite(image)
    good[:EDGE_PIXEL], good[-EDGE_PIXEL:], good[:, :EDGE_PIXEL], good[:, -EDGE_PIXEL:] = False, False, False, False
    pixels = np.flatnonzero(good)
    if len(pixels) == 0:
        raise ImageError(f"no pixel of {path} has data further than {EDGE_PIXEL} from the edge; give a larger image")
    row, column = np.divmod(rng.choice(pixels, n), image.shape[1])
    x, y = column + rng.uniform(-0.5, 0.5, n), row + rng.uniform(-0.5, 0.5, n)
    ra, dec = _astrometry(header, path).to_sky(x, y)
    mag = rng.uniform(*mag_range, n)
    flux = 10 ** (-0.4 * (mag - zero_point))
    return pd.DataFrame({"x": x, "y": y, "ra": ra, "dec": dec, "mag": mag, "flux": flux})


def read_zero_point(header: fits.Header, path: Path) -> float:
    """Magnitude of one count, from the header key MAGZP.

    Parameters
    ----------
    header : Header
        Of the plane.
    path : Path
        File named in errors.

    Returns
    -------
    float
    """
    try:
        return float(header["MAGZP"])
    except (KeyError, TypeError, ValueError):
        raise MissingPart(
            f"no number under MAGZP in the IMAGE header of {path}; add the magnitude of one count"
        ) from None


def _paste_all(
    hdus: fits.HDUList,
    sources: pd.DataFrame,
    image: Array,
    header: fits.Header,
    *,
    rng: np.random.Generator,
    path: Path,
) -> None:
    """Add one and the same light, noise included, to IMAGE and DIFFERENCE."""
    psf = measure_psf(image, path)
    n_exposures = max(int(header.get("NCOADD", 1)), 1)
    light = _paint(image.shape, sources, psf, gain=float(header.get("GAIN", 1.0)) * n_exposures, rng=rng)
    for name in CHANGED_PLANES:
        if name in hdus:
            hdus[name].data = (_plane(hdus, name, path)[0] + light).astype(np.float32)


def _inject_exposure(path: Path, out_path: Path, sources: pd.DataFrame, rng: np.random.Generator) -> None:
    with _open(path) as hdus:
        image, header = _plane(hdus, "IMAGE", path)
        places = _astrometry(header, path).to_pixels(sources["ra"], sources["dec"], (image.shape[0], image.shape[1]))
        x, y = np.nan_to_num(places, nan=FAR_PIXEL)
        flux = 10 ** (-0.4 * (sources["mag"].to_numpy() - read_zero_point(header, path)))
        own = pd.DataFrame({"x": x, "y": y, "flux": flux})
        light = _paint(image.shape, own, measure_psf(image, path), gain=float(header.get("GAIN", 1.0)), rng=rng)
        hdus["IMAGE"].data = (image + light).astype(np.float32)
        hdus.writeto(out_path, overwrite=True)


def _paint(shape: tuple[int, ...], sources: pd.DataFrame, psf: Array, *, gain: float, rng: Any) -> Array:
    """Image of the sources alone with their Poisson noise; `gain` in electrons per count."""
    light: Array = np.zeros(shape, dtype=np.float64)
    for x, y, flux in sources[["x", "y", "flux"]].to_numpy():
        add_source(light, x, y, flux, psf, gain=gain, rng=rng)
    return light


def add_source(
    light: Array, x: float, y: float, flux: float, psf: Array, *, gain: float, rng: np.random.Generator
) -> None:
    """Add a point source with its Poisson noise to an image (in place).

    Parameters
    ----------
    light : ndarray (h, w)
        Image [count].
    x, y : float
        0-based pixel centre; the source may lie outside.
    flux : float
        [count].
    psf : ndarray (29, 29)
        Centred stamp of unit flux.
    gain : float
        Electrons per count.
    rng : Generator
        Random numbers.
    """
    stamp = flux * _shift_stamp(psf, x - round(x), y - round(y))
    noise = np.sqrt(np.maximum(stamp, 0) / gain) * rng.standard_normal(stamp.shape)
    add_stamp(light, stamp + noise, round(y) - PSF_HALF, round(x) - PSF_HALF)


def _shift_stamp(stamp: Array, dx: float, dy: float) -> Array:
    """Stamp moved by part of a pixel with its flux kept.

    Parameters
    ----------
    stamp : ndarray (h, w)
        Any.
    dx, dy : float
        Shift [pixel].
    """
    moved = ndimage.shift(stamp, (dy, dx), order=3, mode="constant", cval=0.0)
    return moved * (stamp.sum() / moved.sum())


def measure_psf(image: Array, path: Path) -> Array:
    """Median of the image's bright, isolated, unsaturated stars, centred and scaled to unit flux.

    Parameters
    ----------
    image : ndarray (h, w)
        Sky-subtracted plane.
    path : Path
        File named in errors.

    Returns
    -------
    ndarray (29, 29)
        Unit-flux PSF centred on the middle pixel.

    Raises
    ------
    ImageError
        If fewer than five stars serve.
    """
    filled = np.nan_to_num(image, nan=0.0).astype(np.float32)
    found = sep.extract(filled, 10.0, err=max(robust_noise(filled), 1e-6), minarea=6, deblend_cont=0.005)
    found = _clean_stars(found, filled)
    if len(found) < MIN_STARS:
        raise ImageError(
            f"only {len(found)} clean stars in {path}, {MIN_STARS} needed to measure its PSF; use a larger image"
        )
    stamps = _centred(filled, found)
    stamp = _smooth_wings(np.median(stamps, axis=0))
    return stamp / stamp.sum()


def _smooth_wings(stamp: Array) -> Array:
    """Stamp whose rings beyond five pixels hold their mean, not below zero: noise there must not add light."""
    y, x = np.mgrid[-PSF_HALF : PSF_HALF + 1, -PSF_HALF : PSF_HALF + 1]
    ring = np.rint(np.hypot(x, y)).astype(int)
    mean = np.bincount(ring.ravel(), stamp.ravel()) / np.bincount(ring.ravel())
    wings = np.where(ring <= PSF_HALF, np.maximum(mean, 0)[ring], 0)
    return np.where(ring <= 5, stamp, wings)


def _clean_stars(found: Any, image: Array) -> Any:
    margin = PSF_HALF + 2
    high = float(np.nanmax(image)) * 0.6
    good = (found["flag"] == 0) & (found["peak"] < high) & (found["b"] > 0.65 * found["a"])
    good &= (found["x"] > margin) & (found["x"] < image.shape[1] - margin)
    good &= (found["y"] > margin) & (found["y"] < image.shape[0] - margin)
    found = found[good]
    if len(found) == 0:
        return found
    radius, _ = sep.flux_radius(image, found["x"], found["y"], np.full(len(found), 8.0), 0.5, subpix=5)
    stellar = np.abs(radius / np.median(radius) - 1) < 0.25
    return found[stellar][np.argsort(-found["flux"][stellar], kind="stable")][:MAX_STARS]


def _centred(image: Array, found: Any) -> Array:
    """Stamps (n, 29, 29) of stars moved to the middle pixel, each of unit flux inside five pixels."""
    stamps = []
    for x, y in zip(found["x"], found["y"], strict=True):
        column, row = round(float(x)), round(float(y))
        cut = image[row - PSF_HALF : row + PSF_HALF + 1, column - PSF_HALF : column + PSF_HALF + 1].astype(float)
        moved = _shift_stamp(cut, column - float(x), row - float(y))
        total, _, _ = sep.sum_circle(np.ascontiguousarray(moved), [PSF_HALF], [PSF_HALF], 5.0, subpix=5)
        stamps.append(moved / max(float(total[0]), 1e-6))
    return np.array(stamps)
