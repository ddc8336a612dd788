"""Promotion of models: the choice of the champion, aliases given after checks, and rollback.

The pipeline registers the model that `comparison.choose_model` takes by rows that no model was trained on, and by
transients injected into their images. Test rows decide only whether it is worse than the present champion or than the
best champion so far: many small losses in a row, each within its noise, would add up otherwise. Any other alias, such
as production, is given by `promote`, which compares slice by slice.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.params import BATCH_SIZE, Params, find_params
from gotorb.dataset.card import data_digest, make_card
from gotorb.dataset.split import labelled_rows
from gotorb.dataset.store import Dataset, open_dataset, read_csv
from gotorb.errors import ModelError, TrackingError
from gotorb.evaluation import promotion_checks as checking
from gotorb.evaluation.calibration import Calibration, fit_calibration
from gotorb.evaluation.comparison import Injected, choose_model, compare_auc
from gotorb.evaluation.metrics import find_clear, measure_robustness, measure_scores, rounded
from gotorb.evaluation.report import make_model_card
from gotorb.tracking import registry
from gotorb.tracking.contents import md5
from gotorb.tracking.runs import find_run, in_experiment, send_waiting, track_stage
from gotorb.tracking.store import check_project
from gotorb.tracking.trainings import log_training, model_tags, read_judged, used_params

log = logging.getLogger(__name__)
N_PARITY = 64
"""Stamps on which the registered model and the service are compared."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained model with its plain scores of the validation rows, and their AUC."""

    name: str
    model_dir: Path
    model: Any
    meta: dict[str, Any]
    validation: np.ndarray
    validation_auc: float
    md5: str

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Calibrate scores; without a calibration they stay as they are.

        Parameters
        ----------
        scores : ndarray
            (n,).

        Returns
        -------
        ndarray
            (n,).
        """
        known = self.meta.get("calibration")
        return Calibration.from_dict(known).apply(scores) if known else scores


def promote_best(models_dir: Path, data_dir: Path, params: Params) -> dict[str, Any]:
    """Register the model that is chosen by the validation rows; make it champion if it is not worse on the test rows.

    The choice is that of `choose_model`: Brier score, then faint and nuclear injected transients
    (`layout.CHOICE_CSV`, where the pipeline makes them), then the order of evaluate.models. Rows labelled bogus that
    trees which never saw them call clearly real are left out. Where `layout.OUT_OF_FOLD_CSV` has scores of every model,
    those of train and validation rows take the place of validation scores.

    The test rows decide only whether the new model is worse than the present champion, or than the best so far, beyond
    the interval of the difference; never among the new ones.

    Parameters
    ----------
    models_dir : Path
        Folder of the models' folders.
    data_dir : Path
        Divided data set.
    params : Params
        All of params.yaml.

    Returns
    -------
    dict
        model, md5, data_digest, name, choice and decided_by, validation and test AUC, checks, champion (True if it is
        now), and, when it was refused, reason. In a DVC experiment nothing is registered: registered is False, and
        champion is True if it would be.

    Raises
    ------
    ModelError
        If a model is missing or broken.
    """
    data = open_dataset(data_dir)
    candidates = {name: _open_candidate(models_dir / name, data) for name in params.judged_models}
    best, chosen = _choose(candidates, data, params)
    known: dict[str, Any] = {"name": params.promote.name, "model": best.name, "md5": best.md5}
    known |= {"data_digest": data_digest(data_dir)} | chosen
    rows = labelled_rows(data.table, "test")
    scores = _score_rows(best.model, best.meta["layers"], data, rows)
    decision = known | {"validation_auc": best.validation_auc} | _against_champion(best, scores, data, params)
    if in_experiment():  # one of many tries: it may be forgotten, a registered version stays
        log.info("%s %s: not registered, for it is a DVC experiment's", params.promote.name, best.name)
        return rounded(decision | {"registered": False})
    runs = _runs_of(list(candidates.values()), data_dir, params)
    registered = registry.register(params.promote.name, runs[best.name], best.md5, _tags(best, decision))
    registry.describe_version(registered, _card(best, scores, data, params))
    if decision["champion"]:
        registry.move_alias(registered, registry.CHAMPION)
    log.info("%s %s: %s", params.promote.name, best.name, "champion" if decision["champion"] else decision["reason"])
    return rounded(decision)


def _open_candidate(model_dir: Path, data: Dataset) -> Candidate:
    from gotorb.training.model_files import load_training

    model, meta = load_training(model_dir)
    if meta is None:
        raise ModelError(f"no {layout.META_HKL} in {model_dir}; run the train stage again")
    rows = labelled_rows(data.table, "validation")
    scores = _score_rows(model, meta["layers"], data, rows)
    auc = compare_auc(data.labels[rows], scores, scores).auc_a
    digest = md5(model_dir / layout.MODEL_H5)
    return Candidate(
        name=model_dir.name, model_dir=model_dir, model=model, meta=meta, validation=scores, validation_auc=auc,
        md5=digest,
    )  # fmt: skip


def _choose(candidates: dict[str, Candidate], data: Dataset, params: Params) -> tuple[Candidate, dict[str, Any]]:
    """The best candidate, and the comparison of all with its step that decided."""
    rows, scores = _find_probabilities(candidates, data)
    suspects = {str(id_) for one in candidates.values() for id_ in one.meta.get("suspects", ())}
    choice = choose_model(
        data.labels[rows], scores,
        data.table["image_id"].to_numpy(str)[rows],
        suspects=np.isin(data.ids[rows], list(suspects)) if suspects else None,
        injected=_read_injected(candidates, params),
        n_bootstrap=params.evaluate.n_bootstrap, rng=np.random.default_rng(params.seed),
    )  # fmt: skip
    log.info(
        "choice on %d rows (%d suspects left out), decided by %s:\n%s",
        len(np.unique(rows)), choice.n_suspects, choice.decided_by,
        choice.table.to_string(index=False, float_format="%.4g"),
    )  # fmt: skip
    known = {"choice": choice.table.to_dict("records"), "decided_by": choice.decided_by}
    left_out = choice.n_suspects * len(np.unique(rows)) // len(rows)  # rows may be repeated
    return candidates[choice.name], known | {"n_suspects": left_out, "n_chosen_by": len(np.unique(rows))}


def _find_probabilities(candidates: dict[str, Candidate], data: Dataset) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows to choose by, and each candidate's calibrated scores: out of fold where all have them, else of validation.

    With several seeds the rows are repeated, so that the mean error is that of one training. Out-of-fold scores are
    calibrated by themselves: they are those of other trainings than the candidate.
    """
    validation = labelled_rows(data.table, "validation")
    path = Path(layout.OUT_OF_FOLD_CSV)
    known = read_csv(path).astype({"id": str}) if path.exists() else pd.DataFrame()
    if known.empty or not set(candidates) <= set(known):
        return validation, {name: one.probability(one.validation) for name, one in candidates.items()}
    rows = np.sort(np.concatenate([labelled_rows(data.table, "train"), validation]))
    parts = [part.set_index("id").reindex(data.ids[rows]) for _, part in known.groupby(layout.SEED_COLUMN)]
    scores = pd.concat(parts)[list(candidates)].astype(float)
    absent = scores.index[scores.isna().any(axis=1)]
    if len(absent):
        raise ModelError(f"{path} has no score of {absent[0]!r} and {len(absent) - 1} more; write it again")
    rows = np.tile(rows, len(parts))
    maps = {name: fit_calibration(data.labels[rows], scores[name].to_numpy()) for name in candidates}
    return rows, {name: one.apply(scores[name].to_numpy()) for name, one in maps.items()}


def _read_injected(candidates: dict[str, Candidate], params: Params) -> Injected | None:
    """Transients injected into the images of validation rows; None where the pipeline made none for these models."""
    path = Path(layout.CHOICE_CSV)
    table = pd.read_csv(path, dtype={"id": str, "image_id": str}) if path.exists() else pd.DataFrame()
    if not set(candidates) <= set(table):
        return None
    scores = {name: one.probability(table[name].to_numpy(float)) for name, one in candidates.items()}
    return Injected(table, scores, params.recovery.fpr)


def _score_rows(model: Any, layers: list[str], data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Plain scores (n,) of rows of a data set."""
    return _score(model, (stamps for _, stamps in data.batches(rows, layers=layers)))


def _score(model: Any, stamps: np.ndarray | Iterable[np.ndarray]) -> np.ndarray:
    from gotorb.training.inference import score_stamps

    return score_stamps(model, stamps, batch_size=BATCH_SIZE)


def _tags(best: Candidate, decision: dict[str, Any]) -> dict[str, str]:
    found = {"data_digest": decision["data_digest"], "validation_auc": f"{best.validation_auc:.6f}"}
    return {"network": best.name} | model_tags(best.meta) | found


def _card(best: Candidate, scores: np.ndarray, data: Dataset, params: Params) -> str:
    """Description of the version in the registry: its data, its test rows by group, what it is not for."""
    rows = data.table.iloc[labelled_rows(data.table, "test")].assign(score=scores)
    rng = np.random.default_rng(params.seed)
    metrics = measure_scores(rows, best.meta["threshold"], n_bootstrap=params.evaluate.n_bootstrap, rng=rng)
    return make_model_card(best.name, metrics, make_card(data.data_dir), layers=best.meta["layers"])


def _runs_of(candidates: Sequence[Candidate], data_dir: Path, params: Params) -> dict[str, str]:
    """Run of each model's training; a stage restored from DVC's cache has none here, so it gets one."""
    send_waiting()  # it may have been trained while the server was away
    known = {one.name: find_run(one.md5, params.promote.name) for one in candidates}
    return {one.name: known[one.name] or _restore_run(one, data_dir, params) for one in candidates}


def _restore_run(one: Candidate, data_dir: Path, params: Params) -> str:
    about = f"Training of {one.name}, recorded from its files, for its stage came from DVC's cache."
    with track_stage("train", params, name=f"restored {one.name}", used=used_params(one.meta), about=about) as run:
        run.set_tags({"gotorb.restored": "true"})
        run.log_data(data_dir, make_card(data_dir), context="training")
        log_training(run, one.model_dir / layout.MODEL_H5, one.meta, network=one.name, curves=True)
        for rows, values in read_judged(Path("reports"), one.name).items():
            run.log_metrics({rows: values})
    return run.run_id


def _against_champion(best: Candidate, scores: np.ndarray, data: Dataset, params: Params) -> dict[str, Any]:
    """Compare with the present champion, and with the best one so far, on the same test rows."""
    rows, name = labelled_rows(data.table, "test"), params.promote.name
    holder, table, labels = registry.find_alias(name, registry.CHAMPION), data.table.iloc[rows], data.labels[rows]
    own = compare_auc(labels, scores, scores, rows=table)
    result: dict[str, Any] = {"test_auc": own.auc_a, "test_auc_low": own.auc_a_low, "test_auc_high": own.auc_a_high}
    others: dict[str, np.ndarray] = {}
    if holder is not None and holder.md5 != best.md5:
        theirs = _holder_scores(holder, data, rows)
        if theirs is None:
            return {"champion": False, "reason": f"the champion (version {holder.version}) takes other stamps"}
        others["the champion"] = theirs
        earlier = _find_best(name, registry.CHAMPION, data, rows, {holder.md5, best.md5})
        others |= {} if earlier is None else {f"version {earlier[0].version}, champion before": earlier[1]}
    checks = [checking.check_auc(labels, scores, one, rows=table, against=title) for title, one in others.items()]
    failed = [check for check in checks if not check.passed]
    result |= {"champion": not failed, "checks": [check.as_dict() for check in checks]}
    if not failed:
        return result
    numbers = failed[0].numbers
    reason = (
        f"test AUC {numbers['auc_a']:.4f} is below that of {numbers['against']}, {numbers['auc_b']:.4f} (difference "
        f"{numbers['difference']:+.4f}, 95 % {numbers['difference_low']:+.4f} to {numbers['difference_high']:+.4f})"
    )
    return result | {"champion_auc": numbers["auc_b"], "reason": reason}


def _find_best(
    name: str, alias: str, data: Dataset, rows: np.ndarray, known: set[str]
) -> tuple[registry.Registered, np.ndarray] | None:
    """Earlier holder of the largest AUC on these rows, and its scores; files in `known` (md5) are left out."""
    best: tuple[registry.Registered, np.ndarray] | None = None
    labels, largest = data.labels[rows], -1.0
    for earlier in registry.earlier_holders(name, alias):
        scores = None if earlier.md5 in known else _holder_scores(earlier, data, rows)
        known = known | {earlier.md5}
        if scores is None:
            continue
        auc = compare_auc(labels, scores, scores).auc_a
        best, largest = ((earlier, scores), auc) if auc > largest else (best, largest)
    return best


def _holder_scores(holder: registry.Registered, data: Dataset, rows: np.ndarray) -> np.ndarray | None:
    """Scores of the champion; None when it takes other stamps than these."""
    model, registered = registry.load_registered(holder.uri)
    try:
        return _score_rows(model, registered.layers, data, rows) if _fits(model, registered, data) else None
    except ModelError:
        return None


def _fits(model: Any, registered: registry.Registered, data: Dataset) -> bool:
    """True if the data set has the stamps that a registered model takes."""
    expected = (data.size, data.size, len(registered.layers))
    return tuple(model.input_shape[1:]) == expected and set(registered.layers) <= set(data.layers)


@dataclass(frozen=True)
class Decision:
    """Result of a promotion.

    Attributes
    ----------
    model : str
        ``name/version``.
    alias : str
        To which it was to be promoted.
    before : str
        Holder of the alias; "" for none.
    checks : tuple of Check
        All checks that were made.
    """

    model: str
    alias: str
    before: str
    checks: tuple[checking.Check, ...]

    @property
    def failed(self) -> tuple[checking.Check, ...]:
        """Checks that the model did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        known = {"model": self.model, "alias": self.alias, "before": self.before, "promoted": not self.failed}
        return known | {"checks": [check.as_dict() for check in self.checks]}


class Scored(NamedTuple):
    """A registered model and its scores of the test rows."""

    registered: registry.Registered
    scores: np.ndarray
    model: Any

    @property
    def calls(self) -> np.ndarray:
        """True for rows that the model calls real, (n,)."""
        return self.scores >= self.registered.operating.threshold

    @property
    def probability(self) -> np.ndarray:
        """Calibrated scores; the plain ones when the version has no calibration."""
        return self.registered.operating.probability(self.scores)


def promote(
    uri: str, alias: str, *, reason: str, data_dir: Path | str = "data/dataset", limits: checking.Limits | None = None
) -> Decision:
    """Give a registered model an alias if it passes all checks.

    It must not be worse than the alias's holder on any declared slice of the test rows, nor as a whole, nor than the
    best holder so far, be as robust and calibrated, and answer as a service with the scores that it has here. The
    result is recorded as a run, promoted or not.

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
        Limits of the checks.

    Returns
    -------
    Decision
        With all checks.

    Raises
    ------
    ModelError
        If there is no such model, or it takes other stamps than the data set's.
    """
    check_project()
    limits, data = limits or checking.Limits(), open_dataset(data_dir)
    rows = _test_rows(data)
    new = _score_version(uri, data, rows)
    holder = registry.find_alias(new.registered.name, alias)
    old = None if holder is None or holder.version == new.registered.version else _score_version(holder.uri, data, rows)
    checks = tuple(_check(new, old, alias, (data, rows), limits))
    decision = Decision(new.registered.label, alias, "" if holder is None else holder.label, checks)
    _record(decision, reason, data)
    if not decision.failed:
        registry.move_alias(new.registered, alias)
        log.info("%s is %s now", new.registered.label, alias)
    return decision


def rollback(name: str, alias: str, *, reason: str) -> Decision:
    """Give an alias back to its holder before.

    Parameters
    ----------
    name : str
        Of the registered model.
    alias : str
        Such as production.
    reason : str
        Why; kept with the record.

    Returns
    -------
    Decision
        Without checks.

    Raises
    ------
    TrackingError
        If there was none.
    """
    holder, earlier = registry.find_alias(name, alias), registry.previous_holder(name, alias)
    if earlier is None:
        raise TrackingError(f"no version held {alias!r} of {name!r} before; `gotorb models` lists the versions")
    registry.move_alias(earlier, alias, back=True)
    decision = Decision(earlier.label, alias, "" if holder is None else holder.label, ())
    _record(decision, f"rollback: {reason}", None)
    return decision


def _test_rows(data: Dataset) -> pd.DataFrame:
    if layout.SPLIT_COLUMN not in data.table:
        raise ModelError(f"{data.data_dir} has no column {layout.SPLIT_COLUMN!r}; give a divided data set (--data)")
    rows = data.table.iloc[labelled_rows(data.table, "test")]
    if rows["label"].nunique() < 2:
        raise ModelError(f"{data.data_dir} has no real or no bogus test rows; give a larger divided data set (--data)")
    return rows


def _score_version(uri: str, data: Dataset, rows: pd.DataFrame) -> Scored:
    model, registered = registry.load_registered(uri)
    if not _fits(model, registered, data):
        raise ModelError(
            f"{uri} takes stamps of {model.input_shape[1:]} in layers {registered.layers}, {data.data_dir} holds "
            f"{data.size} pixels and {list(data.layers)}; give the data set of its kind (--data)"
        )
    return Scored(registered, _score_rows(model, registered.layers, data, rows.index.to_numpy(int)), model)


def _check(
    new: Scored, old: Scored | None, alias: str, tested: tuple[Dataset, pd.DataFrame], limits: checking.Limits
) -> Sequence[checking.Check]:
    data, rows = tested
    labels = rows["label"].to_numpy(int)
    checks = [checking.check_calibration(labels, new.probability, limits), _check_service(new, data, rows)]
    if old is not None:
        numbers = rows.index.to_numpy(int)
        known = rows.assign(neighbour_ratio=_measure_neighbours(data, numbers)).reset_index(drop=True)
        checks += _compare(new, old, known, limits, checking.HOLDER)
        found, before = _try_robustness((new, old), data, rows)
        checks += checking.check_robustness(found, before, limits)
        name, md5s = new.registered.name, {new.registered.md5, old.registered.md5}
        if (best := _find_best(name, alias, data, numbers, md5s)) is not None:
            earlier = Scored(best[0], best[1], None)
            title = f"version {earlier.registered.version}, the best holder before,"
            checks += _compare(new, earlier, known, limits, title, only="all rows")
    return checks


def _compare(
    new: Scored, old: Scored, rows: pd.DataFrame, limits: checking.Limits, title: str, *, only: str | None = None
) -> list[checking.Check]:
    labels = rows["label"].to_numpy(int)
    wrong, before = (one.calls != (labels == 1) for one in (new, old))
    slices = checking.check_slices(rows, wrong, before, limits, against=title)
    return [
        checking.check_auc(labels, new.scores, old.scores, rows=rows, against=title),
        *(check for check in slices if only in (None, check.name)),
    ]


def _measure_neighbours(data: Dataset, rows: np.ndarray) -> np.ndarray:
    parts = [
        checking.measure_neighbours(stamps, data.layers) for _, stamps in data.batches(rows, layers=list(data.layers))
    ]
    return np.concatenate(parts)


def _try_robustness(models: Sequence[Scored], data: Dataset, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Robustness of each model on the rows that are clear to all of them."""
    clear = [find_clear(rows, one.scores, one.registered.operating.threshold) for one in models]
    found: list[dict[str, Any]] = [{} for _ in models]
    for kind in clear[0]:
        shared = reduce(np.intersect1d, [one[kind] for one in clear])
        for one, kinds in zip(models, found, strict=True):
            layers, threshold = tuple(one.registered.layers), one.registered.operating.threshold
            stamps = data.read_stamps(rows.index.to_numpy(int)[shared], layers)
            score = partial(_score, one.model)
            kinds[kind] = measure_robustness(score, stamps, layers, threshold=threshold, seed=0)
    return found


def _check_service(new: Scored, data: Dataset, rows: pd.DataFrame) -> checking.Check:
    """Compare scores of the service with those of the network itself."""
    stamps = data.read_stamps(rows.index.to_numpy(int)[:N_PARITY], new.registered.layers)
    answered = registry.load_service(new.registered.uri).predict(stamps, params={"n_samples": 0})
    return checking.check_parity(answered["score"].to_numpy(float), new.scores[: len(stamps)], against="registry")


def _record(decision: Decision, reason: str, data: Dataset | None) -> None:
    """A run for each promotion, refusal and rollback: who, when, why, and the evidence."""
    name = f"{decision.model} to {decision.alias}" + (": refused" if decision.failed else "")
    about = f"{decision.model} asked for the alias {decision.alias}: {reason}."
    used = {"model": decision.model, "alias": decision.alias, "before": decision.before}
    with track_stage("promotion", find_params(), name=name, used=used, about=about, experiment="-promotions") as run:
        tags = {"model": decision.model, "alias": decision.alias, "before": decision.before, "reason": reason}
        tags |= {"promoted": str(not decision.failed).lower()}
        tags |= {"data_digest": data_digest(data.data_dir)} if data is not None else {}
        run.set_tags({f"gotorb.promotion.{key}": value for key, value in tags.items()})
        run.log_json(decision.as_dict() | {"reason": reason}, "evidence.json")
