"""Results of a finished pipeline on the console, and their agreement with the committed ones."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gotorb.core import layout

REPORTS = Path("reports")
COLUMNS = ("AUC", "FPR", "FNR", "AUC on truth", "FPR on truth", "FNR on truth", "faint found")
COMPARED = ("AUC", "AUC on truth", "faint found")
"""Columns compared with the committed ones: the others follow the operating threshold, which each training chooses."""
Read = Callable[[Path], dict[str, Any] | None]


class Number(NamedTuple):
    """A headline number with its 95 % interval."""

    value: float
    low: float
    high: float


def print_results(here: Path) -> None:
    """Print a table of the models' headline numbers, and whether they lie in the committed ones' intervals.

    Parameters
    ----------
    here : Path
        Folder of the pipeline: the project, a study or a source.
    """
    found = read_numbers(lambda path: _read_json(here / path))
    if not found:
        return
    print(format_results(found))
    committed = read_numbers(lambda path: _read_committed(here / path))
    if committed:
        print(describe_agreement(found, committed))


def read_numbers(read: Read) -> dict[str, dict[str, Number]]:
    """Read the headline numbers of each model from its reports.

    Parameters
    ----------
    read : callable
        Gives the content of a report by its path, None where there is none.

    Returns
    -------
    dict
        Model -> name of a column of `COLUMNS` -> number; undefined numbers are left out.
    """
    headline = {name: read(REPORTS / f"{name}.json") for name in ("truth", "injections")}
    names = read(REPORTS / "promotion.json") or {}
    models = sorted({name for report in headline.values() for name in (report or {}).get("models", {})})
    models = models or [name for name in (names.get("model"),) if name]
    numbers = {}
    for model in models:
        own = _rates(read(REPORTS / f"{model}.json"), "") | _rates(_model(headline["truth"], model), " on truth")
        faint = _model(headline["injections"], model).get("at_fpr", {}).get("slices", {}).get("faint")
        own |= dict(_number("faint found", faint or {}, "fraction", "low", "high"))
        numbers[model] = own
    return {model: own for model, own in numbers.items() if own}


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
    width = max(len(name) for name in numbers)
    lines = [f"\n{'model':{width}}" + "".join(f"  {name:>12}" for name in shown)]
    for model, own in numbers.items():
        cells = (f"  {_text(name, own.get(name)):>12}" for name in shown)
        lines.append(f"{model:{width}}" + "".join(cells))
    return "\n".join(lines)


def describe_agreement(found: dict[str, dict[str, Number]], committed: dict[str, dict[str, Number]]) -> str:
    """Describe which of the numbers of `COMPARED` differ from the committed ones: their 95 % intervals do not overlap.

    Parameters
    ----------
    found, committed : dict
        From `read_numbers`: those of this run, and those of the last commit.

    Returns
    -------
    str
        One line if all agree; else one more for each number that does not.
    """
    pairs = [
        (model, name, number, committed[model][name])
        for model, own in found.items()
        for name, number in own.items()
        if name in COMPARED and name in committed.get(model, {})
    ]
    off = [
        f"  {model}: {name} {_text(name, now)}, committed {_text(name, old)} "
        f"({_text(name, old._replace(value=old.low))} to {_text(name, old._replace(value=old.high))})"
        for model, name, now, old in pairs
        if now.high < old.low or old.high < now.low
    ]
    n, same = len(pairs), all(now == old for *_, now, old in pairs)
    if not pairs:
        return "no committed results of these models to compare with"
    if same:
        return f"all {n} numbers equal the committed ones"
    if not off:
        return f"all {n} AUCs and found fractions agree with the committed ones within their 95 % intervals"
    return "\n".join(
        [f"{len(off)} of {n} numbers differ from the committed ones by more than their 95 % intervals:", *off]
    )


def _rates(metrics: dict[str, Any] | None, suffix: str) -> dict[str, Number]:
    at = (metrics or {}).get("at_threshold", {})
    numbers = [*_number(f"AUC{suffix}", metrics or {}, "auc", "auc_low", "auc_high")]
    for name in ("fpr", "fnr"):
        numbers += _number(f"{name.upper()}{suffix}", at, name, f"{name}_low", f"{name}_high")
    return dict(numbers)


def _number(name: str, known: dict[str, Any], *keys: str) -> Iterator[tuple[str, Number]]:
    values = [known.get(key) for key in keys]
    if None not in values:
        yield name, Number(*(float(value) for value in values))  # type: ignore[arg-type]


def _model(report: dict[str, Any] | None, model: str) -> dict[str, Any]:
    return (report or {}).get("models", {}).get(model, {})


def _text(name: str, number: Number | None) -> str:
    if number is None:
        return ""
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
