"""docs/own-survey.md, followed word for word on a folder of images of another layout, without a database."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from gotorb import label_data
from gotorb.cli import main
from gotorb.core import layout
from gotorb.dataset.store import open_dataset
from gotorb.errors import ConfigError, DataError, MissingImage
from gotorb.labels.jobs import read_images
from tests.end_to_end.clones import ROOT

PAGE = Path(__file__).parents[2] / "docs" / "own-survey.md"
HDUS = {"IMAGE": "SCI", "TEMPLATE": "REF", "DIFFERENCE": "SUB"}
COLUMNS = {"x": "XWIN_IMAGE", "y": "YWIN_IMAGE", "ra": "ALPHA_J2000", "dec": "DELTA_J2000", "mag": "MAG_AUTO",
           "fwhm": "FWHM_IMAGE", "id": "NUMBER"}  # fmt: skip
ADAPTED = ("get_images", "get_individual_images", "SCIENCE_IMAGE_EXT", "TEMPLATE_IMAGE_EXT", "DIFFERENCE_IMAGE_EXT",
           "DIFFERENCE_PHOT_EXT", "INDIVIDUAL_IMAGE_EXT", "FIRST_PIXEL", "DETECTION_COLUMNS")  # fmt: skip
"""Names that the adapter replaces."""


def write_other_layout(task, folder, visit):
    """The same image as another survey would write it; its time as MJD-OBS (start) and EXPTIME."""
    with fits.open(task.path) as hdus:
        for ours, theirs in HDUS.items():
            hdus[ours].name = theirs
            header = hdus[theirs].header
            header["MJD-OBS"] = task.epoch_mjd - 30 / 86400
            header["EXPTIME"] = 60.0
            del header["JD"]
        rows = hdus["PHOTOMETRY_DIFF"].data
        shift = {"x": 1, "y": 1}
        columns = [
            fits.Column(theirs, "K" if ours == "id" else "D", array=rows[ours] + shift.get(ours, 0))
            for ours, theirs in COLUMNS.items()
        ]
        hdus["PHOTOMETRY_DIFF"] = fits.BinTableHDU.from_columns(columns, name="CAT")
        hdus.writeto(folder / f"{visit}_diff.fits")
    for number, path in enumerate(task.exposure_paths):
        with fits.open(path) as hdus:
            fits.PrimaryHDU(hdus["IMAGE"].data, hdus["IMAGE"].header).writeto(folder / f"{visit}_exp{number}.fits")


@pytest.fixture(scope="module")
def own_survey(labelled, served, tmp_path_factory):
    """A folder with images/, mysurvey.py and .env, the latter two copied from the page."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "images").mkdir()
    for number, task in enumerate(read_images(labelled, served)):
        write_other_layout(task, folder / "images", task.image_id if number else "f012_v3")
    (adapter,) = re.findall(r"```python run by test_own_survey\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "mysurvey.py").write_text(adapter)
    (env,) = re.findall(r"```ini\n(GOTORB_ADAPTER=.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / ".env").write_text(env)
    return folder


@pytest.fixture(scope="module")
def python(own_survey, served, warm_python):
    """Run python in the folder, as a user of another survey: no database, no project around it."""

    def run(*words):
        with served.with_values(gotophoto_db_name="", gotophoto_db_host="").in_environment():
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            del environment["DVC_ROOT"], environment["GOTORB_ADAPTER"]
            done = subprocess.run(
                [warm_python, *words], cwd=own_survey, env=environment, capture_output=True, text=True, check=False
            )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def label(own_survey, python):
    """Make a data set by a script that changes something behind the adapter."""

    def run(*lines, name):
        call = f"label_data.make(n_images=100, out_dir='made', provider='pympc', name='{name}')"
        python("-c", "\n".join(["from gotorb import label_data", "label_data.use_adapter()", *lines, call]))
        return open_dataset(own_survey / "made" / name)

    return run


@pytest.fixture(scope="module")
def commands(own_survey, python):
    """The page's commands, run in their order; what they say."""
    blocks = re.findall(r"```sh run by test_own_survey\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return {line: python("-m", *line.split("#")[0].split()) for line in lines}


@pytest.fixture(scope="module")
def followed(commands, own_survey):
    """The data set that the page makes."""
    return open_dataset(own_survey / "made" / "first")


def test_the_page_goes_from_labels_to_scores_a_page_and_a_night(commands, own_survey):
    verbs = ["check", "label", "data", "train", "score", "visualise", "night"]
    assert [line.split()[1] for line in commands] == verbs
    checked = next(said for line, said in commands.items() if line.startswith("gotorb check"))
    assert "minor planets" in checked and (own_survey / "checked" / "f012_v3_diff.fits.png").stat().st_size > 10_000
    scores = pd.read_csv(own_survey / "scores.csv", dtype={"id": str})
    images = sorted((own_survey / "images").glob("*_diff.fits"))
    n_detections = sum(len(fits.getdata(path, "CAT")) for path in images)
    assert len(scores) == n_detections and scores["score"].between(0, 1).all()
    assert len(list((own_survey / "pages").glob("*.html"))) >= len(images)
    summary = json.loads((own_survey / "night" / "summary.json").read_text())
    assert (own_survey / "night" / "night.html").stat().st_size > 10_000
    assert str(n_detections) in json.dumps(summary)


def test_an_image_of_a_new_night_is_scored_by_its_header(followed, own_survey, tmp_path, monkeypatch):
    """It is not among the images of get_images(): place and time come from its header, exposures from the adapter."""
    monkeypatch.setattr(label_data, "_ADAPTED", [])
    for name in ADAPTED:
        monkeypatch.setattr(label_data, name, getattr(label_data, name))
    label_data.use_adapter(own_survey / "mysurvey.py")
    old = sorted((own_survey / "images").glob("*_diff.fits"))[0]
    listed, stamps = label_data.cut_image(old)
    new = tmp_path / "x_diff.FITS"
    new.write_bytes(old.read_bytes())
    monkeypatch.setattr(label_data, "get_individual_images", lambda image: sorted(
        str(path) for path in old.parent.glob(f"{old.name.removesuffix('_diff.fits')}_exp*")))  # fmt: skip
    found, again = label_data.cut_image(new)
    np.testing.assert_array_equal(again, stamps)
    np.testing.assert_allclose(found["jd"], listed["jd"], atol=1e-9)
    assert (found["image_id"] == "x_diff").all() and (listed["image_id"] == old.stem).all()


@pytest.mark.parametrize("kind", ["declared", "none given", "one missing", "all missing"])
def test_exposures_that_are_not_there(own_survey, monkeypatch, caplog, kind):
    monkeypatch.setattr(label_data, "_ADAPTED", [])
    for name in ADAPTED:
        monkeypatch.setattr(label_data, name, getattr(label_data, name))
    label_data.use_adapter(own_survey / "mysurvey.py")
    path, given = sorted((own_survey / "images").glob("*_diff.fits"))[0], label_data.get_individual_images
    whole = label_data.cut_image(path)[1]
    changed = {
        "declared": lambda image: 1 / 0,
        "none given": lambda image: [],
        "one missing": lambda image: [*given(image)[:-1], "/nowhere/exp9.fits"],
        "all missing": lambda image: ["/nowhere/exp1.fits", "/nowhere/exp2.fits"],
    }
    monkeypatch.setattr(label_data, "get_individual_images", changed[kind])
    monkeypatch.setattr(label_data, "SINGLE_EXPOSURES", kind != "declared")
    if kind == "all missing":
        with pytest.raises(MissingImage):
            label_data.cut_image(path)
        return
    table, stamps = label_data.cut_image(path)
    science, ptp, low, high = (stamps[..., layer] for layer in (0, 3, 4, 5))
    np.testing.assert_array_equal(stamps[..., :3], whole[..., :3])
    assert (table["ncoadd"] == (len(given(pd.Series({"id": path.stem}))) - 1 if kind == "one missing" else 0)).all()
    if kind == "one missing":
        assert (ptp <= whole[..., 3] + 1e-3).all() and (ptp > 0).any()
    else:
        assert (ptp == 0).all() and (low == science).all() and (high == science).all()
    assert bool(caplog.records) == (kind != "declared")


def test_the_page_gives_the_labels_and_stamps_of_the_same_images(followed, labelled):
    ours, theirs = open_dataset(labelled), followed
    planets = [data.table.query("metalabel == 'mp'").set_index("number") for data in (ours, theirs)]
    assert set(planets[0].index) == set(planets[1].index) and len(planets[0]) >= 20
    np.testing.assert_allclose(planets[1].loc[planets[0].index, "x"], planets[0]["x"], atol=1e-9)
    rows = [
        [int(np.flatnonzero(data.table["number"] == name)[0]) for name in planets[0].index] for data in (ours, theirs)
    ]
    np.testing.assert_array_equal(theirs.read_stamps(rows[1]), ours.read_stamps(rows[0]))


def test_wrong_first_pixel_shifts_every_stamp(followed, label):
    """The check that the page recommends sees the mistake that it is for."""
    right, wrong = followed, label("label_data.FIRST_PIXEL = 0", name="off")
    peaks = [
        np.median([np.unravel_index(np.argmax(stamp), stamp.shape) for stamp in data.read_stamps(rows)[..., 2]], axis=0)
        for data, rows in ((d, np.flatnonzero(d.table["metalabel"] == "mp")) for d in (right, wrong))
    ]
    assert peaks[0].tolist() == [27, 27]
    assert peaks[1].tolist() == [26, 26]


def test_several_processes_obey_the_adapter(own_survey, served, followed, tmp_path, monkeypatch):
    monkeypatch.chdir(own_survey)
    monkeypatch.setattr(label_data, "_ADAPTED", [])
    for name in ADAPTED:  # undone after the test
        monkeypatch.setattr(label_data, name, getattr(label_data, name))
    label_data.adapt("mysurvey.py")
    made = label_data.make(100, tmp_path, name="two", provider="pympc", n_processes=2)
    assert layout.labels_path(made).read_bytes() == layout.labels_path(followed.data_dir).read_bytes()


def test_images_are_checked_before_a_run(own_survey, served, capsys, monkeypatch):
    """The first step of the page: every minor planet of the images that should be detected is counted and drawn."""
    monkeypatch.chdir(own_survey)
    for name in re.findall(r"^label_data\.(\w+) =", (own_survey / "mysurvey.py").read_text(), re.MULTILINE):
        monkeypatch.setattr(label_data, name, getattr(label_data, name))
    images = sorted((own_survey / "images").glob("*_diff.fits"))
    command = ["check", str(images[0]), "--adapter", "mysurvey.py", "--provider", "pympc", "--out-dir", "checked"]
    assert main(command) == 0
    said = capsys.readouterr().out
    n_matched, n_expected = map(int, re.search(r"matched (\d+) of (\d+) expected", said).groups())
    assert said.startswith(images[0].stem) and n_expected >= n_matched >= 5
    assert (own_survey / "checked" / f"{images[0].name}.png").stat().st_size > 10_000
    assert main(["check", "--adapter", "mysurvey.py", "--provider", "pympc", "--n-images", "2", "--json"]) == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("days", "reason"), [(0.02, "(at one offset of|matched 0 of)"), (-2400000.5, "looks like MJD")]
)
def test_check_names_what_labelling_would_refuse(own_survey, served, capsys, monkeypatch, days, reason):
    monkeypatch.chdir(own_survey)
    for name in re.findall(r"^label_data\.(\w+) =", (own_survey / "mysurvey.py").read_text(), re.MULTILINE):
        monkeypatch.setattr(label_data, name, getattr(label_data, name))
    label_data.adapt("mysurvey.py")
    right = label_data.get_images
    label_data.get_images = lambda n: right(n).assign(jd=lambda t: t["jd"] + days)
    assert main(["check", "--provider", "pympc", "--n-images", "1"]) == 1
    assert re.search(reason, capsys.readouterr().out)
    with pytest.raises(DataError, match=reason):
        label_data.make(100, own_survey / "refused", provider="pympc", name=f"by{days}")


def test_adapter_that_is_not_there_or_fails_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"no adapter .*nothing\.py; correct label\.adapter"):
        label_data.adapt(tmp_path / "nothing.py")
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"bad\.py failed \(ZeroDivisionError: division by zero\)"):
        label_data.adapt(tmp_path / "bad.py")
