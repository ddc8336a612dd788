"""Make labelled data sets from a survey's own images: the front door.

To use another survey, replace what differs before calling `make`::

    from gotorb import label_data

    label_data.get_images = my_images              # my_images(n_images) -> DataFrame
    label_data.get_individual_images = my_exposures  # my_exposures(row) -> list of file names
    label_data.DIFFERENCE_PHOT_EXT = "SOURCES"
    label_data.make(n_images=100)

Replacements are read once, when `make` starts, and hold in its worker processes too.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.params import ArchiveParams
from gotorb.settings import read_settings

log = logging.getLogger(__name__)

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
"""Our column name to the survey's, where they differ: x, y (0-based), ra, dec, mag, id, fwhm, snr, realbogus."""


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
    """
    from gotorb.survey.gotophoto import query_images

    return query_images(read_settings(), n_images)


def get_individual_images(image: pd.Series) -> list[str]:
    """File names of the single exposures that one difference image was made of.

    Replace it for another survey.

    Parameters
    ----------
    image : Series
        One row of `get_images`.
    """
    from gotorb.survey.gotophoto import query_exposures

    return query_exposures(read_settings(), [int(image["relatedimage"])])["filepath"].tolist()


def make(
    n_images: int = 100,
    out_dir: Path | str = ".",
    *,
    name: str | None = None,
    provider: str = "skybot",
    search_radius_deg: float = 1.8,
    match_radius_arcsec: float = 1.0,
    mag_limit: float = 20.2,
    min_realbogus: float | None = None,
    max_bogus_realbogus: float | None = None,
    extra_bogus_per_image: int = 4,
    stamp_size: int = 55,
    n_processes: int = 1,
    seed: int = 0,
) -> Path:
    """Make a labelled data set: minor planets are real, random unmatched detections bogus.

    Parameters
    ----------
    n_images : int
        Difference images to use at most.
    out_dir : path
        Where the data set's folder is made.
    name : str, optional
        Name of the folder; ``data_YYYYMMDD-HHMMSS`` when left out. Give the name of a run that was killed, with
        the same parameters, to go on with it: finished images are kept.
    provider : {"skybot", "pympc"}
        Who knows minor planets. pympc works offline with a catalogue from `pympc.update_catalogue()`.
    search_radius_deg : float
        Radius around an image's centre in which minor planets are asked for.
    match_radius_arcsec : float
        Largest distance of a detection from its minor planet.
    mag_limit : float
        Faintest minor planet (V) that makes a label.
    min_realbogus, max_bogus_realbogus : float, optional
        Cuts on the survey's old score, for minor planets and for bogus (0.01 and 0.6 in GOTO's recipe). They
        teach the new classifier what the old one believed, so they are off unless asked for.
    extra_bogus_per_image : int
        Bogus detections wanted in an image beyond the number of minor planets.
    stamp_size : int
        Side of a stamp in pixels, odd.
    n_processes : int
        Worker processes.
    seed : int
        Decides which detections are drawn as bogus.

    Returns
    -------
    Path
        The data set's folder, with a log, data_labels.csv, data_stamps.h5 and image.csv.

    Raises
    ------
    DataError
        If no image gave a label, or another run is at work in the folder.
    DatabaseError, CatalogueError
        If the survey's database or the catalogue cannot be used.
    """
    from gotorb.catalogues.minor_planets import make_provider
    from gotorb.labels.image import LabelOptions, label_image
    from gotorb.labels.rules import MatchRules
    from gotorb.labels.runs import make_shards, run_folder, write_images
    from gotorb.labels.tasks import make_tasks

    settings = read_settings()
    options = LabelOptions(
        provider=make_provider(provider, settings),
        rules=MatchRules(match_radius_arcsec, mag_limit, min_realbogus, max_bogus_realbogus, extra_bogus_per_image),
        search_radius_deg=search_radius_deg,
        stamp_size=stamp_size,
        extensions=_extensions(),
        detection_columns=dict(DETECTION_COLUMNS),
        seed=seed,
    )
    with run_folder(out_dir, name) as data_dir:
        tasks = make_tasks(get_images(n_images), get_individual_images, settings)
        write_images(data_dir, tasks)
        make_shards(data_dir, tasks, label_image, options, n_processes=n_processes, title="label")
    return data_dir


def add_synthetic_transients(
    data_dir: Path | str,
    *,
    out_dir: Path | str | None = None,
    name: str | None = None,
    n_per_image: int = 12,
    jitter_arcsec: float = 7.0,
    search_radius_arcsec: float = 600.0,
    min_mag: float = 16.0,
    max_mag: float = 19.5,
    max_galaxy_mag: float = 18.0,
    n_residuals_per_transient: float = 1.0,
    negative_fraction: float = 0.0,
    n_processes: int = 1,
    seed: int = 0,
) -> Path:
    """Add simulated transients (a minor planet on a galaxy) and galaxy residuals to a data set.

    The data set given is not changed: a new one holds its rows and the new ones behind them. Needs the GLADE
    catalogue in catsHTM format (CATSHTM_DIR in .env).

    Parameters
    ----------
    data_dir : path
        A data set made by `make`.
    out_dir : path, optional
        Where the new folder is made; beside the old one when left out.
    name : str, optional
        As for `make`.
    n_per_image : int
        Transients of one image at most.
    jitter_arcsec : float
        Largest offset from the galaxy's centre (half of it for residuals).
    search_radius_arcsec : float
        How far from its minor planet a host may lie.
    min_mag, max_mag : float
        Magnitudes of the minor planets used.
    max_galaxy_mag : float
        Faintest galaxy (B).
    n_residuals_per_transient : float
        Bare galaxies wanted for each transient.
    negative_fraction : float
        Fraction of the transients that fade instead: their light is in the template and gone from the science
        image (metalabel synfading). Minor planets alone teach that every negative detection is bogus.
    n_processes, seed
        As for `make`.

    Returns
    -------
    Path
        The new data set's folder.
    """
    from gotorb.dataset.store import open_dataset
    from gotorb.labels.runs import make_shards, read_images, run_folder
    from gotorb.labels.synthetic import SyntheticOptions, make_synthetic, make_synthetic_tasks

    settings, data = read_settings(), open_dataset(data_dir)
    options = SyntheticOptions(
        settings.catshtm_dir, n_per_image, jitter_arcsec, search_radius_arcsec, min_mag, max_mag,
        max_galaxy_mag, n_residuals_per_transient, negative_fraction, data.size, _extensions(),
        dict(DETECTION_COLUMNS), seed,
    )  # fmt: skip
    with run_folder(out_dir or Path(data_dir).parent, name) as new_dir:
        tasks = make_synthetic_tasks(read_images(data_dir, settings), data.table)
        before = (data.table, (stamps for _, stamps in data.batches()))
        make_shards(new_dir, tasks, make_synthetic, options, n_processes=n_processes, title="synthetic", before=before)
    return new_dir


def add_marshall_cands(
    csv_path: Path | str,
    data_dir: Path | str,
    *,
    out_dir: Path | str | None = None,
    name: str | None = None,
    n_processes: int = 1,
) -> Path:
    """Add candidates that people labelled to a data set.

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
        The new data set's folder; its log lists the ids that the database does not know.

    Raises
    ------
    DataError
        If the csv is malformed, an id has two labels, or the database knows none of the ids.
    DatabaseError
        If the database cannot be reached.
    """
    from gotorb.dataset.store import open_dataset
    from gotorb.errors import DataError
    from gotorb.labels.marshall import cut_candidates, make_marshall_tasks, read_labels
    from gotorb.labels.runs import make_shards, run_folder
    from gotorb.labels.tasks import make_tasks
    from gotorb.survey.gotophoto import query_candidates, query_images_by_id

    settings, data, labels = read_settings(), open_dataset(data_dir), read_labels(csv_path)
    candidates = query_candidates(settings, [int(id_) for id_ in labels.index])
    if candidates.empty:
        raise DataError(f"the database knows none of the {len(labels)} ids in {csv_path}; are they candidate ids?")
    images = query_images_by_id(settings, sorted({int(id_) for id_ in candidates["image_id"]}))
    tasks = make_marshall_tasks(make_tasks(images, get_individual_images, settings), candidates, labels)
    absent = sorted(set(labels.index) - set(candidates["candidate_id"]))
    with run_folder(out_dir or Path(data_dir).parent, name) as new_dir:
        if absent:
            log.warning("%d ids of %s are not in the database: %s", len(absent), csv_path, ", ".join(map(str, absent)))
        before = (data.table, (stamps for _, stamps in data.batches()))
        options = cut_options(data.size)
        make_shards(new_dir, tasks, cut_candidates, options, n_processes=n_processes, title="marshall", before=before)
    return new_dir


def cut_image(path: Path | str, *, stamp_size: int = 55) -> tuple[pd.DataFrame, np.ndarray]:
    """Stamps of every detection of one difference image; its single exposures lie beside it.

    Parameters
    ----------
    path : path
        FITS file whose header names jd, ncoadd and the exposures coadd1, coadd2, ...
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
        If a file is absent, truncated or lacks a part.
    """
    from gotorb.labels.image import cut_detections
    from gotorb.labels.tasks import read_task

    return cut_detections(read_task(path, ext=SCIENCE_IMAGE_EXT), cut_options(stamp_size))


def import_stamps(
    path: Path | str, archive: ArchiveParams, *, out_dir: Path | str = ".", name: str | None = None
) -> Path:
    """Make a labelled data set of stamps that somebody else cut.

    Parameters
    ----------
    path : path
        Folder of a stamp archive (one hdf5, one csv), or of alert packets (``*.avro``).
    archive : ArchiveParams
        Section ``label.archive`` of params.yaml: files, columns and rules.
    out_dir, name
        As for `make`.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    DataError
        If files are missing or broken, a column is absent, or no row gets a label.
    """
    from gotorb.labels.archive import label_archive
    from gotorb.labels.runs import run_folder, write_stamps
    from gotorb.survey.stamps import open_stamps

    source = open_stamps(path, archive)
    rows = label_archive(source.table, archive)
    with run_folder(out_dir, name) as data_dir:
        write_stamps(data_dir, rows, source)
    return data_dir


def cut_options(stamp_size: int) -> Any:
    """Options for cutting stamps without labels, with this module's HDU names as they are now."""
    from gotorb.catalogues.minor_planets import Pympc
    from gotorb.labels.image import LabelOptions

    nobody = Pympc("", read_settings().observatory)  # cutting without labels asks for no minor planets
    return LabelOptions(
        nobody, stamp_size=stamp_size, extensions=_extensions(), detection_columns=dict(DETECTION_COLUMNS)
    )


def _extensions() -> Any:
    """This module's HDU names as they are now, replaced or not."""
    from gotorb.stamps.layers import Extensions

    return Extensions(
        SCIENCE_IMAGE_EXT, TEMPLATE_IMAGE_EXT, DIFFERENCE_IMAGE_EXT, DIFFERENCE_PHOT_EXT, INDIVIDUAL_IMAGE_EXT
    )
