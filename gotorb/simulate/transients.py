"""Point sources on galaxies and on empty sky, added to the stamps of real images to test a model.

Other than the synthetic transients of the labels, which carry a minor planet's pixels, these carry the image's own
PSF, so a network cannot know them from training.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.io import fits

from gotorb.catalogues.galaxies import catalogue_version
from gotorb.core import layout
from gotorb.core.executor import Workers
from gotorb.core.params import SEED, LabelParams, RecoveryParams
from gotorb.core.settings import read_settings
from gotorb.dataset.store import run_folder
from gotorb.errors import MissingPart
from gotorb.labels.image import FileLayout, check_exposures, complete_rows
from gotorb.labels.jobs import ImageTask, make_shards, read_images
from gotorb.labels.synthetic import N_DRAWN, find_hosts
from gotorb.simulate.injection import PSF_HALF, add_source, measure_psf, read_zero_point
from gotorb.simulate.subtraction import robust_noise
from gotorb.stamps.layers import Planes, cut_planes, first_pixels
from gotorb.survey.fits import Frame, open_frame
from gotorb.survey.pixels import fill_missing

SCIENCE, DIFFERENCE = 0, 2
"""Planes of a stack of stamps, as `stamps.layers` orders them."""
LABEL, RECOVERY = LabelParams(), RecoveryParams()
FWHM_OF_SIGMA = 2.3548


@dataclass(frozen=True, kw_only=True)
class InjectionOptions:
    """Options that, with the image, decide the injected sources.

    Attributes
    ----------
    catshtm_dir : str
        Folder of the GLADE catalogue, which names the hosts.
    n_per_image : int
        Sources of one image.
    min_mag, max_mag : float
        Magnitudes, uniform.
    max_offset_arcsec : float
        Distances from the host's centre, uniform from 0.
    hostless_fraction : float
        Of the sources, those at random places.
    max_galaxy_mag : float
        Faintest host (B).
    """

    catshtm_dir: str
    n_per_image: int = RECOVERY.n_per_image
    min_mag: float = RECOVERY.min_mag
    max_mag: float = RECOVERY.max_mag
    max_offset_arcsec: float = RECOVERY.max_offset_arcsec
    hostless_fraction: float = RECOVERY.hostless_fraction
    max_galaxy_mag: float = RECOVERY.max_galaxy_mag
    stamp_size: int = LABEL.stamp_size
    files: FileLayout = field(default_factory=FileLayout)
    seed: int = SEED

    @property
    def catalogues(self) -> tuple[str, ...]:
        """Version of the catalogue that decides the places, by content."""
        return (catalogue_version(self.catshtm_dir),)


class PlaneLight(NamedTuple):
    """Light of a plane: its PSF, magnitude of one count, and electrons per count."""

    psf: np.ndarray
    zero_point: float
    gain: float


def make_injected(task: ImageTask, options: InjectionOptions) -> tuple[pd.DataFrame, np.ndarray]:
    """Add point sources to stamps of one image.

    Each source stands alone in a stamp of its own: science image and difference gain the same light, each exposure
    gains it at its own world coordinates with its own PSF, and a stamp is centred where the source would be measured
    (its place with an error of FWHM / (2.35 S/N)). Poisson noise is drawn for the stack and for each exposure apart.

    Parameters
    ----------
    task : ImageTask
        One image and its exposures.
    options : InjectionOptions
        Sources to add.

    Returns
    -------
    table : DataFrame
        Columns of `layout.LABEL_COLUMNS`; label 1, metalabel injected, S/N of a matched filter on the difference.
    stamps : ndarray
        (n, size, size, 6), float32.

    Raises
    ------
    ImageError
        If a file is missing or truncated, a part or the header key MAGZP is missing, or stars are too few for its PSF.
    """
    check_exposures(task)
    rng = np.random.default_rng([options.seed, 3, *task.image_id.encode()])
    exts = options.files.extensions
    with open_frame(task.path) as frame:
        sources = _draw(task, frame, options, rng)
        stack = _read_camera(Path(task.path), exts.science, n_exposures=len(task.exposure_paths))
        sources = _measure(sources, frame, stack, options, rng)
        xy = sources["x"].to_numpy(float), sources["y"].to_numpy(float)
        ra, dec = sources["ra"].to_numpy(float), sources["dec"].to_numpy(float)
        paths = [Path(path) for path in task.exposure_paths]
        planes = cut_planes(frame, paths, ra, dec, size=options.stamp_size, extensions=exts, xy=xy)
    _light(planes, sources, stack, rng)
    for number, path in enumerate(paths):
        _light_exposure(planes.exposures[..., number], path, exts.exposure, sources, rng)
    stamps, missing = fill_missing(planes.layers())
    rows = sources.assign(missing_fraction=missing, catalogue=catalogue_version(options.catshtm_dir))
    return complete_rows(rows, task), stamps


def _read_camera(path: Path, ext: str, *, n_exposures: int = 1) -> PlaneLight:
    """Measure what is needed to add light to a plane; a median of exposures counts as their sum in electrons."""
    with open_frame(path) as frame:
        header = frame.header(ext)
        image = np.ascontiguousarray(frame.plane(ext), dtype=np.float32)
        return PlaneLight(measure_psf(image, path), read_zero_point(header, path), _gain(header) * n_exposures)


def _gain(header: fits.Header) -> float:
    gain = header.get("GAIN", 1.0)
    return float(gain) if isinstance(gain, int | float) and gain > 0 else 1.0


def _draw(task: ImageTask, frame: Frame, options: InjectionOptions, rng: np.random.Generator) -> pd.DataFrame:
    """True places and magnitudes, on pixels with data and with room for a stamp."""
    exts, margin = options.files.extensions, options.stamp_size // 2
    height, width = frame.shape(exts.difference)
    hosts = find_hosts(task, frame, exts, options.catshtm_dir, max_mag=options.max_galaxy_mag, margin=margin + PSF_HALF)
    n_alone = round(options.n_per_image * options.hostless_fraction) if len(hosts) else options.n_per_image
    on_hosts = _around(hosts, N_DRAWN * (options.n_per_image - n_alone), options, rng)
    x, y = frame.to_pixels(exts.difference, on_hosts["ra"].to_numpy(float), on_hosts["dec"].to_numpy(float))
    alone = pd.DataFrame({"host_id": "", "host_offset_arcsec": np.nan}, index=range(N_DRAWN * n_alone))
    alone["true_x"] = rng.uniform(margin, width - 1 - margin, len(alone))
    alone["true_y"] = rng.uniform(margin, height - 1 - margin, len(alone))
    groups = (on_hosts.assign(true_x=x, true_y=y), options.n_per_image - n_alone), (alone, n_alone)
    kept = [_on_data(places, frame, exts.difference).iloc[:wanted] for places, wanted in groups]
    sources = pd.concat([part for part in kept if len(part)] or kept, ignore_index=True)
    if sources.empty:
        raise MissingPart(f"no place for a source in {task.path}: all pixels drawn are missing; leave the image out")
    return sources.assign(mag=rng.uniform(options.min_mag, options.max_mag, len(sources)))


def _around(hosts: pd.DataFrame, n: int, options: InjectionOptions, rng: np.random.Generator) -> pd.DataFrame:
    """Places at random distances and angles around random hosts."""
    chosen = hosts.iloc[rng.integers(0, max(len(hosts), 1), n if len(hosts) else 0)].reset_index(drop=True)
    offset, angle = rng.uniform(0, options.max_offset_arcsec, len(chosen)), rng.uniform(0, 2 * np.pi, len(chosen))
    dec = chosen["dec"].to_numpy(float) + offset * np.sin(angle) / 3600
    ra = chosen["ra"].to_numpy(float) + offset * np.cos(angle) / 3600 / np.cos(np.radians(dec))
    names = chosen["galaxy_id"].to_numpy(str)
    return pd.DataFrame({"host_id": names, "host_offset_arcsec": offset, "ra": ra, "dec": dec})


def _on_data(places: pd.DataFrame, frame: Frame, ext: str) -> pd.DataFrame:
    values = frame.values_at(ext, places["true_x"].to_numpy(float), places["true_y"].to_numpy(float))
    return places[np.isfinite(values)].reset_index(drop=True)


def _measure(
    sources: pd.DataFrame, frame: Frame, stack: PlaneLight, options: InjectionOptions, rng: np.random.Generator
) -> pd.DataFrame:
    """Rows as a survey would list the sources: S/N, and places with the error that it brings."""
    ext = options.files.extensions.difference
    noise = robust_noise(frame.plane(ext))
    flux = 10 ** (-0.4 * (sources["mag"].to_numpy(float) - stack.zero_point))
    snr = flux * np.sqrt((stack.psf**2).sum()) / max(noise, 1e-9)
    fwhm = FWHM_OF_SIGMA / np.sqrt(4 * np.pi * (stack.psf**2).sum())  # of a Gaussian with as many noise pixels
    errors = rng.standard_normal((2, len(sources))) * np.minimum(fwhm / FWHM_OF_SIGMA / snr, fwhm / 2)
    x, y = sources["true_x"].to_numpy(float) + errors[0], sources["true_y"].to_numpy(float) + errors[1]
    true = frame.to_sky(ext, sources["true_x"].to_numpy(float), sources["true_y"].to_numpy(float))
    ra, dec = frame.to_sky(ext, x, y)
    known = {"x": x, "y": y, "ra": ra, "dec": dec, "true_ra": true[0], "true_dec": true[1], "snr": snr, "fwhm": fwhm}
    made = {"label": layout.REAL, "metalabel": layout.INJECTED, "object_id": "", "rule": "point source added"}
    ids = [f"injected{number:05d}" for number in range(len(sources))]
    return sources.assign(**known, **made, id=ids, number="", flux=flux)


def _light(planes: Planes, sources: pd.DataFrame, camera: PlaneLight, rng: np.random.Generator) -> None:
    """Add the same light, noise included, to science image and difference."""
    size = planes.stacked.shape[1]
    x, y = (sources[name].to_numpy(float) - first_pixels(sources[name[-1]], size) for name in ("true_x", "true_y"))
    light = paint_alone(x, y, sources["flux"].to_numpy(float), camera, size=size, rng=rng)
    for plane in (SCIENCE, DIFFERENCE):
        planes.stacked[..., plane] += light


def _light_exposure(stamps: np.ndarray, path: Path, ext: str, sources: pd.DataFrame, rng: np.random.Generator) -> None:
    camera, size = _read_camera(path, ext), stamps.shape[1]
    with open_frame(path) as frame:
        measured = frame.to_pixels(ext, sources["ra"].to_numpy(float), sources["dec"].to_numpy(float))
        true = frame.to_pixels(ext, sources["true_ra"].to_numpy(float), sources["true_dec"].to_numpy(float))
    x, y = (at - first_pixels(centre, size) for at, centre in zip(true, measured, strict=True))
    flux = 10 ** (-0.4 * (sources["mag"].to_numpy(float) - camera.zero_point))
    stamps += paint_alone(x, y, flux, camera, size=size, rng=rng)


def paint_alone(
    x: np.ndarray, y: np.ndarray, flux: np.ndarray, camera: PlaneLight, *, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Light of one source in each stamp, (n, size, size), with Poisson noise.

    Parameters
    ----------
    x, y : ndarray
        (n,) places inside their stamps, 0-based; those that are no number give no light.
    flux : ndarray
        (n,) in counts.
    camera : PlaneLight
        PSF and gain.
    size : int
        Side of a stamp [pixel].
    rng : numpy.random.Generator
        Source of the Poisson noise.

    Returns
    -------
    ndarray
    """
    light = np.zeros((len(x), size, size), np.float64)
    for stamp, at_x, at_y, counts in zip(light, x, y, flux, strict=True):
        if -size < at_x < 2 * size and -size < at_y < 2 * size:
            add_source(stamp, at_x, at_y, counts, camera.psf, gain=camera.gain, rng=rng)
    return light


def add_transients(
    images_dir: Path | str,
    image_ids: Collection[str],
    options: InjectionOptions,
    *,
    out_dir: Path | str,
    name: str = "injected",
    n_processes: int = LABEL.n_processes,
) -> Path:
    """Make a data set of point sources added to some images.

    Parameters
    ----------
    images_dir : path
        Data set made by ``label_data.make()``, which knows the images.
    image_ids : collection of str
        Which of its images.
    options : InjectionOptions
        Sources and their places.
    out_dir, name : path, str
        The folder is ``out_dir/name``.
    n_processes : int
        Worker processes.

    Returns
    -------
    Path
        The data set's folder; images that could not be used are in its image.csv.
    """
    settings = read_settings()
    tasks = [task for task in read_images(images_dir, settings) if task.image_id in set(image_ids)]
    workers = Workers(n_processes, scheduler=settings.dask_scheduler_address)
    with run_folder(out_dir, name) as data_dir:
        make_shards(data_dir, tasks, make_injected, options, workers=workers, title="inject")
    return data_dir
