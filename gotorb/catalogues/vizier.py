"""Variable stars and galaxies from VizieR, around images or of the whole sky, as the files that labelling reads.

Fields are asked for one after the other, by astroquery. Each answer is kept in the cache, so that an interrupted fetch
resumes and the same field is never asked for twice. Next to the file stands what it covers and when it was asked for.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.catalogues.crossmatch import find_nearest, unit_vectors
from gotorb.catalogues.galaxies import NAME, write_glade
from gotorb.core.files import file_digest, value_digest, whole_file, write_json
from gotorb.core.params import FetchParams
from gotorb.core.settings import Settings, read_settings
from gotorb.errors import CatalogueError

log = logging.getLogger(__name__)
FETCH = FetchParams()
COVERAGE = "coverage.json"
PLACE = ("_RAJ2000", "_DEJ2000")
"""Positions that VizieR computes for every table [deg, ICRS]."""
ASIDE, EARLIER = ".glade-", ".glade.before"
"""Beginning of the names of folders in which galaxies are written, and the catalogue that is replaced."""
STEP_DEG = 0.1
"""Centres and radii of fields are rounded to this, so that images of one pointing share an answer."""
TILE_DEG = 6.0
"""Spacing of the fields that cover the whole sky."""
SAME_STAR_ARCSEC = 1.0
TIMEOUT_S = 120


@dataclass(frozen=True)
class Table:
    """A table of VizieR.

    Attributes
    ----------
    name : str
        VizieR's.
    columns : dict
        Our column to the table's.
    limits : dict
        The table's column to a condition in VizieR's words.
    """

    name: str
    columns: dict[str, str]
    limits: dict[str, str]


TABLES = {
    "atlas": Table("J/AJ/156/241/table4", {"name": "ATOID", "class": "Class"}, {"Class": "!=dubious"}),
    "gaia": Table("I/358/vclassre", {"name": "Source", "class": "Class"}, {}),
    "glade": Table("VII/291/gladep", {"mag": "Bmag", "distance": "dL"}, {}),
}
"""Heinze et al. 2018 (AJ 156, 241); Gaia DR3 (A&A 674, A14); GLADE+ (Dalya et al. 2022, MNRAS 514, 1403)."""


class Circle(NamedTuple):
    """A field on the sky [deg, ICRS]."""

    ra: float
    dec: float
    radius: float


def merge_fields(fields: Iterable[Circle]) -> list[Circle]:
    """Round fields outwards to steps, and leave out those that lie within another.

    Parameters
    ----------
    fields : iterable of Circle

    Returns
    -------
    list of Circle
        By declination.

    Examples
    --------
    >>> len(merge_fields([Circle(10.0, 0.0, 2.0), Circle(10.1, 0.0, 0.1)]))
    1
    """
    rounded = {
        Circle(
            round(round(one.ra / STEP_DEG) * STEP_DEG % 360, 3),
            round(max(-90.0, min(90.0, round(one.dec / STEP_DEG) * STEP_DEG)), 3),
            round(float(np.ceil(one.radius / STEP_DEG + 1) * STEP_DEG), 3),
        )
        for one in fields
    }
    return _outermost(rounded)


def _outermost(fields: Iterable[Circle]) -> list[Circle]:
    """Fields without those that lie within another."""
    kept: list[Circle] = []
    for one in sorted(fields, key=lambda field: (-field.radius, field.dec, field.ra)):
        if not any(_separation(one, other) + one.radius <= other.radius + 1e-9 for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda field: (field.dec, field.ra, field.radius))


def _separation(one: Circle, other: Circle) -> float:
    first, second = unit_vectors([one.ra, other.ra], [one.dec, other.dec])
    return float(np.degrees(2 * np.arcsin(min(1.0, float(np.linalg.norm(first - second)) / 2))))


def sky_fields(step_deg: float = TILE_DEG) -> list[Circle]:
    """Fields that cover the whole sky: rings of declination, each with as many fields as it needs.

    Parameters
    ----------
    step_deg : float
        Spacing.

    Returns
    -------
    list of Circle

    Examples
    --------
    >>> len(sky_fields(30.0))
    60
    """
    fields = []
    n_rings = int(np.ceil(180 / step_deg))
    for ring in range(n_rings):
        low, high = -90 + 180 * ring / n_rings, -90 + 180 * (ring + 1) / n_rings
        edges = [low, high, 0.0] if low < 0 < high else [low, high]
        n_fields = max(1, int(np.ceil(360 * np.cos(np.radians(min(map(abs, edges)))) / step_deg)))
        centres = [Circle(round(360 * (k + 0.5) / n_fields, 4), round((low + high) / 2, 4), 0) for k in range(n_fields)]
        reach = max(_separation(centres[0], Circle(centres[0].ra + 180 / n_fields, edge, 0)) for edge in edges)
        fields += [one._replace(radius=round(reach + 0.01, 3)) for one in centres]
    return fields


def fetch_variables(
    fields: Sequence[Circle] | None,
    out_path: Path | str = FETCH.variables,
    *,
    tables: Sequence[str] = FETCH.tables,
    min_interval_s: float = FETCH.min_interval_s,
    attempts: int = FETCH.attempts,
) -> pd.DataFrame:
    """Fetch variable stars, and add them to a csv that labelling reads (``clean.variables`` in params.yaml).

    Parameters
    ----------
    fields : sequence of Circle or None
        Where; None for the whole sky.
    out_path : path
        csv with ra, dec (deg), name, class and table. Fields that it has already stay.
    tables : sequence of {"atlas", "gaia"}
        A star of the first within 1 arcsec takes the place of one of the second.
    min_interval_s : float
        Time between two questions.
    attempts : int
        Times that a question is asked.

    Returns
    -------
    DataFrame
        The csv's content.

    Raises
    ------
    CatalogueError
        If VizieR does not answer, or the file is one that was not made here. What was fetched stays in the cache.

    Examples
    --------
    >>> fetch_variables([Circle(150.0, 2.0, 0.5)], "variables.csv")[["ra", "dec", "class"]]  # doctest: +SKIP
    """
    out_path = Path(out_path)
    before = _read_coverage(out_path, out_path.with_name(out_path.name + f".{COVERAGE}"))
    covered = _join_coverage(before, fields, {name: dict(TABLES[name].limits) for name in tables})
    asker = _Asker(min_interval_s, attempts)
    parts = [asker.ask_all(TABLES[name], covered["fields"]).assign(table=name) for name in covered["tables"]]
    found = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    found = _without_twins(found)
    rows = found[["ra", "dec", "name", "class", "table"]].to_csv(index=False, lineterminator="\n", float_format="%.7f")
    with whole_file(out_path) as aside:
        aside.write_text(rows, encoding="utf-8")
        # before the csv has its name, so that after a kill there is no csv that nothing tells the origin of
        _write_coverage(
            out_path.with_name(out_path.name + f".{COVERAGE}"), covered | {"sha256": file_digest(aside)}, len(found)
        )
    return found


def fetch_galaxies(
    fields: Sequence[Circle] | None,
    out_dir: Path | str = FETCH.galaxies,
    *,
    max_mag: float = FETCH.max_mag,
    min_interval_s: float = FETCH.min_interval_s,
    attempts: int = FETCH.attempts,
) -> int:
    """Fetch galaxies of GLADE+, and write them in catsHTM format, as labelling reads them (CATSHTM_DIR in .env).

    Parameters
    ----------
    fields, min_interval_s, attempts
        As for `fetch_variables`.
    out_dir : path
        Folder in which GLADE/ is made or replaced; fields that it has already stay.
    max_mag : float
        Faintest galaxy (B).

    Returns
    -------
    int
        Galaxies in the catalogue.

    Raises
    ------
    CatalogueError
        As for `fetch_variables`.

    Examples
    --------
    >>> fetch_galaxies([Circle(150.0, 2.0, 0.5)], "catalogues", max_mag=19.0)  # doctest: +SKIP
    """
    folder = Path(out_dir) / NAME
    _clear_up(folder)
    before = _read_coverage(folder, folder / COVERAGE)
    limits = {"Bmag": f"<{max_mag:g}"}
    covered = _join_coverage(before, fields, {"glade": limits})
    table = Table(TABLES["glade"].name, TABLES["glade"].columns, limits)
    found = _Asker(min_interval_s, attempts).ask_all(table, covered["fields"])
    if found.empty:
        raise CatalogueError(f"no galaxy brighter than B {max_mag:g} in these fields; give a fainter max_mag")
    place = np.radians(found[["ra", "dec"]].to_numpy(float))
    numbers = found[["mag", "distance"]].to_numpy(float)
    rows = np.column_stack([place, numbers[:, 0], np.full(len(found), np.nan), numbers[:, 1]])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=folder.parent) as aside:
        write_glade(rows, Path(aside))
        _write_coverage(Path(aside) / NAME / COVERAGE, covered, len(found))
        if folder.exists():
            folder.rename(folder.with_name(EARLIER))
        (Path(aside) / NAME).rename(folder)
    _clear_up(folder)
    return len(found)


def _clear_up(folder: Path) -> None:
    """Remove what an interrupted fetch left next to a catalogue, and bring back one that was about to be replaced."""
    earlier = folder.with_name(EARLIER)
    if earlier.exists() and not folder.exists():
        earlier.rename(folder)
    for left in (earlier, *folder.parent.glob(f"{ASIDE}*")):
        shutil.rmtree(left, ignore_errors=True)


def _without_twins(stars: pd.DataFrame) -> pd.DataFrame:
    """Stars of the first table, and those of the others that do not match them."""
    kept = stars.iloc[:0]
    for _, part in stars.groupby("table", sort=False):
        if len(kept) and len(part):
            _, arcsec = find_nearest(
                part["ra"].to_numpy(), part["dec"].to_numpy(), kept["ra"].to_numpy(), kept["dec"].to_numpy()
            )
            part = part[~(arcsec <= SAME_STAR_ARCSEC)]
        kept = pd.concat([kept, part]) if len(kept) else part
    return kept.sort_values(["dec", "ra"]).reset_index(drop=True)


class _Asker:
    """Asks VizieR about fields, one at a time and never twice."""

    def __init__(self, min_interval_s: float, attempts: int, settings: Settings | None = None) -> None:
        settings = settings or read_settings()
        self.min_interval_s, self.attempts = min_interval_s, attempts
        self.server, self.cache = settings.gotorb_vizier_server, settings.cache_dir / "vizier"
        self.asked = 0.0

    def ask_all(self, table: Table, fields: Sequence[Sequence[float]]) -> pd.DataFrame:
        """Rows of all fields, each once: our columns with ra, dec (deg)."""
        parts = []
        for number, field in enumerate(fields):
            parts.append(self.ask(table, Circle(*field)))
            log.info("%s: field %d of %d, %d rows", table.name, number + 1, len(fields), len(parts[-1]))
        rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        if rows.empty:
            log.warning("VizieR's table %s has nothing in these %d fields", table.name, len(fields))
        return rows.drop_duplicates(["ra", "dec"]).reset_index(drop=True)

    def ask(self, table: Table, field: Circle) -> pd.DataFrame:
        """Rows of one field, from the cache when it was asked before."""
        key = value_digest((table.name, table.columns, table.limits, tuple(field)))
        kept = self.cache / f"{key}.csv"
        if not kept.exists():
            rows = self._fetch(table, field)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(kept, shared=True) as aside:
                rows.to_csv(aside, index=False)
        return pd.read_csv(kept, dtype={"name": str, "class": str}, keep_default_na=False,
                           na_values={"mag": [""], "distance": [""]})  # fmt: skip

    def _fetch(self, table: Table, field: Circle) -> pd.DataFrame:
        reason = ""
        for attempt in range(self.attempts):
            wait = self.asked + self.min_interval_s * 2**attempt - time.monotonic()
            if self.asked and wait > 0:
                time.sleep(wait)
            try:
                answer = self._ask_server(table, field)
                return _our_columns(answer, table)
            except CatalogueError:
                raise
            except Exception as error:  # astroquery lets through what network, server and parsers make of it
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
                log.info("VizieR, attempt %d of %d: %s", attempt + 1, self.attempts, reason)
            finally:
                self.asked = time.monotonic()
        raise CatalogueError(
            f"VizieR gave no answer for {table.name} at {field.ra:g} {field.dec:+g} in {self.attempts} attempts "
            f"({reason}); give the same command again later: it resumes"
        )

    def _ask_server(self, table: Table, field: Circle) -> Any:
        import astropy.units as u
        from astropy.coordinates import SkyCoord
        from astroquery.vizier import VizierClass, conf

        asker = VizierClass(
            columns=[*PLACE, *table.columns.values()], column_filters=dict(table.limits), row_limit=-1,
            vizier_server=self.server or conf.server, timeout=TIMEOUT_S,
        )  # fmt: skip
        centre = SkyCoord(field.ra, field.dec, unit="deg", frame="icrs")
        return asker.query_region(centre, radius=field.radius * u.deg, catalog=table.name, cache=False, frame="icrs")


def _our_columns(answer: Any, table: Table) -> pd.DataFrame:
    """Rows of an answer in our columns; an empty answer has none."""
    if answer is None:
        raise ValueError("the answer is no VOTable")
    names = ["ra", "dec", *table.columns]
    if not len(answer):
        return pd.DataFrame(columns=names)
    rows = answer[0]
    absent = [name for name in (*PLACE, *table.columns.values()) if _plain(name) not in map(_plain, rows.colnames)]
    if absent:
        raise CatalogueError(
            f"no column {absent[0]!r} in VizieR's table {table.name} (has {', '.join(rows.colnames)}); report this"
        )
    theirs = {_plain(name): name for name in rows.colnames}
    found = {
        ours: rows[theirs[_plain(name)]] for ours, name in zip(names, (*PLACE, *table.columns.values()), strict=True)
    }
    frame = pd.DataFrame({name: _values(column) for name, column in found.items()})
    return frame[frame["ra"].notna() & frame["dec"].notna()]


def _values(column: Any) -> Any:
    """Values of a column, with "" or NaN where it is masked."""
    values: Any = np.ma.asarray(column)
    return values.astype(object).filled("") if values.dtype.kind in "OSUi" else values.astype(float).filled(np.nan)


def _plain(name: str) -> str:
    """Name of a column without what astroquery changes in it."""
    return "".join(letter for letter in name if letter.isalnum()).lower()


def _read_coverage(made: Path, path: Path) -> dict[str, Any]:
    """Read the coverage of a file; empty for a new one.

    Raises
    ------
    CatalogueError
        If it was made elsewhere: it is never replaced.
    """
    if not made.exists():
        return {"fields": [], "tables": {}}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CatalogueError(
            f"{made} was not made by `gotorb catalogue fetch` (no {path.name}) and is left as it is; give another place"
        ) from None
    return content


def _join_coverage(before: dict[str, Any], fields: Sequence[Circle] | None, tables: dict[str, Any]) -> dict[str, Any]:
    whole = fields is None or before.get("sky") == "all"
    every = (
        sky_fields()
        if whole
        else _outermost([*merge_fields(fields or ()), *(Circle(*one) for one in before["fields"])])
    )
    if not every:
        raise CatalogueError("no field to ask for; name images that can be read, or --all-sky")
    return {"sky": "all" if whole else "fields", "fields": [list(one) for one in every],
            "tables": before.get("tables", {}) | tables}  # fmt: skip


def _write_coverage(path: Path, covered: dict[str, Any], n_rows: int) -> None:
    vizier = {name: TABLES[name].name for name in covered["tables"]}
    write_json(path, {"fetched": datetime.now(UTC).isoformat(timespec="seconds"), "n_rows": n_rows, "vizier": vizier,
                      **covered})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """State of a fetched catalogue.

    Attributes
    ----------
    path, fetched : str
        File or folder, and the date of its last fetch.
    n_rows, n_fields : int
    sky : {"all", "fields"}
    square_degrees : float
        Area covered; fields that overlap count once only where one lies within the other.
    tables : tuple of str
        VizieR's names.
    """

    path: str
    fetched: str
    n_rows: int
    n_fields: int
    sky: str
    square_degrees: float
    tables: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line."""
        where = "the whole sky" if self.sky == "all" else f"{self.n_fields} fields, {self.square_degrees:.1f} sq deg"
        return f"{self.path}: {self.n_rows} rows of {', '.join(self.tables)}, {where}, fetched {self.fetched[:10]}"


def describe_fetched(made: Path | str) -> Fetched | None:
    """Coverage and date of a catalogue that was fetched.

    Parameters
    ----------
    made : path
        The csv of variable stars, or the folder that holds GLADE/.

    Returns
    -------
    Fetched or None
        None for one that does not exist, was made elsewhere, or whose last fetch was interrupted.

    Examples
    --------
    >>> print(describe_fetched("catalogues/variables.csv"))  # made elsewhere
    None
    """
    made = Path(made)
    path = made.with_name(made.name + f".{COVERAGE}") if made.suffix else made / NAME / COVERAGE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if made.suffix and content.get("sha256", file_digest(made)) != file_digest(made):
            return None  # a fetch was interrupted, or the csv was edited
        fields = [Circle(*one) for one in content["fields"]]
        return Fetched(
            path=str(made), fetched=content["fetched"], n_rows=content["n_rows"], n_fields=len(fields),
            sky=content["sky"], square_degrees=41253.0 if content["sky"] == "all" else _area(fields),
            tables=tuple(content["vizier"].values()),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _area(fields: Sequence[Circle]) -> float:
    return float(sum(2 * np.pi * (1 - np.cos(np.radians(one.radius))) for one in fields) * np.degrees(1.0) ** 2)
