"""Explanation of one score: posterior, nearest labelled stamps, error rates of its slices, scores by other models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.classifier.scored import Scored, score_block
from gotorb.classifier.scores import Scorer, find_features, fit_stamps, load_scorer
from gotorb.classifier.sources import Detections, read_detections
from gotorb.core import layout
from gotorb.core.params import SEED, ArchiveParams, WhyParams
from gotorb.core.settings import Settings
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import DataError, GotorbError
from gotorb.evaluation.intervals import wilson_interval
from gotorb.features import FeatureSet, describe_feature
from gotorb.stamps.batches import Stamps
from gotorb.stamps.images import draw_strips
from gotorb.survey.pixels import crop_stamps
from gotorb.training.onnx import PortableModel
from gotorb.visualise.flags import find_flags

N_NEAREST = 3
SHOWN_PIXELS = 31


@dataclass(frozen=True)
class Neighbourhood:
    """Labelled rows of a data set and their latent vectors of unit length."""

    data: Dataset
    rows: np.ndarray
    vectors: np.ndarray
    scorer: Scorer

    def find(self, stamps: np.ndarray, n: int = N_NEAREST) -> list[list[Neighbour]]:
        """Nearest labelled rows of each stamp.

        Parameters
        ----------
        stamps : ndarray
            (m, size, size, n_layers) as the model takes them.
        n : int
            Largest number of neighbours.

        Returns
        -------
        list of list of Neighbour
            (m,), the most alike first.
        """
        vectors = _unit_vectors(self.scorer, stamps)
        alike = vectors @ self.vectors.T
        n = min(n, alike.shape[1])
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, :n]
        wanted, place = np.unique(nearest, return_inverse=True)
        pictures = self._pictures(self.rows[wanted])
        place = place.reshape(nearest.shape)
        table = self.data.table
        return [
            [
                Neighbour(
                    table["id"].iloc[self.rows[one]], int(table["label"].iloc[self.rows[one]]),
                    str(table["metalabel"].iloc[self.rows[one]]), float(alike[row, one]), pictures[place[row, column]],
                )
                for column, one in enumerate(nearest[row])
            ]
            for row in range(len(stamps))
        ]  # fmt: skip

    def _pictures(self, rows: np.ndarray) -> list[str]:
        layer = "difference" if "difference" in self.data.layers else self.data.layers[0]
        stamps = self.data.read_stamps(rows, [layer])
        return draw_strips(crop_stamps(stamps, min(SHOWN_PIXELS, self.data.size)), [layer])


@dataclass(frozen=True)
class Neighbour:
    """A labelled row: its id, label, metalabel, likeness (cosine of the latent vectors), and a picture."""

    id: str
    label: int
    metalabel: str
    alike: float
    picture: str


def open_neighbourhood(scorer: Scorer, data_dir: Path | str) -> Neighbourhood:
    """Latent vectors of all labelled rows of a data set, of its training rows where it is divided.

    Parameters
    ----------
    scorer : Scorer
    data_dir : path

    Returns
    -------
    Neighbourhood

    Raises
    ------
    DataError
        If no row is labelled, or the data set's stamps do not fit the model.
    """
    data = open_dataset(data_dir)
    mask = data.labels != layout.UNKNOWN
    if layout.SPLIT_COLUMN in data.table:
        mask &= (data.table[layout.SPLIT_COLUMN] == "train").to_numpy()
    rows = np.flatnonzero(mask)
    if len(rows) == 0:
        raise DataError(f"no labelled row in {data_dir}; give the data set that the model was trained on")
    stamps = (fit_stamps(scorer, part, data.layers, data_dir) for _, part in data.batches(rows))
    return Neighbourhood(data, rows, _unit_vectors(scorer, stamps), scorer)


def _unit_vectors(scorer: Scorer, stamps: Stamps) -> np.ndarray:
    from gotorb.training.inference import latent_vectors

    vectors = latent_vectors(scorer.model, stamps)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def describe(neighbours: list[Neighbour]) -> str:
    """Kind and likeness of neighbours in one line.

    Parameters
    ----------
    neighbours : list of Neighbour

    Returns
    -------
    str

    Examples
    --------
    >>> describe([Neighbour("a", 1, "mp", 0.98, ""), Neighbour("b", 0, "randjunk", 0.9, "")])
    'mp 0.98, randjunk 0.90'
    """
    return ", ".join(f"{one.metalabel or one.label} {one.alike:.2f}" for one in neighbours)


ID_COLUMNS = ("id", "candidate_id", "object_id", "number")
N_SHOWN_NEIGHBOURS = 8
WHY = WhyParams()
WIDE = {"mag": 1.0, "fwhm": 1.0}
"""Width of a slice in a number's own units."""
N_UNUSUAL, UNUSUAL_SPREADS, N_REAL = 6, 3.0, 400
"""Unusual features shown, how far they are from those of real rows, and how many rows these are."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Everything known of one detection.

    Attributes
    ----------
    scored : Judged
        The one detection and its scores by the model in question.
    flags : list of str
        Some of `FLAGS`.
    neighbours : list of Neighbour
        Its like among the labelled rows of the training part, itself left out.
    slices : list of dict
        name, n (other held-out rows of its slice and label), n_wrong, rate, low, high.
    others : list of dict
        name, version, score, threshold, call of every model asked; ``problem`` where it cannot be.
    unusual : list of Unusual
        Measured features far from those of real training rows.
    """

    scored: Scored
    flags: list[str]
    neighbours: list[Neighbour]
    slices: list[dict[str, Any]]
    others: list[dict[str, Any]]
    threshold: float
    scorer: Scorer
    unusual: list[Unusual]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        known = {
            "model": {"name": self.scorer.name, "version": self.scorer.version, "threshold": self.threshold},
            "flags": self.flags, "slices": self.slices, "others": self.others,
            "neighbours": [vars(one) for one in self.neighbours],
            "unusual": [one._asdict() for one in self.unusual],
        }  # fmt: skip
        frame = pd.DataFrame([{"row": self.scored.table.iloc[0].to_dict()} | known])
        return json.loads(frame.to_json(orient="records", double_precision=10))[0]


class Unusual(NamedTuple):
    """A feature of a detection far from those of real rows: value, their median, and its distance in spreads."""

    name: str
    value: float
    usual: float
    spreads: float


def find_unusual(features: FeatureSet, stamps: np.ndarray, real: np.ndarray) -> list[Unusual]:
    """Features of a stamp that are farthest from those of real ones.

    Parameters
    ----------
    features : FeatureSet
    stamps : ndarray
        (1, size, size, n_layers).
    real : ndarray
        (n, n_features) of real rows.

    Returns
    -------
    list of Unusual
        At most `N_UNUSUAL`, the farthest first; each beyond `UNUSUAL_SPREADS`.
    """
    if not len(real):
        return []
    low, middle, high = np.quantile(real, (0.16, 0.5, 0.84), axis=0)
    own = features.measure(stamps)[0]
    spreads = (own - middle) / np.maximum((high - low) / 2, 0.05 * np.abs(middle) + 0.05)
    order = np.argsort(-np.abs(spreads), kind="stable")[:N_UNUSUAL]
    found = [Unusual(features.names[at], float(own[at]), float(middle[at]), float(spreads[at])) for at in order]
    return [one for one in found if abs(one.spreads) > UNUSUAL_SPREADS]


def _measure_real(features: FeatureSet, scorer: Scorer, near: Neighbourhood) -> np.ndarray:
    """Features of real labelled training rows, of `N_REAL` of them at most."""
    rows = near.rows[near.data.labels[near.rows] == layout.REAL][:N_REAL]
    parts = [
        features.measure(fit_stamps(scorer, part, near.data.layers, near.data.data_dir))
        for _, part in near.data.batches(rows)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(features.names)), np.float32)


def explain(
    wanted: str,
    data_dir: Path | str,
    model: str = WHY.model,
    *,
    others: Sequence[str] = (),
    n_samples: int = WHY.n_samples,
    seed: int = SEED,
) -> list[Reason]:
    """Explain the score of each row of a data set that has an id.

    Parameters
    ----------
    wanted : str
        Row id, the survey's candidate id, or the name of an object (then each of its rows).
    data_dir : path
        The data set; its labelled training rows are the neighbours, its labelled test rows give the error rates.
    model : str
        The model in question, as for `load_scorer`.
    others : sequence of str
        Further models; see `registered_models`.
    n_samples, seed : int
        Posterior samples, and their seed.

    Returns
    -------
    list of Reason
        One for each row.

    Raises
    ------
    DataError
        If no row has the id, or the stamps do not fit the model.
    """
    data_dir, scorer = Path(data_dir), load_scorer(model)
    rows = _find_rows(wanted, data_dir)
    blocks = list(_pick(data_dir, rows, scorer.size))
    near = None if isinstance(scorer.model, PortableModel) else open_neighbourhood(scorer, data_dir)
    features = find_features(scorer) if near is not None and "difference" in scorer.layers else None
    real = None if features is None or near is None else _measure_real(features, scorer, near)
    compared = _held_out(scorer, data_dir)
    reasons = []
    for found in blocks:
        scored = score_block(scorer, found, data_dir, n_samples=n_samples, seed=seed, threshold=scorer.threshold)
        flags, _ = find_flags(found, Settings())
        own = found.table["id"].iloc[0]
        alike = (
            []
            if near is None
            else [one for one in near.find(scored.fitted, N_SHOWN_NEIGHBOURS + 1)[0] if one.id != own]
        )
        asked = [_ask(one, found, data_dir, n_samples, seed) for one in others]
        slices = measure_slices(scored.table.iloc[0], flags[0], compared)
        reasons.append(
            Reason(
                scored=scored,
                flags=flags[0],
                neighbours=alike[:N_SHOWN_NEIGHBOURS],
                slices=slices,
                others=asked,
                threshold=scorer.threshold,
                scorer=scorer,
                unusual=[] if features is None or real is None else find_unusual(features, scored.fitted, real),
            )
        )
    return reasons


def registered_models() -> list[str]:
    """Addresses of all versions of all registered models; none when there is no store."""
    from gotorb.tracking.registry import list_models

    try:
        return [f"models:/{one['name']}/{one['version']}" for one in list_models()]
    except GotorbError:
        return []


def _find_rows(wanted: str, data_dir: Path) -> np.ndarray:
    table = open_dataset(data_dir).table
    for name in ID_COLUMNS:
        if name in table:
            rows = np.flatnonzero(table[name].astype(str) == wanted)
            if len(rows):
                return rows
    raise DataError(f"no row {wanted!r} in {data_dir} by {', '.join(ID_COLUMNS)}; give the id of a row or an object")


def _pick(data_dir: Path, rows: np.ndarray, size: int) -> list[Detections]:
    """Each wanted row as a block of its own."""
    wanted, found = set(rows.tolist()), []
    for block in read_detections(data_dir, ArchiveParams(), size):
        for row in range(len(block)):
            if block.first + row in wanted:
                one = slice(row, row + 1)
                table = block.table.iloc[one].reset_index(drop=True)
                found.append(replace(block, table=table, stamps=block.stamps[one], exposures=block.exposures[one]))
    return found


def _held_out(scorer: Scorer, data_dir: Path) -> pd.DataFrame:
    """Labelled rows that the model was not fitted to (test and validation where the set is divided), and errors."""
    split = open_dataset(data_dir).table.get(layout.SPLIT_COLUMN)
    parts = []
    for found in read_detections(data_dir, ArchiveParams(), scorer.size):
        keep = (found.table["label"] != layout.UNKNOWN).to_numpy()
        if split is not None:
            keep = keep & (split.iloc[found.first : found.first + len(found)] != "train").to_numpy()
        if keep.any():
            held = replace(found, table=found.table[keep].reset_index(drop=True), stamps=found.stamps[keep],
                           exposures=found.exposures[keep])  # fmt: skip
            scored = score_block(scorer, held, data_dir, n_samples=0, seed=0, threshold=scorer.threshold)
            flags = find_flags(held, Settings())[0]
            wrong = scored.table["called_real"].astype(int) != scored.table["label"]
            parts.append(scored.table.assign(wrong=wrong, flags=flags))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def measure_slices(row: pd.Series, flags: Sequence[str], compared: pd.DataFrame) -> list[dict[str, Any]]:
    """Error rates of the slices that a row lies in, among rows of its label (all when it has none).

    Parameters
    ----------
    row : Series
        The detection.
    flags : sequence of str
        Its flags.
    compared : DataFrame
        Labelled rows with ``wrong`` and ``flags``.

    Returns
    -------
    list of dict
        Name, counts and error rates of each slice.
    """
    if compared.empty:
        return []
    rows = compared[compared["id"] != row["id"]]
    if row["label"] in (layout.REAL, layout.BOGUS):
        rows = rows[rows["label"] == row["label"]]
    slices = [("all of its label", pd.Series(True, index=rows.index))]
    slices += [(f"{name} {row[name]}", rows[name] == row[name]) for name in ("metalabel", "ut") if row[name]]
    for name, width in WIDE.items():
        if np.isfinite(row[name]):
            low = np.floor(row[name] / width) * width
            slices.append((f"{name} {low:g} to {low + width:g}", rows[name].between(low, low + width, "left")))
    slices += [(f"flag {flag}", rows["flags"].map(lambda held, flag=flag: flag in held)) for flag in flags]
    return [_rate(name, rows.loc[inside.astype(bool), "wrong"]) for name, inside in slices]


def _rate(name: str, wrong: pd.Series) -> dict[str, Any]:
    n, n_wrong = len(wrong), int(wrong.sum())
    low, high = wilson_interval(n_wrong, n) or (np.nan, np.nan)
    return {"name": name, "n": n, "n_wrong": n_wrong, "rate": n_wrong / n if n else np.nan, "low": low, "high": high}


def _ask(model: str, found: Detections, source: Path, n_samples: int, seed: int) -> dict[str, Any]:
    """Scores of another model; one that cannot be used gives the reason."""
    try:
        scorer = load_scorer(model)
        table = score_block(scorer, found, source, n_samples=n_samples, seed=seed, threshold=scorer.threshold).table
    except GotorbError as error:
        return {"name": model, "version": "", "score": np.nan, "threshold": np.nan, "call": "", "problem": str(error)}
    call = "real" if table["called_real"].iloc[0] else "bogus"
    return {"name": model, "version": scorer.version, "score": float(table["best"].iloc[0]),
            "threshold": scorer.threshold, "call": call, "problem": ""}  # fmt: skip


def tell(reason: Reason) -> str:
    """Reasons as lines of text.

    Parameters
    ----------
    reason : Reason

    Returns
    -------
    str
    """
    row = reason.scored.table.iloc[0]
    call, kind = "real" if row["called_real"] else "bogus", row["metalabel"] or "unlabelled"
    lines = [
        f"{row['id']} ({kind}): {call}, score {row['best']:.3f} at threshold {reason.threshold:.3f}",
        f"model      {reason.scorer.name} {reason.scorer.version}",
        f"posterior  std {row['std']:.3f}, p_real {row['p_real']:.2f}, confidence {row['confidence']:.2f}",
        f"measured   mag {row['mag']:.2f}, fwhm {row['fwhm']:.1f}, S/N {row['snr']:.1f}",
        f"old        RF {row['realbogus']:.2f}, CNN {row['cnn_realbogus']:.2f}",
        f"flags      {', '.join(reason.flags) or 'none'}",
        f"like it    {describe(reason.neighbours) or 'unknown'}",
    ]
    lines += [
        f"unusual    {one.name} {one.value:.3g}, of real rows {one.usual:.3g} ({one.spreads:+.0f} spreads): "
        + describe_feature(one.name)[1]
        for one in reason.unusual
    ]
    lines += [
        f"slice      {one['name']}: {one['n_wrong']} of {one['n']} wrong"
        + (f" ({100 * one['low']:.1f} to {100 * one['high']:.1f} %)" if one["n"] else "")
        for one in reason.slices
    ]
    for one in reason.others:
        said = one["problem"] or f"{one['call']}, {one['score']:.3f} at {one['threshold']:.3f}"
        lines.append(f"asked      {one['name']}: {said}")
    return "\n".join(lines)
