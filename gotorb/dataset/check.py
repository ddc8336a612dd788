"""Checks of a data set on disk: changed files, impossible rows, wrong positions, and leaks between its splits.

Positions are checked on their images, in degrees, by the WCS, and apart from known minor planets.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.catalogues.crossmatch import find_nearest
from gotorb.catalogues.expected import CAUSES, LEAST_EXPECTED, LEAST_FOUND, find_shift
from gotorb.catalogues.minor_planets import Field, Pympc
from gotorb.catalogues.update import describe
from gotorb.core import layout
from gotorb.core.constants import MJD_ZERO
from gotorb.core.files import file_digest
from gotorb.core.params import DatasetParams, LabelParams
from gotorb.core.settings import Settings, read_settings
from gotorb.dataset.folder import settled_files
from gotorb.dataset.split import LINK_COLUMNS, pairs_on_sky
from gotorb.dataset.store import DATA_FILES, Dataset, open_dataset
from gotorb.errors import CatalogueError, ConfigError, DataError, ImageError
from gotorb.survey import sanity
from gotorb.survey.fits import Frame, open_frame
from gotorb.survey.gotophoto import storage_path
from gotorb.survey.ids import is_blank

DATASET = DatasetParams()
KINDS = {"image_id": "image", "object_id": "object", "host_id": "galaxy"}
COLUMNS = ["kind", "what", "splits", "n_rows"]


def find_leaks(table: pd.DataFrame, *, link_radius_arcsec: float = DATASET.link_radius_arcsec) -> pd.DataFrame:
    """Images, objects (minor planets), galaxies and places on the sky that occur in more than one split.

    Parameters
    ----------
    table : DataFrame
        Rows with split and any of image_id, object_id, host_id, ra and dec (deg).
    link_radius_arcsec : float
        Rows closer than this are one place.

    Returns
    -------
    DataFrame
        kind (image, object, galaxy, sky), what, splits, n_rows; empty when nothing leaks.

    Raises
    ------
    DataError
        If the rows are not divided.

    Examples
    --------
    >>> rows = pd.DataFrame({"image_id": ["a", "a", "b"], "split": ["train", "test", "test"]})
    >>> find_leaks(rows).to_dict("records")
    [{'kind': 'image', 'what': 'a', 'splits': 'test+train', 'n_rows': 2}]
    """
    if layout.SPLIT_COLUMN not in table:
        raise DataError("the data set is not divided (no column 'split'); the stage `dataset` divides it")
    found = [_shared(KINDS[name], table[name], table) for name in LINK_COLUMNS if name in table]
    return pd.concat([*found, _sky(table, link_radius_arcsec)], ignore_index=True)


def find_pixel_leaks(data: Dataset) -> pd.DataFrame:
    """Stamps of different splits that hold the same pixels in a layer.

    Layers without any structure (all pixels alike: no data there) do not count.

    Parameters
    ----------
    data : Dataset

    Returns
    -------
    DataFrame
        As `find_leaks`, of kind pixels; `what` names the layer and the first row's id.
    """
    digests = np.concatenate([_layer_digests(stamps) for _, stamps in data.batches()])
    found = []
    for i, layer in enumerate(data.layers):
        leaks = _shared("pixels", pd.Series(digests[:, i]), data.table)
        first = {digest: data.ids[row] for row, digest in reversed(list(enumerate(digests[:, i])))}
        found.append(leaks.assign(what=[f"{layer} of {first[digest]}" for digest in leaks["what"]]))
    return pd.concat(found, ignore_index=True)


def _layer_digests(stamps: np.ndarray) -> np.ndarray:
    """Digest of each layer of each stamp, (n, n_layers) of str; "" for a layer of one value."""
    return np.array([[_digest(layer) for layer in np.moveaxis(stamp, -1, 0)] for stamp in stamps], dtype=object)


def _digest(layer: np.ndarray) -> str:
    return "" if layer.min() == layer.max() else hashlib.blake2b(layer.tobytes(), digest_size=16).hexdigest()


def _shared(kind: str, values: pd.Series, table: pd.DataFrame) -> pd.DataFrame:
    """Values that occur in more than one split."""
    known = ~is_blank(values).to_numpy()
    parts = table[layout.SPLIT_COLUMN][known].groupby(values.astype(str).to_numpy()[known])
    return _rows(kind, ((what, splits) for what, splits in parts if splits.nunique() > 1))


def _sky(table: pd.DataFrame, radius_arcsec: float) -> pd.DataFrame:
    splits = table[layout.SPLIT_COLUMN].to_numpy(str)
    pairs = pairs_on_sky(table, radius_arcsec)
    torn = pairs[:, splits[pairs[0]] != splits[pairs[1]]].T
    places = (
        (f"ra {table['ra'].iloc[a]:.5f} dec {table['dec'].iloc[a]:.5f}", pd.Series(splits[[a, b]])) for a, b in torn
    )
    return _rows("sky", places)


def _rows(kind: str, shared: Iterable[tuple[object, pd.Series]]) -> pd.DataFrame:
    rows = [(kind, str(what), "+".join(sorted(set(splits))), len(splits)) for what, splits in shared]
    return pd.DataFrame(rows, columns=COLUMNS)


LABEL_OF = dict.fromkeys(("mp", "syntransient", "synfading", "synvariable"), layout.REAL)
LABEL_OF |= dict.fromkeys(("randjunk", "glxresid", "synflash"), layout.BOGUS)
"""Labels that metalabels imply."""
NEVER_EMPTY = ("science", "difference")
"""Layers of one value in which nothing was seen; some surveys have no template."""
PROVENANCE = ("rule", "image_id", "code_version")
LISTED = 5


def verify_dataset(data_dir: Path | str) -> list[str]:
    """Check a data set for errors.

    Parameters
    ----------
    data_dir : path
        The data set.

    Returns
    -------
    list of str
        One line for each finding: bytes that changed since the files were written, csv and hdf5 that disagree,
        stamps that are not finite, empty or occur twice, duplicate detections or ones with both labels, values
        that cannot be, positions off their image, and rows without provenance. Empty when all is well.
    """
    data_dir = Path(data_dir)
    findings = list(_changed_bytes(data_dir))
    try:
        data = open_dataset(data_dir)
    except DataError as error:
        return [*findings, str(error)]
    checks = (_check_rows(data.table), _check_images(data), check_sky(data), _check_stamps(data))
    return [*findings, *(line for check in checks for line in check)]


def _changed_bytes(data_dir: Path) -> Iterator[str]:
    path = data_dir / layout.SUMS_FILE
    if not path.exists():
        yield f"no {path.name} in {data_dir}: flipped bytes cannot be found"
        return
    lines = (line.partition("  ") for line in path.read_text(errors="replace").splitlines())
    sums = {name: digest for digest, _, name in lines}
    for name in [*DATA_FILES, *sorted({*sums, *settled_files(data_dir)} - set(DATA_FILES))]:
        if name not in sums:
            yield f"{path} does not know {name}: it was added later"
        elif not name.isprintable() or not name or Path(name).name != name:
            yield f"{path} names {name!r}, which is no file of the folder"
        elif not (data_dir / name).is_file():
            yield f"{name} is missing"
        elif file_digest(data_dir / name) != sums[name]:
            yield f"{name} is not the file that was written: bytes were flipped or edited"


def _check_rows(table: pd.DataFrame) -> Iterator[str]:
    yield from _tell("label is not 1, 0 or -1", table, ~table["label"].isin([1, 0, -1]))
    expected = table["metalabel"].map(LABEL_OF)
    yield from _tell("label contradicts its metalabel", table, expected.notna() & (expected != table["label"]))
    if "candidate_id" in table:
        made = table["metalabel"].isin(layout.SYNTHETIC) | (table["candidate_id"] == "")
        key = table["image_id"] + "/" + table["candidate_id"]
        twice = ~made & key[~made].duplicated(keep=False).reindex(table.index, fill_value=False)
        yield from _tell("duplicate detection", table, twice)
    for name, low, high in (("ra", 0, 360), ("dec", -90, 90), ("missing_fraction", 0, 1)):
        if name in table:
            yield from _tell(f"{name} outside {low} to {high}", table, (table[name] < low) | (table[name] > high))
    for name in PROVENANCE:
        if name in table:
            unknown = (table[name] == "") & (table["label"] != layout.UNKNOWN)
            yield from _tell(f"no {name}: the origin of the row is unknown", table, unknown)


def _check_images(data: Dataset) -> Iterator[str]:
    path = data.data_dir / layout.IMAGES_CSV
    if path.exists():
        known = pd.read_csv(path, dtype=str, keep_default_na=False)["image_id"]
        yield from _tell(f"image is not in {path.name}", data.table, ~data.table["image_id"].isin(known))


def _check_stamps(data: Dataset) -> Iterator[str]:
    broken, empty, twice = (np.zeros(len(data), bool) for _ in range(3))
    shown = [i for i, name in enumerate(data.layers) if name in NEVER_EMPTY]
    seen: dict[int, int] = {}
    try:
        for rows, stamps in data.batches():
            broken[rows] = ~np.isfinite(stamps).all(axis=(1, 2, 3))
            empty[rows] = sanity.find_empty(stamps[..., shown]).any(axis=1)
            for row, stamp in zip(rows, stamps, strict=True):
                twice[row] = seen.setdefault(hash(stamp.tobytes()), row) != row
    except DataError as error:
        yield str(error)
        return
    yield from _tell("stamp holds NaN or infinity", data.table, pd.Series(broken))
    yield from _tell("stamp is empty in the science image or the difference", data.table, pd.Series(empty))
    yield from _tell("stamp has the pixels of an earlier one", data.table, pd.Series(twice & ~empty))


def _tell(what: str, table: pd.DataFrame, wrong: pd.Series) -> Iterator[str]:
    ids = table["id"][wrong.to_numpy(bool)]
    if len(ids):
        more = f", ... ({len(ids)} rows)" if len(ids) > LISTED else ""
        yield f"{what}: {', '.join(ids.iloc[:LISTED])}{more}"


log = logging.getLogger(__name__)
LABEL = LabelParams()
UNKNOWN_RADIUS_DEG = 15.0
"""Half the diagonal that no image exceeds, for lists of images that do not tell it."""
FIT_ROWS, FIT_SPREAD_PIXEL, FIT_PIXEL, FIT_PART = 6, 30.0, 5.0, 0.01
"""Rows and their spread that a straight map from x, y to the sky needs, and how far they may be from it: pixels, and a
part of the spread, for distortions."""
MANY_ROWS = 50
"""Rows from which on numbers in a small range look like radians or hours."""
PLANET_ARCSEC = 1.0
NUMBERS = ("ra_c", "dec_c", "jd", *layout.FACT_COLUMNS)
PLACE = ["x", "y", "ra", "dec"]


def check_sky(data: Dataset) -> Iterator[str]:
    """Find rows whose position cannot be right.

    Parameters
    ----------
    data : Dataset

    Yields
    ------
    str
        One line for each finding: centres and epochs that cannot be, positions outside the image, radians or hours,
        positions that disagree with x, y or with the WCS of the image's file (where it can be read), expected minor
        planets that were not found, and bogus at known minor planets (where the catalogue can be read).
    """
    table = data.table
    if not {"ra", "dec"} <= set(table):
        return
    path = data.data_dir / layout.IMAGES_CSV
    if not path.exists() or "image_id" not in table:
        yield from _check_units(table)
        return
    images = pd.read_csv(path, dtype=str, keep_default_na=False)
    images = images[images["image_id"].isin(table["image_id"])].drop_duplicates("image_id")
    numbers = {name: pd.to_numeric(images[name], errors="coerce") for name in NUMBERS if name in images}
    images = images.assign(**numbers)
    yield from _check_counts(images)
    if not {"filepath", "ra_c", "dec_c", "jd"} <= set(images):
        return
    settings = read_settings()
    of_image = dict(tuple(table.groupby("image_id")))
    for image in images.itertuples(index=False):
        rows = of_image[image.image_id]
        try:
            sanity.check_place_and_time(
                float(image.ra_c), float(image.dec_c), float(image.jd), f"image {image.image_id}"
            )
        except ImageError as error:
            yield str(error)
            continue
        radius_deg = float(getattr(image, "radius_deg", np.nan))
        yield from _check_circle(rows, image.image_id, (float(image.ra_c), float(image.dec_c)), radius_deg)
        if set(PLACE) <= set(rows):
            yield from _check_map(rows, image.image_id)
            yield from _check_file(rows, image.image_id, str(image.filepath), settings)
    yield from _check_planets(images, of_image, settings)


def _check_units(table: pd.DataFrame) -> Iterator[str]:
    """Numbers that all lie in the range of radians or hours, though they are spread over it."""
    place = table[["ra", "dec"]].dropna()
    if len(place) < MANY_ROWS:
        return
    (ra, dec), spread = place.abs().max(), place.max() - place.min()
    if ra <= 2 * np.pi and dec <= np.pi / 2 and spread["ra"] > 2 and spread["dec"] > 0.5:
        yield f"positions look like radians: no ra above {ra:.3f}, no dec beyond {dec:.3f}"
    elif ra <= 24 and spread["ra"] > 12 and spread["dec"] > 40:
        yield f"positions look like hours of right ascension: no ra above {ra:.3f}"


def _check_counts(images: pd.DataFrame) -> Iterator[str]:
    """Minor planets that labelling expected and found."""
    if not {"n_expected", "n_matched"} <= set(images):
        return
    n_expected, n_matched = (int(images[name].fillna(0).sum()) for name in ("n_expected", "n_matched"))
    if n_expected >= LEAST_EXPECTED and n_matched < LEAST_FOUND * n_expected / 2:
        yield f"matched {n_matched} of {n_expected} expected minor planets; look for {CAUSES}"


def _check_circle(rows: pd.DataFrame, image_id: str, centre: tuple[float, float], radius_deg: float) -> Iterator[str]:
    limit = radius_deg if np.isfinite(radius_deg) else UNKNOWN_RADIUS_DEG
    ra, dec = rows["ra"].to_numpy(float), rows["dec"].to_numpy(float)
    off = sanity.separation_arcsec(ra, dec, *centre) / 3600
    outside = off > limit
    if outside.any():
        cause = sanity.guess_cause(ra[outside], dec[outside], *centre, near_arcsec=limit * 3600)
        yield (
            f"position outside image {image_id}{cause}: {outside.sum()} of {len(rows)} rows are up to "
            f"{off.max():.3g} deg from its centre, its corners {limit:.3g}"
        )


def _check_map(rows: pd.DataFrame, image_id: str) -> Iterator[str]:
    """Positions that do not follow x, y by any straight map."""
    place = rows[PLACE].astype(float).dropna()
    x, y = place["x"].to_numpy(), place["y"].to_numpy()
    if len(place) < FIT_ROWS or min(np.ptp(x), np.ptp(y)) < FIT_SPREAD_PIXEL or place["dec"].abs().max() > 85:
        return
    middle = place["ra"].iloc[0], place["dec"].median()
    east = ((place["ra"] - middle[0] + 180) % 360 - 180) * np.cos(np.radians(place["dec"]))
    sky = np.column_stack([east, place["dec"] - middle[1]])
    design = np.column_stack([x, y, np.ones(len(x))])
    straight, *_ = np.linalg.lstsq(design, sky, rcond=None)
    scale = np.sqrt(abs(np.linalg.det(straight[:2])))
    off = np.median(np.hypot(*(sky - design @ straight).T)) / max(scale, 1e-12)
    if off > FIT_PIXEL + FIT_PART * np.hypot(np.ptp(x), np.ptp(y)):
        yield f"positions of image {image_id} do not follow x, y: {off:.0f} pixels from a straight map in the median"


def _check_file(rows: pd.DataFrame, image_id: str, filepath: str, settings: Settings) -> Iterator[str]:
    """Rows against the file of their image, where it can be read."""
    try:
        path = storage_path(filepath, settings)
        if not path.is_file():
            return
        with open_frame(path) as frame:
            best = min((_offset(frame, ext, rows) for ext in frame.sky_images()), default=None)
    except (ImageError, ConfigError, OSError) as error:
        log.info("image %s is not compared with its rows: %s", image_id, error)
        return
    if best is None:
        return
    off_pixels, n_outside, offset, limit = best
    if n_outside:
        yield f"x, y of {n_outside} of {len(rows)} rows are outside image {image_id}"
    if off_pixels > limit:
        yield f"positions of image {image_id} are {offset:.3g} arcsec from the WCS at x, y in the median"


def _offset(frame: Frame, ext: int, rows: pd.DataFrame) -> tuple[float, int, float, float]:
    """Median offset [pixel], rows outside, offset [arcsec] and its limit [pixel] by the WCS of an HDU."""
    x, y, ra, dec = (rows[name].to_numpy(float) for name in PLACE)
    scale = frame.astrometry(ext).scale_arcsec
    ny, nx = frame.shape(ext)
    offset = float(np.nanmedian(sanity.separation_arcsec(ra, dec, *frame.to_sky(ext, x, y))))
    outside = int(np.count_nonzero((x < -2) | (x > nx + 1) | (y < -2) | (y > ny + 1)))
    return offset / scale, outside, offset, max(sanity.MAX_OFFSET_ARCSEC / scale, sanity.MAX_OFFSET_PIXEL)


def _check_planets(images: pd.DataFrame, of_image: dict[str, pd.DataFrame], settings: Settings) -> Iterator[str]:
    """Bogus at the places of known minor planets, or all of them at one offset, where a catalogue is at hand."""
    if not settings.gotorb_mpc_catalogue or not Path(settings.gotorb_mpc_catalogue).is_file():
        return
    try:
        provider = Pympc(settings.gotorb_mpc_catalogue, settings.observatory)
        for image in images.itertuples(index=False):
            epoch = float(image.jd) - MJD_ZERO
            if not np.isfinite(epoch) or not describe(provider.path, 2 * PLANET_ARCSEC, epoch).fits:
                continue  # its positions have drifted
            radius_deg = float(getattr(image, "radius_deg", np.nan))
            circle = radius_deg if np.isfinite(radius_deg) else LABEL.search_radius_deg
            planets = provider.find(Field(float(image.ra_c), float(image.dec_c), circle, epoch))
            yield from _compare_planets(of_image[image.image_id], image.image_id, planets)
    except (CatalogueError, ConfigError) as error:
        log.info("rows are not compared with minor planets: %s", error)


def _compare_planets(rows: pd.DataFrame, image_id: str, planets: pd.DataFrame) -> Iterator[str]:
    bright = planets[(planets["mag"] < LABEL.mag_limit).to_numpy()].sort_values("mag", kind="stable")
    bogus = rows[(rows["metalabel"] == "randjunk").to_numpy()]
    at_planet = find_nearest(bogus["ra"], bogus["dec"], bright["ra"], bright["dec"])[1] <= PLANET_ARCSEC
    if at_planet.any():
        yield f"known minor planet labelled bogus in image {image_id}: {', '.join(bogus['id'][at_planet].iloc[:5])}"
    real = rows[(rows["metalabel"] == "mp").to_numpy()]
    at_place = find_nearest(bright["ra"], bright["dec"], real["ra"], real["dec"])[1] <= PLANET_ARCSEC
    places = [table[["ra", "dec"]].to_numpy(float) for table in (bright, bogus)]
    found = find_shift(*places, n_matched=int(at_place.sum()))
    if found is not None:
        n_shifted, (east, north) = found
        yield (
            f"{n_shifted} known minor planets of image {image_id} are labelled bogus, all {east:+.1f} arcsec in right "
            f"ascension and {north:+.1f} in declination from their places; look for {CAUSES}"
        )
