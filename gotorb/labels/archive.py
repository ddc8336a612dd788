"""Labels of ready-made stamps: by rules on the archive's own columns, or by a column that has them."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import gotorb
from gotorb.core import layout
from gotorb.core.params import ArchiveParams
from gotorb.dataset.folder import Recipe, unfinished
from gotorb.dataset.store import write_dataset, write_table
from gotorb.errors import DataError
from gotorb.survey.archives import StampSource
from gotorb.survey.ids import find_bad_id, is_blank

log = logging.getLogger(__name__)

COPIED = "copies the survey's score"
"""Word in the rule of labels that no one but the survey's old classifier gave."""
MAX_MAG_DIFFERENCE = 2.0
"""A detection this much brighter or fainter than the minor planet next to it is something else."""


def label_archive(table: pd.DataFrame, params: ArchiveParams) -> pd.DataFrame:
    """Give the rows of an archive our columns and labels.

    Parameters
    ----------
    table : DataFrame
        The archive's own columns.
    params : ArchiveParams
        Section ``label.archive`` of params.yaml.

    Returns
    -------
    DataFrame
        Columns of `layout.LABEL_COLUMNS` and ``peer_<name>`` for each of params.peer_columns; label -1 where no
        rule holds.

    Raises
    ------
    DataError
        If params names a column that is missing in the archive, or labels are other than 1, 0 and nothing.

    Examples
    --------
    >>> table = pd.DataFrame({"candid": [1, 2, 3], "proxy_label": [1, 0, None]})
    >>> label_archive(table, ArchiveParams(labels="proxy"))[["id", "label", "metalabel"]].values.tolist()
    [['1', 1, 'proxy_real'], ['2', 0, 'proxy_bogus'], ['3', -1, 'unlabelled']]
    """
    named = {ours: _column(table, theirs, f"columns.{ours}") for ours, theirs in params.columns.items()}
    rows = pd.DataFrame(named, index=table.index)
    asteroid = _find_asteroids(table, params)
    chosen = _by_rules(table, asteroid, params) if params.labels == "rules" else _by_proxy(table, asteroid, params)
    rows = rows.assign(**chosen, number=asteroid, catalogue="", host_id="", code_version=gotorb.__version__)
    objects = rows.get("object_id", pd.Series("", index=rows.index))
    objects = objects.astype(str).where(~is_blank(objects), "")
    rows["object_id"] = np.where(asteroid != "", "mp:" + asteroid, objects)
    if problem := find_bad_id(rows["candidate_id"]):
        raise DataError(
            f"column {params.columns.get('candidate_id')!r} of the archive has {problem}; "
            "give each row one id, text or a whole number"
        )
    rows["id"] = rows["candidate_id"] = rows["candidate_id"].astype(str)
    peers = {f"peer_{name}": _numbers(table, name, "peer_columns") for name in params.peer_columns}
    return rows.reindex(columns=list(layout.LABEL_COLUMNS)).assign(**peers)


def _column(table: pd.DataFrame, name: str | list[str], where: str) -> pd.Series:
    """A column of the archive; of several names, their values joined."""
    if isinstance(name, list):
        parts = [_column(table, one, where) for one in name]
        joined = pd.Series("/", index=table.index).str.cat([part.astype(str) for part in parts], "/")
        return joined.mask(np.any([is_blank(part) for part in parts], axis=0), "")
    if name not in table:
        raise DataError(
            f"no column {name!r} in the archive (has {', '.join(map(str, table.columns[:12]))}, ...); "
            f"correct label.archive.{where} in params.yaml"
        )
    return table[name]


def _numbers(table: pd.DataFrame, name: str, where: str) -> pd.Series:
    return pd.to_numeric(_column(table, name, where), errors="coerce").astype(float)


def _find_asteroids(table: pd.DataFrame, params: ArchiveParams) -> pd.Series:
    """Name of the known minor planet at each detection, "" where there is none."""
    columns = params.asteroid_columns
    nobody = pd.Series("", index=table.index)
    if "distance" not in columns:
        return nobody
    distance = _numbers(table, columns["distance"], "asteroid_columns.distance")
    near = distance.between(0, params.asteroid_match_arcsec)
    if "mag" in columns and "mag" in params.columns:
        theirs = _numbers(table, columns["mag"], "asteroid_columns.mag")
        difference = theirs - _numbers(table, str(params.columns["mag"]), "columns.mag")
        near &= (difference.abs() < MAX_MAG_DIFFERENCE) | theirs.isna()  # Rubin's early packets have no prediction
    if "name" not in columns:
        return nobody.where(~near, "unnamed")
    names = _column(table, columns["name"], "asteroid_columns.name").fillna("unnamed").astype(str)
    return names.where(near, "")


def _by_rules(table: pd.DataFrame, asteroid: pd.Series, params: ArchiveParams) -> dict[str, pd.Series]:
    """Known minor planet or catalogued object: real; low old score and neither: bogus."""
    is_asteroid = asteroid != ""
    catalogued = pd.Series(False, index=table.index)
    if params.catalogued_column:
        catalogued = _numbers(table, params.catalogued_column, "catalogued_column") == 1
    low = pd.Series(False, index=table.index)
    if params.old_score_column:
        low = _numbers(table, params.old_score_column, "old_score_column") < params.max_bogus_score
    choices = [
        (is_asteroid, layout.REAL, "mp", f"minor planet within {params.asteroid_match_arcsec:g} arcsec"),
        (catalogued, layout.REAL, "catalogued", f"{params.catalogued_column} is 1"),
        (low, layout.BOGUS, "lowscore", f"{params.old_score_column} < {params.max_bogus_score:g}, unmatched: {COPIED}"),
    ]
    found = choose_labels(table.index, choices)
    if n_copied := int((found["metalabel"] == "lowscore").sum()):
        log.warning(
            "%d bogus labels copy the survey's own score (%s < %g): a network trained on them learns that score's "
            "opinion, errors included; detections without a known minor planet are not bogus by themselves",
            n_copied, params.old_score_column, params.max_bogus_score,
        )  # fmt: skip
    return found


def _by_proxy(table: pd.DataFrame, asteroid: pd.Series, params: ArchiveParams) -> dict[str, pd.Series]:
    """The label that the archive's own column gives."""
    proxy = _column(table, params.proxy_column, "proxy_column")
    values = pd.to_numeric(proxy, errors="coerce")
    odd = proxy.notna() & ~values.isin([0, 1, -1])
    if odd.any():
        raise DataError(
            f"label {proxy[odd].iloc[0]!r} in column {params.proxy_column!r} of the archive; "
            "labels are 1 (real), 0 (bogus) or nothing"
        )
    rule = f"column {params.proxy_column}"
    choices = [
        ((values == 1) & (asteroid != ""), layout.REAL, "mp", rule),
        (values == 1, layout.REAL, "proxy_real", rule),
        (values == 0, layout.BOGUS, "proxy_bogus", rule),
    ]
    return choose_labels(table.index, choices)


def choose_labels(index: pd.Index, choices: Sequence[tuple[pd.Series, int, str, str]]) -> dict[str, pd.Series]:
    """Give each row the label of the first rule that holds.

    Parameters
    ----------
    index : Index
        Of the rows.
    choices : sequence of tuple
        (n,) True where the rule holds, label, metalabel, and the rule in words.

    Returns
    -------
    dict
        Columns label, metalabel and rule; unknown, ``unlabelled`` and "" where no rule holds.

    Examples
    --------
    >>> bright, masked = pd.Series([True, False, False]), pd.Series([True, True, False])
    >>> found = choose_labels(bright.index, [(bright, 1, "mp", "bright"), (masked, 0, "flagged", "masked")])
    >>> found["label"].tolist(), found["rule"].tolist()
    ([1, 0, -1], ['bright', 'masked', ''])
    """
    if not choices:
        nothing = {"label": layout.UNKNOWN, "metalabel": "unlabelled", "rule": ""}
        return {name: pd.Series(value, index=index) for name, value in nothing.items()}
    holds = [choice[0].to_numpy(bool) for choice in choices]
    columns = {}
    for name, place, otherwise in (("label", 1, layout.UNKNOWN), ("metalabel", 2, "unlabelled"), ("rule", 3, "")):
        columns[name] = pd.Series(np.select(holds, [choice[place] for choice in choices], otherwise), index=index)
    return columns


def write_stamps(data_dir: Path, rows: pd.DataFrame, source: StampSource, recipe: Recipe | None = None) -> None:
    """Write ready-made stamps and their labelled rows as a data set.

    Parameters
    ----------
    data_dir : Path
        Folder of the new data set.
    rows : DataFrame
        From `label_archive`.
    source : StampSource
        The stamps of the rows, in the same order.
    recipe : dict, optional
        What decides rows and stamps.

    Raises
    ------
    DataError
        If no row has a label, or the folder holds a finished data set of another recipe.

    Examples
    --------
    >>> import tempfile
    >>> from gotorb.survey.archives import open_stamps
    >>> source = open_stamps("packets", ArchiveParams())
    >>> rows = label_archive(source.table, ArchiveParams()).assign(label=[1, 0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_stamps(Path(folder) / "new", rows, source)
    ...     sorted(path.name for path in (Path(folder) / "new").iterdir())
    ['SHA256SUMS', 'data_labels.csv', 'data_stamps.h5']
    """
    if not rows["label"].isin([layout.REAL, layout.BOGUS]).any():
        raise DataError(f"none of {len(rows)} rows got a label; check label.archive in params.yaml")
    missing: list[np.ndarray] = []

    def blocks() -> Iterator[np.ndarray]:
        for stamps, fraction in source.batches():
            missing.append(fraction)
            yield stamps

    # stamps are written first and tell how much of each is missing, so the rows are completed behind them
    with unfinished(data_dir, recipe):
        write_dataset(data_dir, rows, blocks(), layers=source.layers)
        write_table(data_dir, rows.assign(missing_fraction=np.concatenate(missing)))
    log.info("%d stamps into %s", len(rows), data_dir)
