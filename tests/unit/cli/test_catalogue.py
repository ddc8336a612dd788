"""`gotorb catalogue`: how old the minor planets are, and a new catalogue from a file or an error without network."""

import gzip
import hashlib
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Said

Call = Callable[..., Said]
EPOCH_JD, EPOCH_MJD = 2460600.5, 60600.0
CERES = {
    "Number": "(1)", "Name": "Ceres", "Principal_desig": "A899 OF", "Epoch": EPOCH_JD, "M": 188.70269, "Peri": 73.27343,
    "Node": 80.25221, "i": 10.58780, "e": 0.0794013, "n": 0.21424651, "a": 2.7660512, "H": 3.34, "G": 0.15,
}  # fmt: skip
VESTA = CERES | {"Number": "(4)", "Name": "Vesta", "M": 26.8096, "Node": 103.702, "a": 2.3615413, "n": 0.27159}


@pytest.fixture(autouse=True)
def no_network(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is not there, and caches of the test's own."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))


@pytest.fixture
def extended(project: Path) -> Path:
    """Two objects in the layout of the MPC's extended JSON."""
    path = project / "mpcorb_extended.json.gz"
    path.write_bytes(gzip.compress(json.dumps([CERES, VESTA]).encode()))
    return path


@pytest.fixture
def catalogue(project: Path, extended: Path, gotorb: Call, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The catalogue of those two, in place."""
    path = project / "mpc.csv"
    monkeypatch.setenv("GOTORB_MPC_CATALOGUE", str(path))
    assert gotorb("catalogue", "update", "--from-file", str(extended)).code == 0
    return path


def test_update_from_a_file_replaces_the_catalogue_that_is_set(
    gotorb: Call, catalogue: Path, extended: Path, project: Path
) -> None:
    catalogue.write_text("old")
    said = gotorb("catalogue", "update", "--from-file", str(extended))
    assert said.code == 0
    assert said.out.startswith(f"{catalogue}: 2 objects, elements of 2024-10-17, ")
    assert "labels are not made with it yet" not in said.err
    assert [line.split(",")[0] for line in catalogue.read_text().splitlines()] == ["Ceres", "Vesta"]
    assert not list(project.glob(".catalogue-*"))


@pytest.mark.parametrize(
    ("days", "drift", "fits", "verdict"),
    [(10, "0.047", True, "fits"), (80, "1.1", False, "is beyond"), (-365, "22", False, "is beyond")],
)
def test_status_says_whether_the_match_radius_still_fits(
    gotorb: Call, catalogue: Path, days: int, drift: str, fits: bool, verdict: str
) -> None:
    said = gotorb("catalogue", "status", "--epoch", str(EPOCH_MJD + days))
    assert f"{abs(days)} days {'old' if days > 0 else 'before'}" in said.out
    assert f"two-body drift {drift} arcsec: {verdict} the match radius of 1 arcsec" in said.out
    assert ("gotorb catalogue update" in said.err) is not fits
    told = json.loads(gotorb("catalogue", "status", "--epoch", str(EPOCH_MJD + days), "--json").out)
    assert told["fits"] is fits
    assert told["age_days"] == pytest.approx(days, abs=0.1)
    assert told["n_objects"] == 2
    assert told["epoch_mjd"] == pytest.approx(EPOCH_MJD, abs=0.01)
    assert told["sha256"] == hashlib.sha256(catalogue.read_bytes()).hexdigest()


def test_status_is_about_now_unless_told(gotorb: Call, catalogue: Path) -> None:
    told = json.loads(gotorb("catalogue", "status", "--json").out)
    assert told["at_mjd"] == pytest.approx(time.time() / 86400 + 40587, abs=0.01)


def test_status_without_a_catalogue_tells_the_cure(gotorb: Call) -> None:
    said = gotorb("catalogue", "status")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "run `gotorb catalogue update`" in said.err


def test_update_without_network_is_one_line_at_once_and_leaves_the_old(gotorb: Call, catalogue: Path) -> None:
    before, started = catalogue.read_bytes(), time.monotonic()
    said = gotorb("catalogue", "update")
    assert time.monotonic() - started < 5
    assert (said.code, said.out) == (1, "")
    error = said.err.splitlines()[-1]
    assert error.startswith("gotorb: no catalogue from astorb from the network (")
    assert "--from-file" in error
    assert "Traceback" not in said.err
    assert catalogue.read_bytes() == before


def test_new_catalogue_that_is_not_in_use_says_how_to_use_it(gotorb: Call, extended: Path, project: Path) -> None:
    said = gotorb("catalogue", "update", "--from-file", str(extended))
    made = project / "cache" / "pympc" / "xephem" / "xephem_mpcorb.csv"
    assert said.out.startswith(f"{made}: 2 objects")
    assert f"set GOTORB_MPC_CATALOGUE={made} in .env" in said.err


def test_near_earth_objects_alone(gotorb: Call, extended: Path, project: Path) -> None:
    said = gotorb("catalogue", "update", "--source", "nea", "--from-file", str(extended), "--out", "nea.csv")
    assert said.out.startswith("nea.csv: 2 objects")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"no json", b'[{"Name": "x"}]'])
def test_file_that_is_no_catalogue_leaves_the_old(gotorb: Call, catalogue: Path, content: bytes) -> None:
    before = catalogue.read_bytes()
    Path("bad.json").write_bytes(content)
    said = gotorb("catalogue", "update", "--from-file", "bad.json")
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert f"{catalogue} is unchanged" in said.err
    assert catalogue.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--from-file", "no.json.gz"), "no file no.json.gz"),
        (("--source", "jpl"), "--source is 'jpl' on the command line; choose one of astorb, mpcorb, nea"),
    ],
)
def test_wrong_words_are_told(gotorb: Call, words: tuple[str, str], reason: str) -> None:
    said = gotorb("catalogue", "update", *words)
    assert said.code == 1
    assert said.err.startswith(f"gotorb: {reason}")


def test_doctor_tells_the_age(gotorb: Call, catalogue: Path) -> None:
    said = gotorb("doctor")
    (line,) = (line for line in said.out.splitlines() if "minor planets" in line)
    assert line.startswith("ok ")
    assert "2 objects, elements of 2024-10-17, " in line
    assert "observatory (342.1176" in line


def test_place_that_cannot_be_written_is_told(gotorb: Call, extended: Path) -> None:
    said = gotorb("catalogue", "update", "--from-file", str(extended), "--out", f"{extended}/mpc.csv")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "mpc.csv cannot be written (" in said.err


ELEMENTS = "0.0794013  0.21424651   2.7660512  0 MPO719049  7258 123 1801-2023 0.65 M-v 30k Pan        0000"
ORBITS = [
    ("00001    3.34  0.15 K24AH 188.70269   73.27343   80.25221   10.58780  ", "     (1) Ceres"),
    ("00004    3.34  0.15 K24AH  26.80960   73.27343  103.70200   10.58780  ", "     (4) Vesta"),
    ("K24A00B             K24AH 100.00000   10.00000   20.00000    5.00000  ", "         2024 AB"),
]
MPCORB = "MINOR PLANET CENTER ORBIT DATABASE (MPCORB)\n\nDes'n     H     G   Epoch     M\n-----\n\n" + "".join(
    f"{start}{ELEMENTS}".ljust(165) + f"{name:<29}20230321\n" for start, name in ORBITS
)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("header", [True, False])
def test_mpcorb_dat_is_read(gotorb: Call, project: Path, packed: bool, header: bool) -> None:
    text = MPCORB if header else MPCORB.split("--\n\n")[1]
    path = project / ("MPCORB.DAT.gz" if packed else "MPCORB.DAT")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    said = gotorb("catalogue", "update", "--from-file", str(path), "--out", str(project / "mpc.csv"))
    assert said.code == 0, said.err
    lines = (project / "mpc.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["Ceres", "Vesta", "2024 AB"]
    assert lines[0].split(",")[1:9] == ["e", "10.58780000", "80.25221000", "73.27343000", "2.76605120", "0.21424651",
                                       "0.07940130", "188.70269000"]  # fmt: skip


@pytest.mark.parametrize("name", ["MPCORB.DAT", "MPCORB.DAT.gz", "extended.json"])
def test_mpcorb_in_place_of_the_catalogue_is_told_with_the_way_out(
    gotorb: Call, project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    content = json.dumps([CERES]).encode() if name.endswith("json") else MPCORB.encode()
    path = project / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    monkeypatch.setenv("GOTORB_MPC_CATALOGUE", str(path))
    said = gotorb("catalogue", "status")
    assert said.code == 1 and f"catalogue update --from-file {path}" in said.err
