"""Labels by annotators: a csv of candidate ids and labels, for instance scraped from a marshall."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.untrusted import check_header
from gotorb.errors import DataError
from gotorb.labels.image import LabelOptions, check_exposures, cut_rows
from gotorb.labels.jobs import ImageTask
from gotorb.survey.fits import open_frame
from gotorb.survey.ids import find_bad_id

log = logging.getLogger(__name__)
LARGEST_ID = 2**63 - 1
ID_COLUMN, IMAGE_COLUMN, LABEL_COLUMN = "photometry_id", "image_id", "label"
KEYS = (ID_COLUMN, IMAGE_COLUMN)
LABEL_WORDS = {"1": layout.REAL, "1.0": layout.REAL, "true": layout.REAL,
               "0": layout.BOGUS, "0.0": layout.BOGUS, "false": layout.BOGUS}  # fmt: skip


class CandidateRow(NamedTuple):
    """A candidate of the survey's database with the label by an annotator."""

    id: str
    x: float
    y: float
    ra: float
    dec: float
    mag: float
    fwhm: float
    realbogus: float
    label: int


@dataclass(frozen=True, kw_only=True)
class MarshallTask(ImageTask):
    """An image and its labelled candidates."""

    candidates: tuple[CandidateRow, ...] = ()


def read_label_rows(path: Path | str) -> pd.DataFrame:
    """Lines of a csv of labels; ids are taken as text, exactly.

    Parameters
    ----------
    path : path
        csv with the columns photometry_id and label (1 real, 0 bogus). A column image_id tells candidates apart
        whose ids start again in each image.

    Returns
    -------
    DataFrame
        photometry_id and image_id (text, "" where the csv has none) and label (int), each candidate once.

    Raises
    ------
    DataError
        If a column is absent, an id is blank or was a float, a label is neither 1 nor 0, or an id has two labels.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w+", suffix=".csv") as file:
    ...     print("photometry_id,label", "10000051,1", sep="\\n", file=file, flush=True)
    ...     rows = read_label_rows(file.name)
    >>> rows[["photometry_id", "label"]].values.tolist()
    [['10000051', 1]]
    """
    try:
        check_header(Path(path))
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as csv ({str(error).strip()}); give photometry_id,label") from None
    absent = [name for name in (ID_COLUMN, LABEL_COLUMN) if name not in table]
    if absent:
        raise DataError(f"no column {absent[0]!r} in {path} (has {', '.join(map(str, table.columns))}); rename it")
    rows = table.reindex(columns=list(KEYS), fill_value="").apply(lambda column: column.str.strip())
    if problem := find_bad_id(rows[ID_COLUMN], unique=False):
        raise DataError(f"{path} has {problem}; write ids as text or whole numbers, as the data set has them")
    words = table[LABEL_COLUMN].str.strip().str.lower()
    odd = ~words.isin(LABEL_WORDS)
    if odd.any():
        raise DataError(
            f"label {table[LABEL_COLUMN][odd].iloc[0]!r} of id {rows[ID_COLUMN][odd].iloc[0]} in {path}; "
            "labels are 1 or 0"
        )
    rows[LABEL_COLUMN] = words.map(LABEL_WORDS).astype(int)
    labels = rows.groupby(list(KEYS), sort=False)[LABEL_COLUMN].agg(["min", "max", "size"]).reset_index()
    torn = labels[ID_COLUMN][labels["min"] != labels["max"]]
    if len(torn):
        raise DataError(f"id {torn.iloc[0]} has both labels in {path} ({len(torn)} such ids); keep one line of each")
    tell_ids(labels[ID_COLUMN][labels["size"] > 1], f"stand in {path} more than once, with one label")
    return labels[list(KEYS)].assign(**{LABEL_COLUMN: labels["min"]})


def read_labels(path: Path | str) -> pd.Series:
    """Labels by candidate id of the survey's database, where an id is a whole number and names one candidate.

    Parameters
    ----------
    path : path
        As for `read_label_rows`.

    Returns
    -------
    Series
        int labels, indexed by int candidate id in ascending order, each id once.

    Raises
    ------
    DataError
        As `read_label_rows`; also if an id is no whole number.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     print("photometry_id,label\\n12,1\\n7,0", file=file, flush=True)
    ...     read_labels(file.name).to_dict()
    {7: 0, 12: 1}
    """
    rows = read_label_rows(path)
    whole = rows[ID_COLUMN].str.fullmatch(r"[+-]?\d{1,19}")
    odd = rows[ID_COLUMN][~whole | (rows[ID_COLUMN].where(whole, "0").map(int).abs() > LARGEST_ID)]
    if len(odd):
        raise DataError(f"id {odd.iloc[0]!r} in {path} is no candidate id; ids are whole numbers")
    labels = rows.assign(**{ID_COLUMN: rows[ID_COLUMN].map(int)}).groupby(ID_COLUMN)[LABEL_COLUMN].agg(["min", "max"])
    torn = labels.index[labels["min"] != labels["max"]]
    if len(torn):
        raise DataError(f"id {torn[0]} has both labels in {path} ({len(torn)} such ids); keep one line of each")
    return labels["min"].astype("int64")


def tell_ids(ids: Iterable[Any], what: str) -> None:
    """Log all ids that have something in common.

    Parameters
    ----------
    ids : iterable
    what : str
        End of the sentence "n ids ...".

    Examples
    --------
    >>> tell_ids([], "are in no image")  # logs a warning for one id or more
    """
    if ids := list(map(str, ids)):
        log.warning("%d ids %s: %s", len(ids), what, ", ".join(ids))


def _held(table: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """A data set's own rows of labelled candidates; a synthetic transient only carries its minor planet's id."""
    real_ones = ~table["metalabel"].isin(layout.SYNTHETIC)
    return table[real_ones & table["candidate_id"].isin(labels.index.astype(str))]


def find_relabelled(table: pd.DataFrame, csv_path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose label differs from that in a csv.

    Parameters
    ----------
    table : DataFrame
        Rows of a data set.
    csv_path : path
        As for `read_label_rows`.

    Returns
    -------
    rows, labels : ndarray of int
        Row numbers and new labels.

    Raises
    ------
    DataError
        As `read_label_rows`; also if an id is in several images and the csv does not tell which.

    Examples
    --------
    >>> import tempfile
    >>> rows = pd.DataFrame({"candidate_id": ["7", "12"], "image_id": "visit", "metalabel": "randjunk", "label": 0})
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     print("photometry_id,label\\n12,1\\n7,0", file=file, flush=True)
    ...     [part.tolist() for part in find_relabelled(rows, file.name)]
    [[1], [1]]
    """
    wanted = read_label_rows(csv_path)
    rows = table.reset_index(drop=True)
    rows = rows[~rows["metalabel"].isin(layout.SYNTHETIC)]
    held = pd.DataFrame(
        {"row": rows.index, ID_COLUMN: rows["candidate_id"].astype(str), "held": rows[LABEL_COLUMN].to_numpy(int)}
    )
    held[IMAGE_COLUMN] = rows[IMAGE_COLUMN].astype(str) if IMAGE_COLUMN in rows else ""
    alone = wanted[IMAGE_COLUMN] == ""
    found = pd.concat(
        [
            held.merge(wanted[~alone], on=list(KEYS)),
            _one_image_each(held.merge(wanted[alone].drop(columns=IMAGE_COLUMN), on=ID_COLUMN), csv_path),
        ]
    )
    found = found[found["held"] != found[LABEL_COLUMN]].sort_values("row")
    return found["row"].to_numpy(int), found[LABEL_COLUMN].to_numpy(int)


def _one_image_each(found: pd.DataFrame, csv_path: Path | str) -> pd.DataFrame:
    """Refuse labels by ids that start again in each image."""
    n_images = found.groupby(ID_COLUMN)[IMAGE_COLUMN].nunique()
    shared = n_images.index[n_images > 1]
    if len(shared):
        raise DataError(
            f"id {shared[0]} in {csv_path} is in {n_images[shared[0]]} images of the data set ({len(shared)} such "
            f"ids); add the column {IMAGE_COLUMN}"
        )
    return found


def leave_known(labels: pd.Series, table: pd.DataFrame) -> pd.Series:
    """Labels of the candidates that a data set does not hold yet.

    Parameters
    ----------
    labels : Series
        From `read_labels`.
    table : DataFrame
        Rows of the data set.

    Returns
    -------
    Series

    Raises
    ------
    DataError
        If the data set holds one with the other label.

    Examples
    --------
    >>> labels = pd.Series({1: 1, 2: 0})
    >>> table = pd.DataFrame({"candidate_id": ["1"], "metalabel": ["mp"], "label": [1]})
    >>> leave_known(labels, table).to_dict()
    {2: 0}
    """
    held = _held(table, labels)
    theirs = labels.reindex(held["candidate_id"].astype(int)).to_numpy()
    torn = held["candidate_id"][(held["label"] != theirs).to_numpy()]
    if len(torn):
        raise DataError(
            f"id {torn.iloc[0]} has the other label in the data set ({len(torn)} such ids); "
            "clean_data.relabel() gives rows the labels of a csv"
        )
    tell_ids(held["candidate_id"], "are in the data set already")
    return labels.drop(held["candidate_id"].astype(int).unique())


def make_marshall_tasks(images: Sequence[ImageTask], candidates: pd.DataFrame, labels: pd.Series) -> list[MarshallTask]:
    """Give each image its labelled candidates.

    Parameters
    ----------
    images : sequence of ImageTask
    candidates : DataFrame
        candidate_id, image_id and the fields of `CandidateRow`.
    labels : Series
        Label by candidate id.

    Returns
    -------
    list of MarshallTask

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> candidate = {"candidate_id": [7], "x": 50.0, "y": 50.0, "ra": 23.0, "dec": 4.0, "mag": 18.0, "fwhm": 4.7}
    >>> candidates = pd.DataFrame(candidate | {"realbogus": 0.5, "image_id": "visit"})
    >>> (task,) = make_marshall_tasks([read_task("images/visit.fits")], candidates, pd.Series({7: 1}))
    >>> task.candidates[0].id, task.candidates[0].label
    ('7', 1)
    """
    rows = candidates.assign(label=labels.reindex(candidates["candidate_id"]).to_numpy(), id=candidates["candidate_id"])
    of_image = dict(tuple(rows.astype({"image_id": str, "id": str}).groupby("image_id")))
    tasks = []
    for image in images:
        values = of_image[image.image_id][list(CandidateRow._fields)].itertuples(index=False, name=None)
        tasks.append(MarshallTask(**vars(image), candidates=tuple(CandidateRow(*row) for row in values)))
    return tasks


def cut_candidates(task: MarshallTask, options: LabelOptions) -> tuple[pd.DataFrame, np.ndarray]:
    """Cut the stamps of one image's labelled candidates.

    Parameters
    ----------
    task : MarshallTask
    options : LabelOptions

    Returns
    -------
    table : DataFrame
        Columns of `layout.LABEL_COLUMNS`.
    stamps : ndarray
        (n, size, size, 6), float32.

    Raises
    ------
    ImageError
        As for `label_image`.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> task = read_task("images/visit.fits")
    >>> candidate = CandidateRow("7", 50.0, 50.0, task.ra_c, task.dec_c, 18.0, 4.7, 0.5, 1)
    >>> table, stamps = cut_candidates(MarshallTask(**vars(task), candidates=(candidate,)), LabelOptions(provider=None))
    >>> table["metalabel"].tolist(), stamps.shape
    (['marshall'], (1, 55, 55, 6))
    """
    check_exposures(task)
    rows = pd.DataFrame(task.candidates, columns=list(CandidateRow._fields))
    known = rows["label"] != layout.UNKNOWN
    rows = rows.assign(
        metalabel=np.where(known, "marshall", ""),
        number="",
        object_id="",
        rule=np.where(known, f"{ID_COLUMN} in a list of labels", ""),
    )
    with open_frame(task.path) as frame:
        return cut_rows(task, frame, rows, options, catalogue="")
