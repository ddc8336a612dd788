"""Minor planets offline and online: "none there" and "no answer" are never confused."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gotorb import layout
from gotorb.catalogues import skybot
from gotorb.catalogues.minor_planets import COLUMNS, JD_TO_MJD, Field, Pympc, make_provider
from gotorb.errors import CatalogueError, LookupFailed
from gotorb.settings import LA_PALMA, Settings

MATCH_ARCSEC = 1.0
FIELD = Field(ra=81.28, dec=4.49, radius_deg=0.2, epoch_mjd=60677.0)
OWN_ANSWER = files("astroquery.imcce") / "tests" / "data" / "skybot_query.vot"
NOTHING = "# Flag: 0\n# No solar system object was found in the requested FOV\n"


@pytest.fixture(scope="module")
def image(tiny_survey: Path) -> Any:
    """A difference image's row of the tiny survey."""
    images = pd.read_csv(tiny_survey / layout.IMAGES_CSV)
    return images[images["image_type"] == "DIFFERENCE"].iloc[0]


def offline(tiny_survey: Path) -> Pympc:
    return Pympc(str(tiny_survey / layout.CATALOGUES_DIR / layout.XEPHEM_CSV), LA_PALMA)


def around(image: Any, radius_deg: float = 0.3) -> Field:
    return Field(float(image["ra_c"]), float(image["dec_c"]), radius_deg, float(image["jd"]) - JD_TO_MJD)


def test_pympc_finds_the_asteroids_that_truth_says_are_there(tiny_survey: Path, image: Any) -> None:
    found = offline(tiny_survey).find(around(image))
    truth = pd.read_csv(tiny_survey / layout.TRUTH_CSV, dtype={"candidate_id": str})
    candidates = pd.read_csv(tiny_survey / layout.CANDIDATES_CSV, dtype={"id": str})
    real = candidates[candidates["image_id"] == image["id"]].merge(
        truth[truth["kind"] == "asteroid"], left_on="id", right_on="candidate_id", suffixes=("", "_truth")
    )
    assert tuple(found.columns) == COLUMNS
    assert len(real) > 3
    cos_dec = np.cos(np.radians(image["dec_c"]))
    nearest = [
        np.hypot((found["ra"] - row.ra) * cos_dec, found["dec"] - row.dec).min() * 3600 for row in real.itertuples()
    ]
    assert np.median(nearest) < MATCH_ARCSEC


def test_pympc_gives_an_empty_table_where_nothing_is(tiny_survey: Path, image: Any) -> None:
    field = around(image)
    found = offline(tiny_survey).find(Field((field.ra + 180) % 360, -field.dec, 0.1, field.epoch_mjd))
    assert tuple(found.columns) == COLUMNS
    assert found.empty


def test_missing_catalogue_is_told_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no minor-planet catalogue .*no\.csv; .*GOTORB_MPC_CATALOGUE in \.env"):
        Pympc(str(tmp_path / "no.csv"), LA_PALMA).find(FIELD)


def test_catalogue_of_another_format_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("no,such\nformat,here\n")
    with pytest.raises(CatalogueError, match=r"other\.csv cannot be used"):
        Pympc(str(path), LA_PALMA).find(FIELD)


def test_version_names_the_catalogue() -> None:
    assert make_provider("pympc", Settings(gotorb_mpc_catalogue="/a/mpc.csv")).version == "pympc:mpc.csv"
    assert make_provider("skybot", Settings()).version == "skybot"


def test_unknown_provider_is_told_with_the_known_ones() -> None:
    with pytest.raises(CatalogueError, match="unknown minor-planet provider 'horizons'; choose one of pympc, skybot"):
        make_provider("horizons", Settings())


class Service(HTTPServer):
    """A stand-in for SkyBoT on this machine: what it answers, and what it was asked."""

    status = 200
    body = b""
    asked: list[str]


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    from astroquery.imcce import conf

    monkeypatch.setattr(skybot, "PAUSE_S", 0.01)
    with Service(("127.0.0.1", 0), Answer) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # conf itself takes no address but those it knows
        monkeypatch.setattr(type(conf), "skybot_server", f"http://127.0.0.1:{server.server_port}/")
        yield server
        server.shutdown()


def ask() -> pd.DataFrame:
    return make_provider("skybot", Settings()).find(FIELD)


@pytest.mark.skipif(not OWN_ANSWER.is_file(), reason="astroquery came without its test data")
def test_skybot_answer_is_read_in_degrees(service: Service) -> None:
    service.body = OWN_ANSWER.read_bytes()
    found = ask()
    assert tuple(found.columns) == COLUMNS
    row = found.set_index("name").loc["2007 TE366"]
    assert row["ra"] == pytest.approx(15 * (5 + 25 / 60 + 50.2836 / 3600), abs=1e-6)
    assert row["dec"] == pytest.approx(4 + 30 / 60 + 33.419 / 3600, abs=1e-6)
    assert row["mag"] == pytest.approx(21.6)
    assert len(service.asked) == 1


def test_skybot_is_asked_for_topocentric_positions(service: Service) -> None:
    service.body = OWN_ANSWER.read_bytes()
    ask()
    assert "-observer=950" in service.asked[0]


def test_skybot_empty_field_is_an_empty_table(service: Service) -> None:
    service.body = NOTHING.encode()
    found = ask()
    assert tuple(found.columns) == COLUMNS
    assert found.empty


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"broken"), (200, b"garbage"), (200, b"<html>You are blocked</html>"), (200, b""), (403, b"")],
)
def test_skybot_without_an_answer_is_never_an_empty_field(service: Service, status: int, body: bytes) -> None:
    service.status, service.body = status, body
    with pytest.raises(LookupFailed, match=r"SkyBoT .*try later") as caught:
        ask()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not OWN_ANSWER.is_file(), reason="astroquery came without its test data")
def test_skybot_error_table_without_rows_is_no_empty_field(service: Service) -> None:
    whole = OWN_ANSWER.read_text()
    start, end = whole.index("<vot:TABLEDATA>") + len("<vot:TABLEDATA>"), whole.index("</vot:TABLEDATA>")
    service.body = (whole[:start] + whole[end:]).replace('value="OK"', 'value="ERROR"').encode()
    with pytest.raises(LookupFailed):
        ask()
