"""Remove doubtful rows from a labelled data set: the front door.

Every function leaves the data set given as it is and writes a new version next to it, with changes.csv, which
names each row removed or flipped and the reason; ``gotorb data diff OLD NEW`` shows the sum. `clean` does
several in one pass::

    from gotorb import clean_data

    clean_data.clean("data_20201105-203000", variables="atlas_var.fits", new_sources=True)
"""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from gotorb.catalogues.minor_planets import make_provider
from gotorb.core import layout
from gotorb.core.params import GALAXY_RADIUS_ARCSEC, SEED, CleanParams
from gotorb.core.settings import read_settings
from gotorb.dataset.store import open_dataset, read_table, run_folder
from gotorb.dataset.versions import CHANGE_COLUMNS, flips, removals, write_version
from gotorb.errors import ConfigError
from gotorb.labels import cleaning
from gotorb.labels.jobs import read_images
from gotorb.labels.marshall import find_relabelled

log = logging.getLogger(__name__)
CLEAN = CleanParams()
Action = Literal["remove", "flip"]
Finder = Callable[[Path], pd.DataFrame]


def clean(
    data_dir: Path | str,
    *,
    variables: Path | str | None = CLEAN.variables,
    variable_radius_arcsec: float = CLEAN.variable_radius_arcsec,
    variable_action: Action = CLEAN.variable_action,
    provider: str | None = CLEAN.provider,
    match_radius_arcsec: float = CLEAN.match_radius_arcsec,
    search_radius_deg: float = CLEAN.search_radius_deg,
    new_sources: bool = CLEAN.new_sources,
    galaxy_radius_arcsec: float | None = CLEAN.galaxy_radius_arcsec,
    max_galaxy_mag: float | None = CLEAN.max_galaxy_mag,
    cosmic_rays: bool = CLEAN.cosmic_rays,
    flagged: Path | str | Iterable[str] | None = CLEAN.flagged,
    n_keep: int = CLEAN.n_keep,
    seed: int = SEED,
    out_dir: Path | str | None = None,
    name: str | None = None,
) -> Path:
    """Apply several of the cleanings below in one pass; a row is taken out for the first reason that holds.

    Parameters
    ----------
    data_dir : path
        A data set.
    variables, variable_radius_arcsec, variable_action
        See `remove_variable_stars`; None leaves it out.
    provider, match_radius_arcsec, search_radius_deg
        See `remove_asteroids`; None leaves it out.
    new_sources : bool
        See `remove_new_sources`.
    galaxy_radius_arcsec, max_galaxy_mag
        See `remove_galaxies`; None leaves it out.
    cosmic_rays : bool
        See `remove_cosmic_rays`.
    flagged, n_keep, seed
        See `cap_flagged_images`; None leaves it out.
    out_dir : path, optional
        Parent of the new folder; that of the old one when left out.
    name : str, optional
        Name of the new folder; ``data_YYYYMMDD-HHMMSS`` when left out.

    Returns
    -------
    Path
        The new version's folder.

    Raises
    ------
    DataError
        If the data set cannot be used, or nothing would be left.
    CatalogueError
        If a catalogue cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = clean("data/dataset", flagged=["image-0"], n_keep=2, provider=None, new_sources=False,
    ...                  out_dir=folder)
    ...     len(open_dataset(made).table)  # of 20 rows
    17
    """
    finders: list[Finder] = []
    if variables is not None:
        finders.append(lambda d: _variables(d, variables, variable_radius_arcsec, variable_action))
    if provider is not None:
        finders.append(lambda d: _asteroids(d, provider, match_radius_arcsec, search_radius_deg, "remove"))
    if new_sources:
        finders.append(_new_sources)
    if galaxy_radius_arcsec is not None:
        finders.append(lambda d: _galaxies(d, galaxy_radius_arcsec, max_galaxy_mag))
    if cosmic_rays:
        finders.append(_cosmic_rays)
    if flagged is not None:
        finders.append(lambda d: _surplus(d, flagged, n_keep, seed))
    return _write(data_dir, out_dir, name, finders)


def remove_variable_stars(
    data_dir: Path | str,
    catalogue: Path | str,
    *,
    radius_arcsec: float = CLEAN.variable_radius_arcsec,
    action: Action = CLEAN.variable_action,
    out_dir: Path | str | None = None,
    name: str | None = None,
) -> Path:
    """Take out random bogus at known variable stars, or flip them to real.

    Most detections there are the star's change, the rest poor subtractions, so that flipped rows teach changes
    on a star as no pasted light does. They get the metalabel variable.

    Parameters
    ----------
    data_dir, out_dir, name : path or str
        As for `clean`.
    catalogue : path
        Csv or FITS table with ra and dec (deg).
    radius_arcsec : float
    action : {"remove", "flip"}

    Returns
    -------
    Path
        As for `clean`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = remove_variable_stars("data/dataset", "catalogues/variables.csv", out_dir=folder)
    ...     len(open_dataset(made).table)  # no row is near the star
    20
    """
    return _write(data_dir, out_dir, name, [lambda d: _variables(d, catalogue, radius_arcsec, action)])


def remove_asteroids(
    data_dir: Path | str,
    provider: str = "pympc",
    *,
    match_radius_arcsec: float = CLEAN.match_radius_arcsec,
    search_radius_deg: float = CLEAN.search_radius_deg,
    action: Action = "remove",
    out_dir: Path | str | None = None,
    name: str | None = None,
) -> Path:
    """Take out random bogus at minor planets, or flip them to real.

    Finds objects that were missing in the catalogue of the labelling; run it with a newer one. Flipped rows get the
    metalabel asteroid.

    Parameters
    ----------
    data_dir, out_dir, name : path or str
        As for `clean`.
    provider : {"pympc", "skybot"}
    match_radius_arcsec : float
    search_radius_deg : float
        Of each field.
    action : {"remove", "flip"}

    Returns
    -------
    Path
        As for `clean`.

    Examples
    --------
    >>> remove_asteroids("data_20240101-120000", "pympc")  # doctest: +SKIP
    """
    return _write(
        data_dir, out_dir, name, [lambda d: _asteroids(d, provider, match_radius_arcsec, search_radius_deg, action)]
    )


def remove_new_sources(data_dir: Path | str, *, out_dir: Path | str | None = None, name: str | None = None) -> Path:
    """Take out random bogus that look like unknown asteroids or supernovae.

    Seen in every exposure, mostly new light, as sharp as a star: see `labels.cleaning.find_new_sources`.

    Parameters
    ----------
    data_dir, out_dir, name : path or str
        As for `clean`.

    Returns
    -------
    Path
        As for `clean`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = remove_new_sources("data/dataset", out_dir=folder)
    ...     open_dataset(made).table["metalabel"].unique().tolist()
    ['mp']
    """
    return _write(data_dir, out_dir, name, [_new_sources])


def remove_galaxies(
    data_dir: Path | str,
    *,
    radius_arcsec: float = GALAXY_RADIUS_ARCSEC,
    max_mag: float | None = CLEAN.max_galaxy_mag,
    out_dir: Path | str | None = None,
    name: str | None = None,
) -> Path:
    """Take out random bogus at galaxies of the GLADE catalogue (CATSHTM_DIR), where supernovae are.

    Most of these rows are the galaxies' own residuals, though, which no other rows teach to refuse (see
    `labels.cleaning.find_galaxies_behind`).

    Parameters
    ----------
    data_dir, out_dir, name : path or str
        As for `clean`.
    radius_arcsec : float
    max_mag : float, optional
        Faintest galaxy, B; no limit when None.

    Returns
    -------
    Path
        As for `clean`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(open_dataset(remove_galaxies("data/dataset", out_dir=folder)).table)  # no row is near a galaxy
    20
    """
    return _write(data_dir, out_dir, name, [lambda d: _galaxies(d, radius_arcsec, max_mag)])


def remove_cosmic_rays(data_dir: Path | str, *, out_dir: Path | str | None = None, name: str | None = None) -> Path:
    """Take out random bogus seen in exactly one exposure, for surveys whose pipeline removes cosmic rays before.

    Parameters
    ----------
    data_dir, out_dir, name : path or str
        As for `clean`.

    Returns
    -------
    Path
        As for `clean`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(open_dataset(remove_cosmic_rays("data/dataset", out_dir=folder)).table)  # all are in two exposures
    20
    """
    return _write(data_dir, out_dir, name, [_cosmic_rays])


def cap_flagged_images(
    data_dir: Path | str,
    flagged: Path | str | Iterable[str],
    *,
    n_keep: int = CLEAN.n_keep,
    seed: int = SEED,
    out_dir: Path | str | None = None,
    name: str | None = None,
) -> Path:
    """Keep at most `n_keep` rows, drawn at random, of each image that is flagged as bad.

    Parameters
    ----------
    data_dir : path
        Labelled data set.
    flagged : path or iterable of str
        Ids of images, or a csv with the column image_id.
    n_keep : int
        Rows kept of each of these images.
    seed : int
        Of the draw.
    out_dir, name : path, str, optional
        The new data set is ``out_dir/name``; as for `clean` when left out.

    Returns
    -------
    Path
        The new data set.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = cap_flagged_images("data/dataset", ["image-0"], n_keep=2, out_dir=folder)
    ...     len(open_dataset(made).table)  # of 20 rows, five of them on this image
    17
    """
    return _write(data_dir, out_dir, name, [lambda d: _surplus(d, flagged, n_keep, seed)])


def relabel(
    csv_path: Path | str, data_dir: Path | str, *, out_dir: Path | str | None = None, name: str | None = None
) -> Path:
    """Give rows the annotators' labels of their candidates; flipped rows get the metalabel marshall.

    Parameters
    ----------
    csv_path : path
        Columns photometry_id and label, as for `label_data.add_marshall_cands`.
    data_dir, out_dir, name : path or str
        As for `clean`.

    Returns
    -------
    Path
        As for `clean`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     labels = Path(folder) / "labels.csv"
    ...     _ = labels.write_text("photometry_id,label\\n9000,1\\n")
    ...     int(open_dataset(relabel(labels, "data/dataset", out_dir=folder)).labels.sum())  # ten were real before
    11
    """
    return _write(data_dir, out_dir, name, [lambda d: _labels_of_people(d, csv_path)])


def _write(data_dir: Path | str, out_dir: Path | str | None, name: str | None, finders: list[Finder]) -> Path:

    source = Path(data_dir)
    with run_folder(out_dir or source.parent, name) as new_dir:
        parts = [pd.DataFrame(columns=list(CHANGE_COLUMNS)), *(find(source) for find in finders)]
        changes = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        for reason, n_rows in changes.drop_duplicates("row")["reason"].value_counts().items():
            log.info("%d rows: %s", n_rows, reason)
        return write_version(source, new_dir, changes)


def _variables(data_dir: Path, catalogue: Path | str, radius_arcsec: float, action: Action) -> pd.DataFrame:

    rows = cleaning.find_variable_stars(read_table(data_dir), catalogue, radius_arcsec=radius_arcsec)
    return _change(rows, f"known variable star within {radius_arcsec:g} arcsec", action, "variable")


def _asteroids(data_dir: Path, provider: str, match_arcsec: float, radius_deg: float, action: Action) -> pd.DataFrame:

    settings = read_settings()
    planets = make_provider(provider, settings, renew=True)
    images = read_images(data_dir, settings)
    rows = cleaning.find_minor_planets(
        read_table(data_dir), images, planets, radius_deg=radius_deg, match_arcsec=match_arcsec
    )
    version = f"{planets.version}@{datetime.now(UTC):%Y-%m-%d}" if provider == "skybot" else planets.version
    return _change(rows, f"minor planet of {version} within {match_arcsec:g} arcsec", action, "asteroid")


def _new_sources(data_dir: Path) -> pd.DataFrame:

    return _change(cleaning.find_new_sources(open_dataset(data_dir)), "new point source in every exposure", "remove")


def _galaxies(data_dir: Path, radius_arcsec: float, max_mag: float | None) -> pd.DataFrame:
    rows = cleaning.find_galaxies_behind(
        read_table(data_dir), read_settings().catshtm_dir,
        radius_arcsec=radius_arcsec, max_mag=max_mag,
    )  # fmt: skip
    return _change(rows, f"galaxy within {radius_arcsec:g} arcsec", "remove")


def _cosmic_rays(data_dir: Path) -> pd.DataFrame:

    return _change(cleaning.find_cosmic_rays(read_table(data_dir)), "cosmic ray: seen in one exposure", "remove")


def _surplus(data_dir: Path, flagged: Path | str | Iterable[str], n_keep: int, seed: int) -> pd.DataFrame:

    rng = np.random.default_rng([seed, n_keep])
    rows = cleaning.find_surplus(read_table(data_dir), cleaning.read_flagged(flagged), n_keep=n_keep, rng=rng)
    return _change(rows, f"flagged image: beyond {n_keep} rows", "remove")


def _labels_of_people(data_dir: Path, csv_path: Path | str) -> pd.DataFrame:

    rows, labels = find_relabelled(read_table(data_dir), csv_path)
    return flips(rows, "labelled by people", label=labels, metalabel="marshall")


def _change(rows: np.ndarray, reason: str, action: Action, metalabel: str = "") -> pd.DataFrame:

    if action not in ("remove", "flip"):
        raise ConfigError(f"unknown action {action!r}; choose remove or flip")
    if action == "flip":
        return flips(rows, reason, label=layout.REAL, metalabel=metalabel)
    return removals(rows, reason)
