"""One visit: template, exposures, coadd, subtraction, detections and their truth."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from gotorb.simulate import exposure, plan, subtraction
from gotorb.simulate.detection import Detections, classify, detect
from gotorb.simulate.exposure import Artefact, Detector, Exposure, Labels, View
from gotorb.simulate.plan import CAMERA, Tan, Visit
from gotorb.simulate.psf import cut_windows, draw_psf, vary_psf
from gotorb.simulate.scene import NOTHING, TEMPLATE_AGE_DAY, Scene, fixed_sources, injected_sources, transients_at
from gotorb.simulate.subtraction import Difference, subtract

Array = NDArray[np.floating]
Method = Literal["median", "mean"]
MIN_EXPOSURES = 2
"""A coadd pixel needs this many exposures; others are NaN."""
REGISTRATION_PIXEL, ALIGNMENT_PIXEL = 0.035, 0.04
BAD_WARP_CHANCE, BAD_WARP_PIXEL = 0.12, 0.25
SWAP_CHANCE, MEAN_CHANCE, STUCK_CHANCE = 0.06, 0.10, 0.15
DITHER_PIXEL = 9.0
TEMPLATE_MARGIN, TEMPLATE_ANGLE_DEG = 24, 0.15
"""Pixels by which the template is larger on each side, and its turn against the visits."""


@dataclass(frozen=True)
class Template:
    """The field's template: spline coefficients on its own grid, its artefacts and its time."""

    coefficients: Array
    labels: Labels
    grid: Tan
    mjd_utc: float


@dataclass(frozen=True)
class Setup:
    """Scene, template and detector that the visits of one field share."""

    scene: Scene
    template: Template
    chip: Detector


class Move(NamedTuple):
    """Shift [pixel] and factor that bring an exposure onto the grid and zero point of a coadd."""

    dx: float
    dy: float
    scale: np.float32


class Coadd(NamedTuple):
    """Exposures on one grid: their combination, the union of their artefacts, and the `layers` (n, h, w) combined."""

    image: Array
    labels: Labels
    layers: Array
    moves: list[Move]
    method: Method


class Habits(NamedTuple):
    """Faults of one visit."""

    method: Method
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
    method: Method


def make_setup(scene: Scene) -> Setup:
    """Draw the detector of a field and make its template.

    Parameters
    ----------
    scene : Scene
        The field and what is on its sky.

    Returns
    -------
    Setup
    """
    rng = plan.stream(scene.seed, scene.field.index, plan.TEMPLATE)
    chip = exposure.draw_detector(scene.field.size, rng)
    return Setup(scene, _make_template(scene, rng), chip)


def _make_template(scene: Scene, rng: np.random.Generator) -> Template:
    """An older, deeper image through other seeing, on a grid turned and moved against the visits'."""
    size = scene.field.size + 2 * TEMPLATE_MARGIN
    base = scene.field.grid.shifted(TEMPLATE_MARGIN, TEMPLATE_MARGIN)
    dx, dy = rng.uniform(-6, 6, 2)
    grid = replace(base.shifted(float(dx), float(dy)), angle_deg=base.angle_deg + TEMPLATE_ANGLE_DEG)
    mjd = scene.epoch_mjd - TEMPLATE_AGE_DAY + float(rng.uniform(-60, 60))
    psf, air = draw_psf(rng, 2.4), exposure.draw_air(rng)._replace(transparency=1.0)
    chip = exposure.draw_detector(size, rng)
    view = View(grid, size, mjd, mjd - scene.epoch_mjd, psf, air)
    light, labels = exposure.render(scene.sky, NOTHING, view, CAMERA)
    image = exposure.expose_template(light, labels, chip, CAMERA, rng)
    return Template(ndimage.spline_filter(image, order=3, output=np.float32), labels, grid, mjd)


def run_visit(setup: Setup, visit: Visit) -> VisitResult:
    """Expose, coadd, subtract and detect one visit.

    Parameters
    ----------
    setup : Setup
        Of the visit's field.
    visit : Visit
        One of the field's visits.

    Raises
    ------
    SurveyError
        If the visit has too few stars for a subtraction.
    """
    scene = setup.scene
    rng = plan.stream(scene.seed, scene.field.index, plan.VISIT, visit.number)
    habits = _draw_habits(rng)
    exposures = _expose_all(setup, visit, habits, rng)
    grid = exposures[0].grid
    coadded = coadd(exposures, CAMERA.image_zero_point, habits.method)
    template, labels = _align_template(setup.template, grid, coadded.labels, habits, rng)
    difference = subtract(coadded.image, template, CAMERA, swap=habits.swap)
    detections = detect(difference, coadded.image, grid=grid, camera=CAMERA)
    x, y = (detections.table[axis].to_numpy() for axis in ("x", "y"))
    change = change_windows(exposures, coadded, x, y, half=subtraction.window_half(difference))
    answer = classify(
        detections.table,
        subtraction.share_of_change(detections.table, change, difference),
        injected_sources(scene, visit, grid, setup.template.mjd_utc),
        fixed_sources(scene, visit, grid),
        exposure.grow_labels(labels, 1),
        warped=habits.warped or habits.swap,
        fwhm=difference.fwhm,
    )
    return VisitResult(
        visit, exposures, grid, coadded.image, template, difference, detections, answer, labels, habits.method
    )


def _draw_habits(rng: np.random.Generator) -> Habits:
    chance = rng.random(4)
    return Habits(
        "mean" if chance[0] < MEAN_CHANCE else "median",
        bool(chance[1] < SWAP_CHANCE),
        bool(chance[2] < BAD_WARP_CHANCE),
        bool(chance[3] < STUCK_CHANCE),
    )


def _exposure_times(visit: Visit, n_exposures: int) -> Array:
    """Mid times [MJD UTC] of a visit's exposures, evenly about the visit's middle."""
    step = (CAMERA.exposure_s + CAMERA.gap_s) / 86400
    return visit.mjd_utc + step * (np.arange(n_exposures) - (n_exposures - 1) / 2)


def _expose_all(setup: Setup, visit: Visit, habits: Habits, rng: np.random.Generator) -> list[Exposure]:
    field = setup.scene.field
    psf, air = draw_psf(rng), exposure.draw_air(rng)
    start = rng.normal(0, DITHER_PIXEL, 2)
    reach = 0.3 if habits.stuck else DITHER_PIXEL
    exposures = []
    for mjd in _exposure_times(visit, field.n_exposures).tolist():
        grid = field.grid.shifted(*(start + rng.normal(0, reach, 2)).tolist())
        view = View(grid, field.size, mjd, mjd - setup.scene.epoch_mjd, vary_psf(psf, rng), air)
        exposures.append(_expose_one(setup, view, rng))
    return exposures


def _expose_one(setup: Setup, view: View, rng: np.random.Generator) -> Exposure:
    """One exposure whose header grid differs from the truth by the registration error."""
    true_view = view._replace(grid=view.grid.shifted(*rng.normal(0, REGISTRATION_PIXEL, 2)))
    sky, points = setup.scene.sky, transients_at(setup.scene, view.mjd_utc)
    light, labels = exposure.render(sky, points, true_view, CAMERA)
    change = exposure.render_change(sky, points, true_view, CAMERA, template_mjd=setup.template.mjd_utc)
    image, labels = exposure.expose(light, labels, setup.chip, psf=view.psf, camera=CAMERA, rng=rng)
    transparency = 2.5 * float(np.log10(view.air.transparency))
    zero_point = CAMERA.image_zero_point + transparency + float(rng.normal(0, 0.004))
    return Exposure(image, change, labels, view.grid, view.mjd_utc, view.psf, zero_point)


def _align_template(
    template: Template, grid: Tan, labels: Labels, habits: Habits, rng: np.random.Generator
) -> tuple[Array, Labels]:
    """The template on the visit's grid, and the visit's artefacts joined with the template's."""
    warp = _smooth_warp(labels.shape, BAD_WARP_PIXEL if habits.warped else ALIGNMENT_PIXEL, rng)
    aligned = _resample(template.coefficients, template.grid, grid, warp)
    rows, columns = np.nonzero(template.labels)
    x, y = grid.to_pixel(*template.grid.to_sky(columns.astype(float), rows.astype(float)))
    x, y = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (x >= 0) & (x < labels.shape[1]) & (y >= 0) & (y < labels.shape[0])
    place = y[inside], x[inside]
    labels[place] = np.maximum(labels[place], template.labels[rows[inside], columns[inside]])
    return aligned, labels


def _lanczos_taps(shift: float, order: int = 3) -> tuple[Array, int]:
    """Weights of a one-dimensional Lanczos shift and its whole-pixel part."""
    whole = round(shift)
    position = np.arange(-order, order + 1) + (shift - whole)
    weight = np.where(np.abs(position) < order, np.sinc(position) * np.sinc(position / order), 0)
    return weight / weight.sum(), whole


def shift_image(image: Array, dx: float, dy: float) -> Array:
    """Image moved by (dx, dy) pixels: a source at x goes to x + dx. NaN for pixels without data.

    Parameters
    ----------
    image : ndarray (h, w)
        Any.
    dx, dy : float
        Shift [pixel].

    Returns
    -------
    ndarray
    """
    moved = image
    for axis, shift in ((1, dx), (0, dy)):
        taps, whole = _lanczos_taps(shift)
        moved = ndimage.correlate1d(moved, taps, axis=axis, mode="nearest", output=np.float32)
        moved = _roll(moved, whole, axis, fill=np.nan)
        moved = _blank_end(moved, shift - whole, axis)
    return moved


def _roll(array: NDArray, whole: int, axis: int, *, fill: float = 0) -> NDArray:
    moved = np.roll(array, whole, axis=axis)
    lost = [slice(None)] * array.ndim
    if whole:
        lost[axis] = slice(None, whole) if whole > 0 else slice(whole, None)
        moved[tuple(lost)] = fill
    return moved


def _blank_end(image: Array, fraction: float, axis: int) -> Array:
    """Blank the last line on the side that a part of a pixel has left."""
    if abs(fraction) > 1e-9:
        where: list[slice | int] = [slice(None)] * image.ndim
        where[axis] = 0 if fraction > 0 else -1
        image[tuple(where)] = np.nan
    return image


def coadd(exposures: list[Exposure], zero_point: float, method: Method) -> Coadd:
    """Combine exposures on the first one's grid.

    Parameters
    ----------
    exposures : list of Exposure
        Of one visit; their grids differ by shifts.
    zero_point : float
        Magnitude of one count of the result.
    method : {"median", "mean"}
        Combination of the layers.

    Returns
    -------
    Coadd
    """
    moves = [_move(one, exposures[0], zero_point) for one in exposures]
    layers = np.stack([shift_image(one.image * m.scale, m.dx, m.dy) for one, m in zip(exposures, moves, strict=True)])
    combined = combine(layers, method)
    marks = [_roll(_roll(one.labels, round(m.dx), 1), round(m.dy), 0) for one, m in zip(exposures, moves, strict=True)]
    union = np.maximum.reduce(marks)
    union[ndimage.maximum_filter(~np.isfinite(combined), 13)] = Artefact.EDGE
    return Coadd(combined, union, layers, moves, method)


def _move(one: Exposure, first: Exposure, zero_point: float) -> Move:
    scale = np.float32(10 ** (0.4 * (zero_point - one.zero_point)))
    return Move(first.grid.x0 - one.grid.x0, first.grid.y0 - one.grid.y0, scale)


def change_windows(exposures: list[Exposure], coadded: Coadd, x: Array, y: Array, *, half: int) -> Array:
    """Windows of a coadd minus one of the same exposures without their `change`.

    Parameters
    ----------
    exposures, coadded : list of Exposure, Coadd
        Argument and result of `coadd`.
    x, y : ndarray (n,)
        Places [pixel]; windows are centred on the nearest whole pixel.
    half : int
        Half side of a window [pixel].

    Returns
    -------
    ndarray (n, 2 half + 1, 2 half + 1)
        Zero where the coadd has no data.
    """
    still = []
    for one, layer, move in zip(exposures, coadded.layers, coadded.moves, strict=True):
        (taps_x, whole_x), (taps_y, whole_y) = _lanczos_taps(move.dx), _lanczos_taps(move.dy)
        margin = len(taps_x) // 2
        light = cut_windows(one.change, x - whole_x, y - whole_y, half + margin) * move.scale
        for axis, taps in ((2, taps_x), (1, taps_y)):
            light = ndimage.correlate1d(light, taps, axis=axis, mode="constant")
        still.append(cut_windows(layer, x, y, half) - light[:, margin:-margin, margin:-margin])
    return np.nan_to_num(cut_windows(coadded.image, x, y, half) - combine(np.stack(still), coadded.method), nan=0.0)


def combine(layers: Array, method: Method) -> Array:
    """Median or mean over the first axis that skips NaN; NaN where fewer than two layers have data.

    Parameters
    ----------
    layers : ndarray (n, h, w)
        NaN without data.
    method : {"median", "mean"}
        Combination.

    Returns
    -------
    ndarray
    """
    seen = np.isfinite(layers)
    n_seen = seen.sum(axis=0, dtype=np.int8)
    if method == "mean":
        combined = np.where(seen, layers, 0).sum(axis=0) / np.maximum(n_seen, 1)
    else:
        ordered = _sorted(np.where(seen, layers, np.float32(np.inf)))
        n = len(layers)
        combined = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        partly = (n_seen < n) & (n_seen >= MIN_EXPOSURES)
        few, rest = n_seen[partly], ordered[:, partly]
        low, high = (np.take_along_axis(rest, k[None], axis=0)[0] for k in ((few - 1) // 2, few // 2))
        combined[partly] = (low + high) / 2
    combined[n_seen < MIN_EXPOSURES] = np.nan
    return combined.astype(np.float32)


def _sorted(layers: Array) -> Array:
    """Layers sorted along the first axis (in place) by exchanges of neighbours: for few layers faster than a sort."""
    for turn in range(len(layers)):
        for k in range(turn % 2, len(layers) - 1, 2):
            low = np.minimum(layers[k], layers[k + 1])
            np.maximum(layers[k], layers[k + 1], out=layers[k + 1])
            layers[k] = low
    return layers


def _smooth_warp(shape: tuple[int, ...], rms_pixel: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """A smooth displacement field (dx, dy) [pixel] of given rms: what a poor astrometric solution leaves."""
    u = np.linspace(0, 1, shape[1], dtype=np.float32)[None, :]
    v = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    fields = []
    for _ in range(2):
        field = np.zeros(shape, dtype=np.float32)
        for _ in range(4):
            ku, kv, phase = rng.uniform(-9, 9), rng.uniform(-9, 9), rng.uniform(0, 2 * np.pi)
            field += np.float32(rng.normal()) * np.cos(np.float32(ku) * u + np.float32(kv) * v + np.float32(phase))
        fields.append(field * np.float32(rms_pixel / max(float(field.std()), 1e-3)))
    return fields[0], fields[1]


def _resample(coefficients: Array, source: Tan, target: Tan, warp: tuple[Array, Array]) -> Array:
    """Cubic-spline image (`ndimage.spline_filter` coefficients on `source`) on the grid `target`; NaN outside.

    Both grids share their reference point on the sky, so the map between them is affine, plus the `warp` [pixel].
    """
    shape, matrix = warp[0].shape, np.linalg.inv(source.matrix) @ target.matrix
    x = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(target.x0) + warp[0]
    y = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(target.y0) + warp[1]
    source_x = np.float32(matrix[0, 0]) * x + np.float32(matrix[0, 1]) * y + np.float32(source.x0)
    source_y = np.float32(matrix[1, 0]) * x + np.float32(matrix[1, 1]) * y + np.float32(source.y0)
    return ndimage.map_coordinates(
        coefficients, np.stack([source_y, source_x]), order=3, prefilter=False, mode="constant", cval=np.nan
    ).astype(np.float32)
