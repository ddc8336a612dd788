"""Synthetic transients: a minor planet's stamp added to a galaxy's, and bare galaxies as their bogus twins.

Minor planets lie far from galaxies, so a network trained on them alone would learn that galaxies are bogus.
Source: Killestein et al. 2021 (MNRAS 503, 4838), section 2.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from gotorb.catalogues.crossmatch import chord, find_nearest, unit_vectors
from gotorb.catalogues.galaxies import catalogue_version, find_galaxies
from gotorb.catalogues.minor_planets import Field, MinorPlanets
from gotorb.catalogues.variables import read_variables
from gotorb.core import layout
from gotorb.core.params import SEED, LabelParams, SyntheticParams
from gotorb.errors import ConfigError
from gotorb.labels.image import FileLayout, check_exposures, complete_rows
from gotorb.labels.jobs import ImageTask
from gotorb.stamps.layers import Extensions, Planes, cut_into, cut_planes, n_detected_exposures
from gotorb.survey.fits import Frame, open_frame
from gotorb.survey.pixels import fill_missing
from gotorb.survey.sanity import find_circle

LABEL, SYNTHETIC = LabelParams(), SyntheticParams()
ROW_COLUMNS = ("id", "number", "object_id", "ra", "dec", "mag", "fwhm", "snr", "host_id", "host_offset_arcsec",
               "fading", "flash", "label", "metalabel", "rule",
               "planet_x", "planet_y", "planet_ra", "planet_dec")  # fmt: skip
STAR_JITTER_ARCSEC = 0.3
"""Light of a variable star lies on the star, as far as a catalogue and an astrometric solution agree."""
CLEAR_RADIUS_ARCSEC = 10.0
"""A bare galaxy, or a flash, lies at least this far from all detected or known, so that no transient hides in it."""
N_DRAWN = 5
"""Places drawn for each flash wanted; the first ones on pixels with data, and with nothing near, are taken."""
FIELD_RADIUS_DEG = LABEL.search_radius_deg
"""Circle around the image's centre in which minor planets are asked for, as `label_data.make` does."""
DIFFERENCE = layout.LAYERS.index("difference")
WHOLE_FWHM, NOTHING_FWHM = 2.0, 3.5
"""A minor planet's stamp is taken whole to the first radius and not at all beyond the second: its neighbours and the
noise of its sky stay behind. A network would know pasted light by them, which it is to know by its shape."""
EVERY_EXPOSURE = -1
"""Stands for no flash."""


class PlanetRow(NamedTuple):
    """A minor planet's row of a data set, as far as it is needed here."""

    candidate_id: str
    number: str
    object_id: str
    x: float
    y: float
    ra: float
    dec: float
    mag: float
    fwhm: float
    snr: float


@dataclass(frozen=True, kw_only=True)
class SyntheticTask(ImageTask):
    """An image and its labelled minor planets."""

    planets: tuple[PlanetRow, ...] = ()


def make_synthetic_tasks(images: Sequence[ImageTask], table: pd.DataFrame) -> list[SyntheticTask]:
    """Give each image its labelled minor planets; images without any are left out.

    Parameters
    ----------
    images : sequence of ImageTask
    table : DataFrame
        Rows of a data set.

    Returns
    -------
    list of SyntheticTask

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> from gotorb.labels.jobs import read_task
    >>> rows = open_dataset("data/dataset").table.assign(image_id="visit")
    >>> (task,) = make_synthetic_tasks([read_task("images/visit.fits")], rows)
    >>> len(task.planets), task.planets[0].number
    (10, 'planet 1')
    """
    of_image = dict(tuple(table[table["metalabel"] == "mp"].groupby("image_id")))
    tasks = []
    for image in images:
        if image.image_id in of_image:
            rows = of_image[image.image_id][list(PlanetRow._fields)].itertuples(index=False, name=None)
            planets = tuple(PlanetRow(*values) for values in rows)
            tasks.append(SyntheticTask(**vars(image), planets=planets))
    return tasks


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """Everything but image and planets that decides the synthetic rows."""

    catshtm_dir: str
    n_per_image: int = SYNTHETIC.n_per_image
    jitter_arcsec: float = SYNTHETIC.jitter_arcsec
    search_radius_arcsec: float = SYNTHETIC.search_radius_arcsec
    min_mag: float = SYNTHETIC.min_mag
    max_mag: float = SYNTHETIC.max_mag
    max_galaxy_mag: float = SYNTHETIC.max_galaxy_mag
    n_residuals_per_transient: float = SYNTHETIC.n_residuals_per_transient
    negative_fraction: float = SYNTHETIC.negative_fraction
    provider: MinorPlanets | None = None
    variables: str = ""
    n_variables_per_image: int = SYNTHETIC.n_variables_per_image
    n_flashes_per_image: int = SYNTHETIC.n_flashes_per_image
    snr_of: str | None = SYNTHETIC.snr_of
    stamp_size: int = LABEL.stamp_size
    files: FileLayout = field(default_factory=FileLayout)
    seed: int = SEED

    def __post_init__(self) -> None:
        if self.snr_of not in (None, "planets", "detections"):
            raise ConfigError(f"unknown snr_of {self.snr_of!r}; give planets, detections or None")

    @property
    def catalogues(self) -> tuple[str, ...]:
        """Versions of the catalogues that decide rows, by content."""
        known = (catalogue_version(self.catshtm_dir),)
        return known if self.provider is None else (*known, self.provider.version)


def make_synthetic(task: SyntheticTask, options: SyntheticOptions) -> tuple[pd.DataFrame, np.ndarray]:
    """Synthetic transients and galaxy residuals of one image.

    Parameters
    ----------
    task : SyntheticTask
    options : SyntheticOptions

    Returns
    -------
    table : DataFrame
        Columns of `layout.LABEL_COLUMNS`; metalabels syntransient, synfading, synvariable (real), glxresid and
        synflash (bogus).
    stamps : ndarray
        (n, size, size, 6), float32; the layers over the exposures are made of the summed exposures.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> task = read_task("images/visit.fits")
    >>> ceres = PlanetRow("1", "Ceres", "mp:Ceres", 50.0, 50.0, task.ra_c, task.dec_c, 17.0, 4.7, 30.0)
    >>> options = SyntheticOptions(catshtm_dir="catalogues", stamp_size=21, n_flashes_per_image=0)
    >>> table, stamps = make_synthetic(SyntheticTask(**vars(task), planets=(ceres,)), options)
    >>> table["metalabel"].tolist(), stamps.shape
    (['syntransient', 'glxresid'], (2, 21, 21, 6))
    """
    check_exposures(task)
    rng = np.random.default_rng([options.seed, 1, *task.image_id.encode()])
    with open_frame(task.path) as frame:
        planets = _choose_planets(task.planets, options.n_per_image, options, rng)
        galaxies = find_hosts(
            task, frame, options.files.extensions, options.catshtm_dir,
            max_mag=options.max_galaxy_mag, margin=options.stamp_size // 2,
        )  # fmt: skip
        transients = _pair(planets, galaxies, options, rng)
        occupied = _occupied(task, frame, options)
        residuals = _choose_residuals(galaxies, transients, occupied, options, rng)
        parts = (transients, residuals, _light_stars(task, frame, options), _flash(task, frame, occupied, options))
        rows = pd.concat([part for part in parts if len(part)] or [transients], ignore_index=True)
        rows = _dim(rows, task, frame, options)
        stamps, missing = _cut(task, frame, rows, options)
    rows = rows.assign(missing_fraction=missing, catalogue=catalogue_version(options.catshtm_dir))
    return complete_rows(rows, task), stamps


def _dim(rows: pd.DataFrame, task: SyntheticTask, frame: Frame, options: SyntheticOptions) -> pd.DataFrame:
    """Rows with the part of their minor planet's `light` that is used, and the magnitude and S/N that this leaves."""
    lit = np.flatnonzero(rows["metalabel"] != "glxresid")
    snr, light = rows["snr"].to_numpy(float)[lit], np.ones(len(rows))
    if options.snr_of == "planets":
        known = np.array([planet.snr for planet in task.planets], dtype=float)
    else:
        known = options.files.read_detections(frame)["snr"].to_numpy(float) if options.snr_of else np.empty(0)
    known = known[known > 0]
    if len(known) and len(lit):
        rng = np.random.default_rng([options.seed, 4, *task.image_id.encode()])
        wanted = np.sort(rng.choice(known, len(lit)))[np.argsort(np.argsort(snr))]  # the brightest stay the brightest
        light[lit] = np.fmin(wanted / snr, 1)
    mag = rows["mag"].to_numpy(float) - 2.5 * np.log10(light)
    return rows.assign(light=light, snr=rows["snr"].to_numpy(float) * light, mag=mag)


def _choose_planets(
    planets: tuple[PlanetRow, ...], n: int, options: SyntheticOptions, rng: np.random.Generator
) -> pd.DataFrame:
    table = pd.DataFrame(planets, columns=list(PlanetRow._fields))
    table = table[table["mag"].between(options.min_mag, options.max_mag)]
    return table.iloc[rng.permutation(len(table))[:n]].reset_index(drop=True)


def _light_stars(task: SyntheticTask, frame: Frame, options: SyntheticOptions) -> pd.DataFrame:
    """Known variable stars that brighten or fade by the light of a minor planet each."""
    rng = np.random.default_rng([options.seed, 2, *task.image_id.encode()])
    if not options.variables or options.n_variables_per_image == 0:
        return pd.DataFrame(columns=list(ROW_COLUMNS))
    stars = find_stars(
        task, frame, options.files.extensions, options.variables, margin=options.stamp_size // 2
    ).iloc[: options.n_variables_per_image]  # fmt: skip
    planets = _choose_planets(task.planets, len(stars), options, rng)
    calm = replace(options, jitter_arcsec=STAR_JITTER_ARCSEC, negative_fraction=0.5)
    what = {"metalabel": "synvariable", "rule": "minor planet on or off a variable star"}
    pairs = zip(planets.itertuples(index=False), stars.iterrows(), strict=False)
    rows = [_transient_row(planet, star, calm, rng) | what for planet, (_, star) in pairs]
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))


def _flash(task: SyntheticTask, frame: Frame, occupied: pd.DataFrame, options: SyntheticOptions) -> pd.DataFrame:
    """Light of minor planets in one exposure, at random places with nothing near; images of one exposure have none."""
    rng = np.random.default_rng([options.seed, 3, *task.image_id.encode()])
    wanted = options.n_flashes_per_image if len(task.exposure_paths) > 1 else 0
    if wanted == 0:
        return pd.DataFrame(columns=list(ROW_COLUMNS))
    ext, margin = options.files.extensions.difference, options.stamp_size // 2
    height, width = frame.shape(ext)
    x, y = (rng.uniform(margin, max(length - 1 - margin, margin), N_DRAWN * wanted) for length in (width, height))
    seen = np.isfinite(frame.values_at(ext, x, y))
    ra, dec = frame.to_sky(ext, x, y)
    _, separation = find_nearest(ra, dec, occupied["ra"], occupied["dec"])
    free = np.flatnonzero(seen & (separation > CLEAR_RADIUS_ARCSEC))[:wanted]
    planets = _choose_planets(task.planets, len(free), options, rng)
    calm = replace(options, jitter_arcsec=0.0, negative_fraction=0.0)
    what = {"label": layout.BOGUS, "metalabel": "synflash", "rule": "minor planet in one exposure only"}
    rows = []
    for planet, k in zip(planets.itertuples(index=False), free, strict=False):
        place = pd.Series({"galaxy_id": "", "ra": ra[k], "dec": dec[k]})
        which = {"flash": int(rng.integers(len(task.exposure_paths)))}
        rows.append(_transient_row(planet, place, calm, rng) | what | which)
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))


def _occupied(task: SyntheticTask, frame: Frame, options: SyntheticOptions) -> pd.DataFrame:
    """Positions (ra, dec) of all detections and known objects: a galaxy there may not be bare."""
    taken = [options.files.read_detections(frame), pd.DataFrame(task.planets, columns=list(PlanetRow._fields))]
    if options.provider is not None:
        circle = find_circle(frame, options.files.extensions.difference, task.ra_c, task.dec_c)
        radius_deg = max(FIELD_RADIUS_DEG, circle.radius_deg)
        taken.append(options.provider.find(Field(circle.ra, circle.dec, radius_deg, task.epoch_mjd)))
    if options.variables:
        taken.append(read_variables(options.variables))
    return pd.concat([table[["ra", "dec"]] for table in taken if len(table)] or [taken[0]], ignore_index=True)


def _pair(
    planets: pd.DataFrame, galaxies: pd.DataFrame, options: SyntheticOptions, rng: np.random.Generator
) -> pd.DataFrame:
    """Give each planet a galaxy near it, each galaxy at most once; half of the galaxies stay for residuals."""
    left = list(rng.permutation(len(galaxies)))
    left = left[: (len(left) + 1) // 2]
    rows = []
    for planet in planets.itertuples(index=False):
        separation = find_nearest(galaxies["ra"], galaxies["dec"], [planet.ra], [planet.dec])[1]
        near = [g for g in left if separation[g] <= options.search_radius_arcsec]
        if near:
            left.remove(near[0])
            rows.append(_transient_row(planet, galaxies.iloc[near[0]], options, rng))
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))


def _transient_row(
    planet: NamedTuple, galaxy: pd.Series, options: SyntheticOptions, rng: np.random.Generator
) -> dict[str, object]:
    ra, dec, offset = _jitter(galaxy, options.jitter_arcsec, rng)
    negative = bool(rng.random() < options.negative_fraction)
    row = planet._asdict()
    row.update(planet_x=row.pop("x"), planet_y=row.pop("y"), planet_ra=row.pop("ra"), planet_dec=row.pop("dec"))
    return row | {
        "id": row.pop("candidate_id"),
        "ra": ra,
        "dec": dec,
        "host_id": galaxy["galaxy_id"],
        "host_offset_arcsec": offset,
        "fading": negative,
        "flash": EVERY_EXPOSURE,
        "label": layout.REAL,
        "metalabel": "synfading" if negative else "syntransient",
        "rule": f"minor planet {'off' if negative else 'on'} a galaxy, jitter <= {options.jitter_arcsec:g} arcsec",
    }


def _jitter(galaxy: pd.Series, largest_arcsec: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """A place near a galaxy; the offset itself is uniform, so that half of them are nuclear."""
    offset, angle = rng.uniform(0, largest_arcsec), rng.uniform(0, 2 * np.pi)
    dec = galaxy["dec"] + offset * np.cos(angle) / 3600
    ra = (galaxy["ra"] + offset * np.sin(angle) / 3600 / np.cos(np.radians(galaxy["dec"]))) % 360
    return float(ra), float(dec), float(offset)


def _choose_residuals(
    galaxies: pd.DataFrame,
    transients: pd.DataFrame,
    occupied: pd.DataFrame,
    options: SyntheticOptions,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Bare galaxies: without a transient on them, away from all detections and known objects."""
    n_wanted = round(len(transients) * options.n_residuals_per_transient)
    _, separation = find_nearest(galaxies["ra"], galaxies["dec"], occupied["ra"], occupied["dec"])
    able = (separation > CLEAR_RADIUS_ARCSEC) & ~galaxies["galaxy_id"].isin(transients["host_id"]).to_numpy()
    rows = np.flatnonzero(able)
    chosen = galaxies.iloc[rng.choice(rows, min(n_wanted, len(rows)), replace=False)]
    residuals = [_residual_row(galaxy, options, rng) for _, galaxy in chosen.iterrows()]
    return pd.DataFrame(residuals, columns=list(ROW_COLUMNS))


def _residual_row(galaxy: pd.Series, options: SyntheticOptions, rng: np.random.Generator) -> dict[str, object]:
    ra, dec, offset = _jitter(galaxy, options.jitter_arcsec / 2, rng)
    return {
        **dict.fromkeys(("id", "number", "object_id"), ""),
        **dict.fromkeys(("mag", "fwhm", "snr"), np.nan),
        "ra": ra,
        "dec": dec,
        "host_id": galaxy["galaxy_id"],
        "host_offset_arcsec": offset,
        "fading": False,
        "flash": EVERY_EXPOSURE,
        "label": layout.BOGUS,
        "metalabel": "glxresid",
        "rule": f"galaxy B <= {options.max_galaxy_mag:g}, nothing known within {CLEAR_RADIUS_ARCSEC:g} arcsec",
    }


def _cut(task: ImageTask, frame: Frame, rows: pd.DataFrame, options: SyntheticOptions) -> tuple[np.ndarray, np.ndarray]:
    """Stamps of all rows; the planets' planes are added to those of their galaxies before the layers are made."""
    if rows.empty:
        return np.empty((0, options.stamp_size, options.stamp_size, len(layout.LAYERS)), np.float32), np.empty(0)
    extensions = options.files.extensions
    rows["x"], rows["y"] = frame.to_pixels(extensions.difference, rows["ra"].to_numpy(), rows["dec"].to_numpy())
    lit = (rows["metalabel"] != "glxresid").to_numpy()
    # hosts and planets in one call, so that each file is opened once
    ra, dec, x, y = (
        np.concatenate([rows[name], rows.loc[lit, f"planet_{name}"]]).astype(float) for name in ("ra", "dec", "x", "y")
    )
    paths = [Path(path) for path in task.exposure_paths]
    both = cut_planes(frame, paths, ra, dec, size=options.stamp_size, extensions=extensions, xy=(x, y))
    hosts, planets = both.take(np.arange(len(rows))), both.take(np.arange(len(rows), len(ra)))
    light = rows.loc[lit, "light"].to_numpy(np.float32)[:, None, None, None]
    planets = Planes(light * planets.stacked, light * planets.exposures)
    fading, flash = rows["fading"].to_numpy(bool), rows["flash"].to_numpy(int)
    planets = _cut_out(planets, rows.loc[lit, "fwhm"].to_numpy(float))
    _add_light(hosts, planets, lit, fading=fading[lit], flash=flash[lit])
    rows["n_seen"] = n_detected_exposures(hosts.exposures)
    return fill_missing(hosts.layers())


def _cut_out(planets: Planes, fwhm: np.ndarray) -> Planes:
    """The planets alone: zero where a stamp shows only what is around them, in between less and less.

    Parameters
    ----------
    planets : Planes
        Stamps (n, size, size, ...) with the planets in the middle.
    fwhm : ndarray (n,)
        Of the planets, which are of one image [pixel]; their median counts, NaN is left out.
    """
    known = fwhm[fwhm > 0]
    if len(known) == 0:  # nothing tells how wide they are
        return planets
    side = np.arange(planets.stacked.shape[1]) - planets.stacked.shape[1] // 2
    radius = np.hypot(side[:, None], side) / np.median(known)
    outer = np.clip((radius - WHOLE_FWHM) / (NOTHING_FWHM - WHOLE_FWHM), 0, 1)
    window = (0.5 + 0.5 * np.cos(np.pi * outer)).astype(np.float32)[..., None]
    whole = (planets.stacked, planets.exposures)
    return Planes(*(np.where(window > 0, window * planes, np.float32(0)) for planes in whole))


def _add_light(hosts: Planes, planets: Planes, lit: np.ndarray, *, fading: np.ndarray, flash: np.ndarray) -> None:
    """Add the planets' images to their hosts'; of a fading transient the light was there and is gone.

    What a planet brought is its difference image: for a fading one that goes into the template, and negative
    into the difference, while science image and exposures stay the host's. A flash has all of it in one exposure.
    """
    new_light = planets.stacked[..., DIFFERENCE]
    brought = planets.stacked.copy()
    brought[fading] = np.stack([0 * new_light, new_light, -new_light], axis=-1)[fading]
    hosts.stacked[lit] += brought
    light = np.where(fading[:, None, None, None], np.float32(0), planets.exposures)
    flashing = np.flatnonzero(flash != EVERY_EXPOSURE)
    light[flashing] = 0
    whole = light.shape[-1] * new_light  # whose mean over the exposures is what was pasted
    light[flashing, :, :, flash[flashing]] = whole[flashing]
    hosts.exposures[lit] += light


CORE_PIXELS = 11
SATURATION_KEY = "SATURATE"
SATURATED_FRACTION = 0.8
"""Of the saturation level; what is brighter at a catalogued galaxy is a star in front of it, or its bleeding."""


def find_hosts(
    task: ImageTask, frame: Frame, extensions: Extensions, catshtm_dir: str, *, max_mag: float, margin: int
) -> pd.DataFrame:
    """Galaxies whose core lies on pixels with data, clear of saturated stars, with room for most of a stamp.

    Parameters
    ----------
    task, frame : ImageTask, Frame
        The image and its open file.
    extensions : Extensions
        Names of the HDUs.
    catshtm_dir : str
        Folder of the GLADE catalogue.
    max_mag : float
        Faintest galaxy (B).
    margin : int
        Least distance from the edge in pixels.

    Returns
    -------
    DataFrame
        Columns of `catalogues.galaxies.find_galaxies`.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> from gotorb.stamps.layers import Extensions
    >>> from gotorb.survey.fits import open_frame
    >>> task = read_task("images/visit.fits")
    >>> with open_frame(task.path) as frame:
    ...     find_hosts(task, frame, Extensions(), "catalogues", max_mag=17, margin=10)["mag"].tolist()
    [16.0]
    """
    radius = _half_diagonal_arcsec(frame, extensions)
    galaxies = find_galaxies(catshtm_dir, task.ra_c, task.dec_c, radius_arcsec=radius, max_mag=max_mag)
    return _on_good_pixels(galaxies, frame, extensions, margin)


def find_stars(task: ImageTask, frame: Frame, extensions: Extensions, catalogue: str, *, margin: int) -> pd.DataFrame:
    """Known variable stars of an image, in the columns and on the conditions of `find_hosts`.

    Parameters
    ----------
    task, frame, extensions, margin
        As for `find_hosts`.
    catalogue : str
        Catalogue of variable stars (csv or FITS).

    Returns
    -------
    DataFrame

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> from gotorb.stamps.layers import Extensions
    >>> from gotorb.survey.fits import open_frame
    >>> task = read_task("images/visit.fits")
    >>> with open_frame(task.path) as frame:
    ...     len(find_stars(task, frame, Extensions(), "catalogues/variables.csv", margin=10))
    1
    """
    stars = read_variables(catalogue)
    distance = np.linalg.norm(unit_vectors(stars["ra"], stars["dec"]) - unit_vectors(task.ra_c, task.dec_c), axis=1)
    stars = stars[distance <= chord(_half_diagonal_arcsec(frame, extensions))]
    names = [f"var:{ra:.5f}{dec:+.5f}" for ra, dec in zip(stars["ra"], stars["dec"], strict=True)]
    return _on_good_pixels(stars.assign(galaxy_id=names), frame, extensions, margin)


def _half_diagonal_arcsec(frame: Frame, extensions: Extensions) -> float:
    scale = frame.astrometry(extensions.difference).scale_arcsec
    return float(0.5 * scale * np.hypot(*frame.shape(extensions.difference)))


def _on_good_pixels(places: pd.DataFrame, frame: Frame, extensions: Extensions, margin: int) -> pd.DataFrame:
    """Places (ra, dec) whose core has data and no saturated star, off the edge by a margin."""
    if places.empty:
        return places.reset_index(drop=True)
    height, width = frame.shape(extensions.difference)
    x, y = frame.to_pixels(extensions.difference, places["ra"].to_numpy(), places["dec"].to_numpy())
    inside = (x > margin) & (x < width - 1 - margin) & (y > margin) & (y < height - 1 - margin)
    places, x, y = places[inside], x[inside], y[inside]
    core = np.empty((2, len(x), CORE_PIXELS, CORE_PIXELS), np.float32)
    for ext, stamps in zip((extensions.science, extensions.template), core, strict=True):
        cut_into(stamps, frame.blocks(ext, x, y, CORE_PIXELS / 2), x, y)
    middle = frame.values_at(extensions.difference, x, y)
    clear = np.isfinite(middle) & ~(core > _saturation(frame, extensions)).any(axis=(0, 2, 3))
    return places[clear].reset_index(drop=True)


def _saturation(frame: Frame, extensions: Extensions) -> float:
    """Level that counts as saturated; infinite when the header does not know it."""
    level = frame.header(extensions.science).get(SATURATION_KEY, frame.header(0).get(SATURATION_KEY))
    return SATURATED_FRACTION * float(level) if isinstance(level, int | float) and level > 0 else np.inf
