"""Inspection of a few images before a run: the checks of labelling, counts and pictures of minor planets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from astropy.time import Time

from gotorb.catalogues.expected import Expected, describe, list_expected
from gotorb.errors import ImageError, LookupFailed
from gotorb.labels.image import (
    LabelOptions,
    check_exposures,
    check_image,
    compare_planets,
    cut_rows,
    find_planets,
    label_detections,
)
from gotorb.labels.jobs import ImageTask
from gotorb.stamps.layers import cut_into
from gotorb.survey.fits import Frame, open_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

LARGEST_SIDE = 1000
"""Pixels of the drawn image's longer side, at most: larger images are binned."""
N_CUTOUTS, CUTOUT_SIDE, COLUMNS = 12, 41, 6
FOUND, LOST, FAINT, STAR = "tab:green", "tab:red", "tab:orange", "tab:blue"


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Results for one image.

    Attributes
    ----------
    image_id, path : str
    state : str
        ``ok``, or the state in which labelling would leave the image (`layout.FAILED_STATES`).
    reason : str
        Of a state other than ok.
    utc : str
        Mid-exposure.
    ra_c, dec_c, radius_deg : float
        Circle around the image, deg.
    n_found : int
        Detections on the image.
    found : Expected or None
        Minor planets expected and found.
    warnings : tuple of str
    """

    image_id: str
    path: str
    state: str = "ok"
    reason: str = ""
    utc: str = ""
    ra_c: float = np.nan
    dec_c: float = np.nan
    radius_deg: float = np.nan
    n_found: int = 0
    found: Expected | None = None
    warnings: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """Text for the console."""
        if self.state != "ok":
            return [f"{self.image_id}: {self.state}: {self.reason}"]
        assert self.found is not None
        head = (
            f"{self.image_id}: middle of the exposure {self.utc} UTC, centre {self.ra_c:.4f} {self.dec_c:+.4f}, "
            f"{self.radius_deg:.2f} deg to the corners, {self.n_found} detections"
        )
        match = f"  matched {self.found.n_matched} of {self.found.n_expected} expected minor planets"
        if self.found.n_matched:
            match += (
                f", detection minus catalogue {self.found.offset_ra_arcsec:+.2f} arcsec in right ascension, "
                f"{self.found.offset_dec_arcsec:+.2f} in declination (median)"
            )
        return [head, match, *(f"  warning: {line}" for line in self.warnings)]


def inspect_image(
    task: ImageTask, options: LabelOptions, *, stars: pd.DataFrame | None = None
) -> tuple[Inspection, Figure | None]:
    """Check one image as labelling does, and draw it.

    Parameters
    ----------
    task : ImageTask
    options : LabelOptions
    stars : DataFrame, optional
        ra, dec (deg) of catalogued stars to draw.

    Returns
    -------
    Inspection
    figure : Figure or None
        The difference image with the minor planets, and cut-outs of the brightest; None when it cannot be read.

    Examples
    --------
    >>> from gotorb.catalogues.minor_planets import make_provider
    >>> from gotorb.core.settings import read_settings
    >>> from gotorb.labels.jobs import read_task
    >>> options = LabelOptions(provider=make_provider("pympc", read_settings()), stamp_size=21)
    >>> inspection, figure = inspect_image(read_task("images/visit.fits"), options)
    >>> inspection.state, inspection.found.n_expected, inspection.found.n_matched
    ('ok', 1, 1)
    """
    figure = None
    try:
        with open_frame(task.path) as frame:
            circle, detections, notes = check_image(task, frame, options.files)
            planets = find_planets(task, circle, options)
            chosen = label_detections(detections, planets, options.rules, rng=np.random.default_rng(options.seed))
            real = chosen[(chosen["metalabel"] == "mp").to_numpy()]
            figure = draw_image(frame, planets, real, options, stars=stars)
            found = compare_planets(frame, detections, planets, chosen, options)
            check_exposures(task)
            cut_rows(task, frame, chosen, options, catalogue="", notes=notes)
    except (ImageError, LookupFailed) as error:
        return Inspection(image_id=task.image_id, path=task.path, state=error.state, reason=str(error)), figure
    inspection = Inspection(
        image_id=task.image_id,
        path=task.path,
        utc=Time(task.jd, format="jd").isot[:19],
        ra_c=circle.ra,
        dec_c=circle.dec,
        radius_deg=circle.radius_deg,
        n_found=len(detections),
        found=found,
        warnings=(*notes, *describe(found, Path(task.path).name)),
    )
    return inspection, figure


def draw_image(
    frame: Frame, planets: pd.DataFrame, real: pd.DataFrame, options: LabelOptions, *, stars: pd.DataFrame | None
) -> Figure:
    """Difference image with catalogued minor planets and stars.

    Parameters
    ----------
    frame : Frame
        The open file.
    planets : DataFrame
        name, ra, dec (deg), mag.
    real : DataFrame
        Detections that were matched: number (name of the minor planet).
    options : LabelOptions
    stars : DataFrame or None
        ra, dec (deg).

    Returns
    -------
    Figure

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> from gotorb.survey.fits import open_frame
    >>> task = read_task("images/visit.fits")
    >>> planets = pd.DataFrame({"name": ["Ceres"], "ra": [task.ra_c], "dec": [task.dec_c], "mag": [9.0]})
    >>> with open_frame(task.path) as frame:
    ...     found = pd.DataFrame({"number": ["Ceres"]})
    ...     figure = draw_image(frame, planets, found, LabelOptions(provider=None), stars=None)
    >>> len(figure.axes)
    13
    """
    from matplotlib.figure import Figure

    ext = options.files.extensions.difference
    expected = list_expected(frame, ext, planets, mag_limit=options.rules.mag_limit)
    found = expected["name"].isin(real["number"]).to_numpy()
    rest = planets[~planets["name"].isin(expected["name"])]
    figure = Figure(figsize=(9, 11.5), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(9, 2.5))
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axes = above.subplots()
    _show(axes, *_binned(frame.plane(ext)))
    _mark(axes, frame, ext, rest, colour=FAINT, text="fainter, or without data", size=20)
    if stars is not None:
        _mark(axes, frame, ext, stars, colour=STAR, text="stars", size=12, marker="+")
    for mask, colour, text in ((found, FOUND, "matched"), (~found, LOST, "expected, not matched")):
        _mark(axes, frame, ext, expected[mask], colour=colour, text=f"{text}: {mask.sum()}", size=90)
    axes.legend(loc="upper right", fontsize=8)
    axes.set(title=frame.path.name, xlabel="x [pixel]", ylabel="y [pixel]")
    _draw_cutouts(below, frame, ext, expected.head(N_CUTOUTS), found)
    return figure


def _binned(plane: np.ndarray) -> tuple[np.ndarray, int]:
    """Image of at most `LARGEST_SIDE` pixels a side, by means of blocks, and the side of a block."""
    step = -(-max(plane.shape) // LARGEST_SIDE)
    ny, nx = (length // step for length in plane.shape)
    rows = [np.asarray(plane[y * step : (y + 1) * step, : nx * step], np.float32) for y in range(ny)]
    return np.stack([np.nan_to_num(row).reshape(step, nx, step).mean(axis=(0, 2)) for row in rows]), step


def _show(axes: Axes, image: np.ndarray, step: int) -> None:
    from astropy.visualization import ZScaleInterval

    low, high = ZScaleInterval().get_limits(image)
    extent = (-0.5, image.shape[1] * step - 0.5, -0.5, image.shape[0] * step - 0.5)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent, interpolation="nearest")


def _mark(
    axes: Axes, frame: Frame, ext: str, places: pd.DataFrame, *, colour: str, text: str, size: float, marker: str = "o"
) -> None:
    """Symbols at catalogued places on the image."""
    ny, nx = frame.shape(ext)
    x, y = frame.to_pixels(ext, places["ra"].to_numpy(float), places["dec"].to_numpy(float))
    inside = np.flatnonzero((x > 0) & (x < nx) & (y > 0) & (y < ny))
    face = colour if marker == "+" else "none"
    axes.scatter(
        x[inside], y[inside], s=size, marker=marker, label=text, linewidths=1, edgecolors=colour, facecolors=face
    )
    axes.set(xlim=(-0.5, nx - 0.5), ylim=(-0.5, ny - 0.5))


def _draw_cutouts(figure: FigureBase, frame: Frame, ext: str, expected: pd.DataFrame, found: np.ndarray) -> None:
    """Difference image around the brightest expected minor planets, their catalogued places in the middle."""
    panels = figure.subplots(N_CUTOUTS // COLUMNS, COLUMNS).ravel()
    x, y = expected["x"].to_numpy(float), expected["y"].to_numpy(float)
    stamps = np.empty((len(x), CUTOUT_SIDE, CUTOUT_SIDE), np.float32)
    if len(x):
        cut_into(stamps, frame.blocks(ext, x, y, CUTOUT_SIDE / 2), x, y)
    for panel in panels:
        panel.set(xticks=[], yticks=[], frame_on=False)
    for panel, stamp, planet, matched in zip(panels, stamps, expected.itertuples(), found, strict=False):
        _show(panel, np.nan_to_num(stamp), 1)
        panel.set_title(f"{planet.name} V {planet.mag:.1f}", fontsize=7, color=FOUND if matched else LOST)
