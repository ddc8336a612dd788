"""SkyBoT cone searches, polite: one request at a time on this machine, at most one per second."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from gotorb.errors import LookupFailed

TRIES = 3
TIMEOUT_S = 60
PAUSE_S = 1.0
NOTHING_FOUND = "No solar system object was found"


def fetch_field(ra: float, dec: float, radius_deg: float, epoch_mjd: float, *, code: str) -> pd.DataFrame:
    """Minor planets in a circle at an epoch.

    Parameters
    ----------
    ra, dec, radius_deg : float
        deg, ICRS.
    epoch_mjd : float
        MJD, UTC.
    code : str
        IAU observatory code.

    Returns
    -------
    DataFrame
        name, ra, dec (deg), mag (V).

    Raises
    ------
    LookupFailed
        If no try gave a usable answer.
    """
    reason = ""
    for attempt in range(TRIES):
        try:
            return _parse(_ask(ra, dec, radius_deg, epoch_mjd, code))
        except LookupFailed:
            raise
        except Exception as error:
            if NOTHING_FOUND in str(error):
                return pd.DataFrame(columns=["name", "ra", "dec", "mag"])
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            time.sleep(PAUSE_S * 2**attempt)
    raise LookupFailed(
        f"SkyBoT gave no answer for ra {ra:.4f} dec {dec:.4f} at MJD {epoch_mjd:.5f} ({reason}); "
        "try later, or use provider='pympc'"
    )


def _ask(ra: float, dec: float, radius_deg: float, epoch_mjd: float, code: str) -> Any:
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from astropy.time import Time
    from astroquery.imcce import Skybot
    from filelock import FileLock

    service = Skybot()
    service.TIMEOUT = TIMEOUT_S
    centre = SkyCoord(ra * u.deg, dec * u.deg)
    with FileLock(Path(tempfile.gettempdir()) / "gotorb-skybot.lock"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.monotonic()
        try:
            # cache=False: astroquery would store a "you are blocked" page and replay it
            return service.cone_search(
                centre, radius_deg * u.deg, Time(epoch_mjd, format="mjd", scale="utc"), location=code, cache=False
            )
        finally:
            time.sleep(max(0.0, PAUSE_S - (time.monotonic() - started)))


def _parse(answer: Any) -> pd.DataFrame:
    absent = [name for name in ("Name", "RA", "DEC", "V") if name not in answer.colnames]
    if absent or len(answer) == 0:
        raise LookupFailed(
            f"SkyBoT's answer lacks {absent[0] if absent else 'rows'} (columns {', '.join(answer.colnames)}); try later"
        )
    return pd.DataFrame(
        {
            "name": [str(name).strip() for name in answer["Name"]],
            "ra": answer["RA"].to("deg").value,
            "dec": answer["DEC"].to("deg").value,
            "mag": answer["V"].value,
        }
    )
