"""Make labelled data sets from a survey's own images: the front door.

To use another survey, replace what differs before calling `make`::

    from gotorb import label_data

    label_data.get_images = my_images              # my_images(n_images) -> DataFrame
    label_data.get_individual_images = my_exposures  # my_exposures(row) -> list of file names
    label_data.DIFFERENCE_PHOT_EXT = "SOURCES"
    label_data.make(n_images=100)

Replacements are read once, when `make` starts, and hold in its worker processes too. In a file of their own, the
adapter, they hold for every command: GOTORB_ADAPTER=mysurvey.py in .env, or ``--adapter mysurvey.py``.
"""

import logging
import os
import runpy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.catalogues.crossmatch import find_nearest
from gotorb.catalogues.expected import find_problems, summarise
from gotorb.catalogues.minor_planets import make_provider
from gotorb.catalogues.variables import read_variables
from gotorb.core import layout
from gotorb.core.executor import Workers
from gotorb.core.params import SEED, CheckParams, CleanParams, LabelParams, SyntheticParams
from gotorb.core.settings import project_root, read_settings
from gotorb.dataset.store import open_dataset, run_folder
from gotorb.errors import ConfigError, DatabaseError, DataError, GotorbError, ImageError, OutsideStorage, SurveyError
from gotorb.labels.image import FileLayout, LabelOptions, MatchRules, cut_detections, label_image
from gotorb.labels.inspection import inspect_image
from gotorb.labels.jobs import make_shards, make_tasks, read_images, read_task
from gotorb.labels.marshall import cut_candidates, leave_known, make_marshall_tasks, read_labels, tell_ids
from gotorb.labels.shards import remove_shards
from gotorb.labels.synthetic import SyntheticOptions, make_synthetic, make_synthetic_tasks
from gotorb.stamps.layers import Extensions
from gotorb.survey.fits import open_frame
from gotorb.survey.folder import read_image
from gotorb.survey.gotophoto import query_candidates, query_exposures, query_images, query_images_by_id, storage_path

log = logging.getLogger(__name__)
LABEL, SYNTHETIC, CLEAN, CHECK = LabelParams(), SyntheticParams(), CleanParams(), CheckParams()

SCIENCE_IMAGE_EXT = "IMAGE"
"""HDU of the median science image, in the file of a difference image."""
TEMPLATE_IMAGE_EXT = "TEMPLATE"
"""HDU of the template."""
DIFFERENCE_IMAGE_EXT = "DIFFERENCE"
"""HDU of the difference image."""
DIFFERENCE_PHOT_EXT = "PHOTOMETRY_DIFF"
"""HDU of the table of detections."""
INDIVIDUAL_IMAGE_EXT = "IMAGE"
"""HDU of the image in the file of a single exposure."""
DETECTION_COLUMNS: dict[str, str] = {}
"""Our column name to the survey's, where they differ: x, y, ra, dec, mag, id, fwhm, snr, realbogus, isdiffpos."""
FIRST_PIXEL = 0
"""x and y of the first pixel's centre in the table of detections: 0, or 1 as SExtractor counts."""
SINGLE_EXPOSURES = True
"""False for a survey without single exposures: ptp is 0 then, min and max are the science image."""
JD_KEY: str | None = None
"""Header key of the middle of the exposure, for images that get_images() does not list; None: the standard keys."""


def get_images(n_images: int) -> pd.DataFrame:
    """Difference images to label, from the gotophoto database.

    Replace it for another survey.

    Parameters
    ----------
    n_images : int
        At most this many.

    Returns
    -------
    DataFrame
        id, filepath, ra_c, dec_c (deg, centre), jd (mid-exposure, UTC), instrument (last digit: unit telescope)
        and whatever `get_individual_images` needs.

    Raises
    ------
    DatabaseError
        If the database cannot be reached.

    Examples
    --------
    >>> get_images(100)[["id", "filepath", "jd"]]  # doctest: +SKIP
    """

    return query_images(read_settings(), n_images)


def get_individual_images(image: pd.Series) -> list[str]:
    """File names of the single exposures that one difference image was made of.

    Replace it for another survey.

    Parameters
    ----------
    image : Series
        One row of `get_images`.

    Returns
    -------
    list of str

    Examples
    --------
    >>> get_individual_images(get_images(1).iloc[0])  # doctest: +SKIP
    """

    return query_exposures(read_settings(), [int(image["relatedimage"])])["filepath"].tolist()


_OWN_IMAGES, _OWN_GETTER = get_images, get_individual_images
_ADAPTED: list[str] = []
"""The adapter in force."""
_KNOWN: dict[Any, tuple[float, dict[str, pd.Series]]] = {}
"""Images of an adapter's get_images(), by their place, and when it was asked."""
MANY_IMAGES = 10**9
"""More than any survey has: to find images by their files."""


def adapt(path: Path | str) -> None:
    """Run a Python file that replaces what differs in your survey; commands do so with --adapter or GOTORB_ADAPTER.

    Parameters
    ----------
    path : path
        File that sets `get_images`, `get_individual_images` and constants of this module.

    Raises
    ------
    ConfigError
        If there is no such file, or it fails.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     adapter = Path(folder) / "mysurvey.py"
    ...     _ = adapter.write_text("print('names my HDUs and columns')")
    ...     adapt(adapter)
    names my HDUs and columns
    """

    if not Path(path).is_file():
        raise ConfigError(
            f"no adapter {path}; correct label.adapter in params.yaml, GOTORB_ADAPTER in .env or --adapter"
        )
    try:
        runpy.run_path(str(Path(path).resolve()), run_name="gotorb_adapter")
    except Exception as error:
        raise ConfigError(f"adapter {path} failed ({type(error).__name__}: {error}); fix it") from error
    _ADAPTED[:] = [str(Path(path).resolve())]


def use_adapter(path: Path | str | None = None) -> None:
    """Run the adapter that is given, else the one that GOTORB_ADAPTER names, unless this was done before.

    Functions that the caller replaced by hand win over GOTORB_ADAPTER. A path in .env is relative to the project's
    folder. Worker processes get the same adapter.

    Parameters
    ----------
    path : path, optional

    Raises
    ------
    ConfigError
        As for `adapt`.

    Examples
    --------
    >>> use_adapter()  # none is named here
    """
    wanted = path or read_settings().gotorb_adapter
    if not wanted:
        return
    place = Path(wanted).expanduser()
    place = (place if path or place.is_absolute() else project_root() / place).resolve()
    if path:
        os.environ["GOTORB_ADAPTER"] = str(place)
    if str(place) not in _ADAPTED and (path or not is_adapted()):
        adapt(place)


def is_adapted() -> bool:
    """True when images or exposures come from functions of your own.

    Examples
    --------
    >>> is_adapted()
    False
    """
    return get_images is not _OWN_IMAGES or get_individual_images is not _OWN_GETTER


def describe_image(path: Path | str) -> Any:
    """Place, time and single exposures of one difference image.

    Parameters
    ----------
    path : path
        FITS file. With an adapter it is a row of its get_images(), else its headers tell centre and time; its
        get_individual_images() gives the exposures. Without one the header must have jd, ncoadd and the names of the
        exposures coadd1, coadd2, ..., which lie next to it.

    Returns
    -------
    labels.jobs.ImageTask

    Raises
    ------
    ImageError
        If the file cannot be read, or its place, time or exposures are not known.

    Examples
    --------
    >>> describe_image("images/visit.fits").epoch_mjd
    57804.0
    """

    use_adapter()
    if not is_adapted():
        return read_task(path, ext=SCIENCE_IMAGE_EXT)
    row = _find_row(Path(path))
    row = read_image(path, ext=DIFFERENCE_IMAGE_EXT, jd_key=JD_KEY) if row is None else row
    images = pd.DataFrame([row])
    (task,) = make_tasks(images, _exposure_getter(images), read_settings(), needs_exposures=False)
    if task.problem:
        raise ImageError(task.problem)
    return replace(task, path=str(path))


def find_footprint(path: Path | str) -> tuple[float, float, float]:
    """Centre of a difference image, and its distance from the farthest corner.

    Parameters
    ----------
    path : path
        FITS file.

    Returns
    -------
    ra, dec, radius : float
        deg, ICRS.

    Raises
    ------
    ImageError
        If the file cannot be read or has no WCS.

    Examples
    --------
    >>> ra, dec, radius = find_footprint("images/visit.fits")
    >>> round(radius, 4)
    0.0246
    """

    use_adapter()
    with open_frame(Path(path)) as frame:
        ny, nx = frame.shape(DIFFERENCE_IMAGE_EXT)
        ra, dec = frame.centre(DIFFERENCE_IMAGE_EXT)
        x, y = np.array([-0.5, nx - 0.5, -0.5, nx - 0.5]), np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
        corners = frame.to_sky(DIFFERENCE_IMAGE_EXT, x, y)
    return ra, dec, float(find_nearest(*corners, [ra], [dec])[1].max()) / 3600


def _find_row(path: Path) -> pd.Series | None:
    """Row of the adapter's get_images() for a file; it is asked again for a file that is newer than its answer."""

    place = str(path.resolve())
    asked, rows = _KNOWN.get(get_images, (0.0, {}))
    if place not in rows and (not asked or (path.exists() and path.stat().st_mtime > asked)):
        asked = time.time()
        try:
            rows = _rows_by_place(get_images(MANY_IMAGES))
        except DatabaseError:
            raise
        except SurveyError as error:  # no images where it looks: a night may lie elsewhere
            log.debug("get_images() of the adapter: %s", error)
        except GotorbError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"get_images() failed for {path} ({reason}); fix the adapter") from error
        _KNOWN.clear()
        _KNOWN[get_images] = asked, rows
    return rows.get(place)


def _rows_by_place(images: pd.DataFrame) -> dict[str, pd.Series]:

    settings, rows = read_settings(), {}
    for _, row in images.iterrows() if "filepath" in images else ():
        try:
            rows[str(Path(storage_path(str(row["filepath"]), settings)).resolve())] = row
        except OutsideStorage:
            continue
    return rows


def make(
    n_images: int = LABEL.n_images,
    out_dir: Path | str = ".",
    *,
    name: str | None = None,
    provider: str = LABEL.provider,
    search_radius_deg: float = LABEL.search_radius_deg,
    match_radius_arcsec: float = LABEL.match_radius_arcsec,
    mag_limit: float = LABEL.mag_limit,
    min_realbogus: float | None = LABEL.min_realbogus,
    max_bogus_realbogus: float | None = LABEL.max_bogus_realbogus,
    extra_bogus_per_image: int = LABEL.extra_bogus_per_image,
    check_expected: bool = LABEL.check_expected,
    stamp_size: int = LABEL.stamp_size,
    n_processes: int = LABEL.n_processes,
    chunk: int = LABEL.chunk,
    resume: bool = True,
    seed: int = SEED,
) -> Path:
    """Make a labelled data set: minor planets are real, random unmatched detections bogus.

    Parameters
    ----------
    n_images : int
        Difference images to use at most.
    out_dir : path
        Where the data set's folder is made.
    name : str, optional
        Name of the folder; ``data_YYYYMMDD-HHMMSS`` when left out. The name of an
        interrupted run, with the same parameters, resumes it: finished images are kept.
    provider : {"skybot", "pympc"}
        Provider of minor planets. pympc works offline with a catalogue from `pympc.update_catalogue()`.
    search_radius_deg : float
        Smallest radius around an image's centre in which minor planets are asked for; a larger image is searched
        whole.
    match_radius_arcsec : float
        Largest distance of a detection from its minor planet.
    mag_limit : float
        Faintest minor planet (V) that makes a label.
    min_realbogus, max_bogus_realbogus : float, optional
        Cuts on the survey's old score, for minor planets and for bogus (0.01 and 0.6 in GOTO's recipe). They
        teach the new classifier the opinion of the old one, so they are off by default.
    extra_bogus_per_image : int
        Bogus detections wanted in an image beyond the number of minor planets.
    check_expected : bool
        Stop when the minor planets that should be on the images are not detected, or at a common offset.
    stamp_size : int
        Side of a stamp in pixels, odd.
    n_processes : int
        Worker processes. Where DASK_SCHEDULER_ADDRESS is set, the workers of that cluster do the work instead;
        they must see the survey's files and `out_dir` under the same paths.
    chunk : int
        Images that a worker takes at a time.
    resume : bool
        False discards the finished images of an interrupted run of this name.
    seed : int
        Decides which detections are drawn as bogus.

    Returns
    -------
    Path
        The data set's folder, with a log, data_labels.csv, data_stamps.h5, their SHA256SUMS, and image.csv, which
        has the final state of each image (`layout.IMAGE_STATES`).

    Raises
    ------
    DataError
        If no image gave a label, the expected minor planets were not found (the data set is written then), another
        run is at work in the folder, or the disk is full.
    DatabaseError, CatalogueError
        If the survey's database or the catalogue cannot be used.

    Examples
    --------
    >>> make(n_images=100, provider="pympc", name="first")  # doctest: +SKIP
    """

    use_adapter()
    settings = read_settings()
    workers = Workers(n_processes, chunk, settings.dask_scheduler_address)
    options = LabelOptions(
        provider=make_provider(provider, settings),
        rules=MatchRules(match_radius_arcsec, mag_limit, min_realbogus, max_bogus_realbogus, extra_bogus_per_image),
        search_radius_deg=search_radius_deg,
        check_expected=check_expected,
        stamp_size=stamp_size,
        files=_files(),
        seed=seed,
    )
    with run_folder(out_dir, name) as data_dir:
        if not resume:
            remove_shards(data_dir / layout.SHARDS_DIR)
        images = get_images(n_images)
        tasks = make_tasks(images, _exposure_getter(images), settings, needs_exposures=not is_adapted())
        outcome = make_shards(data_dir, tasks, label_image, options, workers=workers, title="label")
        _check_found([result.facts for result in outcome.results], options, data_dir)
    return data_dir


def check(
    paths: Sequence[Path | str] = (),
    out_dir: Path | str | None = None,
    *,
    n_images: int = CHECK.n_images,
    provider: str = LABEL.provider,
    search_radius_deg: float = LABEL.search_radius_deg,
    match_radius_arcsec: float = LABEL.match_radius_arcsec,
    mag_limit: float = LABEL.mag_limit,
    stars: Path | str | None = CHECK.stars,
) -> list[Any]:
    """Check a few images as `make` does, before a run: the first step with an own survey.

    Parameters
    ----------
    paths : sequence of path
        Difference images; those of `get_images` are known by their file, others are read by their header. The first
        `n_images` of `get_images` when there is none.
    out_dir : path, optional
        Folder for a picture of each image: catalogued minor planets (and stars) drawn on the difference.
    n_images : int
        Images to take when `paths` is empty.
    provider, search_radius_deg, match_radius_arcsec, mag_limit
        As for `make`.
    stars : path, optional
        Catalogue of stars (csv or FITS with ra and dec) to draw.

    Returns
    -------
    list of Inspection
        One for each image; its `state` is ``ok`` or that in which `make` would leave the image.

    Raises
    ------
    DatabaseError, CatalogueError
        If the survey's database or the catalogue cannot be used.

    Examples
    --------
    >>> (found,) = check(["images/visit.fits"], provider="pympc")
    >>> found.state, found.found.n_expected, found.found.n_matched
    ('ok', 1, 1)
    """

    use_adapter()
    options = LabelOptions(
        provider=make_provider(provider, read_settings()),
        rules=MatchRules(match_radius_arcsec, mag_limit),
        search_radius_deg=search_radius_deg,
        files=_files(),
    )
    known = None if stars is None else read_variables(stars)
    results = []
    for task in _find_tasks(paths, n_images):
        inspection, figure = inspect_image(task, options, stars=known)
        if figure is not None and out_dir is not None:
            Path(out_dir).mkdir(parents=True, exist_ok=True)
            figure.savefig(Path(out_dir) / f"{Path(task.path).name}.png", dpi=100)
        results.append(inspection)
    return results


def _find_tasks(paths: Sequence[Path | str], n_images: int) -> list[Any]:
    """Tasks of images by their files, or of the first images of the survey."""

    use_adapter()
    if paths:
        return [describe_image(path) for path in paths]
    images = get_images(n_images)
    tasks = make_tasks(images, _exposure_getter(images), read_settings(), needs_exposures=not is_adapted())
    return tasks[:n_images]


def _check_found(images: list[dict[str, Any]], options: Any, data_dir: Path) -> None:
    """Log the minor planets expected and matched; stop where labels must be wrong."""

    total = summarise(images)
    log.info("matched %d of %d expected minor planets", total["n_matched"], total["n_expected"])
    problem, odd = find_problems(images, radius_arcsec=options.rules.match_radius_arcsec)
    for line in [*odd, *([problem] if problem else [])]:
        log.warning("%s", line)
    if problem and options.check_expected:
        raise DataError(
            f"{problem}; do not train on {data_dir}, or pass check_expected=False if the numbers "
            "are right for your survey"
        )


def add_synthetic_transients(
    data_dir: Path | str,
    *,
    out_dir: Path | str | None = None,
    name: str | None = None,
    n_per_image: int = SYNTHETIC.n_per_image,
    jitter_arcsec: float = SYNTHETIC.jitter_arcsec,
    search_radius_arcsec: float = SYNTHETIC.search_radius_arcsec,
    min_mag: float = SYNTHETIC.min_mag,
    max_mag: float = SYNTHETIC.max_mag,
    max_galaxy_mag: float = SYNTHETIC.max_galaxy_mag,
    n_residuals_per_transient: float = SYNTHETIC.n_residuals_per_transient,
    negative_fraction: float = SYNTHETIC.negative_fraction,
    provider: str | None = CLEAN.provider,
    variables: Path | str | None = CLEAN.variables,
    n_variables_per_image: int = SYNTHETIC.n_variables_per_image,
    n_flashes_per_image: int = SYNTHETIC.n_flashes_per_image,
    snr_of: str | None = SYNTHETIC.snr_of,
    n_processes: int = LABEL.n_processes,
    seed: int = SEED,
) -> Path:
    """Add simulated transients (a minor planet on a galaxy) and galaxy residuals to a data set.

    The data set given is not changed: a new one holds its rows and the new ones behind them. Needs the GLADE
    catalogue in catsHTM format (CATSHTM_DIR in .env).

    Parameters
    ----------
    data_dir : path
        A data set made by `make`.
    out_dir, name : path, str, optional
        As for `make`; next to the old one when left out.
    n_per_image : int
        Transients of one image at most.
    jitter_arcsec : float
        Largest offset from the galaxy's centre (half of it for residuals).
    search_radius_arcsec : float
        Largest distance of a host from its minor planet.
    min_mag, max_mag : float
        Magnitudes of the minor planets used.
    max_galaxy_mag : float
        Faintest galaxy (B).
    n_residuals_per_transient : float
        Bare galaxies wanted for each transient.
    negative_fraction : float
        Fraction of the transients that fade instead, their light being in the template (synfading). Minor planets
        alone teach that every negative detection is bogus.
    provider : {"skybot", "pympc"}, optional
        Provider of minor planets: bare galaxies keep clear of these, as of all detections. None: no check.
    variables : path, optional
        Catalogue of variable stars (csv or FITS) that bare galaxies keep clear of too.
    n_variables_per_image : int
        Known variables of an image, at most, that brighten or fade by a minor planet's light (synvariable).
    n_flashes_per_image : int
        Bogus whose light is in one exposure only (synflash), as that of glints is where exposures are averaged.
    snr_of : {"planets", "detections"}, optional
        Minor planets are dimmed so that the S/N of the new rows follows that of the image's labelled minor planets, or
        of all its detections. None: no dimming.
    n_processes, seed
        As for `make`.

    Returns
    -------
    Path
        The new data set's folder.

    Examples
    --------
    >>> add_synthetic_transients("data_20240101-120000", name="with_transients")  # doctest: +SKIP
    """

    settings, data = read_settings(), open_dataset(data_dir)
    options = SyntheticOptions(
        catshtm_dir=settings.catshtm_dir,
        n_per_image=n_per_image,
        jitter_arcsec=jitter_arcsec,
        search_radius_arcsec=search_radius_arcsec,
        min_mag=min_mag,
        max_mag=max_mag,
        max_galaxy_mag=max_galaxy_mag,
        n_residuals_per_transient=n_residuals_per_transient,
        negative_fraction=negative_fraction,
        provider=None if provider is None else make_provider(provider, settings),
        variables=str(variables or ""),
        n_variables_per_image=n_variables_per_image,
        n_flashes_per_image=n_flashes_per_image,
        snr_of=snr_of,
        stamp_size=data.size,
        files=_files(),
        seed=seed,
    )
    workers = Workers(n_processes, scheduler=settings.dask_scheduler_address)
    with run_folder(out_dir or Path(data_dir).parent, name) as new_dir:
        tasks = make_synthetic_tasks(read_images(data_dir, settings), data.table)
        make_shards(new_dir, tasks, make_synthetic, options, workers=workers, title="synthetic", before=data)
    return new_dir


def add_marshall_cands(
    csv_path: Path | str,
    data_dir: Path | str,
    *,
    out_dir: Path | str | None = None,
    name: str | None = None,
    n_processes: int = LABEL.n_processes,
) -> Path:
    """Add candidates with annotators' labels to a data set.

    The data set given is not changed: a new one holds its rows and the new ones (metalabel marshall) behind them.

    Parameters
    ----------
    csv_path : path
        csv with the columns photometry_id (the database's candidate id) and label (1 real, 0 bogus).
    data_dir : path
        A data set made by `make`; gives the size of the stamps.
    out_dir, name, n_processes
        As for `add_synthetic_transients`.

    Returns
    -------
    Path
        The new data set's folder; its log lists duplicate ids in the csv, ids that are in the data set already,
        and ids that are not in the database.

    Raises
    ------
    DataError
        If the csv is malformed, an id has two labels, in the csv or one there and the other in the data set, or the
        database knows none of the ids.
    DatabaseError
        If the database cannot be reached.

    Examples
    --------
    >>> add_marshall_cands("labels.csv", "data_20240101-120000")  # doctest: +SKIP
    """

    settings, data = read_settings(), open_dataset(data_dir)
    workers = Workers(n_processes, scheduler=settings.dask_scheduler_address)
    with run_folder(out_dir or Path(data_dir).parent, name) as new_dir:
        labels = leave_known(read_labels(csv_path), data.table)
        candidates = query_candidates(settings, [int(id_) for id_ in labels.index])
        if candidates.empty:
            raise DataError(f"no id in {csv_path} is a candidate of the database that is not in {data_dir} already")
        images = query_images_by_id(settings, sorted({int(id_) for id_ in candidates["image_id"]}))
        tell_ids(sorted(set(labels.index) - set(candidates["candidate_id"])), f"of {csv_path} are not in the database")
        tasks = make_marshall_tasks(
            make_tasks(images, _exposure_getter(images), settings, needs_exposures=not is_adapted()), candidates, labels
        )
        options = cut_options(data.size)
        make_shards(new_dir, tasks, cut_candidates, options, workers=workers, title="marshall", before=data)
    return new_dir


def cut_image(path: Path | str, *, stamp_size: int = LABEL.stamp_size) -> tuple[pd.DataFrame, np.ndarray]:
    """Stamps of every detection of one difference image.

    Parameters
    ----------
    path : path
        FITS file, see `describe_image`.
    stamp_size : int
        Side of a stamp in pixels.

    Returns
    -------
    table : DataFrame
        Columns of `layout.LABEL_COLUMNS`; label -1.
    stamps : ndarray
        (n, stamp_size, stamp_size, 6), float32.

    Raises
    ------
    ImageError
        If a file is missing or truncated, or a part of it is missing.

    Examples
    --------
    >>> table, stamps = cut_image("images/visit.fits", stamp_size=21)
    >>> len(table), stamps.shape
    (6, (6, 21, 21, 6))
    """

    return cut_detections(describe_image(path), cut_options(stamp_size))


def cut_options(stamp_size: int) -> Any:
    """Options for cutting stamps without labels, with this module's present HDU names.

    Parameters
    ----------
    stamp_size : int
        Pixels.

    Returns
    -------
    LabelOptions

    Examples
    --------
    >>> cut_options(21).stamp_size
    21
    """

    return LabelOptions(provider=None, stamp_size=stamp_size, files=_files())


def _files() -> Any:
    """Layout of this survey's files, by this module's present names, replaced or not."""

    extensions = Extensions(
        SCIENCE_IMAGE_EXT, TEMPLATE_IMAGE_EXT, DIFFERENCE_IMAGE_EXT, DIFFERENCE_PHOT_EXT, INDIVIDUAL_IMAGE_EXT
    )
    return FileLayout(extensions, dict(DETECTION_COLUMNS), FIRST_PIXEL)


def _exposure_getter(images: pd.DataFrame) -> Callable[[pd.Series], Sequence[str]]:
    """`get_individual_images`; unless it was replaced, one query for all images takes its place."""
    if not SINGLE_EXPOSURES:
        return lambda image: []
    if get_individual_images is not _OWN_GETTER:
        return _found_exposures
    if "relatedimage" not in images:
        return get_individual_images

    known = images["relatedimage"].dropna().astype(int)
    found = query_exposures(read_settings(), known.tolist())
    files = found.groupby("relatedimage")["filepath"].agg(list).to_dict()
    return lambda image: [] if pd.isna(image["relatedimage"]) else files.get(int(image["relatedimage"]), [])


def _found_exposures(image: pd.Series) -> Sequence[str]:
    """Exposures that the adapter names and that are there; all when none is, which the image's state then tells."""

    settings = read_settings()
    names = [str(name) for name in get_individual_images(image) or ()]
    found = [name for name in names if Path(storage_path(name, settings)).exists()]
    if not names:
        log.warning("no single exposures of %s: ptp is 0, min and max are the science image", image["filepath"])
    elif found and len(found) < len(names):
        absent = next(name for name in names if name not in found)
        log.warning("%d of %d single exposures of %s are missing, such as %s: the others are used",
                    len(names) - len(found), len(names), image["filepath"], absent)  # fmt: skip
    return found or names
