"""Stamps and decisions from elsewhere: sources of any kind as data sets, a night's audit, Zooniverse's volunteers.

References
----------
Zooniverse, help.zooniverse.org: a subject set is a folder of images and a manifest.csv; the export of
classifications has json in its columns annotations and subject_data.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.classifier.sources import Detections, find_kind, read_detections
from gotorb.core import layout
from gotorb.core.files import file_states, value_digest, write_csv, write_json
from gotorb.core.params import ArchiveParams
from gotorb.dataset.store import Dataset, open_dataset, write_dataset
from gotorb.errors import DataError
from gotorb.eyeball.decisions import Event, Journal, join_votes
from gotorb.stamps.images import draw_strip
from gotorb.survey.alerts import find_packets
from gotorb.visualise.night import (
    AUDIT_CSV,
    AUDIT_DIR,
    CANDIDATES_DIR,
    estimate_missed,
    read_night,
    redraw_night,
)

SUFFIX, SOURCE_JSON = ".eyeball", "source.json"
"""Ending of the folder that is made of a source, next to it, and the identity of the source in there."""
MAGNIFIED, EDGE = 4, 4
"""Screen pixels of a stamp's pixel and between layers in Zooniverse's pictures."""
TRIPLET = ("science", "template", "difference")
MANIFEST, PICTURE, ID = "manifest.csv", "image", "#id"
"""File and columns of a subject set; volunteers do not see columns whose name begins with #."""
ANSWERS = {"real": "real", "yes": "real", "bogus": "bogus", "no": "bogus", "unsure": "unsure", "not sure": "unsure",
           "don't know": "unsure", "i don't know": "unsure"}  # fmt: skip
NAMESPACE = uuid.UUID("6d0f6a3e-6c55-4c0b-9a1e-0c4f3d6a7b52")
"""Of the ids of imported classifications: the same one read twice is one event."""
VERDICT_LABELS = {"real": str(layout.REAL), "bogus": str(layout.BOGUS)}


def open_source(source: Path | str, archive: ArchiveParams, size: int) -> Path:
    """Data set of any source that `gotorb score` reads: the source itself, or one made next to it.

    Parameters
    ----------
    source : path
        Image, folder of images, data set, stamp archive, packets, a night of `gotorb night`, or a stream's folder.
    archive : ArchiveParams
        Layout of stamp archives.
    size : int
        Side of the stamps that are cut from images, pixels.

    Returns
    -------
    Path
        Of an unchanged source the same folder as before, with its decisions.

    Raises
    ------
    DataError
        If there is no such source, or no detection in it.
    """
    source = Path(source)
    if not source.exists():
        raise DataError(f"no {source}; give images, a data set, a stamp archive, alert packets or a night")
    if layout.labels_path(source / CANDIDATES_DIR).exists():
        return source / CANDIDATES_DIR
    if source.is_dir() and layout.labels_path(source).exists():
        return source
    made = source.resolve().with_name(source.resolve().name + SUFFIX)
    told = {"identity": _identity(source, archive, size)}
    known = made / SOURCE_JSON
    if known.exists() and json.loads(known.read_text(encoding="utf-8")) == told and layout.labels_path(made).exists():
        return made
    blocks = (one for part in _parts(source) for one in read_detections(part, archive, size))
    try:
        made.mkdir(exist_ok=True)
        _write_blocks(made, source, blocks)
    except OSError as error:
        raise DataError(f"{made} cannot be written ({error}); copy the source to a folder of yours") from None
    write_json(known, told)
    return made


def _parts(source: Path) -> list[Path]:
    """The source, or the folders of packets in it that a stream has kept."""
    if not source.is_dir() or find_kind(source)[1] or any(map(Path.is_file, source.glob("*.h5"))):
        return [source]
    folders = sorted({path.parent for pattern in ("*.avro", "*.bin") for path in source.rglob(pattern)})
    return [folder for folder in folders if find_packets(folder)] or [source]


def _identity(source: Path, archive: ArchiveParams, size: int) -> str:
    """Digest of the names, sizes and times of a source's files, and of how they are read."""
    found = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    files = [path for path in found if not any(part.endswith(SUFFIX) for part in path.parts)]
    return value_digest([file_states(files), archive.model_dump(mode="json"), size])


def _write_blocks(made: Path, source: Path, blocks: Iterable[Detections]) -> None:
    """Write detections as a data set; their stamps wait on disk, since the rows are only known at the end."""
    tables: list[pd.DataFrame] = []
    shapes: list[tuple[int, ...]] = []
    layers: tuple[str, ...] = ()
    with tempfile.TemporaryFile(dir=made) as waiting:
        for found in blocks:
            if len(found) == 0:
                continue
            layers = layers or tuple(found.layers)
            if tuple(found.layers) != layers or (shapes and found.stamps.shape[1:] != shapes[0][1:]):
                raise DataError(
                    f"{found.name} in {source} has stamps of another kind than the first; open it on its own"
                )
            tables.append(found.table.assign(image_name=found.name))
            shapes.append(found.stamps.shape)
            waiting.write(np.ascontiguousarray(found.stamps, np.float32).tobytes())
        if not tables:
            raise DataError(f"no detection in {source}; give images with a table of detections, or stamps")
        waiting.flush()
        waiting.seek(0)
        stamps = (np.frombuffer(waiting.read(4 * int(np.prod(shape))), np.float32).reshape(shape) for shape in shapes)
        write_dataset(made, _name_rows(pd.concat(tables, ignore_index=True)), stamps, layers=layers)


def _name_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with unique ids, and labels that are known or -1."""
    ids = table["id"].astype(str)
    if ids.duplicated().any() or (ids == "").any():
        ids = table["image_name"] + ":" + ids
    again = ids.groupby(ids).cumcount().astype(str)
    ids = ids.where(again == "0", ids + "-" + again)
    label = pd.to_numeric(table["label"], errors="coerce").fillna(layout.UNKNOWN).astype(int)
    return table.assign(candidate_id=table["id"], id=ids, label=label)


def audit_set(night_dir: Path | str) -> Path:
    """Folder of a night's audit set.

    Parameters
    ----------
    night_dir : path
        The --out-dir of `gotorb night`.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        If the night has none.
    """
    found = Path(night_dir) / AUDIT_DIR
    if not layout.labels_path(found).exists():
        raise DataError(
            f"no {AUDIT_DIR} in {night_dir}; give the --out-dir of `gotorb night`, run with --n-audit above 0"
        )
    return found


def record_audit(night_dir: Path | str, *, journal: Path | str | None = None) -> dict[str, Any]:
    """Fill the labels of a night's audit.csv from the decisions on its audit set, and draw its page again.

    Parameters
    ----------
    night_dir : path
        The --out-dir of `gotorb night`.
    journal : path, optional
        The journal of decisions; eyeball.sqlite of the audit set when left out.

    Returns
    -------
    dict
        As from `gotorb.visualise.night.estimate_missed`; n_shown_labelled and n_shown_real count the shown ones.

    Raises
    ------
    DataError
        If the folder is not that of a night, or no hidden detection is labelled.
    """
    night_dir = Path(night_dir)
    path = audit_set(night_dir) / layout.EYEBALL_DB if journal is None else Path(journal)
    if not path.exists():
        raise DataError(f"no journal {path}; label the audit with `gotorb eyeball {night_dir} --audit`")
    with closing(Journal(path)) as kept:
        verdicts = join_votes(kept.current())["verdict"]
    summary, table = read_night(night_dir)
    audit = pd.read_csv(night_dir / AUDIT_CSV, dtype=str, keep_default_na=False)
    labels = audit["id"].map(verdicts).map(VERDICT_LABELS)
    audit["label"] = np.where(labels.notna(), labels, audit["label"])
    found = estimate_missed(audit, summary["n_hidden"])
    shown = verdicts.reindex(table.loc[table["called_real"] == 1, "id"])
    found |= {
        "n_shown_labelled": int(shown.isin(list(VERDICT_LABELS)).sum()),
        "n_shown_real": int((shown == "real").sum()),
    }
    write_csv(night_dir / AUDIT_CSV, audit, inert=True)
    redraw_night(night_dir, found)
    return found


def tell_missed(found: dict[str, Any], n_hidden: int) -> str:
    """Miss rate with its interval as two lines of text.

    Parameters
    ----------
    found : dict
        As from `record_audit`.
    n_hidden : int
        Detections that were hidden.

    Returns
    -------
    str
    """
    low, high = found["n_missed_interval"]
    rate, lower, upper = (100 * value for value in (found["rate"], *found["interval"]))
    return (
        f"{found['n_labelled']} labelled, {rate:.2f} % of the hidden are real ({lower:.2f} to {upper:.2f} %)\n"
        f"of {n_hidden} hidden detections about {found['n_missed']} are real ({low} to {high})"
    )


def write_subjects(data: Dataset, rows: np.ndarray, out_dir: Path | str) -> Path:
    """Write stamps as a subject set of Zooniverse: a picture of each row and manifest.csv, without labels and scores.

    Parameters
    ----------
    data : Dataset
    rows : ndarray of int
        Row numbers.
    out_dir : path
        Folder; made when absent.

    Returns
    -------
    Path
        The manifest.
    """
    from PIL import Image

    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    layers = tuple(name for name in TRIPLET if name in data.layers) or data.layers[: len(TRIPLET)]
    names = [f"{number:06d}.png" for number in range(len(rows))]
    at = 0
    for _, stamps in data.batches(rows, layers=layers):
        for stamp in stamps:
            parts = np.split(draw_strip(stamp, layers), len(layers), axis=1)
            white = np.full((data.size, 1, 3), 255, np.uint8)
            strip = np.hstack([piece for part in parts for piece in (white, part)][1:])
            Image.fromarray(strip.repeat(MAGNIFIED, 0).repeat(MAGNIFIED, 1)).save(out_dir / names[at])
            at += 1
    return write_csv(out_dir / MANIFEST, pd.DataFrame({PICTURE: names, ID: data.ids[rows]}), inert=True)


def read_classifications(path: Path | str) -> Iterator[Event]:
    """Classifications of a Zooniverse export as events; answers are recognised by their text (`ANSWERS`).

    Parameters
    ----------
    path : path
        The csv of "classification export".

    Yields
    ------
    Event
        Labeller ``zooniverse:`` and the user's name; those with another answer are left out.

    Raises
    ------
    DataError
        If the columns or their json are not those of an export.
    """
    needed = ["classification_id", "user_name", "created_at", "annotations", "subject_data"]
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[needed]
        for one in table.itertuples(index=False):
            kind = _answer(json.loads(str(one.annotations)))
            for subject in json.loads(str(one.subject_data)).values():
                if kind is not None and ID in subject:
                    yield _event(one, str(subject[ID]), kind)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} is no classification export ({error}); give the csv of Zooniverse's data exports"
        ) from None


def _answer(annotations: list[dict[str, Any]]) -> str | None:
    """Label of the first task whose answer is known."""
    words = (str(task.get("value", "")).strip().strip(".!").lower() for task in annotations)
    return next((ANSWERS[word] for word in words if word in ANSWERS), None)


def _event(one: Any, id_: str, kind: str) -> Event:
    name = uuid.uuid5(NAMESPACE, f"{one.classification_id} {id_}")
    return Event(
        uuid=str(name), labeller=f"zooniverse:{one.user_name}"[:64], id=id_, kind=kind, blind=True,
        sequence="zooniverse", made_at=str(one.created_at)[:40],
    )  # fmt: skip


def import_classifications(data_dir: Path | str, path: Path | str, journal_path: Path) -> Counter[str]:
    """Add a Zooniverse export to the journal of a data set; what is in there already is not added again.

    Parameters
    ----------
    data_dir : path
    path : path
        As for `read_classifications`.
    journal_path : Path
        The journal of decisions.

    Returns
    -------
    Counter of str
        Classifications by label, and ``other rows``: those of subjects that are not in the data set.

    Raises
    ------
    DataError
        If the file is no export, or none of its rows is in the data set.
    """
    ids = set(open_dataset(data_dir).ids)
    events = list(read_classifications(path))
    known = [event for event in events if event.id in ids]
    if not known:
        raise DataError(f"{path} has no answer of {', '.join(sorted(set(ANSWERS.values())))} on a row of {data_dir}; "
                        f"check the column {ID} of its subjects")  # fmt: skip
    with closing(Journal(journal_path)) as journal:
        journal.append(known)
    return Counter(event.kind for event in known) + Counter({"other rows": len(events) - len(known)})
