"""What a detector adds: flat errors, hot pixels, bad columns, chip edges, saturation and bleeding."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gotorb.simulate.camera import Camera

Array = NDArray[np.floating]
Labels = NDArray[np.uint8]


class Artefact(IntEnum):
    """What spoilt a pixel; a higher number wins when two meet."""

    NONE = 0
    GHOST = 1
    TRAIL = 2
    GLINT = 3
    BAD_COLUMN = 4
    HOT_PIXEL = 5
    COSMIC_RAY = 6
    SPIKE = 7
    BLEED = 8
    EDGE = 9


@dataclass(frozen=True)
class Detector:
    """Fixed faults of one detector.

    Attributes
    ----------
    flat_error : ndarray (size, size)
        True response divided by the flat field used.
    hot : ndarray (n, 3)
        x, y and dark charge of hot pixels that the dark frame leaves behind [electron per exposure].
    columns : ndarray (n, 4)
        Column, first row, last row and offset [electron] of bad columns.
    edge_glow : ndarray (4,)
        Excess [electron] at the left, right, lower and upper edge.
    """

    flat_error: Array
    hot: Array
    columns: Array
    edge_glow: Array


def draw_detector(size: int, rng: np.random.Generator) -> Detector:
    """A detector with about 45 hot pixels and 4 bad columns per megapixel."""
    area = size**2 / 1024**2
    n_hot, n_columns = int(rng.poisson(45 * area)), 1 + int(rng.poisson(3 * size / 1024))
    coarse = 0.004 * rng.standard_normal((9, 9))
    place = np.clip((np.arange(size) + 0.5) * 9 / size - 0.5, 0, 8)
    line = np.maximum(1 - np.abs(place[:, None] - np.arange(9)), 0)  # linear interpolation along one axis
    pixels = np.float32(0.002) * rng.standard_normal((size, size), dtype=np.float32)
    first = rng.uniform(0, 0.8 * size, n_columns)
    offset = rng.choice([-1, 1], n_columns) * np.exp(rng.normal(2.9, 0.6, n_columns))
    last = np.minimum(first + rng.uniform(0.2, 1, n_columns) * size, size)
    hot = [*rng.integers(0, size, (2, n_hot)), np.exp(rng.normal(5.6, 0.8, n_hot))]
    return Detector(
        flat_error=1 + (line @ coarse @ line.T).astype(np.float32) + pixels,
        hot=np.stack(hot, axis=1).astype(float),
        columns=np.stack([rng.integers(0, size, n_columns), first, last, offset], axis=1),
        edge_glow=rng.normal(0, 9, 4),
    )


def add_faults(image: Array, labels: Labels, detector: Detector, rng: np.random.Generator) -> None:
    """Add hot pixels, bad columns and edge glow to an exposure [electron] and mark them (in place)."""
    x, y = detector.hot[:, 0].astype(int), detector.hot[:, 1].astype(int)
    image[y, x] += detector.hot[:, 2] * (1 + 0.3 * rng.standard_normal(len(x)))
    labels[y, x] = Artefact.HOT_PIXEL
    for column, first, last, offset in detector.columns:
        rows = slice(int(first), int(last))
        image[rows, int(column)] += offset * (1 + 0.3 * rng.standard_normal())
        labels[rows, int(column)] = Artefact.BAD_COLUMN
    _add_edges(image, labels, detector.edge_glow)


def _add_edges(image: Array, labels: Labels, glow: Array) -> None:
    size = len(image)
    fade = np.exp(-np.arange(size) / 2.5).astype(np.float32)
    image += glow[0] * fade[None, :] + glow[1] * fade[None, ::-1]
    image += glow[2] * fade[:, None] + glow[3] * fade[::-1, None]
    for edge in (np.s_[:, :7], np.s_[:, -7:], np.s_[:7], np.s_[-7:]):
        labels[edge] = Artefact.EDGE


def saturate(image: Array, labels: Labels, camera: Camera) -> None:
    """Clip at full well; the excess charge flows along the columns (in place)."""
    full = camera.full_well
    for column in np.flatnonzero((image > full).any(axis=0)):
        strip = image[:, column]
        runs, n_runs = ndimage.label(strip > full)
        for where in ndimage.find_objects(runs, n_runs):
            _bleed(strip, where[0].start, where[0].stop, full)
        labels[strip >= full, column] = Artefact.BLEED


def _bleed(strip: Array, start: int, stop: int, full: float) -> None:
    """Spread the excess of rows start..stop equally up and down until it fits (in place)."""
    excess = float((strip[start:stop] - full).sum())
    strip[start:stop] = full
    for side in (strip[stop:], strip[:start][::-1]):
        room = np.cumsum(np.maximum(full - side, 0))
        last = int(np.searchsorted(room, excess / 2))
        side[:last] = full
        if last < len(side):
            before = float(room[last - 1]) if last else 0.0
            side[last] += min(excess / 2 - before, full)


def grow_labels(labels: Labels, radius: int = 1) -> Labels:
    """Artefact map with every mark widened; the higher number wins."""
    side = 2 * radius + 1
    return ndimage.maximum_filter(labels, size=(side, side))
