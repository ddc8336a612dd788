"""A labelling run: its images, the work on each of them, and the data set made of their shards.

Each image ends in its own shard or in a state that says why not; one bad image or one dead worker never stops a run.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.constants import MJD_ZERO
from gotorb.core.executor import HERE, Executor, Workers
from gotorb.core.files import content_states, file_states, value_digest, write_csv
from gotorb.core.settings import Settings
from gotorb.dataset.card import data_digest
from gotorb.dataset.folder import check_recipe, unfinished
from gotorb.dataset.store import Dataset
from gotorb.errors import DataError, GotorbError, ImageError, LookupFailed, MissingPart, OutsideStorage
from gotorb.labels.shards import assemble, read_shard_table, remove_shards, shard_path, write_shard
from gotorb.survey.fits import open_frame
from gotorb.survey.gotophoto import storage_path
from gotorb.survey.ids import find_bad_id, is_blank

log = logging.getLogger(__name__)
NEEDED = ("id", "filepath", "ra_c", "dec_c", "jd")
"""Columns that a survey's table of images must have."""
TASK_COLUMNS = ("image_id", "filepath", "exposures", "ra_c", "dec_c", "jd", "ut")
TEXT_COLUMNS = ("image_id", "filepath", "exposures", "ut")
"""Columns of a data set's list of images that tell the task, and those of text."""


@dataclass(frozen=True, kw_only=True)
class ImageTask:
    """A difference image and its single exposures, as plain values that travel to processes.

    Attributes
    ----------
    image_id : str
        Id in the survey.
    filepath, exposures : str, tuple of str
        The survey's own names of the files, as they go into the data set.
    path, exposure_paths : str, tuple of str
        Places of the files on this machine.
    ra_c, dec_c : float
        Centre, deg, ICRS.
    jd : float
        Mid-exposure, UTC.
    ut : str
        Unit telescope.
    problem : str
        Why the image is refused before it is opened; "" for most.
    problem_state : str
        State in which it then ends.
    stacked_only : bool
        True for an image of a survey that has no single exposures of it.
    """

    image_id: str
    filepath: str
    exposures: tuple[str, ...]
    path: str
    exposure_paths: tuple[str, ...]
    ra_c: float
    dec_c: float
    jd: float
    ut: str
    problem: str = ""
    stacked_only: bool = False
    problem_state: str = "refused"

    @property
    def epoch_mjd(self) -> float:
        """Mid-exposure, MJD, UTC."""
        return self.jd - MJD_ZERO

    def fingerprint(self, options: Any) -> str:
        """Short digest of everything that decides this image's shard: files' sizes and times, options, catalogues.

        Parameters
        ----------
        options : dataclass
            Of the work; its attribute `catalogues`, if it has one, names versions of catalogues.

        Returns
        -------
        str
        """
        files = file_states((self.path, *self.exposure_paths))
        return value_digest((astuple(self), files, asdict(options), getattr(options, "catalogues", ())))


@dataclass(frozen=True)
class Done:
    """An image whose shard is on disk."""

    image_id: str
    shard: str
    n_rows: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """``labelled``, or ``empty`` when the image gave no row."""
        return layout.LABELLED if self.n_rows else layout.EMPTY


@dataclass(frozen=True)
class Skipped:
    """An image that gave no rows: its state is one of `layout.FAILED_STATES`, the reason is for the log."""

    image_id: str
    path: str
    reason: str
    state: str

    n_rows = 0

    @property
    def facts(self) -> dict[str, Any]:
        """Nothing is known about it."""
        return {}


Result = Done | Skipped
Work = Callable[[Any, Any], tuple[pd.DataFrame, np.ndarray]]
"""``work(task, options) -> (table, stamps)``: a module-level function, since it travels to processes."""


@dataclass(frozen=True)
class Outcome:
    """Results of all images, in the order of the tasks."""

    results: tuple[Result, ...]

    @property
    def shards(self) -> list[Path]:
        """Shards of the finished images."""
        return [Path(result.shard) for result in self.results if isinstance(result, Done)]

    @property
    def skipped(self) -> list[Skipped]:
        """Images without a shard."""
        return [result for result in self.results if isinstance(result, Skipped)]

    @property
    def states(self) -> dict[str, int]:
        """Number of images in each state that occurs, in the order of `layout.IMAGE_STATES`."""
        counts = Counter(result.state for result in self.results)
        return {state: counts[state] for state in layout.IMAGE_STATES if counts[state]}


def make_tasks(
    images: pd.DataFrame,
    get_exposures: Callable[[Any], Sequence[str]],
    settings: Settings,
    *,
    needs_exposures: bool = True,
) -> list[ImageTask]:
    """Turn the rows of `get_images` into tasks.

    Parameters
    ----------
    images : DataFrame
        id, filepath, ra_c, dec_c (deg), jd (mid-exposure, UTC) and, when known, instrument.
    get_exposures : callable
        Gives the file names of the single exposures of one row.
    settings : Settings
        Tell where the files are.
    needs_exposures : bool
        False for a survey that may have no single exposures of an image, and files outside the storage directory.

    Returns
    -------
    list of ImageTask
        In the order of the rows. An image whose exposures or paths are not known carries its `problem`.

    Raises
    ------
    DataError
        If there is no image, or one is there twice.
    MissingPart
        If a needed column is absent.

    Examples
    --------
    >>> from gotorb.core.settings import read_settings
    >>> images = pd.DataFrame({"id": ["visit"], "filepath": "images/visit.fits", "ra_c": 23.0, "dec_c": 4.0})
    >>> (task,) = make_tasks(images.assign(jd=2457804.5), lambda image: [], read_settings(), needs_exposures=False)
    >>> task.image_id, task.epoch_mjd, task.stacked_only
    ('visit', 57804.0, True)
    """
    if len(images) == 0:
        raise DataError("get_images() gave no difference image; check the database or your own get_images()")
    absent = [name for name in NEEDED if name not in images]
    if absent:
        raise MissingPart(
            f"no column {absent[0]!r} in the table of images (has {', '.join(images.columns)}); "
            f"label_data.get_images() must give {', '.join(NEEDED)}"
        )
    twice = images["id"].astype(str).duplicated() & ~is_blank(images["id"])
    if twice.any():
        raise DataError(f"duplicate image {images['id'][twice].iloc[0]!r} in the table of images; give each id once")
    place = partial(storage_path, settings=settings, anywhere=not needs_exposures)
    tasks = [_make_task(row, get_exposures, place) for _, row in images.iterrows()]
    return tasks if needs_exposures else [replace(task, stacked_only=not task.exposures) for task in tasks]


def _make_task(
    row: pd.Series, get_exposures: Callable[[Any], Sequence[str]], place: Callable[[str], Path]
) -> ImageTask:
    filepath, problem, state = str(row["filepath"]), find_bad_id(pd.Series([row["id"]])), "refused"
    if problem:
        problem = f"{problem}; get_images() must give text or whole numbers"
    exposures: tuple[str, ...] = ()
    places: tuple[str, ...] = ("",)
    try:
        exposures = tuple(str(name) for name in get_exposures(row))
        places = tuple(str(place(name)) for name in (filepath, *exposures))
    except OutsideStorage as error:
        problem, state = str(error), error.state
    except GotorbError:
        raise  # the database or a setting: every image would fail alike
    except Exception as error:
        problem = f"get_individual_images() failed on image {row['id']} ({type(error).__name__}: {error}); fix it"
    return ImageTask(
        image_id=str(row["id"]),
        filepath=filepath,
        exposures=exposures,
        path=places[0],
        exposure_paths=places[1:],
        ra_c=_number(row["ra_c"]),
        dec_c=_number(row["dec_c"]),
        jd=_number(row["jd"]),
        ut=_unit_telescope(row.get("instrument", "")),
        problem=problem,
        problem_state=state,
    )


def _number(value: Any) -> float:
    """A number, NaN for anything else: the image is refused when it is opened."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def read_task(path: Path | str, *, ext: str = "IMAGE") -> ImageTask:
    """Task of a single file: epoch and exposures come from its header (jd, coadd1, coadd2, ...).

    Parameters
    ----------
    path : path
        FITS file of a difference image; its exposures lie in the same folder.
    ext : str
        HDU whose header and WCS hold for the image; missing keys are read from the first HDU.

    Returns
    -------
    ImageTask
        The task.

    Raises
    ------
    MissingPart
        If a header key is absent.

    Examples
    --------
    >>> task = read_task("images/visit.fits")
    >>> task.image_id, task.epoch_mjd, [Path(name).name for name in task.exposure_paths]
    ('visit', 57804.0, ['visit_1.fits', 'visit_2.fits'])
    """
    path = Path(path)
    with open_frame(path) as frame:
        n_coadd, jd = int(frame.key("ncoadd", ext, 0)), float(frame.key("jd", ext, 0))
        names = [str(frame.key(f"coadd{i + 1}", ext, 0)) for i in range(n_coadd)]
        instrument = str(frame.header(ext).get("instrume", frame.header(0).get("instrume", "")))
        centre = frame.centre(ext)
    beside = tuple(str(path.parent / Path(name).name) for name in names)
    return ImageTask(
        image_id=path.stem,
        filepath=str(path),
        exposures=tuple(names),
        path=str(path),
        exposure_paths=beside,
        ra_c=centre[0],
        dec_c=centre[1],
        jd=jd,
        ut=_unit_telescope(instrument),
    )


def _unit_telescope(instrument: object) -> str:
    """The digit at the end of an instrument's name, "" for none."""
    last = str(instrument)[-1:]
    return last if last.isdigit() else ""


def run_images(
    tasks: Sequence[ImageTask],
    work: Work,
    options: Any,
    *,
    shards_dir: Path,
    workers: Workers = HERE,
    title: str = "",
) -> Outcome:
    """Do the work of every image, each into its own shard; shards that are there already are kept.

    Parameters
    ----------
    tasks : sequence of ImageTask
        Images.
    work : callable
        See `Work`.
    options : dataclass
        Same for all images.
    shards_dir : Path
        Where the shards go.
    workers : Workers
        Executor options.
    title : str
        Of the progress bar.

    Returns
    -------
    Outcome
        State of each image.

    Raises
    ------
    DataError
        If shards cannot be written, or a cluster's workers write them where they are not seen here.

    Examples
    --------
    >>> import tempfile
    >>> from gotorb.labels.image import LabelOptions, cut_detections
    >>> options = LabelOptions(provider=None, stamp_size=21)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run_images([read_task("images/visit.fits")], cut_detections, options, shards_dir=Path(folder)).states
    {'labelled': 1}
    """
    job = partial(_do_image, work=work, options=options, shards_dir=Path(shards_dir).resolve())
    with Executor(workers) as executor:
        outcome = Outcome(tuple(executor.map(job, tasks, crashed=_crashed, title=title, unit="image")))
    for skipped in outcome.skipped:
        log.warning("skipped image %s (%s): %s", skipped.image_id, skipped.state, skipped.reason)
    for result in outcome.results:
        for odd in result.facts.get("warnings", ()):
            log.warning("image %s: %s", result.image_id, odd)
    unseen = next((path for path in outcome.shards if not path.exists()), None)
    if unseen:
        raise DataError(f"shard {unseen} was written elsewhere; the cluster's workers must share {unseen.parent}")
    return outcome


def _crashed(task: ImageTask) -> Skipped:
    return Skipped(task.image_id, task.path, "workers died on it again and again; label it alone", "crashed")


def _do_image(task: ImageTask, *, work: Work, options: Any, shards_dir: Path) -> Result:
    """Label one image, or find it done; every problem of the image ends in a state, never in an exception."""
    if task.problem:
        return Skipped(task.image_id, task.filepath, task.problem, task.problem_state)
    path = shard_path(shards_dir, task.image_id, task.fingerprint(options))
    if path.exists():
        table = read_shard_table(path)
        return Done(task.image_id, str(path), len(table), table.attrs.get(layout.FACTS_KEY, {}))
    try:
        table, stamps = work(task, options)
    except (ImageError, LookupFailed) as error:
        return Skipped(task.image_id, task.path, str(error), error.state)
    except GotorbError:
        raise  # a setting or a catalogue: every image would fail alike
    except Exception as error:
        log.exception("image %s", task.image_id)
        reason = f"{type(error).__name__}: {error} on {task.path}; look at the file, or report this as a bug"
        return Skipped(task.image_id, task.path, reason, "failed")
    write_shard(path, table, stamps)
    return Done(task.image_id, str(path), len(table), table.attrs.get(layout.FACTS_KEY, {}))


def make_shards(
    data_dir: Path,
    tasks: Sequence[ImageTask],
    work: Work,
    options: Any,
    *,
    title: str,
    workers: Workers = HERE,
    before: Dataset | None = None,
) -> Outcome:
    """Work through the images and join their shards to the data set in `data_dir`.

    Parameters
    ----------
    data_dir : Path
        Folder from `dataset.store.run_folder`.
    tasks, work, options, workers, title
        As for `run_images`.
    before : Dataset, optional
        Its rows, stamps and images stand before the new ones.

    Returns
    -------
    Outcome
        State of each image; the shards are gone.

    Raises
    ------
    DataError
        If no image could be used, or the folder holds a finished data set of other images, options or catalogues.

    Examples
    --------
    >>> import tempfile
    >>> from gotorb.labels.image import LabelOptions, cut_detections
    >>> options = LabelOptions(provider=None, stamp_size=21)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = make_shards(Path(folder), [read_task("images/visit.fits")], cut_detections, options, title="cut")
    ...     sorted(path.name for path in Path(folder).glob("data_*"))
    ['data_labels.csv', 'data_stamps.h5']
    """
    shards_dir = data_dir / layout.SHARDS_DIR
    recipe = {
        "work": title,
        "options": (asdict(options), getattr(options, "catalogues", ())),
        "images": [astuple(task) for task in tasks],
        "files": [content_states((task.path, *task.exposure_paths)) for task in tasks],
        "parent": None if before is None else data_digest(before.data_dir),
    }
    check_recipe(data_dir, recipe)
    log.info("%s: %d images into %s", title, len(tasks), data_dir)
    outcome = run_images(tasks, work, options, shards_dir=shards_dir, workers=workers, title=title)
    if outcome.skipped and not outcome.shards:
        raise DataError(f"none of {len(tasks)} images could be used; the first: {outcome.skipped[0].reason}")
    with unfinished(data_dir, recipe):
        assemble(data_dir, outcome.shards, before=before)
        _write_images(data_dir, tasks, outcome, before=before)
    remove_shards(shards_dir)
    log.info("%s: %s", title, ", ".join(f"{n} images {state}" for state, n in outcome.states.items()))
    return outcome


def _write_images(data_dir: Path, tasks: Sequence[ImageTask], outcome: Outcome, *, before: Dataset | None) -> None:
    """List the images that a data set was made of, by the survey's own names, with the state of each.

    Images of the data set before stay as they are there.
    """
    rows = [
        {name: getattr(task, name) for name in TASK_COLUMNS}
        | {"exposures": json.dumps(task.exposures), "state": result.state, "n_rows": result.n_rows}
        | {name: result.facts.get(name) for name in layout.FACT_COLUMNS}
        for task, result in zip(tasks, outcome.results, strict=True)
    ]
    images = pd.DataFrame(rows)
    if before is not None and (before.data_dir / layout.IMAGES_CSV).exists():
        known = pd.read_csv(before.data_dir / layout.IMAGES_CSV, dtype=str, keep_default_na=False)
        images = pd.concat([known, images[~images["image_id"].isin(known["image_id"])].astype(str)])
    write_csv(data_dir / layout.IMAGES_CSV, images)


def read_images(data_dir: Path | str, settings: Settings) -> list[ImageTask]:
    """Images that a data set was made of, with their files' places on this machine.

    Parameters
    ----------
    data_dir : path
        A data set made by `label_data.make`.
    settings : Settings
        Tell where the files are.

    Returns
    -------
    list of ImageTask
        Those whose files are within the storage directory.

    Raises
    ------
    DataError
        If the data set has no list of images.

    Examples
    --------
    >>> import tempfile
    >>> from gotorb.core.settings import read_settings
    >>> from gotorb.labels.image import LabelOptions, cut_detections
    >>> options = LabelOptions(provider=None, stamp_size=21)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = make_shards(Path(folder), [read_task("images/visit.fits")], cut_detections, options, title="cut")
    ...     [task.image_id for task in read_images(folder, read_settings())]
    ['visit']
    """
    path = Path(data_dir) / layout.IMAGES_CSV
    if not path.exists():
        raise DataError(f"no {path.name} in {data_dir}; give a data set made by label_data.make()")
    images = pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, na_values=[""])
    images[list(TEXT_COLUMNS)] = images[list(TEXT_COLUMNS)].fillna("")
    tasks = []
    for row in images.itertuples(index=False):
        exposures = tuple(json.loads(row.exposures))
        try:
            places = tuple(str(storage_path(name, settings)) for name in (row.filepath, *exposures))
        except OutsideStorage:
            continue  # it gave no row
        known = {name: getattr(row, name) for name in TASK_COLUMNS if name != "exposures"}
        files: dict[str, Any] = {"exposures": exposures, "path": places[0], "exposure_paths": places[1:]}
        tasks.append(ImageTask(**known, **files, stacked_only=not exposures))
    return tasks
