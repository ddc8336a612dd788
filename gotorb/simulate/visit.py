"""One visit: template, exposures, coadd, subtraction, detections and their truth."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from gotorb.simulate import exposure, plan, subtraction
from gotorb.simulate.detection import REAL_SHARE, Causes, Detections, classify, detect
from gotorb.simulate.exposure import Artefact, Artefacts, Detector, Exposure, Labels, View
from gotorb.simulate.plan import CAMERA, Tan, Visit
from gotorb.simulate.psf import cut_windows, draw_psf, vary_psf
from gotorb.simulate.scene import NOTHING, TEMPLATE_AGE_DAY, Scene, fixed_sources, injected_sources, transients_at
from gotorb.simulate.subtraction import Difference, subtract

Array = NDArray[np.floating]
Method = Literal["median", "mean", "clipped"]
MIN_EXPOSURES = 2
"""A coadd pixel needs this many exposures; others are NaN."""
REGISTRATION_PIXEL, ALIGNMENT_PIXEL = 0.035, 0.04
BAD_WARP_CHANCE, BAD_WARP_PIXEL = 0.12, 0.25
SWAP_CHANCE, MEAN_CHANCE, CLIPPED_CHANCE, STUCK_CHANCE = 0.06, 0.08, 0.35, 0.15
MASK_CHANCE = 0.25
"""Of the fields, those whose saturated pixels are blanked in the coadd."""
CLIP_SIGMA, CLIP_LIGHT = 6.0, 0.15
"""A clipped mean leaves out an exposure so many sigma, and this part of the light, off the median."""
DITHER_PIXEL = 9.0
TEMPLATE_MARGIN, TEMPLATE_ANGLE_DEG = 24, 0.15
"""Pixels by which the template is larger on each side, and its turn against the visits."""
REGION, SHAPE_PIXEL = 13, 3
"""Side of the area that suffers from a pixel without data; room about a window to see the shape of a residual."""


@dataclass(frozen=True)
class Template:
    """The field's template on its own grid: spline coefficients of image and noise-free light, artefacts, time."""

    coefficients: Array
    static: Array
    artefacts: Artefacts
    grid: Tan
    mjd_utc: float


@dataclass(frozen=True)
class Setup:
    """Scene, template and detector that the visits of one field share; `masks` blanks saturated pixels."""

    scene: Scene
    template: Template
    chip: Detector
    masks: bool


class Move(NamedTuple):
    """Shift [pixel] and factor that bring an exposure onto the grid and zero point of a coadd."""

    dx: float
    dy: float
    scale: np.float32


class Coadd(NamedTuple):
    """Exposures on one grid: their combination, areas that suffer from missing pixels, the `layers` (n, h, w)."""

    image: Array
    regions: Labels
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
    return Setup(scene, _make_template(scene, rng), chip, bool(rng.random() < MASK_CHANCE))


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
    light, artefacts = exposure.render(scene.sky, NOTHING, view, CAMERA)
    image = exposure.expose_template(light, artefacts, chip, CAMERA, rng)
    saturated = ndimage.maximum_filter(artefacts.labels == Artefact.BLEED, 3)  # resampling mixes neighbours
    artefacts.labels[saturated] = Artefact.BLEED
    splines = [ndimage.spline_filter(part, order=3, output=np.float32) for part in (image, light)]
    return Template(splines[0], splines[1], artefacts, grid, mjd)


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
    coadded = coadd(exposures, CAMERA.image_zero_point, habits.method, masks=setup.masks)
    warp = _smooth_warp(coadded.image.shape, BAD_WARP_PIXEL if habits.warped else ALIGNMENT_PIXEL, rng)
    places = _template_places(setup.template.grid, grid, warp)
    template = _resample(setup.template.coefficients, places, order=3)
    difference = subtract(coadded.image, template, CAMERA, swap=habits.swap)
    detections = detect(difference, coadded.image, grid=grid, camera=CAMERA)
    answer = classify(
        detections.table,
        _find_causes(exposures, coadded, setup.template, places, difference=difference, table=detections.table),
        injected_sources(scene, visit, grid, setup.template.mjd_utc),
        fixed_sources(scene, visit, grid),
        coadded.regions,
        fwhm=difference.fwhm,
    )
    return VisitResult(visit, exposures, grid, coadded.image, template, difference, detections, answer, habits.method)


class Parts(NamedTuple):
    """Light about the detections in one image, windows (n, side, side): noise-free light, artefacts and their kinds."""

    static: Array
    change: Array
    light: Array
    labels: Array

    def of(self, kind: Artefact) -> Array:
        """Light of one artefact; saturated pixels hold their bleeding only.

        Parameters
        ----------
        kind : Artefact
            None stands for the sources.

        Returns
        -------
        ndarray (n, side, side)
        """
        if kind == Artefact.NONE:
            return np.where(self.labels == Artefact.BLEED, 0, self.static)
        light = self.light + self.static if kind == Artefact.BLEED else self.light
        return np.where(self.labels == kind, light, 0)


class Stack(NamedTuple):
    """Windows of a coadd about detections: the coadd, its layers (n exposures, n, side, side) and their parts."""

    image: Array
    layers: Array
    parts: list[Parts]
    moves: list[Move]
    method: Method

    def take(self, rows: NDArray[np.intp]) -> "Stack":
        """Windows of some detections.

        Parameters
        ----------
        rows : ndarray of int
            Their numbers.

        Returns
        -------
        Stack
        """
        parts = [Parts(*(windows[rows] for windows in part)) for part in self.parts]
        return self._replace(image=self.image[rows], layers=self.layers[:, rows], parts=parts)

    def moved(self, light: Callable[[Parts], Array]) -> Array:
        """Light of each exposure on the grid of the coadd.

        Parameters
        ----------
        light : callable
            Gives the light of an exposure's parts.

        Returns
        -------
        ndarray (n exposures, n, side, side)
        """
        pairs = zip(self.parts, self.moves, strict=True)
        return np.stack([_move_windows(light(part), move) for part, move in pairs])

    def brought_by(self, light: Callable[[Parts], Array]) -> Array:
        """The coadd minus one of the same exposures without some light.

        Parameters
        ----------
        light : callable
            Gives the light of an exposure's parts.

        Returns
        -------
        ndarray (n, side, side)
            Zero where the coadd has no data.
        """
        return np.nan_to_num(self.image - combine(self.layers - self.moved(light), self.method), nan=0.0)


def cut_stack(exposures: list[Exposure], coadded: Coadd, x: Array, y: Array, *, half: int) -> Stack:
    """Windows of a coadd and of what its exposures are made of.

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
    Stack
    """
    parts = []
    for one, move in zip(exposures, coadded.moves, strict=True):
        (taps, whole_x), (_, whole_y) = _lanczos_taps(move.dx), _lanczos_taps(move.dy)
        planes = (one.static, one.change, *one.artefacts)
        wide = half + len(taps) // 2
        parts.append(Parts(*(cut_windows(np.asarray(plane), x - whole_x, y - whole_y, wide) for plane in planes)))
    layers = np.stack([cut_windows(layer, x, y, half) for layer in coadded.layers])
    return Stack(cut_windows(coadded.image, x, y, half), layers, parts, coadded.moves, coadded.method)


def _move_windows(light: Array, move: Move) -> Array:
    for axis, shift in ((2, move.dx), (1, move.dy)):
        taps, _ = _lanczos_taps(shift)
        light = ndimage.correlate1d(light, taps, axis=axis, mode="constant")
    margin = len(taps) // 2
    return move.scale * light[:, margin:-margin, margin:-margin]


def _find_causes(
    exposures: list[Exposure],
    coadded: Coadd,
    template: Template,
    places: Array,
    *,
    difference: Difference,
    table: pd.DataFrame,
) -> Causes:
    """Measure the part of each kind of light in each detection; of real ones, that of the change only."""
    x, y = (table[axis].to_numpy() for axis in ("x", "y"))
    half = subtraction.window_half(difference) + SHAPE_PIXEL
    measure = partial(subtraction.match_filter, difference=difference)
    stack = cut_stack(exposures, coadded, x, y, half=half)
    change = subtraction.seen_in_difference(table, stack.brought_by(lambda part: part.change), difference)
    whole = np.nan_to_num(cut_windows(difference.image, x, y, change.shape[1] // 2), nan=0.0)
    total, new = (measure(table, windows) for windows in (whole, change))
    bogus = np.flatnonzero(new * np.sign(total) <= REAL_SHARE * np.abs(total))
    table, stack = table.iloc[bogus], stack.take(bogus)
    old = _cut_template(template, places, x[bogus], y[bogus], half)

    def seen(rows: NDArray[np.intp], science: Array, kind: Artefact) -> Array:
        there, part = Parts(*(windows[rows] for windows in old)).of(kind), table.iloc[rows]
        light = subtraction.seen_in_difference(part, science, difference)
        if not there.any():
            return light
        return light + subtraction.seen_in_difference(part, there, difference, of="template")

    static = combine(stack.moved(lambda part: part.of(Artefact.NONE)), stack.method)
    residual, still, brightness = np.zeros_like(whole), np.zeros_like(total), np.zeros_like(total)
    residual[bogus] = seen(np.arange(len(bogus)), static, Artefact.NONE)
    still[bogus], brightness[bogus] = measure(table, residual[bogus]), measure(table, static)
    artefacts = np.zeros((len(x), len(Artefact)))
    planes = (part.labels.astype(np.uint16) for part in (*stack.parts, old))
    kinds = np.bitwise_or.reduce([np.bitwise_or.reduce(np.left_shift(1, plane), axis=(1, 2)) for plane in planes])
    for kind in Artefact:
        rows = np.flatnonzero(kinds >> kind & 1)
        if kind != Artefact.NONE and len(rows):
            light = stack.take(rows).brought_by(lambda part, kind=kind: part.of(kind))  # type: ignore[misc]
            artefacts[bogus[rows], kind] = measure(table.iloc[rows], seen(rows, light, kind))
    return Causes(total, new, still, brightness, artefacts, residual)


def _cut_template(template: Template, places: Array, x: Array, y: Array, half: int) -> Parts:
    """Parts of the template on the visit's grid; it has no change."""
    at = np.stack([cut_windows(axis, x, y, half) for axis in places])
    labels = template.artefacts.labels
    row, column = (np.clip(np.rint(axis).astype(int), 0, len(labels) - 1) for axis in at)
    static, light = _resample(template.static, at, order=3), _resample(template.artefacts.light, at, order=1)
    return Parts(np.nan_to_num(static), np.zeros_like(static), np.nan_to_num(light), labels[row, column])


def _draw_habits(rng: np.random.Generator) -> Habits:
    chance = rng.random(4)
    averaged: Method = "clipped" if chance[0] < MEAN_CHANCE + CLIPPED_CHANCE else "median"
    return Habits(
        "mean" if chance[0] < MEAN_CHANCE else averaged,
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
    light, artefacts = exposure.render(sky, points, true_view, CAMERA)
    change = exposure.render_change(sky, points, true_view, CAMERA, template_mjd=setup.template.mjd_utc)
    image = exposure.expose(light, artefacts, setup.chip, psf=view.psf, camera=CAMERA, rng=rng)
    transparency = 2.5 * float(np.log10(view.air.transparency))
    zero_point = CAMERA.image_zero_point + transparency + float(rng.normal(0, 0.004))
    return Exposure(image, light - change, change, artefacts, view.grid, view.mjd_utc, view.psf, zero_point)


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
    moved = image.astype(np.float32)
    for axis, shift in ((1, dx), (0, dy)):
        if shift == 0:
            continue
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


def coadd(exposures: list[Exposure], zero_point: float, method: Method, *, masks: bool = False) -> Coadd:
    """Combine exposures on the first one's grid.

    Parameters
    ----------
    exposures : list of Exposure
        Of one visit; their grids differ by shifts.
    zero_point : float
        Magnitude of one count of the result.
    method : {"median", "mean", "clipped"}
        Combination of the layers.
    masks : bool
        True: pixels that are saturated in an exposure, and those next to them, are NaN.

    Returns
    -------
    Coadd
    """
    moves = [_move(one, exposures[0], zero_point) for one in exposures]
    layers = np.stack([shift_image(one.image * m.scale, m.dx, m.dy) for one, m in zip(exposures, moves, strict=True)])
    combined = combine(layers, method)
    regions = np.where(ndimage.maximum_filter(~np.isfinite(combined), REGION), np.uint8(Artefact.EDGE), np.uint8(0))
    if masks:
        full = [one.artefacts.labels == Artefact.BLEED for one in exposures]
        full = [_roll(_roll(part, round(m.dx), 1), round(m.dy), 0) for part, m in zip(full, moves, strict=True)]
        saturated = ndimage.binary_dilation(np.any(full, axis=0))
        combined[saturated] = np.nan
        regions[ndimage.maximum_filter(saturated, REGION)] = Artefact.MASK
    return Coadd(combined, regions, layers, moves, method)


def _move(one: Exposure, first: Exposure, zero_point: float) -> Move:
    scale = np.float32(10 ** (0.4 * (zero_point - one.zero_point)))
    return Move(first.grid.x0 - one.grid.x0, first.grid.y0 - one.grid.y0, scale)


def combine(layers: Array, method: Method) -> Array:
    """Median, mean or clipped mean over the first axis that skips NaN; NaN where fewer than two layers have data.

    Parameters
    ----------
    layers : ndarray (n, h, w)
        NaN without data.
    method : {"median", "mean", "clipped"}
        Combination; the clipped mean leaves out what is far from the median [electron].

    Returns
    -------
    ndarray
    """
    seen = np.isfinite(layers)
    n_seen = seen.sum(axis=0, dtype=np.int8)
    if method == "mean":
        combined = np.where(seen, layers, 0).sum(axis=0) / np.maximum(n_seen, 1)
    else:
        combined = _median(layers, seen, n_seen)
    if method == "clipped":
        light = np.maximum(np.nan_to_num(combined, nan=0.0, posinf=0.0), 0)
        noise = np.sqrt(light + np.float32(CAMERA.sky_electrons + CAMERA.read_noise**2))
        kept = seen & (np.abs(layers - combined) < CLIP_SIGMA * noise + CLIP_LIGHT * light)
        combined = np.where(kept, layers, 0).sum(axis=0) / np.maximum(kept.sum(axis=0, dtype=np.int8), 1)
    combined[n_seen < MIN_EXPOSURES] = np.nan
    return combined.astype(np.float32)


def _median(layers: Array, seen: NDArray[np.bool_], n_seen: NDArray[np.int8]) -> Array:
    """Median over the first axis of the layers seen; not finite where there are none."""
    ordered = _sorted(np.where(seen, layers, np.float32(np.inf)))
    n = len(layers)
    combined = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    partly = (n_seen < n) & (n_seen >= MIN_EXPOSURES)
    few, rest = n_seen[partly], ordered[:, partly]
    low, high = (np.take_along_axis(rest, k[None], axis=0)[0] for k in ((few - 1) // 2, few // 2))
    combined[partly] = (low + high) / 2
    return combined


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
            across, along, height = np.float32(ku) * u, np.float32(kv) * v + np.float32(phase), np.float32(rng.normal())
            field += (height * np.cos(along)) * np.cos(across)  # the cosine of the sum
            field -= (height * np.sin(along)) * np.sin(across)
        fields.append(field * np.float32(rms_pixel / max(float(field.std()), 1e-3)))
    return fields[0], fields[1]


def _template_places(source: Tan, target: Tan, warp: tuple[Array, Array]) -> Array:
    """Row and column (2, h, w) on the grid `source` of each pixel of the grid `target`.

    Both grids share their reference point on the sky, so the map between them is affine, plus the `warp` [pixel].
    """
    shape, matrix = warp[0].shape, np.linalg.inv(source.matrix) @ target.matrix
    x = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(target.x0) + warp[0]
    y = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(target.y0) + warp[1]
    source_x = np.float32(matrix[0, 0]) * x + np.float32(matrix[0, 1]) * y + np.float32(source.x0)
    source_y = np.float32(matrix[1, 0]) * x + np.float32(matrix[1, 1]) * y + np.float32(source.y0)
    return np.stack([source_y, source_x])


def _resample(coefficients: Array, places: Array, *, order: int) -> Array:
    """Spline image (`ndimage.spline_filter` coefficients where the order is 3) at places; NaN outside."""
    return ndimage.map_coordinates(
        coefficients, places, order=order, prefilter=False, mode="constant", cval=np.nan, output=np.float32
    )
