"""Audit of a night: hidden and shown detections, mixed and labelled blind, tell how many real ones were missed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.files import write_csv
from gotorb.errors import DataError
from gotorb.eyeball.decisions import Journal, join_votes
from gotorb.visualise.night import AUDIT_CSV, AUDIT_DIR, estimate_missed, read_night, redraw_night

LABELS = {"real": str(layout.REAL), "bogus": str(layout.BOGUS)}


def audit_set(night_dir: Path | str) -> Path:
    """Folder of a night's audit set.

    Parameters
    ----------
    night_dir : path
        The --out-dir of `gotorb night`.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        If the night has none.
    """
    found = Path(night_dir) / AUDIT_DIR
    if not layout.labels_path(found).exists():
        raise DataError(
            f"no {AUDIT_DIR} in {night_dir}; give the --out-dir of `gotorb night`, run with --n-audit above 0"
        )
    return found


def record_audit(night_dir: Path | str, *, journal: Path | str | None = None) -> dict[str, Any]:
    """Fill the labels of a night's audit.csv from the decisions on its audit set, and draw its page again.

    Parameters
    ----------
    night_dir : path
        The --out-dir of `gotorb night`.
    journal : path, optional
        The journal of decisions; eyeball.sqlite of the audit set when left out.

    Returns
    -------
    dict
        As from `gotorb.visualise.night.estimate_missed`; n_shown_labelled and n_shown_real count the shown ones.

    Raises
    ------
    DataError
        If the folder is not that of a night, or no hidden detection is labelled.
    """
    night_dir = Path(night_dir)
    path = audit_set(night_dir) / layout.EYEBALL_DB if journal is None else Path(journal)
    if not path.exists():
        raise DataError(f"no journal {path}; label the audit with `gotorb eyeball {night_dir} --audit`")
    with closing(Journal(path)) as kept:
        verdicts = join_votes(kept.current()).rows["verdict"]
    summary, table = read_night(night_dir)
    audit = pd.read_csv(night_dir / AUDIT_CSV, dtype=str, keep_default_na=False)
    labels = audit["id"].map(verdicts).map(LABELS)
    audit["label"] = np.where(labels.notna(), labels, audit["label"])
    found = estimate_missed(audit, summary["n_hidden"])
    shown = verdicts.reindex(table.loc[table["called_real"] == 1, "id"])
    found |= {"n_shown_labelled": int(shown.isin(list(LABELS)).sum()), "n_shown_real": int((shown == "real").sum())}
    write_csv(night_dir / AUDIT_CSV, audit, inert=True)
    redraw_night(night_dir, found)
    return found


def tell_missed(found: dict[str, Any], n_hidden: int) -> str:
    """Miss rate with its interval as two lines of text.

    Parameters
    ----------
    found : dict
        As from `record_audit`.
    n_hidden : int
        Detections that were hidden.

    Returns
    -------
    str
    """
    low, high = found["n_missed_interval"]
    rate, lower, upper = (100 * value for value in (found["rate"], *found["interval"]))
    return (
        f"{found['n_labelled']} labelled, {rate:.2f} % of the hidden are real ({lower:.2f} to {upper:.2f} %)\n"
        f"of {n_hidden} hidden detections about {found['n_missed']} are real ({low} to {high})"
    )
