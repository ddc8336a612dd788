"""References for cutting stamps: the plain astropy way, which parses the WCS each time, and two competent ones."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D, NoOverlapError
from astropy.wcs import WCS

STACKED, EXPOSURE = ("IMAGE", "TEMPLATE", "DIFFERENCE"), "IMAGE"


@contextmanager
def open_planes(stacked: Path, exposures: Sequence[Path]) -> Iterator[list[Any]]:
    """HDUs of all planes of a difference image's file and its exposures; astropy keeps what it once decompressed."""
    with ExitStack() as stack:
        hdus = [stack.enter_context(fits.open(path)) for path in (stacked, *exposures)]
        yield [hdus[0][name] for name in STACKED] + [one[EXPOSURE] for one in hdus[1:]]


def plain_stamps(planes: Sequence[Any], sky: SkyCoord, *, size: int) -> np.ndarray:
    """Stamps of every plane, (n, size, size, n_planes), float32, NaN off the image."""
    stamps = np.full((len(sky), size, size, len(planes)), np.nan, np.float32)
    for position, stamp in zip(sky, stamps, strict=True):
        for layer, plane in enumerate(planes):
            stamp[..., layer] = _cut(plane, position, size)
    return stamps


def _cut(plane: Any, position: SkyCoord, size: int) -> np.ndarray | float:
    fill = np.nan if plane.data.dtype.kind == "f" else 0  # integers have no NaN
    try:
        cutout = Cutout2D(plane.data, position, size, wcs=WCS(plane.header), mode="partial", fill_value=fill)
    except NoOverlapError:
        return np.nan
    stamp = np.full((size, size), np.nan, np.float32)
    stamp[cutout.slices_cutout] = cutout.data[cutout.slices_cutout]
    return stamp


def cutout2d_stamps(planes: Sequence[Any], sky: SkyCoord, *, size: int) -> np.ndarray:
    """The same by Cutout2D at pixel positions that one WCS of each plane gives for all detections."""
    stamps = np.full((len(planes), len(sky), size, size), np.nan, np.float32)
    for plane, layer in zip(planes, stamps, strict=True):
        image, (x, y) = plane.data, _positions(plane, sky)
        for stamp, place in zip(layer, zip(x, y, strict=True), strict=True):
            try:
                cutout = Cutout2D(image, place, size, mode="partial", fill_value=np.nan)
            except NoOverlapError:
                continue
            stamp[...] = cutout.data
    return np.moveaxis(stamps, 0, -1)


def sliced_stamps(planes: Sequence[Any], sky: SkyCoord, *, size: int) -> np.ndarray:
    """The same by numpy slices, clipped at the edges, with one WCS of each plane for all detections."""
    stamps = np.full((len(planes), len(sky), size, size), np.nan, np.float32)
    for plane, layer in zip(planes, stamps, strict=True):
        image, (x, y) = plane.data, _positions(plane, sky)
        (ny, nx), left, top = image.shape, np.ceil(x - size / 2).astype(int), np.ceil(y - size / 2).astype(int)
        for stamp, i, j in zip(layer, left.tolist(), top.tolist(), strict=True):
            x0, x1, y0, y1 = max(i, 0), min(i + size, nx), max(j, 0), min(j + size, ny)
            if x0 < x1 and y0 < y1:
                stamp[y0 - j : y1 - j, x0 - i : x1 - i] = image[y0:y1, x0:x1]
    return np.moveaxis(stamps, 0, -1)


def _positions(plane: Any, sky: SkyCoord) -> np.ndarray:
    return np.array(WCS(plane.header).world_to_pixel(sky))
