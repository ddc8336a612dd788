"""One bad image or one dead worker costs that image at most, and finished work is never done twice."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb import layout
from gotorb.core.executor import Workers
from gotorb.dataset.store import open_dataset, run_folder
from gotorb.errors import CatalogueError, DataError, MissingPart
from gotorb.labels.jobs import ImageTask, make_shards, run_images


@dataclass(frozen=True)
class Options:
    journal: str
    deadly: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    once: bool = False


def make_tasks(n=6):
    return [ImageTask(f"im{i}", f"im{i}.fits", (), f"im{i}.fits", (), 0.0, 0.0, 2459000.5, "1") for i in range(n)]


def work(task, options):
    journal = Path(options.journal)
    with journal.open("a") as file:
        file.write(f"{task.image_id}\n")
    tried_before = journal.read_text().split().count(task.image_id) > 1
    if task.image_id in options.deadly and not (options.once and tried_before):
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
    tasks = [ImageTask("fatal", "f", (), "f", (), 0.0, 0.0, 0.0, ""), *make_tasks(3)]
    with pytest.raises(CatalogueError, match="no catalogue"):
        run_images(tasks, work, Options(str(tmp_path / "j")), shards_dir=tmp_path / "s", workers=Workers(2, chunk=2))


def test_worker_that_dies_once_costs_a_retry(tmp_path):
    options = Options(str(tmp_path / "journal"), deadly=("im3",), once=True)
    outcome = run_images(make_tasks(), work, options, shards_dir=tmp_path / "shards", workers=Workers(2, chunk=2))
    assert outcome.skipped == []
    assert len(outcome.shards) == 6


def test_image_that_kills_every_worker_is_skipped_alone(tmp_path):
    options = Options(str(tmp_path / "journal"), deadly=("im3",))
    outcome = run_images(make_tasks(), work, options, shards_dir=tmp_path / "shards", workers=Workers(2, chunk=2))
    assert [one.image_id for one in outcome.skipped] == ["im3"]
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
