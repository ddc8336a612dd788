"""Cost of the checks of place, time, grid and expected minor planets: labelling one large image with and without."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from astropy.io import fits

from benchmarks.image import write_image
from benchmarks.rows import Row
from gotorb.catalogues.expected import Expected
from gotorb.labels import image
from gotorb.labels.image import LabelOptions, MatchRules, label_image
from gotorb.labels.jobs import read_task
from gotorb.stamps import layers
from gotorb.survey.sanity import Circle

N_PLANETS, EXTRA_BOGUS, N_ROUNDS = 30, 4, 15


@dataclass(frozen=True)
class Known:
    """A provider that costs nothing, so that the checks are not hidden behind it."""

    planets: Any
    version = "known"

    def find(self, field: Any) -> pd.DataFrame:
        """The planets, whatever the field."""
        return self.planets


def measure() -> list[Row]:
    """CPU seconds of labelling with the checks; reference: without them, in turn in the same run."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_image(Path(folder))
        task, options = (
            read_task(path),
            LabelOptions(provider=Known(_planets(path)), rules=MatchRules(extra_bogus=EXTRA_BOGUS)),
        )
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(N_ROUNDS):
            for checked in times:
                times[checked].append(_seconds(task, options, checked=checked))
    with_checks, without = min(times[True]), min(times[False])
    return [Row("label_checks", with_checks, without, "CPU s")]


def _planets(path: Path) -> pd.DataFrame:
    """Minor planets at the first detections of the image, and as many that were not detected."""
    rows = fits.getdata(path, "PHOTOMETRY_DIFF")[:N_PLANETS]
    lost = {"ra": rows["ra"] + 0.01, "dec": rows["dec"] - 0.01}
    place = {name: np.concatenate([rows[name], lost[name]]).astype(float) for name in ("ra", "dec")}
    return pd.DataFrame(
        {"name": [f"P{i}" for i in range(2 * N_PLANETS)], **place, "mag": np.linspace(16, 20, 2 * N_PLANETS)}
    )


def _seconds(task: Any, options: LabelOptions, *, checked: bool) -> float:
    started = time.process_time()
    if checked:
        label_image(task, options)
    else:
        with _unchecked():
            label_image(task, options)
    return time.process_time() - started


@contextmanager
def _unchecked() -> Iterator[None]:
    """Labelling as it was before there were any checks."""

    def read(task: Any, frame: Any, files: Any) -> tuple[Circle, pd.DataFrame, list[str]]:
        return Circle(task.ra_c, task.dec_c, 1.8), files.read_detections(frame), []

    def trust(stacked: np.ndarray, *_: Any) -> tuple[np.ndarray, list[str]]:
        return np.ones(len(stacked), bool), []

    nothing = Expected(0, 0, 0, 0, np.nan, np.nan)
    with (
        mock.patch.object(image, "check_image", read),
        mock.patch.object(image, "compare_planets", lambda *_: nothing),
        mock.patch.object(image, "check_stamps", trust),
        mock.patch.object(layers, "find_grid", lambda *_: True),
    ):
        yield
