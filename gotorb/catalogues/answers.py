"""What SkyBoT says, as a table; and answers kept on disk, so that a question is asked once.

Only whole answers become tables. A blocked page, an error flag, a broken or an unexplained empty table does not.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.catalogues.cache import whole_file

COLUMNS = ("name", "ra", "dec", "mag")
NOTHING_FOUND = "No solar system object was found"
FAILED_FLAG = "# Flag: -1"
NEEDED = ("Name", "_RAJ2000", "_DECJ2000", "Mv")


class Unusable(Exception):
    """An answer that tells nothing about the sky; `again` says whether another try makes sense."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class Question:
    """What SkyBoT is asked: a circle (deg, ICRS) at an epoch (MJD, UTC) from an observatory (IAU code)."""

    url: str
    code: str
    ra: float
    dec: float
    radius_deg: float
    epoch_mjd: float

    def rounded(self) -> Question:
        """The same to a milliarcsecond and ten milliseconds: noise in the last digits asks nothing new."""
        numbers = (self.ra % 360, self.dec, self.radius_deg, self.epoch_mjd)
        return Question(self.url, self.code, *(round(float(number), 7) for number in numbers))

    @property
    def payload(self) -> dict[str, str]:
        """Parameters of the request."""
        return {
            "-ep": f"{self.epoch_mjd + 2_400_000.5:.7f}",
            "-ra": f"{self.ra:.7f}",
            "-dec": f"{self.dec:.7f}",
            "-rd": f"{self.radius_deg:.7f}",
            "-observer": self.code,  # another name, -loc for one, is ignored: positions arcseconds off
            "-filter": "120",
            "-objFilter": "111",
            "-refsys": "EQJ2000",
            "-output": "all",
            "-mime": "votable",
            "-from": "gotorb",
        }


def make_table(name: Iterable[Any], ra: Any, dec: Any, mag: Any) -> pd.DataFrame:
    """Minor planets: name, ra, dec (deg), mag (V)."""
    names = pd.Series([str(one).strip() for one in name], dtype="str")
    return pd.DataFrame(
        {"name": names} | {k: np.asarray(v, float) for k, v in zip(COLUMNS[1:], (ra, dec, mag), strict=True)}
    )


def parse_answer(body: bytes) -> pd.DataFrame:
    """Table of an answer that came with HTTP status 200; no rows only where the service says that nothing is there.

    Raises
    ------
    Unusable
        If it is anything else.
    """
    text = body.decode("utf-8", errors="replace")
    start = text.lstrip()[:200].lower()
    if "<html" in start or "<!doctype html" in start:
        raise Unusable(f"a web page instead of a table: {_shorten(text)}", again=False)
    if FAILED_FLAG in text:
        raise Unusable(_shorten(text), again=False)
    if NOTHING_FOUND in text:
        return make_table((), (), (), ())
    return _parse_votable(body)


def _parse_votable(body: bytes) -> pd.DataFrame:
    from astropy.io import votable

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = votable.parse(io.BytesIO(body), verify="ignore")
    except Exception as error:
        raise Unusable(f"no whole VOTable ({_shorten(str(error))})", again=True) from None
    for info in document.iter_info():
        if info.name == "QUERY_STATUS" and info.value != "OK":
            raise Unusable(f"status {info.value} {_shorten(info.content or '')}".strip(), again=False)
    rows = next((table.to_table(use_names_over_ids=True) for table in document.iter_tables()), None)
    if rows is None or len(rows) == 0:
        raise Unusable("a table without rows and without a reason", again=False)
    absent = [name for name in NEEDED if name not in rows.colnames]
    if absent:
        raise Unusable(f"no column {absent[0]} (columns {', '.join(rows.colnames)})", again=False)
    table = make_table(rows["Name"], *(np.ma.filled(rows[name].astype(float), np.nan) for name in NEEDED[1:]))
    if not np.isfinite(table[["ra", "dec"]].to_numpy()).all():
        raise Unusable("rows without a position", again=True)
    return table


def _shorten(text: str) -> str:
    return " ".join(text.split())[:120]


def keep_answer(folder: Path, question: Question, table: pd.DataFrame) -> None:
    """Keep an answer, a true "nothing there" included."""
    rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    with whole_file(_path(folder, question)) as aside:
        aside.write_text(json.dumps({"question": asdict(question), "rows": rows}, indent=0))


def kept_answer(folder: Path, question: Question) -> pd.DataFrame | None:
    """The answer to this question; None if there is none, or none that is whole."""
    try:
        kept = json.loads(_path(folder, question).read_text())
        if kept["question"] != asdict(question):
            return None
        columns = list(zip(*kept["rows"], strict=True)) or [()] * len(COLUMNS)
        return make_table(*columns)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(folder: Path, question: Question) -> Path:
    return folder / f"{hashlib.sha256(repr(question).encode()).hexdigest()[:24]}.json"
