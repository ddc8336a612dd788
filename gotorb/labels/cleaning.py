"""Searches for random bogus that are probably real or useless; each returns row numbers."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.catalogues.crossmatch import find_nearest
from gotorb.catalogues.galaxies import find_galaxies
from gotorb.catalogues.minor_planets import Field, MinorPlanets
from gotorb.catalogues.variables import read_variables
from gotorb.core.untrusted import check_header
from gotorb.dataset.store import Dataset
from gotorb.errors import DataError
from gotorb.labels.jobs import ImageTask
from gotorb.stamps.layers import core_light

NEW_LIGHT = 0.5
"""A source is new when at least this part of its light is in the difference image."""
FWHM_RANGE = (0.6, 1.5)
"""Of a point source's FWHM, in units of what the image's minor planets have."""
MIN_PLANETS = 3
"""Fewer minor planets of an image do not determine its sharpness."""
GALAXY_MARGIN_ARCSEC = ROW_MARGIN_ARCSEC = 60.0
"""Beyond the outermost row, of the circles that galaxies and minor planets are searched in."""


def _bogus_rows(table: pd.DataFrame) -> np.ndarray:
    """Numbers of the randomly drawn bogus, the only labels without any confirmation."""
    return np.flatnonzero(table["metalabel"] == "randjunk")


def find_variable_stars(table: pd.DataFrame, catalogue: Path | str, *, radius_arcsec: float) -> np.ndarray:
    """Random bogus at the position of a known variable star.

    Parameters
    ----------
    table : DataFrame
        Rows of a data set.
    catalogue : path
        As for `read_variables`.
    radius_arcsec : float

    Returns
    -------
    ndarray of int
        Row numbers.

    References
    ----------
    Killestein et al. 2021 (MNRAS 503, 4838): about 4 % of vetted junk were variable stars.

    Examples
    --------
    >>> import tempfile
    >>> table = pd.DataFrame({"label": 0, "metalabel": "randjunk", "ra": [10.0, 20.0], "dec": [0.0, 0.0]})
    >>> with tempfile.NamedTemporaryFile("w+", suffix=".csv") as file:
    ...     print("ra,dec", "20.0002,0.0", sep="\\n", file=file, flush=True)
    ...     rows = find_variable_stars(table, file.name, radius_arcsec=2)
    >>> rows.tolist()
    [1]
    """
    rows, stars = _bogus_rows(table), read_variables(catalogue)
    place = table.iloc[rows]
    return rows[find_nearest(place["ra"], place["dec"], stars["ra"], stars["dec"])[1] <= radius_arcsec]


def find_galaxies_behind(
    table: pd.DataFrame, catshtm_dir: str, *, radius_arcsec: float, max_mag: float | None
) -> np.ndarray:
    """Random bogus at a catalogued galaxy, where supernovae are.

    Most of what is taken out is the galaxies' own residuals, which a classifier then never learns to refuse: bare
    galaxies (glxresid) are taken where nothing is detected. For surveys that find more supernovae than residuals.

    Parameters
    ----------
    table : DataFrame
        Rows of a data set.
    catshtm_dir : str
        Folder of the GLADE catalogue.
    radius_arcsec : float
    max_mag : float or None
        Faintest galaxy; None for no limit.

    Returns
    -------
    ndarray of int
        Row numbers.

    Examples
    --------
    >>> from gotorb.labels.jobs import read_task
    >>> task = read_task("images/visit.fits")
    >>> rows = pd.DataFrame({"image_id": "visit", "ra": task.ra_c, "dec": [task.dec_c, task.dec_c - 30 / 3600]})
    >>> find_galaxies_behind(rows.assign(metalabel="randjunk"), "catalogues", radius_arcsec=3, max_mag=None).tolist()
    [1]
    """
    found = [np.empty(0, int)]
    for _, place in table.iloc[_bogus_rows(table)].groupby("image_id"):
        middle, reach = _circle(place)
        galaxies = find_galaxies(
            catshtm_dir, *middle, radius_arcsec=reach + radius_arcsec + GALAXY_MARGIN_ARCSEC, max_mag=max_mag
        )
        distance = find_nearest(place["ra"], place["dec"], galaxies["ra"], galaxies["dec"])[1]
        found.append(place.index.to_numpy()[distance <= radius_arcsec])
    return np.sort(np.concatenate(found))


def _circle(place: pd.DataFrame) -> tuple[tuple[float, float], float]:
    """A circle around some rows: centre (ra, dec) [deg] and radius [arcsec]."""
    first = place[["ra", "dec"]].iloc[0].to_numpy(float)
    reach = find_nearest(place["ra"], place["dec"], [first[0]], [first[1]])[1].max()
    return (float(first[0]), float(first[1])), float(reach)


def find_cosmic_rays(table: pd.DataFrame) -> np.ndarray:
    """Random bogus seen in exactly one exposure.

    Detections seen in no exposure show in the stack alone and are kept. So are images of a single exposure, and rows
    without n_seen.

    Parameters
    ----------
    table : DataFrame
        Rows of a data set.

    Returns
    -------
    ndarray of int
        Row numbers.

    Raises
    ------
    DataError
        If the column n_seen is missing or empty.

    Examples
    --------
    >>> table = pd.DataFrame({"label": 0, "metalabel": "randjunk", "n_seen": [1, 3, 0], "ncoadd": 3})
    >>> find_cosmic_rays(table).tolist()
    [0]
    """
    if "n_seen" not in table or table["n_seen"].isna().all():
        raise DataError("the data set has no column n_seen (exposures in which a detection is seen); make it again")
    rows = _bogus_rows(table)
    return rows[((table["n_seen"] == 1) & (table["ncoadd"] > 1)).to_numpy()[rows]]


def find_minor_planets(
    table: pd.DataFrame, images: Sequence[ImageTask], provider: MinorPlanets, *, radius_deg: float, match_arcsec: float
) -> np.ndarray:
    """Random bogus at a minor planet of any magnitude, by a newer catalogue or a wider circle than labelled them.

    Parameters
    ----------
    table : DataFrame
        Rows of a data set.
    images : sequence of ImageTask
        Images of the rows; rows of other images are left out.
    provider : MinorPlanets
    radius_deg, match_arcsec : float
        Of the field, and of a match.

    Returns
    -------
    ndarray of int
        Row numbers.

    Raises
    ------
    LookupFailed
        If the minor planets of a field are not available.

    Examples
    --------
    >>> from gotorb.catalogues.minor_planets import make_provider
    >>> from gotorb.core.settings import read_settings
    >>> from gotorb.labels.jobs import read_task
    >>> task = read_task("images/visit.fits")
    >>> rows = pd.DataFrame({"image_id": "visit", "ra": task.ra_c, "dec": [task.dec_c, task.dec_c - 0.02]})
    >>> provider = make_provider("pympc", read_settings())
    >>> find_minor_planets(rows.assign(metalabel="randjunk"), [task], provider, radius_deg=0.1, match_arcsec=2).tolist()
    [0]
    """
    of_image = dict(tuple(table.iloc[_bogus_rows(table)].groupby("image_id")))
    rows = [np.empty(0, int)]
    for image in images:
        if image.image_id not in of_image:
            continue
        place = of_image[image.image_id]
        reach = find_nearest(place["ra"], place["dec"], [image.ra_c], [image.dec_c])[1].max() + ROW_MARGIN_ARCSEC
        planets = provider.find(Field(image.ra_c, image.dec_c, max(radius_deg, float(reach) / 3600), image.epoch_mjd))
        separation = find_nearest(place["ra"], place["dec"], planets["ra"], planets["dec"])[1]
        rows.append(place.index.to_numpy()[separation <= match_arcsec])
    return np.sort(np.concatenate(rows))


def find_new_sources(data: Dataset) -> np.ndarray:
    """Random bogus that look like an asteroid or supernova missing in every catalogue.

    Seen in every exposure, at least half of the light new, and as sharp as the image's minor planets. Artefacts
    seldom have all three: a cosmic ray, trail or glint is in one exposure, a star's residual has the star's
    old light, ghosts and bad columns have no star's shape.

    Parameters
    ----------
    data : Dataset

    Returns
    -------
    ndarray of int
        Row numbers.

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> find_new_sources(open_dataset("data/dataset"))[:3].tolist()  # nothing in their template
    [0, 2, 4]
    """
    table, rows = data.table, _bogus_rows(data.table)
    ratio = (table["fwhm"] / _usual_fwhm(table)).to_numpy(float)
    able = (ratio > FWHM_RANGE[0]) & (ratio < FWHM_RANGE[1])
    able &= (table["n_seen"] >= np.maximum(table["ncoadd"], 2)).to_numpy()
    able_rows = rows[able[rows]]
    new = [np.zeros(0, bool)]
    for _, stamps in data.batches(able_rows, layers=("science", "difference")):
        science, difference = core_light(stamps)[0].T
        new.append((science > 0) & (difference > NEW_LIGHT * science))
    return able_rows[np.concatenate(new)]


def _usual_fwhm(table: pd.DataFrame) -> pd.Series:
    """Median FWHM, (n,), of the minor planets of each row's image; of all images where it has few."""
    planets = table[table["metalabel"] == "mp"]
    of_image = planets.groupby("image_id")["fwhm"].agg(["median", "size"])
    sure = of_image.loc[of_image["size"] >= MIN_PLANETS, "median"]
    return table["image_id"].map(sure).fillna(planets["fwhm"].median())


def read_flagged(flagged: Path | str | Iterable[str]) -> list[str]:
    """Ids of flagged images.

    Parameters
    ----------
    flagged : path or iterable of str
        A csv with the column image_id, or the ids themselves.

    Returns
    -------
    list of str

    Raises
    ------
    DataError
        If the csv cannot be read or the column is missing.

    Examples
    --------
    >>> read_flagged(["r0001_UT1", "r0007_UT3"])
    ['r0001_UT1', 'r0007_UT3']
    """
    if not isinstance(flagged, str | Path):
        return [str(image_id) for image_id in flagged]
    try:
        check_header(Path(flagged))
        table = pd.read_csv(flagged, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{flagged} cannot be read as csv ({str(error).strip()}); give the column image_id") from None
    if "image_id" not in table:
        raise DataError(f"no column 'image_id' in {flagged} (has {', '.join(table.columns)}); rename it")
    return table["image_id"].tolist()


def find_surplus(table: pd.DataFrame, flagged: Collection[str], *, n_keep: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of flagged images beyond a number to keep: bad images flood a set with one artefact.

    Parameters
    ----------
    table : DataFrame
        Rows of a data set.
    flagged : collection of str
        Ids of the images.
    n_keep : int
        Rows kept of each, chosen at random.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int
        Row numbers.

    Examples
    --------
    >>> table = pd.DataFrame({"image_id": ["a", "a", "a", "b"]})
    >>> len(find_surplus(table, ["a"], n_keep=1, rng=np.random.default_rng(1)))
    2
    """
    surplus = [np.empty(0, int)]
    for image_id in sorted(set(flagged)):
        rows = np.flatnonzero(table["image_id"] == image_id)
        surplus.append(rng.permutation(rows)[n_keep:])
    return np.sort(np.concatenate(surplus))
