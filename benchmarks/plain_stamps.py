"""The plain astropy way of cutting stamps, the reference: for each detection and plane, WCS(header) and Cutout2D."""

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
