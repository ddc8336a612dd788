"""A cache folder and a turnstile for each test, real data, and catalogues of made-up orbits."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from gotorb.catalogues import skybot, update
from gotorb.simulate.orbits import Elements


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder; locks of processes lie in a folder of the test too, and nothing is remembered of others."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GOTORB_CACHE_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    skybot._breaker.reset()
    update._told.clear()
    return folder


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """Folder of real data; the test is skipped where there is none."""
    root = Path(os.environ.get("GOTORB_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not (root / "mpc").is_dir():
        pytest.skip(f"no real data in {root}; set GOTORB_TEST_DATA to the folder that holds mpc/ and services/")
    return root


def make_elements(n: int, rng: np.random.Generator, epoch_mjd: float = 60000.0) -> Elements:
    """Orbits of all kinds: a main belt, and one in ten near the Earth, high, long-drawn, far or retrograde."""
    odd = rng.random(n) < 0.1
    a = np.where(odd, rng.uniform(0.6, 4.0, n), rng.normal(2.65, 0.25, n).clip(1.8, 5.3))
    a = np.where(rng.random(n) < 0.02, rng.uniform(5, 80, n), a)
    e = np.where(odd, rng.uniform(0, 0.98, n), rng.rayleigh(0.1, n).clip(0, 0.8))
    i = np.where(odd, rng.uniform(0, 180, n), rng.rayleigh(8, n).clip(0, 180))
    node, peri, anomaly = rng.uniform(0, 360, (3, n))
    name = np.char.add("T", np.arange(n).astype(str))
    epoch, h = np.full(n, epoch_mjd), rng.uniform(8, 24, n)
    return Elements(name, a, e, i, node, peri, anomaly, epoch, h, np.full(n, 0.15))
