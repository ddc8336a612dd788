"""Record of a training: the content of its meta.hkl, its curves and its model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gotorb.evaluation.injections import HEADLINE_SLICES, equal_fpr
from gotorb.tracking.runs import Run, best_epoch, headlines

TAGS = ("layers", "threshold", "temperature", "offset", "data_digest")
"""Facts of a model that its description and its registered version hold."""


def log_training(run: Run, model_path: Path, meta: Mapping[str, Any], *, network: str, curves: bool = False) -> None:
    """Record the inputs, results and model of a training.

    Parameters
    ----------
    run : Run
        Of the training.
    model_path : Path
        Model file.
    meta : mapping
        Content of its meta.hkl.
    network : str
        Name of the model in the project, such as tuned.
    curves : bool
        Record the metrics of each epoch too, of a training that was not followed.
    """
    params, history, epoch = used_params(meta), meta.get("history", {}), int(meta.get("best_epoch") or 0)
    run.log_params(params)
    if curves:
        log_curves(run, history)
    if history:
        run.log_metrics({"best_epoch": epoch, "threshold": meta.get("threshold")}, step=epoch)
    tags, best = {"network": network} | model_tags(meta), best_epoch(history, epoch)
    run.log_model(model_path, tags=tags, params=params, metrics=best, step=epoch)


def log_curves(run: Run, history: Mapping[str, Any]) -> None:
    """Record the metrics of each epoch of a training that was not followed.

    Parameters
    ----------
    run : Run
        Of the training.
    history : mapping
        Quantity -> its value after each epoch.
    """
    for epoch in range(len(next(iter(history.values()), ()))):
        run.log_epoch(epoch, {name: float(series[epoch]) for name, series in history.items()})


def used_params(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Options and inputs of a training, from its meta.hkl.

    Parameters
    ----------
    meta : mapping
        Content of meta.hkl.

    Returns
    -------
    dict
        Options by the names of `classifier.train`; data_digest, code_version, and the parent where it had one.
    """
    parent = meta.get("parent") or {}
    known = {name: meta[name] for name in ("data_digest", "code_version") if name in meta}
    return dict(meta.get("parameters", {})) | known | ({"parent": parent["name"]} if parent else {})


def model_tags(meta: Mapping[str, Any]) -> dict[str, str]:
    """Facts of a model for its description and its registered version.

    Parameters
    ----------
    meta : mapping
        Content of meta.hkl.

    Returns
    -------
    dict
        Those of `TAGS` that the meta holds.
    """
    known = {**meta, **meta.get("calibration", {}), "layers": ",".join(meta["layers"])}
    return {
        name: f"{known[name]:.6f}" if isinstance(known[name], float) else str(known[name])
        for name in TAGS
        if known.get(name) is not None
    }


def read_judged(reports_dir: Path, network: str) -> dict[str, dict[str, Any]]:
    """Metrics of a model in the reports of evaluate, truth and injections.

    Parameters
    ----------
    reports_dir : Path
        Folder of the reports.
    network : str
        Name of the model.

    Returns
    -------
    dict
        test, truth, injected -> metrics, of the reports that exist.
    """

    def read(name: str) -> Any:
        path = reports_dir / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    return judged(read(network), read("truth"), read("injections"), network)


def judged(test: Any, truth: Any, injections: Any, network: str) -> dict[str, dict[str, Any]]:
    """Metrics of a model out of the reports, by the rows that they are measured on.

    Parameters
    ----------
    test, truth, injections : mapping
        Contents of the reports; {} for one that does not exist.
    network : str
        Name of the model.

    Returns
    -------
    dict
        test, truth, injected -> metrics.
    """

    of_truth, found = truth.get("models", {}).get(network), injections.get("models", {}).get(network)
    known = {
        "test": headlines(test) if test else None,
        "truth": headlines(of_truth) if of_truth else None,
        "injected": found
        and {title: equal_fpr(found)["slices"][name]["fraction"] for title, name in HEADLINE_SLICES.items()},
    }
    return {name: values for name, values in known.items() if values}
