"""Who serves: gated promotion of a registered model to an alias, rollback, and a record of both."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb import classifier, layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.split import labelled_rows
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import ModelError, TrackingError
from gotorb.evaluation.calibration import expit, logit
from gotorb.evaluation.gate import Check, Limits, check_auc, check_calibration, check_parity, check_slices
from gotorb.params import find_params
from gotorb.settings import project_root
from gotorb.tracking.lineage import cache_path, md5
from gotorb.tracking.registry import Registered, find_alias, load_registered, load_service, move_alias, previous_holder
from gotorb.tracking.runs import track_stage

log = logging.getLogger(__name__)
N_PARITY = 64
"""Stamps on which the registered model and the service are compared."""


@dataclass(frozen=True)
class Decision:
    """What became of a promotion.

    Attributes
    ----------
    model : str
        ``name/version``.
    alias : str
        To which it was to be promoted.
    before : str
        Who held the alias; "" for nobody.
    checks : tuple of Check
        All that was looked at.
    """

    model: str
    alias: str
    before: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """What stands against it."""
        return tuple(check for check in self.checks if not check.passed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        known = {"model": self.model, "alias": self.alias, "before": self.before, "promoted": not self.failed}
        return known | {"checks": [check.as_dict() for check in self.checks]}


class Scored(NamedTuple):
    """A registered model and its scores of the test rows."""

    registered: Registered
    model: Any
    scores: np.ndarray

    @property
    def threshold(self) -> float:
        """At or above which it calls a row real."""
        return float(self.registered.tags.get("threshold", 0.5))

    @property
    def probability(self) -> np.ndarray:
        """Calibrated scores; the plain ones when the version has no calibration."""
        tags = self.registered.tags
        if "temperature" not in tags:
            return self.scores
        return expit(logit(self.scores) / float(tags["temperature"]) + float(tags["offset"]))


def promote(
    uri: str, alias: str, *, reason: str, data_dir: Path | str = "data/dataset", limits: Limits | None = None
) -> Decision:
    """Give a registered model an alias if nothing stands against it.

    It must not be worse than the alias's holder on any declared slice of the test rows, nor as a whole, be calibrated,
    and answer as a service with the scores that it has here. What was found is recorded as a run, promoted or not.

    Parameters
    ----------
    uri : str
        ``models:/name/version`` or ``models:/name@alias``.
    alias : str
        Such as production.
    reason : str
        Why; kept with the record.
    data_dir : path
        Divided data set whose test rows decide.
    limits : Limits, optional
        What is still allowed.

    Raises
    ------
    ModelError
        If there is no such model, or it takes other stamps than the data set's.
    """
    limits, data = limits or Limits(), open_dataset(data_dir)
    rows = _test_rows(data)
    new = _score(uri, data, rows)
    holder = find_alias(new.registered.name, alias)
    old = None if holder is None or holder.version == new.registered.version else _score(holder.uri, data, rows)
    checks = tuple(_check(new, old, data, rows, limits))
    name = f"{new.registered.name}/{new.registered.version}"
    before = "" if holder is None else f"{holder.name}/{holder.version}"
    decision = Decision(name, alias, before, checks)
    _record(decision, reason, data)
    if not decision.failed:
        move_alias(new.registered, alias)
        log.info("%s is %s now", name, alias)
    return decision


def rollback(name: str, alias: str, *, reason: str) -> Decision:
    """Give an alias back to its holder before.

    Raises
    ------
    TrackingError
        If there was none.
    """
    holder, earlier = find_alias(name, alias), previous_holder(name, alias)
    if earlier is None:
        raise TrackingError(f"nobody held {alias!r} of {name!r} before; `gotorb models` lists the versions")
    move_alias(earlier, alias, back=True)
    before = "" if holder is None else f"{holder.name}/{holder.version}"
    decision = Decision(f"{earlier.name}/{earlier.version}", alias, before, ())
    _record(decision, f"rollback: {reason}", None)
    return decision


def _test_rows(data: Dataset) -> pd.DataFrame:
    if layout.SPLIT_COLUMN not in data.table:
        raise ModelError(f"{data.data_dir} has no column {layout.SPLIT_COLUMN!r}; give a divided data set (--data)")
    rows = data.table.iloc[labelled_rows(data.table, "test")]
    if rows["label"].nunique() < 2:
        raise ModelError(f"{data.data_dir} has no real or no bogus test rows; give a larger divided data set (--data)")
    return rows


def _score(uri: str, data: Dataset, rows: pd.DataFrame) -> Scored:
    model, registered = load_registered(uri)
    layers = [name for name in registered.tags.get("layers", "").split(",") if name]
    if tuple(model.input_shape[1:]) != (data.size, data.size, len(layers)) or not set(layers) <= set(data.layers):
        raise ModelError(
            f"{uri} takes stamps of {model.input_shape[1:]} in layers {layers}, {data.data_dir} holds {data.size} "
            f"pixels and {list(data.layers)}; give the data set of its kind (--data)"
        )
    batches = (stamps for _, stamps in data.batches(rows.index.to_numpy(int), layers=layers))
    return Scored(registered, model, classifier.predict(model, batches))


def _check(new: Scored, old: Scored | None, data: Dataset, rows: pd.DataFrame, limits: Limits) -> Sequence[Check]:
    labels = rows["label"].to_numpy(int)
    checks = [check_calibration(labels, new.probability, limits), _check_service(new, data, rows)]
    if old is not None:
        wrong, before = ((one.scores >= one.threshold) != (labels == 1) for one in (new, old))
        checks.append(check_auc(labels, new.scores, old.scores, n_bootstrap=500, rng=np.random.default_rng(0)))
        checks += check_slices(rows.reset_index(drop=True), wrong, before, limits)
    return checks


def _check_service(new: Scored, data: Dataset, rows: pd.DataFrame) -> Check:
    """Scores by the service that would answer, against those of the file that DVC knows by the version's md5."""
    few = rows.index.to_numpy(int)[:N_PARITY]
    stamps = data.read_stamps(few, new.registered.tags["layers"].split(","))
    answered = load_service(new.registered.uri).predict(stamps, params={"n_samples": 0})
    original = _original(new.registered)
    expected = new.scores[: len(few)] if original is None else classifier.predict(original, stamps)
    return check_parity(answered["score"].to_numpy(float), expected, against="registry" if original is None else "file")


def _original(registered: Registered) -> Any | None:
    """The model of the file that a version was made from; None where this machine does not have it."""
    kept = [cache_path(registered.md5), *sorted((project_root() / "models").glob(f"*/{layout.MODEL_H5}"))]
    for path in kept if registered.md5 else ():
        if path.is_file() and md5(path) == registered.md5:
            with TemporaryDirectory() as folder:  # objects in DVC's cache have no suffix
                return classifier.load(shutil.copyfile(path, Path(folder) / layout.MODEL_H5)).model
    return None


def _record(decision: Decision, reason: str, data: Dataset | None) -> None:
    """A run for each promotion, refusal and rollback: who, when, why, and the evidence."""
    params = find_params()
    name = f"{decision.model} to {decision.alias}" + (": refused" if decision.failed else "")
    with track_stage("promotion", params, name=name, experiment="-promotions") as run:
        tags = {"model": decision.model, "alias": decision.alias, "before": decision.before, "reason": reason}
        tags |= {"promoted": str(not decision.failed).lower()}
        tags |= {"data_digest": data_digest(data.data_dir)} if data is not None else {}
        run.set_tags({f"gotorb.promotion.{key}": value for key, value in tags.items()})
        run.log_json(decision.as_dict() | {"reason": reason}, "evidence.json")
