"""One bad image or one dead worker costs that image at most, and finished work is never done twice."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.core import layout
from gotorb.core.executor import Workers
from gotorb.core.settings import Settings
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import open_dataset, run_folder
from gotorb.errors import CatalogueError, DataError, MissingPart
from gotorb.labels import jobs
from gotorb.labels.jobs import ImageTask, make_shards, run_images


@dataclass(frozen=True)
class Options:
    journal: str
    deadly: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


def make_tasks(n=6):
    return [make_task(f"im{i}") for i in range(n)]


def make_task(image_id):
    path = f"{image_id}.fits"
    return ImageTask(
        image_id=image_id, filepath=path, exposures=(), path=path, exposure_paths=(), ra_c=0.0, dec_c=0.0,
        jd=2459000.5, ut="1",
    )  # fmt: skip


def work(task, options):
    journal = Path(options.journal)
    with journal.open("a") as file:
        file.write(f"{task.image_id}\n")
    if task.image_id in options.deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    if task.image_id in options.broken:
        raise MissingPart(f"no HDU 'X' in {task.path}")
    if task.image_id == "fatal":
        raise CatalogueError("no catalogue")
    number = int(task.image_id[2:])
    table = pd.DataFrame({"id": [f"{number}-{k}" for k in range(number)], "image_id": task.image_id})
    table = table.assign(label=1, metalabel="mp").reindex(columns=list(layout.LABEL_COLUMNS))
    return table, np.full((number, 5, 5, 6), number, np.float32)


@pytest.mark.parametrize("n_processes", [1, 2])
def test_bad_image_is_skipped_with_its_reason(tmp_path, n_processes):
    options = Options(str(tmp_path / "journal"), broken=("im2",))
    workers = Workers(n_processes, chunk=2)
    outcome = run_images(make_tasks(), work, options, shards_dir=tmp_path / "shards", workers=workers)
    assert [one.image_id for one in outcome.skipped] == ["im2"]
    assert "no HDU 'X'" in outcome.skipped[0].reason
    assert len(outcome.shards) == 5


def test_error_that_concerns_all_images_ends_the_run(tmp_path):
    tasks = [make_task("fatal"), *make_tasks(3)]
    with pytest.raises(CatalogueError, match="no catalogue"):
        run_images(tasks, work, Options(str(tmp_path / "j")), shards_dir=tmp_path / "s", workers=Workers(2, chunk=2))


@pytest.mark.long("workers are started again and again")
def test_image_that_kills_every_worker_is_skipped_alone(tmp_path):
    options = Options(str(tmp_path / "journal"), deadly=("im3",))
    outcome = run_images(make_tasks(), work, options, shards_dir=tmp_path / "shards", workers=Workers(2, chunk=2))
    assert [(one.image_id, one.state) for one in outcome.skipped] == [("im3", "crashed")]
    assert outcome.states == {"labelled": 4, "empty": 1, "crashed": 1}
    assert "died" in outcome.skipped[0].reason
    assert len(outcome.shards) == 5


def test_finished_images_are_not_done_again(tmp_path):
    options = Options(str(tmp_path / "journal"))
    for _ in range(2):
        run_images(make_tasks(), work, options, shards_dir=tmp_path / "shards")
    assert (tmp_path / "journal").read_text().split() == [f"im{i}" for i in range(6)]


def test_other_options_do_the_images_again(tmp_path):
    for broken in ((), ("im5",)):
        options = Options(str(tmp_path / "journal"), broken=broken)
        outcome = run_images(make_tasks(), work, options, shards_dir=tmp_path / "shards")
    assert len((tmp_path / "journal").read_text().split()) == 12
    assert len(outcome.shards) == 5


def test_rows_and_stamps_are_joined_in_the_order_of_the_images(tmp_path):
    make_shards(tmp_path, make_tasks(4), work, Options(str(tmp_path / "j")), title="")
    data = open_dataset(tmp_path)
    assert data.table["image_id"].tolist() == ["im1", "im2", "im2", "im3", "im3", "im3"]
    assert data.read_stamps(range(6))[:, 0, 0, 0].tolist() == [1, 2, 2, 3, 3, 3]
    assert not (tmp_path / layout.SHARDS_DIR).exists()


def test_finished_folder_of_other_images_is_not_replaced(tmp_path):
    options = Options(str(tmp_path / "j"))
    make_shards(tmp_path / "run", make_tasks(4), work, options, title="label")
    before = (tmp_path / "run" / layout.LABELS_CSV).read_bytes()
    for tasks, other, title, named in (
        (make_tasks(5), options, "label", "images"),
        (make_tasks(4), Options(str(tmp_path / "k")), "label", "options"),
        (make_tasks(4), options, "synthetic", "work"),
    ):
        with pytest.raises(DataError, match=rf"made in another way \(.*{named}"):
            make_shards(tmp_path / "run", tasks, work, other, title=title)
    assert (tmp_path / "run" / layout.LABELS_CSV).read_bytes() == before
    make_shards(tmp_path / "run", make_tasks(4), work, options, title="label")
    assert (tmp_path / "run" / layout.LABELS_CSV).read_bytes() == before


def test_touched_images_are_the_same_and_changed_ones_are_not(tmp_path):
    image, options = tmp_path / "image.fits", Options(str(tmp_path / "j"))
    image.write_bytes(b"1" * 100)
    tasks = [replace(task, path=str(image)) for task in make_tasks(2)]
    for _ in range(2):
        make_shards(tmp_path / "run", tasks, work, options, title="label")
        os.utime(image, (1, 1))
    image.write_bytes(b"2" * 100)
    with pytest.raises(DataError, match=r"made in another way \(files\)"):
        make_shards(tmp_path / "run", tasks, work, options, title="label")


def test_run_without_a_usable_image_says_the_first_reason(tmp_path):
    options = Options(str(tmp_path / "j"), broken=tuple(f"im{i}" for i in range(6)))
    with pytest.raises(DataError, match=r"none of 6 images could be used; the first: no HDU 'X' in im0.fits"):
        make_shards(tmp_path, make_tasks(), work, options, title="")


def test_second_run_in_a_folder_is_refused_and_told_who_holds_it(tmp_path):
    with (
        run_folder(tmp_path, "data_x"),
        pytest.raises(DataError, match=rf"data_x is in use by process {os.getpid()} on .* since 20"),
        run_folder(tmp_path, "data_x"),
    ):
        pass


@pytest.mark.parametrize("n_done", range(4))
def test_run_stopped_after_any_image_resumes_to_the_same_bytes(tmp_path, monkeypatch, n_done):
    options = Options(str(tmp_path / "journal"))
    whole = tmp_path / "whole"
    make_shards(whole, make_tasks(4), work, options, title="")
    written, plain = [], jobs.write_shard

    def write_some(path, table, stamps):
        if len(written) == n_done:
            raise KeyboardInterrupt
        written.append(path)
        plain(path, table, stamps)

    (tmp_path / "journal").unlink()
    monkeypatch.setattr(jobs, "write_shard", write_some)
    with pytest.raises(KeyboardInterrupt):
        make_shards(tmp_path / "run", make_tasks(4), work, options, title="")
    assert not layout.labels_path(tmp_path / "run").exists()
    monkeypatch.setattr(jobs, "write_shard", plain)
    make_shards(tmp_path / "run", make_tasks(4), work, options, title="")
    assert data_digest(tmp_path / "run") == data_digest(whole)
    assert len((tmp_path / "journal").read_text().split()) == 5  # the interrupted image alone was done twice


def survey_rows(**columns):
    rows = {"id": [1, 2, 3], "filepath": "a.fits", "ra_c": 1.0, "dec_c": 2.0, "jd": 2459000.5}
    return pd.DataFrame(rows | columns)


@pytest.mark.parametrize("name", ["ra_c", "dec_c", "jd"])
@pytest.mark.parametrize("value", [None, "north", np.nan, pd.NA])
def test_a_fact_that_is_no_number_costs_that_image_alone(name, value):
    good = survey_rows()[name].iloc[0]
    tasks = jobs.make_tasks(survey_rows(**{name: [good, value, good]}), lambda _: ["e.fits"], Settings())
    assert [np.isnan(getattr(task, name)) for task in tasks] == [False, True, False]
    assert not any(task.problem for task in tasks)


@pytest.mark.parametrize("ids", [[1, None, 3], ["a", "", "c"], ["a", "nan", "c"], [1, 2.5, 3], ["a", "2.0", "c"]])
def test_an_image_without_an_exact_id_is_refused_alone(ids):
    tasks = jobs.make_tasks(survey_rows(id=pd.Series(ids, dtype=object)), lambda _: ["e.fits"], Settings())
    assert [bool(task.problem) for task in tasks] == [False, True, False]


def test_several_images_without_an_id_do_not_stop_the_others():
    tasks = jobs.make_tasks(survey_rows(id=[None, "b", None]), lambda _: ["e.fits"], Settings())
    assert [bool(task.problem) for task in tasks] == [True, False, True]


def test_an_image_without_a_relation_to_exposures_costs_itself(monkeypatch):
    from gotorb import label_data

    files = pd.DataFrame({"relatedimage": [7, 7, 8], "filepath": ["e0", "e1", "e2"]})
    asked = []
    monkeypatch.setattr(label_data, "query_exposures", lambda _, related: asked.append(related) or files)
    images = survey_rows(relatedimage=[7, None, 8])
    tasks = jobs.make_tasks(images, label_data._exposure_getter(images), Settings())
    assert [task.exposures for task in tasks] == [("e0", "e1"), (), ("e2",)]
    assert asked == [[7, 8]]


def test_facts_of_an_image_are_kept_by_a_resumed_run(tmp_path, caplog):
    def told(outcome):
        return [result.facts for result in outcome.results]

    options = Options(str(tmp_path / "journal"))
    for _ in range(2):
        outcome = run_images([make_task("im3")], work_with_facts, options, shards_dir=tmp_path / "shards")
        assert told(outcome) == [{"n_expected": 4, "n_matched": 3, "warnings": ["odd"]}]
        assert "image im3: odd" in caplog.text
        caplog.clear()
    assert Path(options.journal).read_text() == "im3\n"


def work_with_facts(task, options):
    table, stamps = work(task, options)
    table.attrs[layout.FACTS_KEY] = {"n_expected": 4, "n_matched": 3, "warnings": ["odd"]}
    return table, stamps
