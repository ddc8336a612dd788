"""The plain astropy way of cutting stamps, the reference: for each detection and plane, WCS(header) and Cutout2D."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D, NoOverlapError
from astropy.wcs import WCS

STACKED, EXPOSURE = ("IMAGE", "TEMPLATE", "DIFFERENCE"), "IMAGE"


def plain_stamps(stacked: Path, exposures: Sequence[Path], sky: SkyCoord, *, size: int) -> np.ndarray:
    """Stamps of every plane, (n, size, size, 3 + n_exposures), float32, NaN off the image.

    Files are opened once and their planes kept, as anyone would; of a compressed plane that is the whole of it.
    """
    stamps = np.full((len(sky), size, size, len(STACKED) + len(exposures)), np.nan, np.float32)
    with ExitStack() as stack:
        hdus = [stack.enter_context(fits.open(path)) for path in (stacked, *exposures)]
        planes = [hdus[0][name] for name in STACKED] + [one[EXPOSURE] for one in hdus[1:]]
        for position, stamp in zip(sky, stamps, strict=True):
            for layer, plane in enumerate(planes):
                stamp[..., layer] = _cut(plane, position, size)
    return stamps


def _cut(plane: fits.ImageHDU, position: SkyCoord, size: int) -> np.ndarray | float:
    try:
        cutout = Cutout2D(plane.data, position, size, wcs=WCS(plane.header), mode="partial", fill_value=_fill(plane))
    except NoOverlapError:
        return np.nan
    stamp = np.full((size, size), np.nan, np.float32)
    stamp[cutout.slices_cutout] = cutout.data[cutout.slices_cutout]
    return stamp


def _fill(plane: fits.ImageHDU) -> float:
    """Integers have no NaN."""
    return np.nan if plane.data.dtype.kind == "f" else 0
