"""A catalogue is read once for all processes, and again when it has changed."""

import hashlib
import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gotorb.catalogues import orbits
from gotorb.catalogues.minor_planets import Field, Pympc
from gotorb.catalogues.orbits import read_catalogue
from gotorb.core.settings import LA_PALMA
from gotorb.errors import CatalogueError
from gotorb.simulate.catalogues import write_xephem
from gotorb.simulate.orbits import observe
from tests.unit.catalogues.conftest import make_elements

EPOCH = 60000.0


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue that is worth a place in the cache."""
    monkeypatch.setattr(orbits, "SMALL_BYTES", 1000)
    return write(tmp_path / "mpc.csv", 500)


def write(path: Path, n: int, seed: int = 1) -> Path:
    """Replace a catalogue as a careful program does."""
    aside = path.with_suffix(".new")
    write_xephem(make_elements(n, np.random.default_rng(seed), EPOCH), aside)
    aside.replace(path)
    return path


def forget() -> None:
    orbits._load.cache_clear()


def test_arrays_are_kept_and_mapped_by_the_next_process(large: Path, cache_dir: Path, monkeypatch) -> None:
    first = read_catalogue(large)
    forget()
    monkeypatch.setattr(orbits, "parse", None)
    second = read_catalogue(large)
    assert isinstance(second.orbits, np.memmap)
    np.testing.assert_array_equal(first.orbits, second.orbits)
    assert (second.sha256, second.epoch_mjd) == (first.sha256, first.epoch_mjd)
    assert second.sha256 == hashlib.sha256(large.read_bytes()).hexdigest()
    assert second.epoch_mjd == pytest.approx(EPOCH, abs=1e-5)


def test_small_catalogue_leaves_nothing_in_the_cache(tmp_path: Path, cache_dir: Path) -> None:
    read_catalogue(write(tmp_path / "small.csv", 20))
    assert list(cache_dir.iterdir()) == []


def test_broken_arrays_are_made_again(large: Path, cache_dir: Path) -> None:
    whole = read_catalogue(large).orbits.copy()
    for kept in (cache_dir / "orbits").glob("*.np*"):
        kept.write_bytes(kept.read_bytes()[:200])
    forget()
    np.testing.assert_array_equal(read_catalogue(large).orbits, whole)


def test_replaced_catalogue_is_read_again_and_its_old_arrays_go(large: Path, cache_dir: Path) -> None:
    provider = Pympc(str(large), LA_PALMA)
    before = provider.version
    write(large, 700, seed=2)
    assert provider.version != before
    assert len(read_catalogue(large)) == 700
    assert len(list((cache_dir / "orbits").glob("*.npy"))) == 1


def test_catalogue_replaced_during_a_look_up_is_read_again(large: Path, monkeypatch) -> None:
    field = Field(0.0, 0.0, 180.0, EPOCH)
    real = orbits.Catalogue.lines

    def replaced_first(self, rows):
        if len(self) == 500:
            write(large, 30, seed=3)
        return real(self, rows)

    monkeypatch.setattr(orbits.Catalogue, "lines", replaced_first)
    assert len(Pympc(str(large), LA_PALMA).find(field)) == 30


def test_cache_folder_that_cannot_be_written_costs_only_time(
    large: Path, tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GOTORB_CACHE_DIR", str(tmp_path / "file"))
    with caplog.at_level(logging.INFO, logger="gotorb"):
        assert len(read_catalogue(large)) == 500
    assert "set GOTORB_CACHE_DIR in .env" in caplog.text


def test_processes_that_start_together_get_the_same_arrays(tmp_path: Path, cache_dir: Path) -> None:
    path = write(tmp_path / "mpc.csv", 45_000)
    assert path.stat().st_size > orbits.SMALL_BYTES
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        sums = set(pool.map(checksum, [path] * 3))
    assert sums == {checksum(path)}
    assert len(list((cache_dir / "orbits").glob("*.npy"))) == 1


def checksum(path: Path) -> float:
    return float(np.nansum(read_catalogue(path).orbits))


def test_version_is_the_name_and_the_content_and_no_place_or_time(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path, copy = write(tmp_path / "mpc.csv", 20), tmp_path / "elsewhere" / "mpc.csv"
    copy.write_bytes(path.read_bytes())
    os.utime(copy, (1, 1))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert Pympc(str(path), LA_PALMA).version == Pympc(str(copy), LA_PALMA).version == f"pympc:mpc.csv@{digest[:12]}"


def test_hostile_lines_are_never_screened_and_never_shift_others(tmp_path: Path) -> None:
    path = write(tmp_path / "mpc.csv", 3)
    good = path.read_text().splitlines()
    bad = [
        "",
        "# comment",
        'quoted "name,e,1,2',
        "x,e,1,2,3,-2.5,0.2,0.1,5,2023,2000,9,0.1",
        "y,h",
        "z," * 40,
        "é,e,nan,1",
    ]
    path.write_text("\r\n".join([bad[0], good[0], *bad[1:4], good[1], *bad[4:], good[2]]), encoding="utf-8")
    known = read_catalogue(path)
    plain = np.flatnonzero(np.isfinite(known.orbits[0]))
    assert len(plain) == 3
    assert known.lines(plain) == "".join(f"{line}\n" for line in good).encode()


@pytest.mark.parametrize("text", ["", "\n", "no,such\nformat,here\n", "\x00\x01\x02", "a\rb\rc"])
def test_file_of_another_format_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(CatalogueError, match=r"other\.csv cannot be used .*gotorb catalogue update") as caught:
        read_catalogue(path)
    assert "\n" not in str(caught.value)


def test_folder_in_place_of_a_catalogue_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="cannot be used"):
        read_catalogue(tmp_path)


def test_elements_lead_to_the_places_that_the_orbits_give(tmp_path: Path) -> None:
    made = make_elements(400, np.random.default_rng(5), EPOCH)
    write_xephem(made, tmp_path / "mpc.csv")
    from gotorb.catalogues.orbits import midnight, screen

    at = midnight(EPOCH + 60, LA_PALMA[0])
    night = screen(read_catalogue(tmp_path / "mpc.csv"), at)
    seen = observe(made, at, (0.0, 0.0, 0.0))
    ra, dec = np.radians(seen.ra), np.radians(seen.dec)
    sight = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    far = night.reach < 1
    assert far.mean() > 0.95
    assert np.degrees(np.linalg.norm(night.sight - sight, axis=0)[far].max()) * 3600 < 2
