"""A small image of another survey: minor planets and junk in known places, and one thing changed at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS

from gotorb.catalogues.minor_planets import Field
from gotorb.catalogues.skybot import make_table
from gotorb.labels.image import FileLayout, LabelOptions, MatchRules
from gotorb.labels.jobs import ImageTask
from gotorb.stamps.layers import Extensions

NY, NX, N_PLANETS, N_JUNK, JD = 300, 400, 8, 25, 2_457_804.625
SCALE_DEG = 2e-3
CARDS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 200.0, "CRPIX2": 150.0, "CRVAL1": 150.0, "CRVAL2": 15.0,
         "CD1_1": -SCALE_DEG, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE_DEG}  # fmt: skip
Change = Callable[[fits.HDUList], None]


@dataclass(frozen=True)
class Sky:
    """A provider with given planets, of which it returns those in the circle."""

    rows: tuple[tuple[str, float, float, float], ...]
    asked: list[Field] = field(default_factory=list, compare=False)
    version = "test"

    def find(self, circle: Field) -> pd.DataFrame:
        """Planets in the circle."""
        self.asked.append(circle)
        table = make_table(*zip(*self.rows, strict=True))
        cos = np.sin(np.radians(circle.dec)) * np.sin(np.radians(table["dec"])) + np.cos(
            np.radians(circle.dec)
        ) * np.cos(np.radians(table["dec"])) * np.cos(np.radians(table["ra"] - circle.ra))
        near = np.degrees(np.arccos(np.clip(cos, -1, 1))) <= circle.radius_deg
        return table[near].reset_index(drop=True)


@dataclass(frozen=True)
class Survey:
    """An image on disk, and what labelling needs."""

    task: ImageTask
    options: LabelOptions
    planets: frozenset[str]

    def with_task(self, **values: Any) -> "Survey":
        """The same image with other facts about it."""
        return replace(self, task=replace(self.task, **values))

    def with_sky(self, **values: Any) -> "Survey":
        """The same image with other options."""
        return replace(self, options=replace(self.options, **values))


def build(
    folder: Path, change: Change | None = None, *, sky: bool = True, cards: dict[str, Any] | None = None
) -> Survey:
    """Write an image whose detections 1 to N_PLANETS are minor planets, and its two exposures.

    `sky` gives the table ra and dec; `change` is applied before the image is written, `cards` to its headers from the
    start.
    """
    rng = np.random.default_rng(5)
    header = fits.Header(CARDS | (cards or {}))
    wcs, n = WCS(header), N_PLANETS + N_JUNK
    x, y = rng.uniform(30, [[NX - 30], [NY - 30]], (2, n))
    ra, dec = wcs.pixel_to_world(x, y).icrs.ra.deg, wcs.pixel_to_world(x, y).icrs.dec.deg
    pixels = rng.normal(0, 1, (NY, NX)).astype(np.float32)
    for column, row in zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True):
        pixels[row - 1 : row + 2, column - 1 : column + 2] += 300
    columns = {"NUMBER": np.arange(1, n + 1), "X": x, "Y": y} | ({"RA": ra, "DEC": dec} if sky else {})
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name, "K" if name == "NUMBER" else "D", array=values) for name, values in columns.items()],
        name="CAT",
    )
    planes = [fits.ImageHDU(pixels.copy(), header.copy(), name) for name in ("SCI", "REF", "SUB")]
    hdus = fits.HDUList([fits.PrimaryHDU(), *planes, table])
    if change is not None:
        change(hdus)
    path = folder / "a_diff.fits"
    hdus.writeto(path)
    exposures = tuple(str(folder / f"a_exp{number}.fits") for number in range(2))
    for name in exposures:
        fits.PrimaryHDU(pixels, header).writeto(name)
    centre = wcs.pixel_to_world((NX - 1) / 2, (NY - 1) / 2).icrs
    task = ImageTask(
        image_id="a", filepath=str(path), exposures=exposures, path=str(path), exposure_paths=exposures,
        ra_c=float(centre.ra.deg), dec_c=float(centre.dec.deg), jd=JD, ut="",
    )  # fmt: skip
    names = [f"P{number}" for number in range(1, N_PLANETS + 1)]
    known = tuple((name, float(ra[i]), float(dec[i]), 16.0 + i / 2) for i, name in enumerate(names))
    options = LabelOptions(
        provider=Sky(known),
        rules=MatchRules(extra_bogus=100),
        search_radius_deg=2.0,
        stamp_size=21,
        files=FileLayout(
            Extensions("SCI", "REF", "SUB", "CAT", 0),  # type: ignore[arg-type]
            {"id": "NUMBER", "x": "X", "y": "Y"} | ({"ra": "RA", "dec": "DEC"} if sky else {}),
        ),
    )
    return Survey(task, options, frozenset(str(number) for number in range(1, N_PLANETS + 1)))
