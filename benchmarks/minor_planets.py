"""CPU time of the minor planets of a night's images, compared with pympc, which reads the catalogue for each image."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pympc

from benchmarks.rows import Row
from gotorb.catalogues.minor_planets import Field, Pympc
from gotorb.core.settings import LA_PALMA
from gotorb.simulate.catalogues import write_xephem
from gotorb.simulate.orbits import Elements

N_ORBITS, N_IMAGES, N_REFERENCE = 1_400_000, 100, 3
RADIUS_DEG, NIGHT_MJD, EPOCH_MJD = 1.8, 60020.05, 60000.0
MEMORY_LIMIT_MIB = 600.0
WORK = """
import json, sys
from benchmarks.minor_planets import look
print(json.dumps(look(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
"""


def measure() -> list[Row]:
    """First look into a new catalogue; then 100 images in a fresh process; then pympc alone on three of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mpc.csv")
        write_xephem(make_orbits(N_ORBITS, np.random.default_rng(1)), path)
        first = run(path, "ours", 1)
        ours = run(path, "ours", N_IMAGES)
        plain = run(path, "pympc", N_REFERENCE)
    if ours["rows"][:N_REFERENCE] != plain["rows"]:
        sys.exit(f"the minor planets of {N_REFERENCE} images are not those that pympc finds: nothing was measured")
    per_image = plain["cpu_s"] / N_REFERENCE
    return [
        Row("minor_planets_night", ours["cpu_s"], per_image * N_IMAGES, "CPU s"),
        Row("minor_planets_first", first["cpu_s"], per_image, "CPU s"),
        Row("minor_planets_memory", max(first["peak_mib"], ours["peak_mib"]), MEMORY_LIMIT_MIB, "MiB"),
    ]


def make_orbits(n: int, rng: np.random.Generator) -> Elements:
    """A main belt, one in forty near the Earth, one in a thousand retrograde; nearly all faint, as in the sky."""
    near = rng.random(n) < 0.025
    a = np.where(near, rng.uniform(0.7, 3.0, n), rng.normal(2.65, 0.3, n).clip(1.8, 5.3))
    e = np.where(near, rng.uniform(0.1, 0.95, n), rng.rayleigh(0.11, n).clip(0, 0.9))
    i = np.where(rng.random(n) < 0.001, rng.uniform(90, 180, n), rng.rayleigh(7, n).clip(0, 170))
    node, peri, anomaly = rng.uniform(0, 360, (3, n))
    h = 17 + 2.5 * np.log10(rng.uniform(1e-3, 1, n))
    name = np.char.add("X", np.arange(n).astype(str))
    return Elements(name, a, e, i, node, peri, anomaly, np.full(n, EPOCH_MJD), h, np.full(n, 0.15))


def fields(n: int) -> list[Field]:
    """Centres spread evenly over the sky; the first three lie in the ecliptic, near it and far from it."""
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, N_IMAGES), np.degrees(np.arcsin(rng.uniform(-1, 1, N_IMAGES)))
    ra[:N_REFERENCE], dec[:N_REFERENCE] = (0.0, 100.0, 200.0), (0.5, 10.0, 40.0)
    mjd = NIGHT_MJD + np.linspace(-0.2, 0.2, N_IMAGES)
    return [Field(float(ra[k]), float(dec[k]), RADIUS_DEG, float(mjd[k])) for k in range(n)]


def whole_catalogue(path: str, field: Field) -> pd.DataFrame:
    """Minor planets that pympc finds in the whole catalogue."""
    found = pympc.minor_planet_check(
        field.ra, field.dec, field.epoch_mjd, field.radius_deg * 3600, xephem_filepath=path,
        include_major_bodies=False, observatory=LA_PALMA, chunk_size=0,
    )  # fmt: skip
    return found.to_pandas()


def look(path: str, who: str, n_images: int) -> dict[str, Any]:
    """Look up some images in this process: CPU seconds without imports, peak memory, and what was found."""
    provider = Pympc(path, LA_PALMA)
    started = cpu_seconds()
    found = [provider.find(field) if who == "ours" else whole_catalogue(path, field) for field in fields(n_images)]
    spent = cpu_seconds() - started
    rows = [table[["name", "ra", "dec", "mag"]].to_numpy().tolist() for table in found]
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory
    peak_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    return {"cpu_s": spent, "peak_mib": peak_kib / 1024, "rows": rows}


def cpu_seconds() -> float:
    """CPU time of this process and of those it has started."""
    both = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in both)


def run(path: Path, who: str, n_images: int) -> dict[str, Any]:
    """Do it in a fresh process that shares a cache with the others."""
    environment = os.environ | {"GOTORB_CACHE_DIR": str(path.parent / "cache")}
    command = [sys.executable, "-c", WORK, str(path), who, str(n_images)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)
