"""Model cards: data, results and limits of a registered model, as markdown for its users.

References
----------
Mitchell et al. 2019 (FAT*, arXiv:1810.03993): model cards.
"""

from collections.abc import Iterator, Mapping
from typing import Any

GROUPS = {
    "by_metalabel": "metalabel",
    "by_mag": "magnitude",
    "by_snr": "S/N",
    "by_telescope": "telescope",
    "by_host_offset": "arcsec from the host",
    "by_edge": "pixels",
}
NOT_FOR = (
    "stamps of another camera, pixel scale or subtraction than the data set's: scores mean nothing there",
    "stamps that lack one of its layers, or with them in another order",
    "a fraction of real detections far from the validation rows' without a correction (`gotorb threshold`)",
    "telling kinds of transients apart: it knows real and bogus only",
)


def make_model_card(
    name: str, metrics: Mapping[str, Any], data_card: Mapping[str, Any], *, layers: list[str], notes: str = ""
) -> str:
    """Describe a model.

    Parameters
    ----------
    name : str
        Of the network.
    metrics : mapping
        Its evaluation's metrics.json.
    data_card : mapping
        Card of the data set it was trained on.
    layers : list of str
        That it takes.
    notes : str
        Of the maintainers, at the end.
    """
    interval = f"{_number(metrics['auc_low'])} to {_number(metrics['auc_high'])}"
    at = metrics["at_threshold"]
    lines = [
        f"# {name}",
        "",
        f"Tells real from bogus detections in stamps of {data_card['size_pixel']} pixels; layers {', '.join(layers)}, "
        "raw values in the survey's units.",
        "",
        "## Data",
        "",
        f"{data_card['n_rows']} rows, digest `{str(data_card['digest'])[:12]}`: {_counts(data_card['by_metalabel'])}.",
        "",
        "## Test rows",
        "",
        f"* {metrics['n_real']} real, {metrics['n_bogus']} bogus; AUC {_number(metrics['auc'])} (95 % {interval})",
        f"* threshold {_number(metrics['threshold'])}, chosen on validation rows",
        f"* at it FPR {_rate(at, 'fpr')}, FNR {_rate(at, 'fnr')}",
        *_honest(metrics),
        f"* calibration error {_number(metrics['ece'])}, Brier score {_number(metrics['brier'])}",
        *_calibrated(metrics),
        *_robust(metrics),
        "",
        "| group | rows | FPR | FNR |",
        "|---|---|---|---|",
        *(line for key, title in GROUPS.items() for line in _group_lines(title, metrics.get(key) or {})),
        "",
        "Intervals are 95 % (Wilson; DeLong on the logit scale for AUC); rows of one image or object count together.",
        "",
        "## Not for",
        "",
        *(f"* {text}" for text in NOT_FOR),
    ]
    return "\n".join([*lines, *(["", notes] if notes else [])]) + "\n"


def _honest(metrics: Mapping[str, Any]) -> Iterator[str]:
    """FPR without real sources among the bogus labels, and purity of a night; nothing of reports without them."""
    found, night = metrics.get("corrected") or {}, metrics.get("night") or {}
    if found.get("fpr") is not None:
        yield (
            f"* {100 * found['contamination']:.1f} % of the bogus labels look like real sources; without them FPR "
            f"{100 * found['fpr']:.1f} % ({100 * found['fpr_low']:.1f} to {100 * found['fpr_high']:.1f})"
        )
    if night.get("purity") is not None:
        yield (
            f"* purity where {100 * night['real_fraction']:g} % of the detections are real: "
            f"{100 * night['purity']:.1f} %, at least {100 * night['purity_limit']:.1f} %"
        )


def _calibrated(metrics: Mapping[str, Any]) -> list[str]:
    found = metrics.get("calibrated") or {}
    known = [f"{name} {_number(found[name]['ece'])}" for name in ("temperature", "isotonic") if name in found]
    return [f"* calibration error after {', after '.join(known)}"] if known else []


def _robust(metrics: Mapping[str, Any]) -> list[str]:
    found = {kind: part for kind, part in (metrics.get("robustness") or {}).items() if part["n"]}
    counts = [f"{part['changed']} of {part['n']} clear {kind}" for kind, part in found.items()]
    return [f"* calls that a hot pixel beyond three PSF widths changes: {', '.join(counts)}"] if counts else []


def _group_lines(title: str, groups: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, errors in sorted(groups.items()):
        n = errors["n_bogus"] + errors["n_real"]
        lines.append(f"| {title} {name} | {n} | {_rate(errors, 'fpr')} | {_rate(errors, 'fnr')} |")
    return lines


def _rate(errors: Mapping[str, Any], name: str) -> str:
    if errors[name] is None:
        return ""
    return f"{100 * errors[name]:.1f} % ({100 * errors[f'{name}_low']:.1f} to {100 * errors[f'{name}_high']:.1f})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
