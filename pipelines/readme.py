"""Write the measured parts of README.md: tables from reports/ and benchmarks/, and its picture from the data set.

Run by `make readme` after `make repro`; a test fails when README and reports differ.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import RESULTS_JSON, table_of_waits
from gotorb.core.files import write_text
from gotorb.dataset.store import open_dataset

START, END = "<!-- measured: written by `make readme` -->", "<!-- end of measured -->"
REAL_MAG, BOGUS_SNR = 18.0, 15.0
SESSION_MODEL = "bayesian_vgg6"
"""Model of README's session."""
NAMES_OF_ROWS = {"annotated": "annotated by eye", "held_out": "held out", "out_of_fold": "out of fold"}
"""Table of reports/ztf_external_classifiers.json -> the rows in words."""
REAL_SKY = (
    "**Real sky**: public ZTF alerts ([report](reports/ztf_external_classifiers.md)). Two annotators labelled some by "
    "eye, only to be compared with. Elsewhere *real* is a catalogued asteroid, variable or supernova, or drb > 0.9 and "
    "rb > 0.65, and *bogus* drb < 0.3 and rb < 0.65. ZTF's scores rb and drb (braai) made these labels, so their rows "
    "are upper limits; gotorb learned from these labels and scores. Its training settings were chosen on these alerts. "
    "Intervals are 95 %."
)


def main() -> None:
    """Update README.md and docs/images/layers.png."""
    readme = Path("README.md")
    write_text(readme, replace_block(readme.read_text(encoding="utf-8"), make_table(Path("reports"))))
    write_text(Path("reports/README.md"), make_breakdown(Path("reports")))
    for page, make in (("docs/studies.md", make_study), ("docs/active-learning.md", make_learning)):
        text = Path(page).read_text(encoding="utf-8")
        write_text(Path(page), replace_block(text, make(Path("studies/large/reports"))))
    draw_layers(Path("data/dataset"), Path("docs/images/layers.png"))


def replace_block(text: str, block: str) -> str:
    """Put a block between the marks."""
    before, rest = text.split(START)
    return f"{before}{START}\n{block}{END}{rest.split(END)[1]}"


def make_table(reports: Path, results: Path = RESULTS_JSON) -> str:
    """README's measured part: what its session prints, results on the real sky and the simulator, and costs."""
    ztf, own = (
        json.loads((reports / f"{name}.json").read_text()) for name in ("ztf_external_classifiers", SESSION_MODEL)
    )
    parts = (_session(own), "", *_real_sky(ztf), "", *_simulator(reports), "", *_costs(json.loads(results.read_text())))
    return "\n".join(parts) + "\n"


def _session(own: dict[str, Any]) -> str:
    printed = "AUC {auc:.4f} on {n_real} real and {n_bogus} bogus test rows\n(3, 20)".format(**own)
    return f"```text\n{printed}\n```"


def _real_sky(tables: dict[str, Any]) -> list[str]:
    """A column of AUC for each sample of rows, and the missed fraction of the largest one."""
    tables = {name: table for name, table in tables.items() if name != "spread"}
    largest = max(tables, key=lambda name: tables[name]["gotorb"]["n_real"])
    titles = [f"AUC, {NAMES_OF_ROWS.get(name, name)} ({_n(table['gotorb'])})" for name, table in tables.items()]
    lines = [
        "Results", "-------", REAL_SKY, "",
        f"| score | {' | '.join(titles)} | missed at 5 % false positives, {NAMES_OF_ROWS.get(largest, largest)} |",
        f"|---{'|---' * len(tables)}|---|",
    ]  # fmt: skip
    for name in sorted(tables[largest], key=lambda name: name != "gotorb"):
        cells = [_auc(table[name]) if name in table else "" for table in tables.values()]
        missed = tables[largest][name]["missed_at_fpr_0.05"]
        share = f"{100 * missed['fnr']:.1f} % ({100 * missed['low']:.1f} to {100 * missed['high']:.1f})"
        lines.append(f"| {name} | {' | '.join(cells)} | {share} |")
    return lines


def _n(row: dict[str, Any]) -> str:
    return f"{row['n_real']} real, {row['n_bogus']} bogus"


def _simulator(reports: Path) -> list[str]:
    truth, purity = (json.loads((reports / f"{name}.json").read_text()) for name in ("truth", "purity"))
    right = ", ".join(f"{name} {_purity(part)}" for name, part in sorted(purity["after_cleaning"].items()))
    lines = [
        f"**The embedded survey**, {truth['n_detections']} detections of {truth['n_images']} held-out images, against "
        "the simulator's truth. [The simulator is cleaner than the sky](docs/realism.md), and its old scores are "
        f"mediocre by design. Correct labels after cleaning: {right}.",
        "",
        "| classifier | AUC | missed at 1 % false positives | at its threshold: FPR | FNR |",
        "|---|---|---|---|---|",
    ]
    names = {name: truth["models"][name] for name in sorted(truth["models"])}
    names |= {"old random forest (`realbogus`)": truth["old_scores"]["realbogus"]}
    names |= {"old network (`cnn_realbogus`)": truth["old_scores"]["cnn_realbogus"]}
    return lines + [_model_line(name, metrics) for name, metrics in names.items()]


def _costs(results: list[dict[str, Any]]) -> list[str]:
    return ["**Costs**, measured on the machine of [benchmarks](docs/benchmarks.md):", "", *table_of_waits(results)]


def make_breakdown(reports: Path) -> str:
    """Error rates of the networks by group, on labels and on truth, as markdown."""
    truth = json.loads((reports / "truth.json").read_text())["models"]
    lines = [
        "# Error rates by group",
        "",
        "Written by `make readme` from the json files here. Intervals are 95 % (Wilson).",
    ]
    for name in sorted(truth):
        labels = json.loads((reports / f"{name}.json").read_text())
        for metrics, sample in ((labels, "held-out labelled rows"), (truth[name], "all detections of held-out images")):
            lines += ["", f"## {name}, {sample}", "", "| group | threshold | FPR | FNR |", "|---|---|---|---|"]
            lines += _group_lines(metrics)
    return "\n".join(lines) + "\n"


def make_study(reports: Path) -> str:
    """The larger survey's results, as markdown."""
    found = json.loads((reports / "other_fields.json").read_text())
    truth, network = found["truth"], "bayesian_vgg6"
    model, old, own = (
        truth["models"][network],
        truth["old_scores"]["realbogus"],
        json.loads((reports / f"{network}.json").read_text()),
    )
    clear, calibrated = model["clear"], own["calibrated"]
    lines = [
        f"{truth['n_detections']} detections ({model['n_real']} real) of {truth['n_images']} images of other fields, "
        f"against truth. The old random forest has an AUC of {old['auc']:.4f} there.",
        "",
        "| rows | AUC | threshold | FPR | FNR |",
        "|---|---|---|---|---|",
        _study_line("all", _auc(model), model["threshold"], model["at_threshold"]),
        _study_line(f"S/N {clear['min_snr']:g} and more", "", model["threshold"], clear["at_threshold"]),
        _study_line("the same, best threshold for these rows", "", clear["balanced_threshold"], clear["at_balanced"]),
        *(_study_line(f"S/N {name}", "", model["threshold"], errors) for name, errors in by_number(model["by_snr"])),
        "",
        f"On its own {own['n_real'] + own['n_bogus']} test rows: AUC {_auc(own)}, calibration error {own['ece']:.4f}, "
        f"after temperature {calibrated['temperature']['ece']:.4f}, isotonic {calibrated['isotonic']['ece']:.4f}; "
        f"area under the retention curve {own['retention']['gain']:.1f} times smaller than in random order "
        f"(on truth {model['retention']['gain']:.1f} times).",
        "",
        "| injected transients | n | found at 2 % FPR |",
        "|---|---|---|",
    ]
    for name, part in found["injections"]["models"][network]["at_fpr"]["slices"].items():
        low, high = 100 * part["low"], 100 * part["high"]
        lines.append(f"| {name} | {part['n']} | {100 * part['fraction']:.1f} % ({low:.1f} to {high:.1f}) |")
    return "\n".join(lines) + "\n\nIntervals are 95 %. Source: `studies/large/reports/`.\n"


def make_learning(reports: Path) -> str:
    """The gain of choosing labels on the larger survey, as markdown."""
    report = json.loads((reports / "active_learning.json").read_text())
    summary, plan = report["summary"], report["plan"]
    methods = summary["methods"]
    lines = [
        f"On the larger survey (`make study`; a pool of {plan['n_pool']} train rows, {summary['n_seeds']} seeds): mean "
        "AUC on the test rows.",
        "",
        f"| labels | {' | '.join(methods)} |",
        f"|---|{'---|' * len(methods)}",
    ]
    for place, n in enumerate(summary["n_labels"]):
        means = (f"{one['auc']['curve']['mean'][place]:.4f}" for one in methods.values())
        lines.append(f"| {n} | {' | '.join(means)} |")
    lines += ["", "| against random | AUC gained | labels that random needs, times |", "|---|---|---|"]
    for name, one in methods.items():
        if "gain" in one["auc"]:
            gain, ratio = one["auc"]["gain"], one["auc"]["labels_ratio"]
            lines.append(
                f"| {name} | {gain['mean']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f}) "
                f"| {ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) |"
            )
    kinds = list(report["chosen"]["pool"]["metalabels"])
    lines += [
        "",
        f"| what was chosen | network wrong | real | {' | '.join(kinds)} |",
        f"|---|---|---|{'---|' * len(kinds)}",
    ]
    for name, one in report["chosen"].items():
        shares = (f"{100 * share:.1f} %" for share in one["metalabels"].values())
        wrong = f"{100 * one['wrong']:.1f} %" if "wrong" in one else ""
        lines.append(f"| {name} | {wrong} | {100 * one['real']:.1f} % | {' | '.join(shares)} |")
    lines += ["", "Intervals are 95 %, over seeds. Source: `studies/large/reports/active_learning.json`."]
    return "\n".join(lines) + "\n"


def by_number(groups: dict[str, Any]) -> list[tuple[str, Any]]:
    """Groups named by a range, in the order of its lower end.

    >>> by_number({"10-20": 1, "5-7": 2})
    [('5-7', 2), ('10-20', 1)]
    """
    return sorted(groups.items(), key=lambda group: float(group[0].split("-")[0]))


def _auc(metrics: dict[str, Any]) -> str:
    return f"{metrics['auc']:.4f} ({metrics['auc_low']:.4f} to {metrics['auc_high']:.4f})"


def _study_line(name: str, auc: str, threshold: float, errors: dict[str, Any]) -> str:
    return f"| {name} | {auc} | {threshold:.3f} | {_count(errors, 'fpr')} | {_count(errors, 'fnr')} |"


def _group_lines(metrics: dict[str, Any]) -> list[str]:
    lines = []
    chosen = f"{metrics['threshold']:.3f}"
    for groups in ("by_metalabel", "by_mag"):
        for name, at_chosen in sorted(metrics[groups].items()):
            title = name if groups == "by_metalabel" else f"mag {name}"
            for threshold, errors in ((chosen, at_chosen), ("0.5", metrics[f"{groups}_at_half"][name])):
                lines.append(f"| {title} | {threshold} | {_count(errors, 'fpr')} | {_count(errors, 'fnr')} |")
    return lines


def _count(errors: dict[str, Any], name: str) -> str:
    wrong, of = {"fpr": ("n_false_positive", "n_bogus"), "fnr": ("n_false_negative", "n_real")}[name]
    return "" if errors[name] is None else f"{_rate(errors, name)}, {errors[wrong]} of {errors[of]}"


def _model_line(name: str, metrics: dict[str, Any]) -> str:
    at = metrics["at_threshold"]
    auc = _auc(metrics)
    missed = f"{100 * metrics['fnr_at_fpr']['1_percent']:.1f} %"
    return f"| {name} | {auc} | {missed} | {_rate(at, 'fpr')} | {_rate(at, 'fnr')} |"


def _rate(errors: dict[str, float], name: str) -> str:
    return f"{100 * errors[name]:.1f} % ({100 * errors[f'{name}_low']:.1f} to {100 * errors[f'{name}_high']:.1f})"


def _purity(part: dict[str, Any]) -> str:
    return f"{100 * part['purity']:.1f} % of {part['n']} ({100 * part['low']:.1f} to {100 * part['high']:.1f})"


def draw_layers(data_dir: Path, path: Path) -> None:
    """Draw all layers of a clear minor planet and of a clear random bogus."""
    from gotorb.evaluation.stamp_figures import plot_layers

    data = open_dataset(data_dir)
    table = data.table
    planets = table[(table["metalabel"] == "mp") & (table["missing_fraction"] == 0)]
    junk = table[(table["metalabel"] == "randjunk") & (table["snr"] > BOGUS_SNR) & (table["missing_fraction"] == 0)]
    rows = [int((planets["mag"] - REAL_MAG).abs().idxmin()), int(np.sort(junk.index)[0])]
    real, bogus = data.read_stamps(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_layers(real, bogus, data.layers).savefig(path, dpi=100)


if __name__ == "__main__":
    main()
