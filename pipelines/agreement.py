"""End of `make repro`: the champion, a table of the models, agreement with the committed results, next steps."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gotorb.core import layout
from gotorb.core.params import read_params
from gotorb.errors import GotorbError

REPORTS = Path("reports")
COLUMNS = ("AUC", "missed at 1 % FPR", "faint injected found", "calibration error")
FPR = 0.01
Read = Callable[[Path], dict[str, Any] | None]


class Number(NamedTuple):
    """A headline number with its 95 % interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


def print_results(here: Path) -> None:
    """Print the champion, the models' headline numbers, their agreement with the committed ones, and the next steps.

    Parameters
    ----------
    here : Path
        Folder of the pipeline: the project, a study or a source.
    """
    if not (here / layout.PARAMS_YAML).exists():
        return
    models = read_params(here / layout.PARAMS_YAML).judged_models
    found = read_numbers(models, lambda path: _read_json(here / path))
    if not found:
        return
    committed = read_numbers(models, lambda path: _read_committed(here / path))
    decision = _read_json(here / layout.RECEIPT_JSON) or _read_json(here / layout.PROMOTION_JSON) or {}
    rows = "every detection of held-out images, against truth" if _has_truth(here) else "held-out labelled rows"
    lines = [describe_champion(decision), f"numbers of {rows}:", format_results(found)]
    lines.append(describe_agreement(found, committed) if committed else "")
    print("\n".join(["", *filter(None, lines), *_next_steps(here, decision)]))


def _has_truth(here: Path) -> bool:
    return (here / REPORTS / "truth.json").exists()


def describe_champion(decision: dict[str, Any]) -> str:
    """Describe the pipeline's decision in one line; empty before it.

    Parameters
    ----------
    decision : dict
        Content of reports/promotion.json.

    Examples
    --------
    >>> describe_champion({"name": "gotorb", "model": "vgg6", "champion": True, "version": "3", "replaced": "2"})
    'champion of gotorb: vgg6 (version 3), replaced version 2'
    """
    if not decision.get("model"):
        return ""
    if not decision.get("champion"):
        return f"champion of {decision['name']} unchanged: {decision.get('reason', 'nothing was registered')}"
    version = f" (version {decision['version']})" if decision.get("version") else ""
    replaced = f", replaced version {decision['replaced']}" if decision.get("replaced") else ""
    return f"champion of {decision['name']}: {decision['model']}{version}{replaced}"


def _next_steps(here: Path, decision: dict[str, Any]) -> list[str]:
    """Place of the report, and three commands."""
    from gotorb.visualise.report_page import DATASET, REPORT_HTML, write_report

    if not decision.get("model"):
        return []
    report = here / REPORT_HTML
    try:
        where = report if report.exists() else write_report(here)
    except GotorbError as error:
        return [f"no report: {error}"]
    place = Path(os.path.relpath(here))
    return [
        f"report: {os.path.relpath(where)}",
        "next:   make ui",
        f"        gotorb eyeball {place / DATASET} --model {place / 'models' / decision['model']}",
        f"        gotorb visualise IMAGE --model models:/{decision['name']}@champion --out-dir pages",
    ]


def read_numbers(models: Sequence[str], read: Read) -> dict[str, dict[str, Number]]:
    """Read the headline numbers of each model from its reports: against truth where there is any.

    Parameters
    ----------
    models : sequence of str
        Names of the models.
    read : callable
        Gives the content of a report by its path, None where there is none.

    Returns
    -------
    dict
        Model -> name of a column of `COLUMNS` -> number; undefined numbers are left out.
    """
    truth, injections = ((read(REPORTS / f"{name}.json") or {}).get("models", {}) for name in ("truth", "injections"))
    numbers = {
        name: _numbers_of(read(REPORTS / f"{name}.json") or {}, truth.get(name), injections.get(name))
        for name in models
    }
    return {name: own for name, own in numbers.items() if own}


def _numbers_of(
    own: dict[str, Any], truth: dict[str, Any] | None, injected: dict[str, Any] | None
) -> dict[str, Number]:
    from gotorb.evaluation.injections import equal_fpr

    metrics = truth or own
    faint = equal_fpr(injected)["slices"].get("faint", {}) if injected else {}
    return dict([
        *_number("AUC", metrics, "auc", "auc_low", "auc_high"),
        *_missed(metrics),
        *_number("faint injected found", faint, "fraction", "low", "high"),
        *_number("calibration error", own, "ece"),
    ])  # fmt: skip


def _number(name: str, known: dict[str, Any], *keys: str) -> Iterator[tuple[str, Number]]:
    values = [known.get(key) for key in keys]
    if None not in values:
        yield name, Number(*(float(value) for value in values))  # type: ignore[arg-type]


def _missed(metrics: dict[str, Any]) -> Iterator[tuple[str, Number]]:
    from gotorb.evaluation.intervals import wilson_interval
    from gotorb.evaluation.metrics import fpr_name

    rate, n = metrics.get("fnr_at_fpr", {}).get(fpr_name(FPR)), metrics.get("n_real", 0)
    if rate is not None and n:
        yield "missed at 1 % FPR", Number(rate, *(wilson_interval(round(rate * n), n) or ()))


def format_results(numbers: dict[str, dict[str, Number]]) -> str:
    """Format the numbers as a table.

    Parameters
    ----------
    numbers : dict
        From `read_numbers`.

    Returns
    -------
    str
        A line for each model under a heading; columns without a number are left out.
    """
    shown = [name for name in COLUMNS if any(name in own for own in numbers.values())]
    width = max(len(name) for name in (*numbers, "model"))
    lines = ["  ".join([f"{'model':{width}}", *shown])]
    for model, own in numbers.items():
        lines.append("  ".join([f"{model:{width}}", *(f"{_text(name, own.get(name)):>{len(name)}}" for name in shown)]))
    return "\n".join(lines)


def describe_agreement(found: dict[str, dict[str, Number]], committed: dict[str, dict[str, Number]]) -> str:
    """Describe which numbers differ from the committed ones: their 95 % intervals do not overlap.

    Parameters
    ----------
    found, committed : dict
        From `read_numbers`: those of this run, and those of the last commit.

    Returns
    -------
    str
        One line.
    """
    pairs = [
        (model, name, number, committed[model][name])
        for model, own in found.items()
        for name, number in own.items()
        if number.low is not None and committed.get(model, {}).get(name, Number(0)).low is not None
    ]
    off = [
        f"{model} {name} {_text(name, now)} (committed {_text(name, old)})"
        for model, name, now, old in pairs
        if now.high < old.low or old.high < now.low  # type: ignore[operator]
    ]
    if not pairs:
        return "no committed results of these models to compare with"
    if all(now == old for *_, now, old in pairs):
        return f"all {len(pairs)} numbers equal the committed ones"
    if not off:
        return f"all {len(pairs)} numbers agree with the committed ones within their 95 % intervals"
    return f"{len(off)} of {len(pairs)} numbers differ from the committed ones: {'; '.join(off)}"


def _text(name: str, number: Number | None) -> str:
    if number is None:
        return ""
    if name.startswith("calibration"):
        return f"{number.value:.3f}"
    return f"{number.value:.4f}" if name.startswith("AUC") else f"{100 * number.value:.1f} %"


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _read_committed(path: Path) -> dict[str, Any] | None:
    """Content of a report in the last commit; None where git or the commit does not know it."""
    command = ["git", "show", f"HEAD:./{path.name}"]
    if layout.SOURCES_DIR in path.parts or not path.parent.is_dir():
        return None
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None
