"""Which trained model is registered, and whether it may take the place of the champion."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gotorb import classifier, layout
from gotorb.dataset.card import data_digest, make_card
from gotorb.dataset.split import labelled_rows
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import ModelError
from gotorb.evaluation.comparison import compare_auc
from gotorb.evaluation.metrics import measure_scores, rounded
from gotorb.evaluation.model_card import make_model_card
from gotorb.params import Params
from gotorb.tracking.registry import (
    CHAMPION,
    Registered,
    describe_version,
    find_champion,
    load_registered,
    move_alias,
    register,
)
from gotorb.tracking.runs import find_run, in_experiment, md5, send_waiting, track_stage

log = logging.getLogger(__name__)
CALIBRATION = ("temperature", "offset")
"""Numbers of the calibration that a registered version carries."""


@dataclass(frozen=True)
class Candidate:
    """A trained model with its scores of the labelled rows."""

    name: str
    model_dir: Path
    model: Any
    meta: dict[str, Any]
    validation_auc: float
    md5: str


def promote_best(models_dir: Path, data_dir: Path, params: Params) -> dict[str, Any]:
    """Register the model that is best on the validation rows; make it champion if it is not worse on the test rows.

    The test rows decide only between the new model and the present champion, never among the new ones.

    Returns
    -------
    dict
        model, md5, data_digest, name, validation and test AUC, champion (whether it is now), and, when it was
        refused, reason. In a DVC experiment nothing is registered: registered is False, and champion tells whether
        it would be.
    """
    data = open_dataset(data_dir)
    best = max((_judge(models_dir / name, data) for name in params.judged_models), key=lambda one: one.validation_auc)
    decision: dict[str, Any] = {
        "name": params.promote.name,
        "model": best.name,
        "md5": best.md5,
        "data_digest": data_digest(data_dir),
        "validation_auc": best.validation_auc,
    }
    scores = _scores(best.model, best.meta["layers"], data, "test")[1]
    decision |= _against_champion(best, scores, data, params)
    if in_experiment():  # one of many tries: it may be forgotten, a registered version stays
        log.info("%s %s: not registered, for it is a DVC experiment's", params.promote.name, best.name)
        return rounded(decision | {"registered": False})
    registered = register(params.promote.name, _run_of(best, params), best.md5, _tags(best, decision))
    describe_version(registered, _card(best, scores, data, params))
    if decision["champion"]:
        move_alias(registered, CHAMPION)
    log.info("%s %s: %s", params.promote.name, best.name, "champion" if decision["champion"] else decision["reason"])
    return rounded(decision)


def _judge(model_dir: Path, data: Dataset) -> Candidate:
    model, meta = classifier.load(model_dir)
    if meta is None:
        raise ModelError(f"no {layout.META_HKL} in {model_dir}; run the train stage again")
    labels, scores = _scores(model, meta["layers"], data, "validation")
    auc = compare_auc(labels, scores, scores, n_bootstrap=0, rng=np.random.default_rng(0)).auc_a
    return Candidate(model_dir.name, model_dir, model, meta, auc, md5(model_dir / layout.MODEL_H5))


def _scores(model: Any, layers: list[str], data: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and plain scores of one part's labelled rows."""
    rows = labelled_rows(data.table, split)
    batches = (stamps for _, stamps in data.batches(rows, layers=layers))
    return data.labels[rows], classifier.predict(model, batches)


def _tags(best: Candidate, decision: dict[str, Any]) -> dict[str, str]:
    return {
        "network": best.name,
        "layers": ",".join(best.meta["layers"]),
        "threshold": f"{best.meta['threshold']:.6f}",
        "data_digest": decision["data_digest"],
        "validation_auc": f"{best.validation_auc:.6f}",
        **{name: f"{best.meta['calibration'][name]:.6f}" for name in CALIBRATION if "calibration" in best.meta},
    }


def _card(best: Candidate, scores: np.ndarray, data: Dataset, params: Params) -> str:
    """What people read of the version in the registry: its data, its test rows by group, what it is not for."""
    rows = data.table.iloc[labelled_rows(data.table, "test")].assign(score=scores)
    rng = np.random.default_rng(params.seed)
    metrics = measure_scores(rows, best.meta["threshold"], n_bootstrap=params.evaluate.n_bootstrap, rng=rng)
    return make_model_card(best.name, metrics, make_card(data.data_dir), layers=best.meta["layers"])


def _run_of(best: Candidate, params: Params) -> str:
    """The run that logged the model; a stage restored from DVC's cache has none here, so it gets one."""
    send_waiting()  # it may have been trained while the server was away
    found = find_run(best.md5, params.promote.name)
    if found is not None:
        return found
    with track_stage("train", params, name=f"restored {best.name}") as run:
        run.set_tags({"gotorb.restored": "true"})
        run.log_model(best.model_dir / layout.MODEL_H5, tags={"network": best.name})
    return run.run_id


def _against_champion(best: Candidate, scores: np.ndarray, data: Dataset, params: Params) -> dict[str, Any]:
    """Compare with the present champion on the same test rows."""
    rng = np.random.default_rng(params.seed)
    labels = data.labels[labelled_rows(data.table, "test")]
    holder = find_champion(params.promote.name)
    theirs = scores if holder is None or holder.md5 == best.md5 else _champion_scores(holder, data)
    if theirs is None:
        return {"champion": False, "reason": f"the champion (version {holder.version}) takes other stamps"}  # type: ignore[union-attr]
    both = compare_auc(labels, scores, theirs, n_bootstrap=params.evaluate.n_bootstrap, rng=rng)
    result = {"test_auc": both.auc_a, "test_auc_low": both.auc_a_low, "test_auc_high": both.auc_a_high}
    if both.auc_a >= both.auc_b:
        return result | {"champion": True}
    reason = (
        f"test AUC {both.auc_a:.4f} is below the champion's {both.auc_b:.4f} "
        f"(difference {both.difference:+.4f}, 95 % {both.difference_low:+.4f} to {both.difference_high:+.4f})"
    )
    return result | {"champion": False, "champion_auc": both.auc_b, "reason": reason}


def _champion_scores(holder: Registered, data: Dataset) -> np.ndarray | None:
    """Scores of the champion on the test rows; None when it takes other stamps than these."""
    model, registered = load_registered(holder.uri)
    layers = registered.tags.get("layers", "").split(",")
    fits = tuple(model.input_shape[1:]) == (data.size, data.size, len(layers)) and set(layers) <= set(data.layers)
    try:
        return _scores(model, layers, data, "test")[1] if fits else None
    except ModelError:
        return None
