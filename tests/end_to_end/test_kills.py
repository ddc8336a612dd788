"""Kill campaigns: work that is killed at random moments, again and again, ends as if it had never been interrupted.

Each campaign runs its work in a process of its own, kills it 20 times, looks after each kill for anything half written
that opens, and lets it end. The result has to be that of an uninterrupted run, and no lock or part of a file may stay.
"""

import os
import random
import shutil
import signal
import subprocess
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from gotorb import models
from gotorb.catalogues import vizier
from gotorb.catalogues.galaxies import find_galaxies
from gotorb.catalogues.variables import read_variables
from gotorb.core import layout
from gotorb.core.files import file_digest
from gotorb.dataset.check import verify_dataset
from gotorb.dataset.folder import is_finished
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError, ModelError
from gotorb.eyeball.decisions import Event, Journal
from gotorb.survey.gotophoto import query_images, storage_path
from gotorb.tracking.registry import find_alias, list_models, load_version, move_alias, register
from gotorb.tracking.runs import md5, track_stage
from gotorb.training.model_files import load_training
from tests.end_to_end.clones import ROOT
from tests.shared import point_to
from tests.unit.apps.test_scoring import write_model_folder
from tests.unit.catalogues.fake_vizier import FakeVizier, serve
from tests.unit.survey.synthetic import write_archive
from tests.unit.tracking import test_production
from tests.unit.tracking.tiny import make_params

pytestmark = pytest.mark.slow
promotion_data = test_production.data_dir
N_KILLS = int(os.environ.get("GOTORB_TEST_KILLS", "20"))
MOST_RUNS = 8
"""Runs for each kill at most: some end before the kill."""
LIMIT_S = 120
LEFT = (layout.OWNER_FILE, layout.UNFINISHED_FILE, layout.SHARDS_DIR)
PROLOGUE = """
import os, sys
from pathlib import Path
place, words = Path(sys.argv[1]), sys.argv[2:]
def begin():
    place.with_name(place.name + ".begun").touch()
"""


def digests(folder: Path) -> dict[str, str]:
    """Digests of a folder's files, without logs and locks, whose content tells the time."""
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".log" and path.name != ".lock"
    }


def find_left(folder: Path) -> list[str]:
    """Names of locks, markers and parts of files that no finished run leaves."""
    return [path.name for path in folder.rglob("*") if path.name in LEFT or ".part" in path.name]


@dataclass
class Campaign:
    """Work that is killed.

    Attributes
    ----------
    code : str
        Does the work into `place` with `words`, after a call of ``begin()``, when its imports are done.
    words : list of str
    state : callable
        State of a finished run in a folder; compared with that of a run without kills.
    check : callable
        Given the folder and the finished state, fails if something half written opens.
    between : callable
        Called before each run with its number.
    prepare : callable
        Fills the folder before the first run.
    """

    code: str
    words: list[str] = field(default_factory=list)
    state: Callable[[Path], Any] = digests
    check: Callable[[Path, Any], None] = lambda place, whole: None
    between: Callable[[int], None] = lambda number: None
    prepare: Callable[[Path], Any] = lambda place: place.mkdir()
    left: Callable[[Path], list[str]] = find_left


@pytest.fixture
def run(warm_python: Path, tmp_path: Path) -> Iterator[Callable[[Campaign], None]]:
    """Run a campaign."""
    started: list[subprocess.Popen[str]] = []

    def start(campaign: Campaign, place: Path) -> subprocess.Popen[str]:
        begun = place.with_name(place.name + ".begun")
        begun.unlink(missing_ok=True)
        command = [warm_python, "-c", PROLOGUE + textwrap.dedent(campaign.code), place, *campaign.words]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        work = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(work)
        until = time.monotonic() + LIMIT_S
        while not begun.exists() and work.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        return work

    def finish(campaign: Campaign, place: Path) -> float:
        work = start(campaign, place)
        begun = time.monotonic()
        told = work.communicate(timeout=LIMIT_S)[1]
        assert work.returncode == 0, told
        return time.monotonic() - begun

    def anew(campaign: Campaign, place: Path) -> Path:
        shutil.rmtree(place, ignore_errors=True)
        campaign.prepare(place)
        return place

    def campaign_of(campaign: Campaign) -> None:
        whole, place, draw = anew(campaign, tmp_path / "whole"), anew(campaign, tmp_path / "killed"), random.Random(7)
        campaign.between(0)
        seconds = finish(campaign, whole)
        expected, n_kills = campaign.state(whole), 0
        for number in range(1, MOST_RUNS * N_KILLS):
            campaign.between(number)
            work = start(campaign, place)
            time.sleep(draw.uniform(0, 1.1 * seconds))
            if work.poll() is None:
                work.terminate()  # the stand-in for python kills
            told = work.communicate(timeout=LIMIT_S)[1]
            if "ProcessLookupError" in told:  # it ended by itself while it was to be killed
                continue
            assert work.returncode in (0, -signal.SIGKILL), told
            n_kills += work.returncode != 0
            campaign.check(place, expected)
            if work.returncode == 0:
                assert campaign.state(place) == expected
                anew(campaign, place)
            if n_kills == N_KILLS:
                break
        assert n_kills == N_KILLS, f"only {n_kills} kills fell into the work of {seconds:.2f} s"
        campaign.between(0)
        finish(campaign, place)
        assert campaign.state(place) == expected
        assert campaign.left(place) == []

    yield campaign_of
    for work in started:
        if work.poll() is None:
            work.terminate()
        work.wait()
        if work.stderr:
            work.stderr.close()


def check_data_set(place: Path, whole: dict[str, str]) -> None:
    """A data set opens only when it is the whole one."""
    made = place / "run"
    if not is_finished(made):
        with pytest.raises(DataError):
            open_dataset(made)
        return
    open_dataset(made)
    found = {f"run/{name}": digest for name, digest in digests(made).items()}
    assert {name: found.get(name) for name in whole} == whole


def check_verified(place: Path, whole: dict[str, str]) -> None:
    """As `check_data_set`, and what opens is sound."""
    check_data_set(place, whole)
    if is_finished(place / "run"):
        assert verify_dataset(place / "run") == []


LABEL = """
    from gotorb import label_data
    from gotorb.catalogues import minor_planets
    from gotorb.labels import image, synthetic
    begin()
    label_data.make(100, place, name="run", provider="pympc", seed=1)
"""
SYNTHETIC = """
    from gotorb import label_data
    from gotorb.catalogues import minor_planets
    from gotorb.labels import image, synthetic
    begin()
    label_data.add_synthetic_transients(words[0], out_dir=place, name="run", max_galaxy_mag=21, max_mag=20.5, seed=1)
"""
CLEAN = """
    from gotorb import clean_data
    from gotorb.dataset import versions
    begin()
    clean_data.clean(words[0], provider=None, cosmic_rays=True, new_sources=False, out_dir=place, name="run")
"""
EXPORT = """
    from pathlib import Path
    from gotorb.eyeball.decisions import Journal, write_labelled
    from gotorb.dataset.store import run_folder
    begin()
    journal = Journal(words[1])
    with run_folder(place, "run") as made:
        write_labelled(Path(words[0]), made, journal.current(), journal.marks())
"""
SCORE = """
    from gotorb.classifier import jobs, scores
    from gotorb.training import inference, mc_dropout
    begin()
    jobs.score_sources(words[0], words[1:], place / "scores.csv", jobs.Options(n_samples=3))
"""
PROMOTE = """
    os.environ |= {"DVC_ROOT": str(place), "GOTORB_MLRUNS": str(place / "mlruns"), "MLFLOW_TRACKING_URI": ""}
    from gotorb.evaluation.promotion_checks import Limits
    from gotorb.tracking.promotion import promote
    begin()
    promote("models:/gotorb/2", "production", reason="better", data_dir=words[0], limits=Limits(max_ece=1.0))
"""
IMPORT = """
    os.environ |= {"DVC_ROOT": str(place), "GOTORB_MLRUNS": str(place / "mlruns"), "MLFLOW_TRACKING_URI": ""}
    from gotorb import models
    from gotorb.training import importing
    from gotorb.tracking import registry, runs
    begin()
    models.import_model(words[0], name="theirs", layers=("science", "template", "difference"), size=20,
                        out_dir=place / "models")
"""
FETCH = """
    from gotorb.catalogues.vizier import Circle, fetch_galaxies, fetch_variables
    begin()
    for fields in ([Circle(150.0, 2.0, 0.5)], [Circle(150.0, 2.0, 0.5), Circle(151.6, 2.0, 0.5)]):
        fetch_variables(fields, place / "v.csv", min_interval_s=0.0)
        fetch_galaxies(fields, place / "cats", max_mag=22, min_interval_s=0.0)
"""


def test_label(run: Callable[[Campaign], None], served: Any) -> None:
    run(Campaign(LABEL, check=check_verified))


def test_synthetic(run: Callable[[Campaign], None], labelled: Path) -> None:
    run(Campaign(SYNTHETIC, [str(labelled)], check=check_data_set))


def test_clean(run: Callable[[Campaign], None], labelled: Path) -> None:
    run(Campaign(CLEAN, [str(labelled)], check=check_data_set))


def test_export(run: Callable[[Campaign], None], labelled: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "eyeball.sqlite")
    ids = open_dataset(labelled).ids.tolist()
    journal.append(
        Event(uuid=f"u{number}-{who}", labeller=who, id=row, kind=("real", "bogus")[number % 2])
        for number, row in enumerate(ids) for who in ("ann", "bob")
    )  # fmt: skip
    journal.close()
    run(Campaign(EXPORT, [str(labelled), str(journal.path)], check=check_data_set))


@pytest.fixture
def bayesian(tmp_path: Path) -> Callable[..., Path]:
    def make(seed: int, size: int = 55) -> Path:
        keras.utils.set_random_seed(seed)
        network = models.bayesian_vgg6((size, size, 3), dropout=0.1, block1=2, block2=2, dense=4)
        return write_model_folder(tmp_path / f"model{seed}", network)

    return make


def check_scores(place: Path, whole: dict[str, str]) -> None:
    """The csv is there whole, or not at all."""
    if (place / "scores.csv").exists():
        assert file_digest(place / "scores.csv") == whole["scores.csv"]


def test_score_images(run: Callable[[Campaign], None], served: Any, bayesian: Callable[..., Path]) -> None:
    images = [str(storage_path(name, served)) for name in query_images(served, 100)["filepath"]]
    run(Campaign(SCORE, [str(bayesian(5)), *images], check=check_scores))


@pytest.fixture
def two_registered(fresh_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with two versions that call different stamps real."""
    root = tmp_path / "project"
    shutil.copytree(fresh_store, root / layout.MLRUNS_DIR)
    point_to(monkeypatch, root)
    for number in (1, 2):
        test_production.add(tmp_path / f"version{number}", *("1", "2")[:number])
    return root


def test_score_an_archive_while_the_alias_moves(
    run: Callable[[Campaign], None],
    fresh_store: Path,
    bayesian: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(fresh_store, tmp_path / "project" / layout.MLRUNS_DIR)
    point_to(monkeypatch, tmp_path / "project")
    for number in (1, 2):
        path = bayesian(number, size=25) / layout.MODEL_H5
        with track_stage("train", make_params()) as recorded:
            recorded.log_model(path, tags={})
        register("gotorb", recorded.run_id, md5(path), {"layers": "science,template,difference", "threshold": "0.5"})
    archives = [str(write_archive(tmp_path / f"archive{n}", 400 + n, size=25)) for n in range(3)]
    held: dict[Path, set[str]] = {}

    def move(number: int) -> None:
        move_alias(load_version(f"models:/gotorb/{1 + number % 2}"), "champion")

    def state(place: Path) -> set[str]:
        table = pd.read_csv(place / "scores.csv", dtype={"model_version": str})
        held[place] = set(table["model_version"])
        return {f"{len(table)} rows of {len(held[place])} version"}

    def check(place: Path, whole: Any) -> None:
        if (place / "scores.csv").exists():
            assert state(place) == whole

    run(Campaign(SCORE, ["models:/gotorb@champion", *archives], state=state, check=check, between=move))
    assert held[tmp_path / "killed"] == held[tmp_path / "whole"] == {"1"}
    assert (tmp_path / "killed" / "scores.csv").read_bytes() == (tmp_path / "whole" / "scores.csv").read_bytes()


def store_of(root: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patch:
        point_to(patch, root)
        return look()


def test_promote(
    run: Callable[[Campaign], None], two_registered: Path, promotion_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    move_alias(load_version("models:/gotorb/1"), "production")

    def holder() -> str:
        found = find_alias("gotorb", "production")
        return "" if found is None else found.version

    def check(place: Path, whole: Any) -> None:
        assert store_of(place, monkeypatch, holder) in ("1", "2")

    def state(place: Path) -> tuple[str, int]:
        return store_of(place, monkeypatch, lambda: (holder(), len(list_models())))

    def prepare(place: Path) -> None:
        shutil.copytree(two_registered, place)

    run(Campaign(PROMOTE, [str(promotion_data)], state, check, prepare=prepare, left=lambda place: []))


def test_import(
    run: Callable[[Campaign], None], fresh_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(ROOT / "tests" / "unit" / "training" / "keras2.zip") as pack:
        pack.extract("l2_axis12.h5", tmp_path)

    def prepare(place: Path) -> None:
        shutil.copytree(fresh_store, place / layout.MLRUNS_DIR)

    def state(place: Path) -> Any:
        rows = store_of(place, monkeypatch, lambda: [(row["name"], row["version"]) for row in list_models()])
        return rows, {name: digest for name, digest in digests(place / "models").items() if "meta" not in name}

    def check(place: Path, whole: Any) -> None:
        run_dir = place / "models" / "theirs"
        try:
            found = load_training(run_dir)
        except ModelError:
            return
        assert found.meta is not None and file_digest(run_dir / layout.MODEL_H5) == whole[1]["theirs/model.h5"]

    run(Campaign(IMPORT, [str(tmp_path / "l2_axis12.h5")], state, check, prepare=prepare,
                 left=lambda place: find_left(place / "models")))  # fmt: skip


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVizier]:
    with serve(tmp_path) as (server, certificate):
        monkeypatch.setenv("GOTORB_VIZIER_SERVER", server.host)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        rng = np.random.default_rng(2)
        ra, dec = rng.uniform(149.6, 152.0, 200), rng.uniform(1.7, 2.3, 200)
        place: dict[str, Any] = {"ra": ra.tolist(), "dec": dec.tolist()}
        names = [f"J{number}" for number in range(200)]
        server.tables[vizier.TABLES["atlas"].name] = place | {"ATOID": names, "Class": ["CBF"] * 200}
        server.tables[vizier.TABLES["gaia"].name] = {"ra": [150.5], "dec": [2.5], "Source": [2**61], "Class": ["RR"]}
        magnitudes = {"Bmag": rng.uniform(15, 21, 200).tolist(), "dL": [40.0] * 200}
        server.tables[vizier.TABLES["glade"].name] = place | magnitudes
        yield server


def test_catalogue_fetch(run: Callable[[Campaign], None], fake: FakeVizier, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(place: Path) -> dict[str, str]:
        kept = {name: digest for name, digest in digests(place).items() if vizier.COVERAGE not in name}
        return {name: digest for name, digest in kept.items() if not name.startswith("cache")}

    def check(place: Path, whole: Any) -> None:
        if (place / "v.csv").exists():
            assert len(read_variables(place / "v.csv")) > 20
        if (place / "cats" / "GLADE").exists():
            assert len(find_galaxies(place / "cats", 150.0, 2.0, radius_arcsec=3600)) > 20

    def left(place: Path) -> list[str]:
        return [path.name for path in place.rglob(".glade*")] + find_left(place)

    code = FETCH.replace("begin()", 'os.environ["GOTORB_CACHE_DIR"] = str(place / "cache")\n    begin()', 1)
    run(Campaign(code, state=state, check=check, left=left))
