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
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            time.sleep(PAUSE_S * 2**attempt)
    raise LookupFailed(
        f"SkyBoT gave no answer for ra {ra:.4f} dec {dec:.4f} at MJD {epoch_mjd:.5f} ({reason}); "
        "try later, or use provider='pympc'"
    )


def _ask(ra: float, dec: float, radius_deg: float, epoch_mjd: float, code: str) -> Any:
    """The service's table; None where it says that nothing is there."""
    import requests
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from astropy.time import Time
    from astroquery.imcce import Skybot, conf
    from filelock import FileLock

    service, centre = Skybot(), SkyCoord(ra * u.deg, dec * u.deg)
    epoch = Time(epoch_mjd, format="mjd", scale="utc")
    payload = service.cone_search(centre, radius_deg * u.deg, epoch, location=code, get_query_payload=True)
    # the service ignores astroquery's -loc and would answer for the Earth's centre, arcseconds off
    payload["-observer"] = payload.pop("-loc", code)
    with FileLock(Path(tempfile.gettempdir()) / "gotorb-skybot.lock"):
        started = time.monotonic()
        try:
            response = requests.get(conf.skybot_server, params=payload, timeout=TIMEOUT_S)
        finally:
            time.sleep(max(0.0, PAUSE_S - (time.monotonic() - started)))
    response.raise_for_status()
    if NOTHING_FOUND in response.text:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return service._parse_result(response)


def _parse(answer: Any) -> pd.DataFrame:
    if answer is None:
        return pd.DataFrame(columns=["name", "ra", "dec", "mag"], dtype=float)
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
