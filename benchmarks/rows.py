"""Results as json, and the page made from them."""

import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
RESULTS_JSON = HERE / "results.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"

LARGE_STEPS = {
    "import": "imports an archive of 300,000 stamps of 21 x 21 x 3",
    "train": "trains vgg6 for one epoch on 100,000 rows",
    "evaluate": "evaluates it on them",
    "score": "scores the archive",
    "explorer": "writes their latent explorer",
    "report": "writes the report of two models on 100,000 test rows",
}
"""Steps of the benchmark of large sets, in `benchmarks.scale`."""
MEANINGS = {
    "help_seconds": "`gotorb --help`, wall time, median of several; reference: an interpreter that does nothing. "
    "The limit is 0.5 s.",
    "stamps_1000": "Stamps of 55 x 55 pixels per CPU second, each in seven planes: a difference image of 8176 x 6132 "
    "pixels with science image and template, and four exposures, each with its own distorted (SIP) WCS; 1000 "
    "detections, files opened and closed. Reference: a program that parses WCS(header) again for each detection "
    "and plane and calls Cutout2D on open files, on 20 of the same detections (1000 would take a minute). Their pixels "
    "must be equal to the bit.",
    "stamps_1000_cutout2d": "The same rate. Reference: Cutout2D on the same 1000 detections with the WCS of each plane "
    "parsed once, files opened and closed, equal to the bit.",
    "stamps_1000_slices": "The same rate. Reference: numpy slices of memory-mapped planes, clipped at the edges, with "
    "the WCS of each plane parsed once, equal to the bit. The aim is 3, or 1/1.3 in stamps_1000_copy.",
    "stamps_1000_copy": "The same rate. Reference: copying as many bytes out of memory maps as native float32, with no "
    "WCS and no edges: the limit.",
    "stamps_100": "The same for 100 detections.",
    "stamps_10": "The same for 10 detections.",
    "stamps_1000_fz": "The same 1000 from tile-compressed files (RICE, a tile a row, as fpack writes them). Reference: "
    "each plane decompressed once, whole, then cut; the cutting is measured on 20 detections.",
    "stamps_1000_fz_whole": "The same rate, compared with decompressing the seven planes whole and cutting nothing: a "
    "ratio of 1 means that cutting is free.",
    "stamps_1000_io": "1000 detections up to their shard of six layers on disk. Reference: the same bytes of the "
    "seven planes copied out of memory maps, and the bytes of the layers written to HDF5.",
    "stamps_memory": "Peak memory of 1000 detections minus that of 100, mapped files included. Reference: the size of "
    "the additional stamps and layers.",
    "label_checks": "Labelling of one difference image of 8176 x 6132 pixels with four exposures and 1000 detections, "
    "64 of them labelled, by a provider of minor planets that costs nothing: files opened, table read, stamps. "
    "Reference: the same without the checks of place, time, grid, stamps and expected minor planets, in turn in the "
    "same run. The limit is a ratio of 1.1.",
    "report_seconds": "Seconds to write report.html of two models on 2000 test rows, reports and predictions read.",
    "report_open": "Seconds until Chromium has painted it.",
    "report_size": "Its size.",
    "minor_planets_night": "CPU time, without imports, of a fresh process that finds the minor planets of 100 images "
    "of one night (circles of 1.8 degrees all over the sky) among 1.4 million orbits, read before. Reference: pympc "
    "with the same catalogue on three of them, times 100/3; names, positions and magnitudes must be equal to the bit. "
    "The aim is a ratio of 1/200.",
    "minor_planets_first": "The same for the first image with a new catalogue, its reading into the cache included. "
    "Reference: one image with pympc.",
    "minor_planets_memory": "Peak memory of both, mapped files included.",
    "posterior_p01": "Stamps of 55 x 55 x 4 per second, each with 20 posterior samples by bayesian_vgg6 at dropout "
    "0.01. Reference: 20 calls of the model with dropout on, 128 stamps at a time.",
    "posterior_p01_compiled": "The same rate, compared with 20 plain passes: compiled, dropout off, no Keras around "
    "them.",
    "posterior_p05": "As posterior_p01 at dropout 0.05.",
    "posterior_p05_compiled": "As posterior_p01_compiled at dropout 0.05.",
    "posterior_p20": "As posterior_p01 at dropout 0.2.",
    "posterior_p20_compiled": "As posterior_p01_compiled at dropout 0.2.",
    "score": "Stamps of 55 x 55 x 4 per second, one plain score each. Reference: model.predict of Keras, 256 at a "
    "time, in a script of its own; TensorFlow decides there itself whether it uses oneDNN's kernels, which gotorb "
    "always does.",
    "score_onnx": "The same by the exported model with onnxruntime, two threads, 256 at a time; the scores must be "
    "equal to 1e-6. Reference: as for score, in the same run.",
    "score_same_kernels": "The rate of `score`, compared with model.predict in our process, with oneDNN's kernels too.",
    "features": "About 250 measured features of a stamp of 55 x 55 x 4, wall time on one core.",
    "score_fusion": "Stamps of 55 x 55 x 4 per second, one plain score each by fusion: features, 400 trees and "
    "bayesian_vgg6. Reference: bayesian_vgg6 alone, alternating in the same run. The aim is 1,000 per second on two "
    "cores.",
    "posterior_fusion": "The same with 20 posterior samples. Reference: the network's samples alone. The aim is 300.",
    "archive_score": "`gotorb score --no-posterior` from a stamp archive (hdf5) of 55 x 55 x 4 stamps: digest of the "
    "file, reading, sky level taken off, checks, one plain score each, csv on disk; stamps per second. Reference: the "
    "bare network on the same array in memory, alternating in the same run. The limit is a ratio of 0.7.",
    "archive_posterior": "The same with plain scores and 20 posterior samples. Reference: the bare sampler on the "
    "array in memory. The limit is a ratio of 0.7.",
    "image_score": "From the FITS files to plain scores in a csv by `gotorb score --no-posterior`: one difference "
    "image of 8176 x 6132 pixels with science image, template, four exposures and 1000 detections. The network was "
    "loaded and compiled before; wall time.",
    "image_posterior": "The same with 20 posterior samples.",
    "packets_ztf": "Alert packets in the form of ZTF's, one in each file with a history of 12 detections, read to "
    "records and stamps; packets per CPU second of one core. Reference: fastavro.reader, gzip and astropy.io.fits on "
    "the same files; the stamps must be equal to the bit. The aim is 5; unpacking gzip alone allows 9.",
    "packets_rubin": "The same for messages in the form of Rubin's, in Confluent's wire format. Reference: "
    "fastavro.schemaless_reader with the schema parsed before, and astropy.io.fits. The aim is 5.",
    "night_plain": "Alerts per second of a night of Rubin, 10 million in 10 hours. Reference: the rate of "
    "`archive_score`; the ratio is the number of such machines that keep up.",
    "night_posterior": "The same with 20 posterior samples for every alert. Reference: the rate of "
    "`archive_posterior`.",
    "stream_ztf": "Alerts per CPU second from a mock broker to rows on disk: 640 packets made of 20 real ones, vgg6 of "
    "63 x 63 x 3 exported, batches of 32, plain scores. Reference: a plain loop of fastavro, gzip, astropy and Keras' "
    "predict over some of the same packets, which reads no Kafka and writes nothing. The aim is 400.",
    "stream_rubin": "The same for 640 packets made of 32 of Rubin's schema 10.0, 29 x 29 x 3. The aim is 700.",
    "night_stream": "Alerts per second of a night of Rubin, 10 million in 10 hours. Reference: the rate of "
    "`stream_rubin`; the ratio is the number of cores that keep up, from Kafka to rows on disk.",
    "stream_measured": "As stream_rubin, by a model of 400 trees on measured features, which are computed of each "
    "alert. Reference: `stream_rubin`.",
    "stream_fusion": "The same by a fusion of such trees and bayesian_vgg6, which runs in TensorFlow.",
    "stream_latency": "From an alert's time to its row, 95th percentile, at 100 of Rubin's alerts a second.",
    "decode_rubin_ddf": "Rubin packets with 300 earlier sources decoded and cut per CPU second. Reference: the same "
    "decoded whole. The aim is 3,000.",
    "visualise_seconds": "The page of 500 detections with six layers and three exposures of 55 x 55 pixels, made from "
    "scores and samples that are there: curves, pictures, flags, html, csv, json.",
    "visualise_size": "Size of that page's file.",
    "visualise_open": "Opened in headless Chromium, until it has loaded and painted.",
    "visualise_sort": "The slowest sort of its rows, until painted.",
    "train": "Training of bayesian_vgg6 on 1,024 stamps of 55 x 55 x 4 with flips and quarter turns, two threads, the "
    "cheapest epoch of several, validation and the state on disk after each epoch included: streamed from hdf5. "
    "Reference: plain Keras `fit` on float32 arrays in memory, augmented beforehand, which is not counted; the losses "
    "of all epochs must be equal to the bit.",
    "train_flops": "Rate of float32 operations of a training, counted from the kernels. Reference: products of 2048 x "
    "2048 float32 matrices by the same library; the ratio is the part of that rate that training reaches.",
    "logging": "Record of a training in MLflow's store on this machine: parameters, data, metrics of each epoch, the "
    "model with its code; the time that it adds to the stage, each in a process of its own, the smallest of three. "
    "Reference: the limit, 2 % of the training, which is the epochs of params.yaml by bayesian_vgg6 on 3,325 rows, as "
    "many as the embedded survey's data set has.",
    "logging_stage_s": "Wall time that the same record adds to a stage that does no other work, the import of MLflow "
    "included. Reference: the limit of 6 s for any stage.",
    "eyeball_key": "From a key press to the next stamp painted, median of 200 at a fast reader's pace. In headless "
    "Chromium without a graphics card, on a data set of 100,000 rows of 55 x 55 x 6.",
    "eyeball_key_p95": "The same, 95th percentile.",
    "eyeball_memory": "Peak memory of the server that shows these rows, the explorer's points included.",
    "explorer_ready": "From the request of the latent explorer of these rows to its points painted.",
    "explorer_redraw": "From a turn of the wheel to all points painted again, median.",
    "explorer_lasso": "From the end of a lasso around half of the points to its counts painted.",
    "sheet_paint": "From a key press to a new contact sheet of 42 rows painted, median of 30 turned at reading pace, "
    "on the same rows.",
    "sheet_label": "From a key press that labels 42 selected rows to the sheet painted with their labels, median.",
    "black_panels": "Part of the science and template panels whose median grey is below 5 %, the worse of data/dataset "
    "and, where GOTORB_TEST_DATA names the real data, ZTF's stamps.",
    "visit_cpu_seconds": "One visit of the embedded survey at 1024 x 1024 pixels: three exposures, coadd, its share of "
    "the template, difference image, detection, FITS files; CPU time of one core.",
    "memory_10x": "Peak memory of one epoch and an evaluation in a fresh process on 20,000 stamps of 55 x 55 x 6; "
    "reference: on 2,000. A ratio near 1 means that stamps are streamed.",
    **{
        f"memory_100k_{step}": f"Peak memory of a process that {does}. Reference: a fifth of the rows."
        for step, does in LARGE_STEPS.items()
    },
    **{
        f"seconds_100k_{step}": f"CPU time of the process that {does}, without imports. A ratio of 5 is linear."
        for step, does in LARGE_STEPS.items()
    },
    "setup_seconds": "Installation of the pipeline's environment in a fresh clone (`make .venv/.ready`), packages in "
    "uv's cache; wall time.",
    "setup_disk": "Size of that environment.",
    "repro_seconds": "`make repro` with the project's params.yaml in a fresh clone, environment installed, no cache; "
    "wall time.",
    "repro_peak_memory": "Peak memory of all processes of that run together (proportional set size).",
    "repro_disk": "Size of the clone after that run, DVC's cache included, without the environment.",
}
COMPETENT = (
    "stamps_1000_cutout2d", "stamps_1000_slices", "stamps_1000_copy", "stamps_1000_fz_whole", "stamps_1000_io",
    "label_checks", "minor_planets_first", "posterior_p01_compiled", "posterior_p05_compiled", "posterior_p20_compiled",
    "score_same_kernels", "score_fusion", "posterior_fusion", "archive_score", "archive_posterior", "train",
    "packets_ztf", "packets_rubin", "decode_rubin_ddf",
)  # fmt: skip
"""Rows whose reference is a competent program, or the bare operation without what gotorb adds."""
INTRODUCTION = """# Benchmarks

Each row is compared with a limit, or with a reference program that was measured in the same run on the same machine.
The ratio is ours over the reference. Ratios of times carry over to other machines; seconds do not.
Where the meaning of a row names no reference, it is the limit.

Measured on: {machines}. `make bench` measures everything again, `python -m benchmarks NAME...` some rows. The machine
must be otherwise idle. This page is written from `benchmarks/results.json`.

"""
WAITS = (
    ("install the environment: time with packages in uv's cache, disk", "setup_seconds {duration}, setup_disk {gib}"),
    ("`make repro` on the embedded survey: time, peak memory, disk with DVC's cache",
     "repro_seconds {duration}, repro_peak_memory {gib}, repro_disk {gib}"),
    ("label 100 images of 8176 x 6132 pixels", "label_checks {label}"),
    ("train one epoch on 10^5 stamps of 55 x 55 x 4", "train {train}"),
    ("score 10^6 of these stamps; with 20 posterior samples each", "archive_score {score}, archive_posterior {score}"),
    ("a Rubin night, 10^7 alerts in 10 hours, plain scores", "archive_score {night}"),
    ("from a key press to the next stamp in eyeball", "eyeball_key {milliseconds}"),
)  # fmt: skip
"""What a user waits for, and the rows that tell it with the form of their text, a key of `TEXTS`."""
TEXTS: dict[str, Callable[[float], str]] = {
    "{duration}": lambda value: duration(value),
    "{gib}": lambda value: f"{value:.1f} GiB",
    "{label}": lambda value: duration(100 * value, "CPU "),
    "{train}": lambda value: duration(1e5 / value, "CPU "),
    "{score}": lambda value: duration(1e6 / value),
    "{night}": lambda value: machines(1e7 / 36_000 / value),
    "{milliseconds}": lambda value: f"{value:.0f} ms",
}


def duration(seconds: float, kind: str = "") -> str:
    """Time in the unit that suits it.

    >>> duration(45), duration(255.4), duration(5400, "CPU ")
    ('45 s', '4.3 min', '1.5 CPU h')
    """
    size, unit = next((one for one in ((3600, "h"), (60, "min")) if seconds >= one[0]), (1, "s"))
    return f"{seconds / size:.0f} {kind}s" if unit == "s" else f"{seconds / size:.1f} {kind}{unit}"


def machines(number: float) -> str:
    """Number of machines in words.

    >>> machines(0.1), machines(2.4)
    ('10 % of one machine', '2.4 machines')
    """
    return f"{100 * number:.0f} % of one machine" if number < 1 else f"{number:.1f} machines"


@dataclass(frozen=True)
class Row:
    """One result; the ratio is ours over the reference."""

    name: str
    ours: float
    reference: float
    unit: str

    def as_json(self) -> dict[str, str | float]:
        """Plain values with the ratio, to four figures."""
        ratio = self.ours / self.reference
        rounded = {"ours": figures(self.ours), "reference": figures(self.reference), "ratio": figures(ratio)}
        return asdict(self) | rounded


def figures(value: float) -> float:
    """Four significant figures.

    >>> figures(1234.56)
    1235.0
    """
    return float(f"{value:.4g}")


def write_results(rows: Iterable[Row]) -> None:
    """Replace the rows of the same names, and write the page again."""
    kept = {row["name"]: row for row in json.loads(RESULTS_JSON.read_text())} if RESULTS_JSON.exists() else {}
    kept |= {row.name: row.as_json() | {"machine": machine()} for row in rows}
    ordered = [kept[name] for name in MEANINGS if name in kept]
    RESULTS_JSON.write_text(json.dumps(ordered, indent=2) + "\n")
    PAGE.write_text(make_page(ordered))


def make_page(rows: list[dict[str, str | float]]) -> str:
    """The page: what a user waits for, rows next to competent programs, then the others, and what each row means."""
    seen = sorted({str(row["machine"]) for row in rows if "machine" in row})
    first = [row for row in rows if row["name"] in COMPETENT]
    others = [row for row in rows if row["name"] not in COMPETENT]
    parts = [
        INTRODUCTION.format(machines="; ".join(seen or [machine()])) + "## What you wait for\n",
        *table_of_waits(rows), "", "## Next to competent programs\n", *table(first), "",
        "## Next to plain programs and limits\n", *table(others), "", "## Meaning of the rows\n",
        *(f"- `{row['name']}`: {MEANINGS[str(row['name'])]}" for row in rows),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def table_of_waits(rows: list[dict[str, str | float]]) -> list[str]:
    """Lines of a markdown table of `WAITS`; what was not measured is left out."""
    ours = {str(row["name"]): float(row["ours"]) for row in rows}
    lines = []
    for title, parts in WAITS:
        known = (part.split(" ") for part in parts.split(", "))
        told = [TEXTS[form](ours[name]) for name, form in known if name in ours]
        lines += [f"| {title} | {', '.join(told)} |"] if told else []
    return ["| what | cost |", "|---|---|", *lines]


def table(rows: list[dict[str, str | float]]) -> list[str]:
    """Lines of a markdown table of the rows."""
    lines = ["| name | ours | reference | ratio | unit |", "|---|---:|---:|---:|---|"]
    for row in rows:
        numbers = " | ".join(f"{row[key]:.4g}" for key in ("ours", "reference", "ratio"))
        lines.append(f"| `{row['name']}` | {numbers} | {row['unit']} |")
    return lines


def machine() -> str:
    """Cores, CPU model and Python of this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    model = next(models, platform.processor() or platform.machine())
    return f"{os.cpu_count()} cores, {model}, {platform.system()}, Python {platform.python_version()}"
