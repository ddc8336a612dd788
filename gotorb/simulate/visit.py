"""One visit: exposures, coadd, subtraction, detections and their truth."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gotorb.errors import SurveyError
from gotorb.simulate import coadd, detector, exposure, plan, subtraction, truth
from gotorb.simulate.detection import Detections, detect
from gotorb.simulate.exposure import Air, Exposure
from gotorb.simulate.plan import CAMERA, Visit
from gotorb.simulate.projection import Tan
from gotorb.simulate.psf import Psf, draw_psf, vary_psf
from gotorb.simulate.subtraction import Difference
from gotorb.simulate.world import World, fixed_sources, injected_sources, transients_at

Array = NDArray[np.floating]
Labels = NDArray[np.uint8]
REGISTRATION_PIXEL, ALIGNMENT_PIXEL = 0.035, 0.04
BAD_WARP_CHANCE, BAD_WARP_PIXEL = 0.12, 0.25
SWAP_CHANCE, MEAN_CHANCE, STUCK_CHANCE = 0.06, 0.10, 0.15
DITHER_PIXEL = 9.0


class Habits(NamedTuple):
    """What goes wrong, or not, in one visit."""

    method: coadd.Method
    swap: bool
    warped: bool
    stuck: bool


class VisitResult(NamedTuple):
    """All of one visit: images on the first exposure's grid, detections and truth in the same row order."""

    visit: Visit
    exposures: list[Exposure]
    grid: Tan
    science: Array
    template: Array
    difference: Difference
    detections: Detections
    truth: pd.DataFrame
    labels: Labels
    method: str


def run_visit(world: World, visit: Visit) -> VisitResult:
    """Expose, coadd, subtract and detect one visit.

    Raises
    ------
    SurveyError
        If the visit has too few stars for a subtraction.
    """
    rng = plan.stream(world.seed, world.field.index, plan.VISIT, visit.number)
    habits = _draw_habits(rng)
    exposures = _expose_all(world, visit, habits, rng)
    grid = exposures[0].grid
    coadded = coadd.coadd(exposures, CAMERA.image_zero_point, habits.method)
    template, labels = _align_template(world, grid, coadded.labels, habits, rng)
    difference = subtraction.subtract(coadded.image, template, CAMERA, swap=habits.swap)
    detections = detect(difference, coadded.image, grid=grid, camera=CAMERA)
    answer = truth.classify(
        detections.table,
        _shares(exposures, coadded, detections, difference, habits.method),
        injected_sources(world, visit, grid),
        fixed_sources(world, visit, grid),
        detector.grow_labels(labels, 1),
        warped=habits.warped or habits.swap,
        fwhm=difference.fwhm,
    )
    return VisitResult(
        visit, exposures, grid, coadded.image, template, difference, detections, answer, labels, habits.method
    )


def _shares(
    exposures: list[Exposure],
    coadded: coadd.Coadd,
    detections: Detections,
    difference: Difference,
    method: coadd.Method,
) -> Array:
    """Share of each detection that the changes make."""
    x, y = (detections.table[axis].to_numpy() for axis in ("x", "y"))
    half = subtraction.window_half(difference)
    how = {"half": half, "zero_point": CAMERA.image_zero_point, "method": method}
    return subtraction.share_of_change(
        detections.table, coadd.change_windows(exposures, coadded, x, y, **how), difference
    )


def _draw_habits(rng: np.random.Generator) -> Habits:
    chance = rng.random(4)
    return Habits(
        "mean" if chance[0] < MEAN_CHANCE else "median",
        bool(chance[1] < SWAP_CHANCE),
        bool(chance[2] < BAD_WARP_CHANCE),
        bool(chance[3] < STUCK_CHANCE),
    )


def exposure_times(visit: Visit, n_exposures: int) -> Array:
    """Mid times [MJD UTC] of a visit's exposures, evenly about the visit's middle."""
    step = (CAMERA.exposure_s + CAMERA.gap_s) / 86400
    return visit.mjd_utc + step * (np.arange(n_exposures) - (n_exposures - 1) / 2)


def _expose_all(world: World, visit: Visit, habits: Habits, rng: np.random.Generator) -> list[Exposure]:
    psf, air = draw_psf(rng), exposure.draw_air(rng)
    start = rng.normal(0, DITHER_PIXEL, 2)
    reach = 0.3 if habits.stuck else DITHER_PIXEL
    exposures = []
    for mjd in exposure_times(visit, world.field.n_exposures):
        grid = world.field.grid.shifted(*(float(part) for part in start + rng.normal(0, reach, 2)))
        exposures.append(_expose_one(world, float(mjd), grid, vary_psf(psf, rng), air, rng))
    return exposures


def _expose_one(world: World, mjd: float, grid: Tan, psf: Psf, air: Air, rng: np.random.Generator) -> Exposure:
    """One exposure whose header grid differs from the truth by the registration error."""
    true_grid = grid.shifted(*rng.normal(0, REGISTRATION_PIXEL, 2))
    scene = (world.sky, transients_at(world, mjd), true_grid, world.field.size)
    view: dict[str, Any] = {"mjd_utc": mjd, "days": mjd - world.epoch_mjd, "psf": psf, "air": air, "camera": CAMERA}
    light, labels = exposure.render(*scene, **view)
    change = exposure.render_change(*scene, template_mjd=world.template.mjd_utc, **view)
    image, labels = exposure.expose(light, labels, world.chip, psf=psf, camera=CAMERA, rng=rng)
    zero_point = CAMERA.image_zero_point + 2.5 * float(np.log10(air.transparency)) + float(rng.normal(0, 0.004))
    return Exposure(image, change, labels, grid, mjd, psf, zero_point)


def _align_template(
    world: World, grid: Tan, labels: Labels, habits: Habits, rng: np.random.Generator
) -> tuple[Array, Labels]:
    """The template on the visit's grid, and the visit's artefacts joined with the template's."""
    shape = (world.field.size, world.field.size)
    warp = coadd.smooth_warp(shape, BAD_WARP_PIXEL if habits.warped else ALIGNMENT_PIXEL, rng)
    source = world.template.grid
    template = coadd.resample(world.template.coefficients, source, grid, shape, warp)
    rows, columns = np.nonzero(world.template.labels)
    x, y = grid.to_pixel(*source.to_sky(columns.astype(float), rows.astype(float)))
    x, y = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    mark = world.template.labels[rows[inside], columns[inside]]
    old = labels[y[inside], x[inside]]
    labels[y[inside], x[inside]] = np.maximum(old, mark)
    return template, labels


def skip_reason(error: SurveyError, visit: Visit) -> str:
    """One line for a visit that could not be made."""
    return f"field {visit.field} visit {visit.number}: {error}"
