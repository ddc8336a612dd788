"""Figures of the project's own pipeline: of this checkout, and of a tagged version."""

import json
from pathlib import Path
from typing import Any

import yaml

from gotorb.core import layout
from gotorb.core.params import EvaluateParams
from gotorb.core.settings import project_root
from gotorb.errors import DataError, TrackingError
from gotorb.evaluation.paper_figures import Written, draw_figure
from gotorb.tracking.registry import find_by_md5
from gotorb.tracking.versions import checked_out, find_commit, promoted_network, read_lock

DATA_DIR, MODELS_DIR = Path("data/dataset"), Path("models")
INJECTIONS_JSON = Path("reports/injections.json")


def draw_here(
    name: str, *, network: str | None = None, out_dir: Path | str = "figures", kind: str = "png", style: str = "page"
) -> Written:
    """Draw a figure of the data set and model that lie in this checkout.

    Parameters
    ----------
    name : str
        One of `PAPER_FIGURES`.
    network : str, optional
        The promoted one when left out.
    out_dir : path
    kind, style : str
        As for `gotorb.evaluation.paper_figures.draw_figure`.

    Returns
    -------
    Written

    Raises
    ------
    DataError
        If there are none.
    """
    root = project_root()
    if network is None:
        promoted = root / layout.PROMOTION_JSON
        if not promoted.exists():
            raise DataError(
                f"no {layout.PROMOTION_JSON} in {root}; run `make repro`, or name a network: --network NAME"
            )
        network = str(json.loads(promoted.read_text())["model"])
    return _draw(name, root, network, {"version": "here"}, out_dir=out_dir, kind=kind, style=style)


def draw_version(
    name: str, revision: str, *, network: str | None = None, out_dir: Path | str = "figures", kind: str = "png",
    style: str = "page",
) -> Written:  # fmt: skip
    """Draw a figure of a tagged version, with the model that this version promoted.

    The version's own parameters decide samples and seed, so equal versions give equal numbers.

    Parameters
    ----------
    name : str
        One of `gotorb.evaluation.paper_figures.PAPER_FIGURES`.
    revision : str
        Tag, branch or commit.
    network : str, optional
        Another of the version's networks.
    out_dir : path
        Where the files go.
    kind, style : str
        As for `draw_here`.

    Returns
    -------
    Written

    Raises
    ------
    TrackingError
        If there is no such version, or its data cannot be had.
    """
    network = network or promoted_network(revision)
    lock = read_lock(revision)
    model = f"{MODELS_DIR}/{network}/{layout.MODEL_H5}"
    if model not in lock:
        raise TrackingError(f"version {revision!r} has no network {network!r} (has {', '.join(_networks(lock))})")
    registered = find_by_md5(lock[model])
    origin = {
        "version": revision,
        "commit": find_commit(revision),
        "model_md5": lock[model],
        "registered": None if registered is None else f"{registered.name}/{registered.version}",
    }
    folders = (f"{DATA_DIR}/", f"{MODELS_DIR}/{network}/")
    outputs = [path for path in lock if path.startswith(folders)]
    with checked_out(revision, outputs) as tree:
        return _draw(name, tree, network, origin, out_dir=out_dir, kind=kind, style=style)


def _networks(lock: dict[str, str]) -> list[str]:
    return sorted({Path(path).parent.name for path in lock if path.startswith(f"{MODELS_DIR}/")})


def _read_cells(root: Path, network: str) -> list[dict[str, Any]] | None:
    """Recovery of injected transients of a version's network; None where it was not measured."""
    try:
        found = json.loads((root / INJECTIONS_JSON).read_text(encoding="utf-8"))["models"][network]
        return list(found["at_fpr"]["cells"])
    except (OSError, ValueError, KeyError):
        return None


def _draw(name: str, root: Path, network: str, origin: dict[str, str | None], **how: Any) -> Written:
    # the version's own file, which today's rules for params.yaml need not fit
    params = yaml.safe_load((root / layout.PARAMS_YAML).read_text(encoding="utf-8"))
    n_samples = int(params.get("evaluate", {}).get("n_samples", EvaluateParams().n_samples))
    return draw_figure(
        name, root / MODELS_DIR / network, root / DATA_DIR,
        n_samples=n_samples, seed=int(params.get("seed", 0)), cells=_read_cells(root, network),
        origin={"network": network} | origin, **how,
    )  # fmt: skip
