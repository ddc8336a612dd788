"""All labelled rows and stamps of one image, by the minor-planet recipe.

A detection at the place of a known minor planet is real; detections far from any, drawn at random, are
bogus. Source: Killestein et al. 2021 (MNRAS 503, 4838), sections 2.2 and 2.3.
"""

import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

import gotorb
from gotorb.catalogues.crossmatch import find_nearest, match_one_to_one
from gotorb.catalogues.expected import Expected, compare, describe, list_expected
from gotorb.catalogues.minor_planets import Field, MinorPlanets
from gotorb.core import layout
from gotorb.core.params import SEED, LabelParams
from gotorb.errors import ConfigError, MissingPart
from gotorb.labels.jobs import ImageTask
from gotorb.stamps.layers import Extensions, cut_planes, n_detected_exposures
from gotorb.survey.detections import read_detections
from gotorb.survey.fits import Frame, open_frame
from gotorb.survey.pixels import fill_missing
from gotorb.survey.sanity import Circle, check_detections, check_place_and_time, check_stamps, find_circle

LABEL = LabelParams()
VETO_RADIUS_ARCSEC = 5.0


@dataclass(frozen=True)
class MatchRules:
    """Numbers of the recipe.

    Attributes
    ----------
    match_radius_arcsec : float
        Largest distance of a detection from its minor planet.
    mag_limit : float
        Faintest minor planet (V) that makes a label; fainter ones still veto bogus labels.
    min_realbogus, max_bogus_realbogus : float or None
        Optional cuts on the survey's old score (circular: None by default).
    extra_bogus : int
        Bogus detections wanted in an image beyond the number of matches.
    """

    match_radius_arcsec: float = LABEL.match_radius_arcsec
    mag_limit: float = LABEL.mag_limit
    min_realbogus: float | None = LABEL.min_realbogus
    max_bogus_realbogus: float | None = LABEL.max_bogus_realbogus
    extra_bogus: int = LABEL.extra_bogus_per_image


def label_detections(
    detections: pd.DataFrame, planets: pd.DataFrame, rules: MatchRules, *, rng: np.random.Generator
) -> pd.DataFrame:
    """Choose and label detections of one image.

    Parameters
    ----------
    detections : DataFrame
        From `survey.detections.read_detections`.
    planets : DataFrame
        Minor planets of any magnitude in the field: name, ra, dec (deg), mag (V).
    rules : MatchRules
        The recipe.
    rng : Generator
        Draws the bogus.

    Returns
    -------
    DataFrame
        The chosen detections with label, metalabel, number, object_id, rule; minor planets first.

    Examples
    --------
    >>> places = pd.DataFrame({"ra": [10.0, 10.1], "dec": [0.0, 0.0], "mag": [18.0, 19.0], "positive": True})
    >>> planets = pd.DataFrame({"name": ["Ceres"], "ra": [10.0001], "dec": [0.0], "mag": [18.1]})
    >>> chosen = label_detections(places, planets, MatchRules(), rng=np.random.default_rng(1))
    >>> chosen[["label", "metalabel", "number"]].values.tolist()
    [[1, 'mp', 'Ceres'], [0, 'randjunk', '']]
    """
    matched = _match_planets(detections, planets, rules)
    real = detections[matched >= 0]
    names = planets["name"].to_numpy(str)[matched[matched >= 0]]
    real = real.assign(
        label=layout.REAL,
        metalabel="mp",
        number=names,
        object_id=[f"mp:{name}" for name in names],
        rule=f"minor planet within {rules.match_radius_arcsec:g} arcsec, V < {rules.mag_limit:g}",
    )
    bogus = _draw_bogus(detections, planets, rules, n=len(real) + rules.extra_bogus, rng=rng).assign(
        label=layout.BOGUS,
        metalabel="randjunk",
        number="",
        object_id="",
        rule=f"random, no minor planet within {VETO_RADIUS_ARCSEC:g} arcsec",
    )
    return pd.concat([real, bogus], ignore_index=True)


def _match_planets(detections: pd.DataFrame, planets: pd.DataFrame, rules: MatchRules) -> np.ndarray:
    """Row of the minor planet of each detection, -1 for none; each planet to its nearest detection only.

    A negative detection cannot be a minor planet of this image's epoch.
    """
    able = detections["positive"].to_numpy(bool)
    if rules.min_realbogus is not None:
        able = able & (detections["realbogus"] > rules.min_realbogus).to_numpy()
    bright = np.flatnonzero((planets["mag"] < rules.mag_limit).to_numpy())
    chosen = planets.iloc[bright]
    matched = np.full(len(detections), -1)
    found = match_one_to_one(
        detections["ra"][able],
        detections["dec"][able],
        chosen["ra"],
        chosen["dec"],
        radius_arcsec=rules.match_radius_arcsec,
    )
    matched[able] = np.where(found >= 0, bright[found] if len(bright) else -1, -1)
    return matched


def _draw_bogus(
    detections: pd.DataFrame, planets: pd.DataFrame, rules: MatchRules, *, n: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw at most n detections far from every known minor planet, in their order in the table."""
    _, separation = find_nearest(detections["ra"], detections["dec"], planets["ra"], planets["dec"])
    able = separation > max(VETO_RADIUS_ARCSEC, rules.match_radius_arcsec)
    if rules.max_bogus_realbogus is not None:
        able &= (detections["realbogus"] < rules.max_bogus_realbogus).to_numpy()
    rows = np.flatnonzero(able)
    return detections.iloc[np.sort(rng.choice(rows, min(n, len(rows)), replace=False))]


ROW_IDS = uuid.UUID("6a1c8f0e-8f43-5a53-9c3b-7b1f5d9f2a10")
"""Name space of row ids: the same image, position and rule give the same id in every run."""


@dataclass(frozen=True)
class FileLayout:
    """Names that a survey gives to the parts of its files.

    Attributes
    ----------
    extensions : Extensions
        Names of the HDUs.
    detection_columns : dict
        Our column name to the survey's, where they differ.
    first_pixel : int
        x and y of the first pixel's centre in the table of detections.
    """

    extensions: Extensions = field(default_factory=Extensions)
    detection_columns: dict[str, str] = field(default_factory=dict)
    first_pixel: int = 0

    def read_detections(self, frame: Frame) -> pd.DataFrame:
        """Detections of an image.

        Parameters
        ----------
        frame : Frame
            Its open file.

        Returns
        -------
        DataFrame
            As `survey.detections.read_detections` gives it.
        """
        return read_detections(
            frame,
            self.extensions.detections,
            names=self.detection_columns,
            first_pixel=self.first_pixel,
            wcs_ext=self.extensions.difference,
        )


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Everything but the image that decides its labels and stamps."""

    provider: MinorPlanets | None
    rules: MatchRules = field(default_factory=MatchRules)
    search_radius_deg: float = LABEL.search_radius_deg
    check_expected: bool = LABEL.check_expected
    stamp_size: int = LABEL.stamp_size
    files: FileLayout = field(default_factory=FileLayout)
    seed: int = SEED

    @property
    def catalogues(self) -> tuple[str, ...]:
        """Versions of the catalogues that decide labels, by content: a path may hold a newer one tomorrow."""
        return () if self.provider is None else (self.provider.version,)


def label_image(task: ImageTask, options: LabelOptions) -> tuple[pd.DataFrame, np.ndarray]:
    """Label one image's detections and cut their stamps.

    Parameters
    ----------
    task : ImageTask
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
        If a file is missing or truncated, a part of it is missing, or its parts contradict each other.
    LookupFailed
        If the minor planets of the field are not available; no label is made then.
    ConfigError
        If `options` has no provider of minor planets.

    Examples
    --------
    >>> from gotorb.catalogues.minor_planets import make_provider
    >>> from gotorb.core.settings import read_settings
    >>> from gotorb.labels.jobs import read_task
    >>> options = LabelOptions(provider=make_provider("pympc", read_settings()), stamp_size=21)
    >>> table, stamps = label_image(read_task("images/visit.fits"), options)
    >>> table["metalabel"].value_counts().to_dict(), stamps.shape
    ({'randjunk': 5, 'mp': 1}, (6, 21, 21, 6))
    """
    check_exposures(task)
    if options.provider is None:
        raise ConfigError("no provider of minor planets; choose one of pympc, skybot")
    with open_frame(task.path) as frame:
        circle, detections, notes = check_image(task, frame, options.files)
        planets = find_planets(task, circle, options)
        rng = np.random.default_rng([options.seed, *task.image_id.encode()])
        chosen = label_detections(detections, planets, options.rules, rng=rng)
        found = compare_planets(frame, detections, planets, chosen, options)
        notes += describe(found, task.path)
        asked = planets.attrs.get("asked")
        catalogue = options.provider.version + (f"@{asked}" if asked else "")
        rows, stamps = cut_rows(task, frame, chosen, options, catalogue=catalogue, notes=notes)
    rows.attrs[layout.FACTS_KEY] = {**found._asdict(), "radius_deg": circle.radius_deg, "warnings": notes}
    return rows, stamps


def check_image(task: ImageTask, frame: Frame, files: FileLayout) -> tuple[Circle, pd.DataFrame, list[str]]:
    """Read an image's detections, and refuse the image if its place, time or table cannot be right.

    Parameters
    ----------
    task : ImageTask
    frame : Frame
        Its open file.
    files : FileLayout

    Returns
    -------
    circle : Circle
        Around the image.
    detections : DataFrame
        As `FileLayout.read_detections`, of those on the image.
    warnings : list of str

    Raises
    ------
    InconsistentImage
        See `survey.sanity`.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> from gotorb.survey.fits import open_frame
    >>> task = read_task("images/visit.fits")
    >>> with open_frame(task.path) as frame:
    ...     circle, detections, warnings = check_image(task, frame, FileLayout())
    >>> len(detections), round(circle.radius_deg, 3), warnings
    (6, 0.035, [])
    """
    check_place_and_time(task.ra_c, task.dec_c, task.jd, task.path)
    ext = files.extensions.difference
    circle = find_circle(frame, ext, task.ra_c, task.dec_c)
    return circle, *check_detections(frame, ext, files.read_detections(frame))


def find_planets(task: ImageTask, circle: Circle, options: LabelOptions) -> pd.DataFrame:
    """Minor planets of an image at its epoch.

    Parameters
    ----------
    task : ImageTask
    circle : Circle
        Around the image; `options.search_radius_deg` is the smallest radius.
    options : LabelOptions

    Returns
    -------
    DataFrame
        name, ra, dec (deg), mag (V).

    Raises
    ------
    ConfigError
        If there is no provider.

    Examples
    --------
    >>> from gotorb.catalogues.minor_planets import make_provider
    >>> from gotorb.core.settings import read_settings
    >>> from gotorb.labels.jobs import read_task
    >>> task = read_task("images/visit.fits")
    >>> options = LabelOptions(provider=make_provider("pympc", read_settings()))
    >>> find_planets(task, Circle(task.ra_c, task.dec_c, 0.1), options)["name"].tolist()
    ['Ceres']
    """
    if options.provider is None:
        raise ConfigError("no provider of minor planets; choose one of pympc, skybot")
    radius_deg = max(options.search_radius_deg, circle.radius_deg)
    return options.provider.find(Field(circle.ra, circle.dec, radius_deg, task.epoch_mjd))


def compare_planets(
    frame: Frame, detections: pd.DataFrame, planets: pd.DataFrame, chosen: pd.DataFrame, options: LabelOptions
) -> Expected:
    """Count the minor planets of an image that should be found, and those that were.

    Parameters
    ----------
    frame : Frame
        The open file.
    detections, planets, chosen : DataFrame
        Detections on the image, minor planets around it, and the labelled detections.
    options : LabelOptions

    Returns
    -------
    Expected

    Raises
    ------
    InconsistentImage
        If they are detected at one common offset, unless `options.check_expected` is False.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> from gotorb.survey.fits import open_frame
    >>> task, options = read_task("images/visit.fits"), LabelOptions(provider=None)
    >>> planets = pd.DataFrame({"name": ["Ceres"], "ra": [task.ra_c], "dec": [task.dec_c], "mag": [9.0]})
    >>> with open_frame(task.path) as frame:
    ...     detections = options.files.read_detections(frame)
    ...     found = compare_planets(frame, detections, planets, detections.assign(metalabel="", number=""), options)
    >>> found.n_expected, found.n_matched
    (1, 0)
    """
    expected = list_expected(frame, options.files.extensions.difference, planets, mag_limit=options.rules.mag_limit)
    able = detections["positive"].to_numpy(bool) & options.check_expected
    return compare(expected, detections, chosen, able=able, radius_arcsec=options.rules.match_radius_arcsec)


def cut_detections(task: ImageTask, options: LabelOptions) -> tuple[pd.DataFrame, np.ndarray]:
    """Cut the stamps of every detection of an image, without labels and without a look-up of minor planets.

    Parameters
    ----------
    task : ImageTask
    options : LabelOptions

    Returns
    -------
    table : DataFrame
        As `label_image`; label is -1.
    stamps : ndarray
        (n, size, size, 6), float32.

    Raises
    ------
    ImageError
        As for `label_image`.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> table, stamps = cut_detections(read_task("images/visit.fits"), LabelOptions(provider=None, stamp_size=21))
    >>> len(table), stamps.shape, table["label"].unique().tolist()
    (6, (6, 21, 21, 6), [-1])
    """
    check_exposures(task)
    with open_frame(task.path) as frame:
        detections = options.files.read_detections(frame)
        unlabelled = {"label": layout.UNKNOWN, "metalabel": "", "number": "", "object_id": "", "rule": ""}
        return cut_rows(task, frame, detections.assign(**unlabelled), options, catalogue="")


def cut_rows(
    task: ImageTask,
    frame: Frame,
    chosen: pd.DataFrame,
    options: LabelOptions,
    *,
    catalogue: str,
    notes: list[str] | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Cut the stamps of chosen detections and complete their rows.

    Parameters
    ----------
    task : ImageTask
    frame : Frame
        Its open file.
    chosen : DataFrame
        Detections with ra, dec (deg), x, y (0-based) and their labels.
    options : LabelOptions
    catalogue : str
        Version of the catalogue that labelled them.
    notes : list of str, optional
        When given, empty stamps are left out or refused, and odd things are added to it.

    Returns
    -------
    table : DataFrame
        Columns of `layout.LABEL_COLUMNS`.
    stamps : ndarray
        (n, size, size, 6), float32.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> from gotorb.survey.fits import open_frame
    >>> task, options = read_task("images/visit.fits"), LabelOptions(provider=None, stamp_size=21)
    >>> with open_frame(task.path) as frame:
    ...     chosen = options.files.read_detections(frame).head(2)
    ...     chosen = chosen.assign(label=0, metalabel="randjunk", number="", object_id="", rule="")
    ...     table, stamps = cut_rows(task, frame, chosen, options, catalogue="")
    >>> table["image_id"].tolist(), stamps.shape
    (['visit', 'visit'], (2, 21, 21, 6))
    """
    planes = cut_planes(
        frame,
        [Path(path) for path in task.exposure_paths],
        chosen["ra"].to_numpy(),
        chosen["dec"].to_numpy(),
        size=options.stamp_size,
        extensions=options.files.extensions,
        xy=(chosen["x"].to_numpy(), chosen["y"].to_numpy()),
    )
    if notes is not None:
        kept, more = check_stamps(planes.stacked, planes.exposures, task.path)
        notes += more
        if not kept.all():
            chosen, planes = chosen[kept].reset_index(drop=True), planes.take(kept)
    stamps, missing = fill_missing(planes.layers())
    rows = chosen.assign(
        missing_fraction=missing, n_seen=n_detected_exposures(planes.exposures), catalogue=catalogue, host_id=""
    )
    return complete_rows(rows, task), stamps


def check_exposures(task: ImageTask) -> None:
    """Refuse an image without single exposures where the survey has them: three of the six layers are made of them.

    Parameters
    ----------
    task : ImageTask

    Raises
    ------
    MissingPart
        If there is none.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> check_exposures(read_task("images/visit.fits"))  # it has two
    """
    if not task.exposure_paths and not task.stacked_only:
        raise MissingPart(
            f"no single exposures known for {task.path}; label_data.get_individual_images() must give their files"
        )


def complete_rows(rows: pd.DataFrame, task: ImageTask) -> pd.DataFrame:
    """Add the columns of the image, and row ids, to its chosen rows.

    Parameters
    ----------
    rows : DataFrame
        Labelled detections, with id, metalabel, object_id and host_id.
    task : ImageTask

    Returns
    -------
    DataFrame
        Columns of `layout.LABEL_COLUMNS`.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> rows = pd.DataFrame({"id": ["7"], "metalabel": "randjunk", "object_id": "", "host_id": ""})
    >>> complete_rows(rows, read_task("images/visit.fits"))[["candidate_id", "image_id", "ncoadd"]].values.tolist()
    [['7', 'visit', 2]]
    """
    rows = rows.rename(columns={"id": "candidate_id"}).assign(
        image_id=task.image_id,
        image_name=Path(task.filepath).name,
        fits_filepath=task.filepath,
        ut=task.ut,
        ncoadd=len(task.exposures),
        jd=task.jd,
        code_version=gotorb.__version__,
    )
    names = rows["image_id"] + "/" + rows["candidate_id"] + "/" + rows["metalabel"] + "/" + rows["object_id"]
    names += "/" + rows["host_id"]
    return rows.assign(id=[str(uuid.uuid5(ROW_IDS, name)) for name in names]).reindex(
        columns=list(layout.LABEL_COLUMNS)
    )
