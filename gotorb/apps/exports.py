"""From the journal to a new version of the data set, or to a list of labelled candidates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.core.files import write_csv
from gotorb.dataset.store import open_dataset
from gotorb.dataset.versions import CHANGE_COLUMNS, flips, removals, write_version
from gotorb.errors import ConfigError, DataError

ACTIONS = ("keep", "remove")
METALABEL = "marshall"
JOURNAL_COLUMNS = ("id", "labeller", "label", "blind", "sequence", "model")


@dataclass(frozen=True)
class Verdicts:
    """What people decided together.

    Attributes
    ----------
    rows : DataFrame
        By id: verdict (real, bogus, unsure, flag, or disputed where as many say one as the other), n_real, n_bogus
        and labellers, joined by commas.
    """

    rows: pd.DataFrame

    def ids(self, verdict: str) -> pd.Index:
        """Ids with a verdict."""
        return self.rows.index[self.rows["verdict"] == verdict]


def join_votes(current: pd.DataFrame) -> Verdicts:
    """The verdict on each row: a flag by anyone, else what most call it, else unsure.

    Parameters
    ----------
    current : DataFrame
        `Journal.current`.

    Examples
    --------
    >>> votes = pd.DataFrame([("ann", "a", "real"), ("bob", "a", "real"), ("cy", "a", "bogus")],
    ...                      columns=["labeller", "id", "label"])
    >>> join_votes(votes).rows.loc["a", "verdict"]
    'real'
    """
    votes = current.assign(**{kind: current["label"].eq(kind) for kind in ("real", "bogus", "flag")})
    grouped = votes.sort_values("labeller").groupby("id", sort=True)
    rows = grouped[["real", "bogus", "flag"]].sum().rename(columns={"real": "n_real", "bogus": "n_bogus"})
    balance = (rows["n_real"] - rows["n_bogus"]).to_numpy(int)
    torn = np.where(rows["n_real"] > 0, "disputed", "unsure")
    verdict = np.where(balance > 0, "real", np.where(balance < 0, "bogus", torn))
    verdict = np.where(rows["flag"] > 0, "flag", verdict)
    return Verdicts(
        rows.assign(verdict=verdict, labellers=grouped["labeller"].agg(", ".join))[
            ["verdict", "n_real", "n_bogus", "labellers"]
        ]
    )


def find_changes(table: pd.DataFrame, verdicts: Verdicts, *, flagged: str, unsure: str) -> pd.DataFrame:
    """Rows that get another label, and those that go.

    Parameters
    ----------
    table : DataFrame
        The data set's rows.
    verdicts : Verdicts
        From `join_votes`.
    flagged, unsure : {"keep", "remove"}
        What becomes of rows with these verdicts; disputed rows keep their label.

    Raises
    ------
    ConfigError
        If an action is unknown.
    """
    for name, action in (("flagged", flagged), ("unsure", unsure)):
        if action not in ACTIONS:
            raise ConfigError(f"unknown action {action!r} for {name} rows; choose {' or '.join(ACTIONS)}")
    verdict = verdicts.rows["verdict"].reindex(table["id"]).to_numpy(object)
    who = verdicts.rows["labellers"].reindex(table["id"]).to_numpy(object)
    parts = [pd.DataFrame(columns=list(CHANGE_COLUMNS))]
    for kind, label in (("real", layout.REAL), ("bogus", layout.BOGUS)):
        differs = np.flatnonzero((verdict == kind) & (table["label"].to_numpy() != label))
        for people in sorted(set(who[differs])):
            rows = differs[who[differs] == people]
            parts.append(flips(rows, f"eyeball: {people}", label=label, metalabel=METALABEL))
    for kind, action in (("flag", flagged), ("unsure", unsure)):
        rows = np.flatnonzero(verdict == kind)
        if action == "remove" and len(rows):
            parts.append(removals(rows, f"eyeball: {kind}"))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def write_labelled(
    data_dir: Path, new_dir: Path, current: pd.DataFrame, *, flagged: str = "keep", unsure: str = "keep"
) -> Path:
    """Write a new version with people's labels, changes.csv, and eyeball.csv: who called each row what.

    Raises
    ------
    DataError
        If nobody decided on any row of the data set.
    """
    table = open_dataset(data_dir).table
    known = current[current["id"].isin(table["id"])]
    if known.empty:
        raise DataError(f"no decision on any row of {data_dir} in its journal; run `gotorb eyeball {data_dir}` first")
    changes = find_changes(table, join_votes(known), flagged=flagged, unsure=unsure)
    write_version(data_dir, new_dir, changes)
    votes = known.sort_values(["id", "labeller"])[list(JOURNAL_COLUMNS)]
    write_csv(new_dir / layout.EYEBALL_CSV, votes)
    return new_dir


def list_labels(data_dir: Path, current: pd.DataFrame) -> pd.DataFrame:
    """Candidates that people called real or bogus: photometry_id and label, as `label_data.add_marshall_cands` reads.

    Synthetic rows, which carry the candidate id of a minor planet elsewhere, and rows without one are left out.
    """
    table = open_dataset(data_dir).table
    verdict = join_votes(current).rows["verdict"].reindex(table["id"]).to_numpy(object)
    candidate = table["candidate_id"].astype(str) if "candidate_id" in table else pd.Series("", index=table.index)
    usable = np.isin(verdict, ("real", "bogus")) & ~table["metalabel"].isin(layout.SYNTHETIC) & candidate.str.isdigit()
    return pd.DataFrame(
        {"photometry_id": candidate[usable].astype("int64"), "label": (verdict[usable] == "real").astype(int)}
    ).reset_index(drop=True)
