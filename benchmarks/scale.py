"""Growth of memory and CPU time with the rows: import, training, evaluation, scores, explorer, report, at two sizes.

``python -m benchmarks.scale --part 0.2`` tries it at a fifth of the size and prints the rows.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from benchmarks.memory import make_table
from benchmarks.rows import Row
from gotorb.dataset.store import write_dataset

N_ARCHIVE, N_DATA = 300_000, 100_000
FEWER = 5
"""The smaller size is this part of the larger one."""
SIZE, LAYERS, BLOCK = 21, ("science", "template", "difference"), 5_000
LIMIT_SECONDS = 7_200
"""Longest wait for a step, on a busy machine."""
PROLOGUE = """
import resource, sys
from pathlib import Path
from gotorb import classifier, eyeball, import_data
from gotorb.core.params import ArchiveParams
here = Path(sys.argv[1])
LAYERS = ("science", "template", "difference")
archive = ArchiveParams(labels="proxy", proxy_column="label", columns={"candidate_id": "candid", "image_id": "image_id",
                        "ra": "ra", "dec": "dec", "mag": "mag"}, layers=LAYERS)
if sys.argv[2] not in ("import", "report"):
    import gotorb.training.inference, sklearn.manifold
def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
started = cpu()
"""
EPILOGUE = """
took = cpu() - started
status = Path("/proc/self/status").read_text()
own = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
print("measured", max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss), took)
"""
STEPS = {
    "import": "import_data.import_stamps(here / 'archive', archive, out_dir=here, name='imported')",
    "train": "classifier.train(here / 'data', 'vgg6', layers=LAYERS, name='model', epochs=1, seed=1,"
    " model_kwargs={'block1': 4, 'block2': 8, 'dense': 16})",
    "evaluate": "classifier.evaluate(*classifier.load(here / 'data' / 'model'), here / 'data', n_samples=2,"
    " n_bootstrap=20)",
    "score": "from gotorb.classifier.jobs import Options, score_sources\n"
    "score_sources(str(here / 'data' / 'model'), [here / 'archive'], here / 'scores.csv',"
    " Options(archive=archive, n_samples=0))",
    "explorer": "eyeball.explore(here / 'data', str(here / 'data' / 'model'), here / 'explorer.html')",
    "report": "from gotorb.visualise.report_page import write_report\nwrite_report(here / 'project')",
}
"""Work of each step: import and score on the archive, the others on the data set."""
ON_ARCHIVE = ("import", "score")


def measure(part: float = 1.0) -> list[Row]:
    """Peak memory [MiB] and CPU time [s] of each step next to those of fewer rows."""
    large, small = (_measure_steps(part / fewer) for fewer in (1, FEWER))
    memory = [Row(f"memory_100k_{name}", large[name][0], small[name][0], "MiB") for name in STEPS]
    return memory + [Row(f"seconds_100k_{name}", large[name][1], small[name][1], "CPU s") for name in STEPS]


def _measure_steps(part: float) -> dict[str, tuple[float, float]]:
    from tests.unit.test_report_page import make_project, promote

    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_archive(here / "archive", int(N_ARCHIVE * part))
        n = int(N_DATA * part)
        write_dataset(here / "data", make_table(n), make_blocks(n), layers=LAYERS)
        (here / "project").mkdir()
        promote(make_project(here / "project", n=n, size=SIZE), model="bayesian_vgg6", champion=True)
        return {name: _run(here, name, work) for name, work in STEPS.items()}


def _run(here: Path, name: str, work: str) -> tuple[float, float]:
    """Peak memory [MiB] and CPU seconds of one step in a fresh process, imports not counted in the seconds."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + work + EPILOGUE, str(here), name],
        stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_SECONDS,
    )  # fmt: skip
    found = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("measured"))
    peak, seconds = int(found.split()[1]) / 1024, float(found.split()[2])
    print(f"{name}: {peak:.0f} MiB, {seconds:.1f} CPU s, {time.perf_counter() - begun:.1f} s on the clock", flush=True)
    return peak, seconds


def make_blocks(n: int) -> Iterator[np.ndarray]:
    """Noise with a bright centre in every second stamp, a block at a time."""
    rng = np.random.default_rng(2)
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        stamps = rng.normal(0, 1, (len(rows), SIZE, SIZE, len(LAYERS))).astype(np.float32)
        stamps[:, SIZE // 2, SIZE // 2, :] += 5 * (rows % 2)[:, None]
        yield stamps


def write_archive(folder: Path, n: int) -> None:
    """Write a stamp archive: one hdf5 and the csv that describes its rows."""
    folder.mkdir()
    table = make_table(n)
    names = np.arange(n).astype("S")
    with h5py.File(folder / "all_stamps.h5", "w") as file:
        file["candid"] = names
        kept = file.create_dataset("stamps", (n, SIZE, SIZE, len(LAYERS)), np.float32, chunks=(16, SIZE, SIZE, 3))
        start = 0
        for block in make_blocks(n):
            kept[start : start + len(block)] = block
            start += len(block)
    shown = table[["image_id", "ra", "dec", "mag", "label"]].assign(candid=names.astype(str))
    pd.DataFrame(shown).to_csv(folder / "all_meta.csv", index=False)


def main() -> None:
    """Try it at a part of the size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--part", type=float, default=1.0, help="part of the rows")
    for row in measure(parser.parse_args().part):
        print(row.as_json())


if __name__ == "__main__":
    main()
