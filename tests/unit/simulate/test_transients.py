"""Injected transients: as bright as they are said to be, where they are said to be, in every layer that has them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.core import layout
from gotorb.errors import MissingPart
from gotorb.labels.image import LabelOptions, cut_rows
from gotorb.labels.jobs import ImageTask
from gotorb.simulate import transients
from gotorb.simulate.injection import PSF_HALF
from gotorb.simulate.transients import InjectionOptions, make_injected
from gotorb.survey.fits import open_frame
from tests.unit.simulate.test_survey import stored

SCIENCE, TEMPLATE, DIFFERENCE, PTP = range(4)


@pytest.fixture(scope="module")
def task(tiny_survey: Path) -> ImageTask:
    images = pd.read_csv(tiny_survey / layout.IMAGES_CSV)
    first = images[images["relatedimage"] == images["relatedimage"].iloc[-1]]
    paths = [str(stored(tiny_survey, path)) for path in first["filepath"]]
    row = first.iloc[0]
    return ImageTask(
        image_id="7",
        filepath="a.fits",
        exposures=tuple(paths[1:]),
        path=paths[0],
        exposure_paths=tuple(paths[1:]),
        ra_c=row["ra_c"],
        dec_c=row["dec_c"],
        jd=row["jd"],
        ut="1",
    )


@pytest.fixture(scope="module")
def options(tiny_survey: Path) -> InjectionOptions:
    return InjectionOptions(
        catshtm_dir=str(tiny_survey / layout.CATALOGUES_DIR), n_per_image=40, max_mag=18.5, max_galaxy_mag=22.0, seed=4
    )


@pytest.fixture(scope="module")
def injected(task: ImageTask, options: InjectionOptions) -> tuple[pd.DataFrame, np.ndarray]:
    return make_injected(task, options)


def bare(task: ImageTask, rows: pd.DataFrame) -> np.ndarray:
    """The same stamps without the sources."""
    with open_frame(task.path) as frame:
        return cut_rows(task, frame, rows.drop(columns="id"), LabelOptions(provider=None), catalogue="")[1]


def test_light_added_is_that_of_the_magnitude(task: ImageTask, injected: tuple[pd.DataFrame, np.ndarray]) -> None:
    rows, stamps = injected
    light = stamps - bare(task, rows)
    with open_frame(task.path) as frame:
        flux = 10 ** (-0.4 * (rows["mag"].to_numpy() - frame.header("IMAGE")["MAGZP"]))
    for layer in (SCIENCE, DIFFERENCE):
        ratio = light[..., layer].sum(axis=(1, 2)) / flux
        assert np.median(ratio) == pytest.approx(1, abs=0.01)
    assert not light[..., TEMPLATE].any()


def test_source_lies_at_the_middle_within_the_error_of_its_measurement(
    task: ImageTask, injected: tuple[pd.DataFrame, np.ndarray]
) -> None:
    rows, stamps = injected
    light = (stamps - bare(task, rows))[..., DIFFERENCE]
    y, x = np.mgrid[: light.shape[1], : light.shape[2]]
    total = light.sum(axis=(1, 2))
    middle = light.shape[1] // 2
    centres = [(light * axis).sum(axis=(1, 2)) / total - middle for axis in (x, y)]
    assert np.abs(np.median(centres, axis=1)).max() < 0.3
    assert np.abs(centres).max() < 1.5


def test_distances_from_hosts_and_shares_are_as_asked(
    injected: tuple[pd.DataFrame, np.ndarray], options: InjectionOptions
) -> None:
    rows, _ = injected
    alone = rows["host_id"] == ""
    assert len(rows) == options.n_per_image
    assert alone.sum() == round(options.hostless_fraction * options.n_per_image)
    assert rows.loc[~alone, "host_offset_arcsec"].between(0, options.max_offset_arcsec).all()
    assert rows.loc[alone, "host_offset_arcsec"].isna().all()
    assert rows["mag"].between(options.min_mag, options.max_mag).all()
    assert (rows["label"] == layout.REAL).all()
    assert set(rows["metalabel"]) == {layout.INJECTED}
    assert rows["id"].is_unique


def test_brighter_sources_have_more_signal(injected: tuple[pd.DataFrame, np.ndarray]) -> None:
    rows, _ = injected
    assert np.corrcoef(rows["mag"], -2.5 * np.log10(rows["snr"]))[0, 1] > 0.999


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(task: ImageTask, options: InjectionOptions) -> None:
    few = replace(options, n_per_image=4)
    once, again, other = (make_injected(task, how)[1] for how in (few, few, replace(few, seed=5)))
    assert once.tobytes() == again.tobytes()
    assert once.tobytes() != other.tobytes()


def test_image_without_zero_point_is_refused_by_name(
    task: ImageTask, options: InjectionOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = transients.read_zero_point
    monkeypatch.setattr(transients, "read_zero_point", lambda header, path: original({}, path))
    with pytest.raises(MissingPart, match="MAGZP"):
        make_injected(task, options)


def test_source_off_the_stamp_gives_no_light() -> None:
    psf = np.full((2 * PSF_HALF + 1,) * 2, 1 / (2 * PSF_HALF + 1) ** 2)
    camera = transients.PlaneLight(psf, 22.5, 1.0)
    x = np.array([np.nan, -500.0, 10.0])
    light = transients.paint_alone(x, x, np.full(3, 100.0), camera, size=21, rng=np.random.default_rng(0))
    assert [bool(part.any()) for part in light] == [False, False, True]
