"""The six layers of a stamp: three of the stacked images, three over the single exposures."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gotorb.stamps.cutout import cut_stamps
from gotorb.survey.frames import Frame, open_frame


@dataclass(frozen=True)
class Extensions:
    """Names of the HDUs to read."""

    science: str = "IMAGE"
    template: str = "TEMPLATE"
    difference: str = "DIFFERENCE"
    detections: str = "PHOTOMETRY_DIFF"
    exposure: str = "IMAGE"


@dataclass(frozen=True)
class Planes:
    """Stamps before they are summed up to layers.

    Attributes
    ----------
    stacked : ndarray
        (n, size, size, 3): science, template, difference.
    exposures : ndarray
        (n, size, size, n_exposures), each cut at its own WCS.
    """

    stacked: np.ndarray
    exposures: np.ndarray

    def __add__(self, other: "Planes") -> "Planes":
        return Planes(self.stacked + other.stacked, self.exposures + other.exposures)

    def take(self, rows: np.ndarray) -> "Planes":
        """Planes of some rows."""
        return Planes(self.stacked[rows], self.exposures[rows])

    def layers(self) -> np.ndarray:
        """The six layers (n, size, size, 6) in the order of `layout.LAYERS`; NaN where there are no data."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN pixels stay NaN
            low, high = np.nanmin(self.exposures, axis=-1), np.nanmax(self.exposures, axis=-1)
        return np.concatenate([self.stacked, np.stack([high - low, low, high], axis=-1)], axis=-1)


def cut_planes(
    frame: Frame,
    exposure_paths: Sequence[Path],
    ra: np.ndarray,
    dec: np.ndarray,
    *,
    size: int,
    extensions: Extensions,
    xy: tuple[np.ndarray, np.ndarray] | None = None,
) -> Planes:
    """Cut stamps at sky positions from a difference image's file and from its single exposures.

    Parameters
    ----------
    frame : Frame
        The difference image's open file.
    exposure_paths : sequence of Path
        Its single exposures.
    ra, dec : ndarray
        (n,) deg, ICRS.
    size : int
        Side of a stamp in pixels.
    extensions : Extensions
        Names of the HDUs.
    xy : pair of ndarray, optional
        Positions on the difference image where the survey measured them (0-based); from its WCS when left out.
    """
    sky = np.column_stack([ra, dec])
    x, y = xy if xy is not None else _to_pixels(frame, extensions.difference, sky)
    stacked = [
        cut_stamps(frame.plane(ext), x, y, size=size)
        for ext in (extensions.science, extensions.template, extensions.difference)
    ]
    single = []
    with ExitStack() as stack:
        for path in exposure_paths:
            exposure = stack.enter_context(open_frame(path))
            single.append(
                cut_stamps(
                    exposure.plane(extensions.exposure), *_to_pixels(exposure, extensions.exposure, sky), size=size
                )
            )
    return Planes(np.stack(stacked, axis=-1), np.stack(single, axis=-1))


def _to_pixels(frame: Frame, ext: str, sky: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """0-based pixel positions of all the sky positions in one transform."""
    if len(sky) == 0:
        return np.empty(0), np.empty(0)
    x, y = frame.wcs(ext).all_world2pix(sky, 0, quiet=True).T
    return x, y
