"""Sources of any kind in eyeball, and subjects and volunteers of Zooniverse."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb import eyeball
from gotorb.classifier.sources import IMAGES, find_kind, read_detections
from gotorb.core import layout
from gotorb.core.params import ArchiveParams
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError
from gotorb.eyeball.decisions import AGAIN, GOLD, ITSELF, Event, Journal
from gotorb.eyeball.exchange import open_source
from gotorb.eyeball.rows import GAP, GOLD_EVERY, Probes, read_gold
from gotorb.stamps.images import paint_stamps
from tests.unit.apps.small import SIZE, make_small
from tests.unit.cli.conftest import Said, gotorb, project  # noqa: F401
from tests.unit.survey.synthetic import write_archive, write_packet

ARCHIVE = ArchiveParams()


def check_opened(source: Path, archive: ArchiveParams, size: int) -> Path:
    """The data set of a source has its rows and its pixels, in its order, and is made once."""
    made = open_source(source, archive, size)
    data, parts = open_dataset(made), list(read_detections(source, archive, size))
    assert made == source.with_name(f"{source.name}.eyeball") and len(data) == sum(map(len, parts))
    assert len(set(data.ids)) == len(data) and set(data.labels) <= {-1, 0, 1}
    np.testing.assert_array_equal(data.read_stamps(np.arange(len(data))), np.concatenate([one.stamps for one in parts]))
    before = layout.stamps_path(made).stat().st_mtime_ns
    Journal(made / layout.EYEBALL_DB).append([Event(uuid="1", labeller="ann", id=data.ids[0], kind="real")])
    assert open_source(source, archive, size) == made and layout.stamps_path(made).stat().st_mtime_ns == before
    return made


def test_an_image_and_a_folder_of_images(tmp_path: Path, tiny_survey: Path) -> None:
    shutil.copytree(tiny_survey, tmp_path / "survey")
    folders = (path for path in sorted((tmp_path / "survey").rglob("*")) if path.is_dir())
    folder, other = [path for path in folders if find_kind(path)[0] == IMAGES][:2]
    for path in other.iterdir():
        shutil.copy(path, folder)
    image = find_kind(folder)[1][0]
    check_opened(image, ARCHIVE, 31)
    made = check_opened(folder, ARCHIVE, 31)
    n = len(open_dataset(made))
    find_kind(folder)[1][-1].unlink()
    assert open_source(folder, ARCHIVE, 31) == made and len(open_dataset(made)) < n
    with closing(Journal(made / layout.EYEBALL_DB)) as kept:
        assert len(kept.current()) == 1  # decisions stay when the source has changed


def test_packets_also_in_the_folders_of_a_stream(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / "stream" / "packets" / "ztf_1" / str(number % 2) / "0"
        for place in (folder, tmp_path / "plain"):
            place.mkdir(parents=True, exist_ok=True)
            write_packet(place / f"{number}.avro", candid=number + 1)
    opened = open_dataset(open_source(tmp_path / "stream", ARCHIVE, 63))
    assert sorted(opened.table["candidate_id"].astype(str)) == ["1", "2", "3", "4"]
    check_opened(tmp_path / "plain", ARCHIVE, 63)


def test_an_archive(tmp_path: Path) -> None:
    check_opened(write_archive(tmp_path / "archive", 7), ARCHIVE, 63)


def test_a_data_set_is_itself_and_nothing_is_told(tmp_path: Path) -> None:
    data_dir = make_small(tmp_path / "data")
    assert open_source(data_dir, ARCHIVE, SIZE) == data_dir
    with pytest.raises(DataError, match="absent"):
        open_source(tmp_path / "absent", ARCHIVE, SIZE)


@pytest.mark.parametrize("repeated", [0.0, 0.1])
def test_gold_rows_and_repeats_are_spread_among_the_others(repeated: float) -> None:
    gold = (3, 50, 51, 900)
    probes, ordered = Probes(1000, gold, repeated), np.arange(200)
    mixed = probes.mix(ordered, 7)
    assert sorted(set(mixed % 1000)) == sorted({*range(200), *gold})
    np.testing.assert_array_equal(mixed, probes.mix(ordered, 7))
    place = {row: at for at, row in enumerate(mixed)}
    assert max(place[row] for row in gold) < len(gold) * (GOLD_EVERY + 2)
    again = mixed[mixed >= 1000]
    assert len(again) == int((202 - GAP) * repeated) and all(place[row] - place[row - 1000] >= GAP for row in again)
    rest = [row for row in mixed if row < 1000 and row not in gold]
    assert rest == [row for row in range(200) if row not in gold]


def test_accuracy_on_gold_rows_and_agreement_with_oneself(
    tmp_path: Path,
    gotorb: Callable[..., Said],  # noqa: F811
) -> None:
    data_dir = make_small(tmp_path / "data")
    gold = tmp_path / "gold.csv"
    gold.write_text("id,label\nrow-0001,real\nrow-0002,bogus\nrow-0003,1\nrow-0004,0\nabsent,1\n")
    said = [("row-0001", "real"), ("row-0002", "real"), ("row-0003", "real"), ("row-0004", "unsure"),
            (f"row-0001{AGAIN}", "real"), (f"row-0002{AGAIN}", "bogus"), ("row-0009", "real")]  # fmt: skip
    with closing(Journal(data_dir / layout.EYEBALL_DB)) as journal:
        journal.append(Event(uuid=str(i), labeller="ann", id=id_, kind=kind) for i, (id_, kind) in enumerate(said))
    found = eyeball.agreement(data_dir, gold=gold).set_index("second")
    assert found.loc[GOLD, ["n", "percent"]].tolist() == [3, pytest.approx(200 / 3)]
    assert found.loc[ITSELF, ["n", "percent"]].tolist() == [2, 50]
    assert "(gold rows)" in gotorb("eyeball", "agreement", str(data_dir), "--gold", str(gold)).out
    assert AGAIN not in "".join(pd.read_csv(eyeball.export(data_dir, name="new") / layout.EYEBALL_CSV)["id"])
    for text, told in (
        ("id\nrow-0001\n", "label"),
        ("id,label\nrow-0001,maybe\n", "maybe"),
        ("id,label\nx,1\n", "none"),
    ):
        gold.write_text(text)
        with pytest.raises(DataError, match=told):
            read_gold(gold, open_dataset(data_dir).table)


def test_subjects_show_the_stretch_and_tell_no_label(tmp_path: Path, gotorb: Callable[..., Said]) -> None:  # noqa: F811
    from PIL import Image

    data_dir = make_small(tmp_path / "data")
    (tmp_path / "ids.csv").write_text("id\nrow-0007\nrow-0002\n")
    said = gotorb(
        "eyeball",
        "to-zooniverse",
        str(data_dir),
        "--out-path",
        str(tmp_path / "s"),
        "--rows",
        str(tmp_path / "ids.csv"),
    )
    manifest = pd.read_csv(said.out.strip())
    assert manifest.columns.tolist() == ["image", "#id"] and manifest["#id"].tolist() == ["row-0007", "row-0002"]
    picture = np.asarray(Image.open(tmp_path / "s" / manifest["image"].iloc[0]))[::4, ::4]
    layers = ("science", "template", "difference")
    wanted = paint_stamps(open_dataset(data_dir).read_stamps([7], layers), layers)[0, :, ::-1]
    for number in range(3):
        np.testing.assert_array_equal(picture[:, number * (SIZE + 1) : number * (SIZE + 1) + SIZE], wanted[number])


def classification(number: int, id_: str, answer: str, user: str = "vera") -> dict[str, str]:
    return {"classification_id": str(number), "user_name": user, "user_id": "", "workflow_id": "1",
            "created_at": "2026-11-28 05:00:00 UTC", "metadata": "{}", "subject_ids": str(100 + number),
            "annotations": json.dumps([{"task": "T0", "task_label": "What is it?", "value": answer}]),
            "subject_data": json.dumps({str(100 + number): {"retired": None, "#id": id_}})}  # fmt: skip


def test_classifications_become_decisions_once(tmp_path: Path, gotorb: Callable[..., Said]) -> None:  # noqa: F811
    data_dir, export = make_small(tmp_path / "data"), tmp_path / "export.csv"
    rows = [classification(1, "row-0001", "Real"), classification(2, "row-0001", "bogus", "paul"),
            classification(3, "row-0002", "Not sure."), classification(4, "elsewhere", "Real"),
            classification(5, "row-0003", "a dog")]  # fmt: skip
    pd.DataFrame(rows).to_csv(export, index=False)
    for _ in range(2):
        said = gotorb("eyeball", "from-zooniverse", str(data_dir), "--classifications", str(export))
        assert said.out.strip() == "1 real, 1 bogus, 1 unsure, 1 other rows"
    with closing(Journal(data_dir / layout.EYEBALL_DB)) as journal:
        events = journal.events()
    assert events[["labeller", "id", "kind"]].to_numpy().tolist() == [
        ["zooniverse:vera", "row-0001", "real"], ["zooniverse:paul", "row-0001", "bogus"],
        ["zooniverse:vera", "row-0002", "unsure"]]  # fmt: skip
    export.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="export"):
        eyeball.import_classifications(data_dir, export)
