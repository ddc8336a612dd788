"""Faults while a data set is made: nothing is lost, doubled or called bogus by them."""

import os
import random
import signal
import subprocess
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from gotorb import label_data
from gotorb.core import layout
from gotorb.core.settings import read_settings
from gotorb.dataset.card import data_digest
from gotorb.dataset.check import verify_dataset
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError, LookupFailed
from gotorb.survey.gotophoto import query_images, storage_path
from tests.end_to_end.clones import ROOT
from tests.write_points import Crash, crash_at, crash_everywhere

N_KILLS = 20
N_COPIES = 5
MAKE = f"""
    import signal, sys, pandas
    from gotorb import cli, label_data
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests are a job in the background
    few = label_data.get_images
    label_data.get_images = lambda n: pandas.concat(
        [few(n).assign(id=lambda t: t["id"].astype(str) + f"-{{i}}") for i in range({N_COPIES})])
    sys.exit(cli.main(["label", "--provider", "pympc", "--n-processes", sys.argv[2], "--chunk", "1",
                       "--out-dir", sys.argv[1], "--name", "run"]))
"""
"""Labels twenty images in a process of its own."""
FULL_DISK = """
    import resource, sys
    from gotorb import label_data
    size = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    label_data.make(100, sys.argv[1], name="run", provider="pympc", seed=1)
"""
"""The kernel refuses to let files grow, as a full disk does (EFBIG in the place of ENOSPC)."""


def make(out_dir, name="run", **options):
    return label_data.make(100, out_dir, name=name, **({"provider": "pympc", "seed": 1} | options))


@pytest.fixture
def start(warm_python, served):
    """Start code with arguments as a process that sees the served survey; what was started ends with the test."""
    started = []

    def call(code, *words):
        command = [warm_python, "-c", textwrap.dedent(code), *map(str, words)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(run)
        return run

    yield call
    for run in started:
        if run.poll() is None:
            run.terminate()
        run.wait()
        run.stderr.close()


@pytest.fixture(scope="module")
def twenty(warm_python, served, tmp_path_factory):
    """Digest of twenty images labelled in one go."""
    folder = tmp_path_factory.mktemp("twenty")
    command = [warm_python, "-c", textwrap.dedent(MAKE), folder, "1"]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    return data_digest(folder / "run")


def shards(folder):
    return list((folder / "run" / layout.SHARDS_DIR).glob("*.h5"))


def wait_for_shard(run, folder):
    while not shards(folder):
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)


def test_a_crash_at_any_write_point_loses_and_doubles_nothing(labelled, served, tmp_path):
    made, points = crash_everywhere(lambda: make(tmp_path))
    names = {Path(name).name for name, _ in points}
    assert names >= {layout.LABELS_CSV, layout.STAMPS_H5, layout.IMAGES_CSV}
    assert sum(layout.SHARDS_DIR in name for name, _ in points) == 2 * 4, "before and after each image's shard"
    assert data_digest(made) == data_digest(labelled)
    assert verify_dataset(made) == []


def test_killed_at_its_work_and_resumed_gives_the_same_bytes(twenty, start, tmp_path):
    run = start(MAKE, tmp_path, 1)
    wait_for_shard(run, tmp_path)
    run.terminate()  # the stand-in for python kills
    assert run.wait() == -signal.SIGKILL
    assert 0 < len(shards(tmp_path)) < 4 * N_COPIES
    assert not layout.labels_path(tmp_path / "run").exists()
    assert start(MAKE, tmp_path, 1).communicate()[1] is not None
    assert data_digest(tmp_path / "run") == twenty


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_gives_the_same_bytes(twenty, start, tmp_path):
    draw, seen = random.Random(7), set()
    for _ in range(N_KILLS):
        run = start(MAKE, tmp_path, 1)
        time.sleep(draw.uniform(0.3, 1.5))
        run.terminate()
        run.wait()
        assert not (layout.labels_path(tmp_path / "run").exists() and not layout.stamps_path(tmp_path / "run").exists())
        seen.add(len(shards(tmp_path)))
    assert len(seen) > 1, "every kill fell at the same stage: the test shows nothing"
    start(MAKE, tmp_path, 1).communicate()
    assert data_digest(tmp_path / "run") == twenty


@pytest.mark.long("two workers import what a real run imports")
def test_interrupted_by_ctrl_c_ends_in_one_line_and_is_resumed_later(twenty, start, tmp_path):
    run = start(MAKE, tmp_path, 2)
    wait_for_shard(run, tmp_path)
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to every process
    said = run.communicate()[1]
    assert run.returncode == 130, said
    assert "Traceback" not in said and said.rstrip().splitlines()[-1].startswith("gotorb: ")
    assert 0 < len(shards(tmp_path)) < 4 * N_COPIES
    again = start(MAKE, tmp_path, 1)
    assert again.communicate()[1] is not None and again.returncode == 0
    assert data_digest(tmp_path / "run") == twenty


def test_run_twice_under_one_name_gives_the_same_bytes(labelled, served, tmp_path):
    for _ in range(2):
        assert data_digest(make(tmp_path)) == data_digest(labelled)
    assert verify_dataset(tmp_path / "run") == []


def test_two_runs_at_once_the_second_is_told_who_is_at_work(labelled, served, tmp_path, monkeypatch):
    entered, resume = threading.Event(), threading.Event()
    plain = label_data.get_individual_images
    monkeypatch.setattr(
        label_data, "get_individual_images", lambda image: (entered.set(), resume.wait(), plain(image))[2]
    )
    first = threading.Thread(target=make, args=[tmp_path])
    first.start()
    try:
        assert entered.wait(20)
        with pytest.raises(DataError, match=rf"process {os.getpid()} on \S+ since 20\d\d-"):
            make(tmp_path)
    finally:
        resume.set()
        first.join()
    assert data_digest(tmp_path / "run") == data_digest(labelled)


@pytest.mark.parametrize(("where", "largest_file"), [("shard", 200_000), ("assembly", 2_000_000)])
def test_full_disk_is_told_and_the_run_resumes_when_there_is_space(labelled, start, tmp_path, where, largest_file):
    said = start(FULL_DISK, tmp_path, largest_file).communicate()[1]
    assert said.splitlines()[-1].startswith("gotorb.errors.DataError: ")
    assert str(tmp_path / "run") in said.splitlines()[-1] and "free space" in said
    assert not layout.labels_path(tmp_path / "run").exists()
    assert bool(shards(tmp_path)) == (where == "assembly")
    assert data_digest(make(tmp_path)) == data_digest(labelled)


class Faults:
    """Copies of one image, each with a fault of its own."""

    def __init__(self, whole, folder):
        self.whole, self.folder = whole, folder

    def path(self, name):
        return self.folder / f"{name}.fits"

    def edit(self, name, change):
        with fits.open(self.whole) as hdus:
            change(hdus)
            hdus.writeto(self.path(name))

    def write_all(self):
        content = self.whole.read_bytes()
        self.path("truncated").write_bytes(content[: len(content) // 2])
        self.path("truncated_table").write_bytes(content[:-2881])
        self.path("page").write_text("<html>you are logged out</html>" * 200)
        self.path("nothing").write_bytes(b"")
        self.edit("no_hdu", lambda hdus: hdus.pop("TEMPLATE"))
        self.edit("no_wcs", self.drop_wcs)
        self.edit("no_column", lambda hdus: hdus["PHOTOMETRY_DIFF"].columns.del_col("x"))
        self.edit("empty_table", self.empty_table)
        self.edit("no_data_at_centre", self.blank_template)

    @staticmethod
    def drop_wcs(hdus):
        for key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2"):
            del hdus["IMAGE"].header[key]
            del hdus["DIFFERENCE"].header[key]

    @staticmethod
    def empty_table(hdus):
        hdus["PHOTOMETRY_DIFF"] = fits.BinTableHDU(hdus["PHOTOMETRY_DIFF"].data[:0], name="PHOTOMETRY_DIFF")

    @staticmethod
    def blank_template(hdus):
        hdus["TEMPLATE"].data[:] = np.nan


EXPECTED = {
    "whole": "labelled", "truncated": "truncated", "truncated_table": "truncated", "page": "unreadable",
    "nothing": "truncated", "no_hdu": "missing_part", "no_column": "missing_part", "empty_table": "empty",
    "no_data_at_centre": "labelled", "absent": "missing", "outside": "unreadable",
}  # fmt: skip


@pytest.mark.long("two workers import what a real run imports")
@pytest.mark.parametrize("n_processes", [1, 2])
def test_every_image_ends_in_one_named_state_and_the_counts_add_up(served, tmp_path, monkeypatch, n_processes):
    one = query_images(read_settings(), 100).iloc[:1]
    faults = Faults(storage_path(one["filepath"].iloc[0], read_settings()), tmp_path)
    faults.write_all()
    names = list(EXPECTED)
    paths = [str(faults.path(name)) for name in names]
    paths[names.index("whole")] = one["filepath"].iloc[0]
    paths[names.index("outside")] = str(tmp_path)
    images = pd.concat([one] * len(names)).assign(id=names, filepath=paths)
    monkeypatch.setattr(label_data, "get_images", lambda n: images)
    data_dir = make(tmp_path, n_processes=n_processes)
    table, data = pd.read_csv(data_dir / layout.IMAGES_CSV), open_dataset(data_dir)
    assert dict(zip(table["image_id"], table["state"], strict=True)) == EXPECTED
    assert table.set_index("image_id")["n_rows"].to_dict() == {
        name: int((data.table["image_id"] == name).sum()) for name in names
    }
    told = (data_dir / "run.log").read_text()
    assert "2 images labelled, 1 images empty, 1 images missing, 3 images truncated" in told
    assert "missing HDU" not in told
    blank = data.table["image_id"] == "no_data_at_centre"
    assert (data.table["missing_fraction"][blank] == 1).all()
    assert (data.read_stamps(np.flatnonzero(blank))[..., 1] == 0).all()


class NoAnswer:
    """A provider that is down for some fields."""

    version = "nobody"

    def find(self, field):
        raise LookupFailed("SkyBoT gave no answer; try later")


def test_failed_look_up_gives_no_label_at_all_least_of_all_a_bogus_one(served, tmp_path, monkeypatch):

    monkeypatch.setattr(label_data, "make_provider", lambda name, settings: NoAnswer())
    with pytest.raises(DataError, match="none of 4 images could be used; the first: SkyBoT gave no answer"):
        make(tmp_path)
    assert not layout.labels_path(tmp_path / "run").exists()


HOSTILE = ["1'; drop table image; --", "../../etc/passwd", 'a,b\n"c"', "NA", "é" * 300, "100%s"]


def test_hostile_text_in_ids_stays_text(served, tmp_path, monkeypatch):
    one = query_images(read_settings(), 100).iloc[:1]
    monkeypatch.setattr(label_data, "get_images", lambda n: pd.concat([one] * len(HOSTILE)).assign(id=HOSTILE))
    data_dir = make(tmp_path)
    assert list(dict.fromkeys(open_dataset(data_dir).table["image_id"])) == HOSTILE
    assert [finding for finding in verify_dataset(data_dir) if "pixels of an earlier one" not in finding] == []
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    added = label_data.add_synthetic_transients(
        data_dir, out_dir=tmp_path, name="more", max_galaxy_mag=21, max_mag=20.5
    )
    assert set(open_dataset(added).table["image_id"]) == set(HOSTILE)


def test_path_out_of_storage_and_getter_that_fails_cost_their_image_only(served, tmp_path, monkeypatch):
    images = query_images(read_settings(), 100)
    filepaths = [f"{served.gotophoto_workdir}/../secret.fits", *images["filepath"].iloc[1:]]
    monkeypatch.setattr(label_data, "get_images", lambda n: images.assign(filepath=filepaths))
    plain = label_data.get_individual_images

    def mine(image):
        return [][0] if image["id"] == images["id"].iloc[1] else plain(image)

    monkeypatch.setattr(label_data, "get_individual_images", mine)
    states = pd.read_csv(make(tmp_path) / layout.IMAGES_CSV)["state"].tolist()
    assert states == ["outside_root", "refused", "labelled", "labelled"]
    told = (tmp_path / "run" / "run.log").read_text()
    assert "leads out of GOTOPHOTO_STORAGEDIR" in told
    assert "get_individual_images() failed on image" in told and "IndexError" in told


def test_catalogue_renewed_between_two_lives_of_a_run_is_noticed(labelled, served, tmp_path, monkeypatch):
    """Shards made with the old catalogue are not taken for those of the new one under the same path."""
    catalogue = tmp_path / "mpc.csv"
    lines = Path(served.gotorb_mpc_catalogue).read_text().splitlines(keepends=True)
    catalogue.write_text(lines[0])
    monkeypatch.setenv("GOTORB_MPC_CATALOGUE", str(catalogue))
    finals = (layout.LABELS_CSV, layout.STAMPS_H5)
    with pytest.raises(Crash), crash_at(lambda point: Path(point[0]).name in finals):
        make(tmp_path)  # ends with all shards and no data set
    assert len(shards(tmp_path)) == 4
    catalogue.write_text("".join(lines))
    found = open_dataset(make(tmp_path)).table.query("metalabel == 'mp'")
    assert len(found) == len(open_dataset(labelled).table.query("metalabel == 'mp'"))


def test_own_images_without_what_the_getter_of_exposures_needs_are_told(served, tmp_path, monkeypatch):
    images = query_images(read_settings(), 100).drop(columns="relatedimage")
    monkeypatch.setattr(label_data, "get_images", lambda n: images)
    with pytest.raises(DataError, match=r"the first: get_individual_images\(\) failed on image .* 'relatedimage'"):
        make(tmp_path)
