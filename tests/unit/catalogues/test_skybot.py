"""SkyBoT in all its states: an answer, an empty one, or an error before the deadline; one request at a time."""

import json
import multiprocessing
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time
from astroquery import imcce

from gotorb.catalogues import skybot
from gotorb.catalogues.minor_planets import Field, Skybot, make_provider
from gotorb.catalogues.skybot import COLUMNS, Limits, Question, look_up, parse_answer
from gotorb.core.settings import SKYBOT_URL, Settings
from gotorb.errors import LookupFailed
from tests.unit.catalogues.fake_skybot import FakeSkybot, note_and_look_up, serving

QUICK = Limits(total_s=30.0, connect_s=1.0, read_s=0.5, tries=3, backoff_s=0.02, pause_s=0.01)
FIELD = Field(ra=81.28, dec=4.49, radius_deg=0.2, epoch_mjd=60677.0)


def ask(server: FakeSkybot, limits: Limits = QUICK, field: Field = FIELD) -> pd.DataFrame:
    return look_up(make_question(server.url, field), limits)


def make_question(url: str, field: Field = FIELD) -> Question:
    return Question(url=url, code="950", **asdict(field))


def test_answer_is_read_in_degrees() -> None:
    with serving("good") as server:
        found = ask(server)
    assert tuple(found.columns) == COLUMNS
    assert found["name"].tolist() == ["Ceres", "2007 TE366"]
    assert found["ra"].tolist() == [81.123456789, 81.2]
    assert found["dec"].tolist() == [4.5, -0.25]
    assert found["mag"].isna().tolist() == [False, True]


def test_recorded_answer_of_the_service_is_read(real_dir: Path) -> None:
    path = real_dir / "services" / "skybot_query.vot"
    found = parse_answer(path.read_bytes())
    row = found.set_index("name").loc["2007 TE366"]
    assert row["ra"] == pytest.approx(15 * (5 + 25 / 60 + 50.2836 / 3600), abs=1e-6)
    assert row["dec"] == pytest.approx(4 + 30 / 60 + 33.419 / 3600, abs=1e-6)
    assert row["mag"] == pytest.approx(21.6)
    assert len(found) == len(Table.read(path, format="votable"))


def test_positions_are_asked_for_an_observatory_and_never_the_earths_centre() -> None:
    with serving("good") as server:
        settings = Settings(gotorb_skybot_url=server.url, gotorb_observatory_code="W84")
        make_provider("skybot", settings).find(FIELD)
    (asked,) = server.asked
    assert "-observer=W84" in asked
    assert "-ep=2460677.5000000" in asked
    assert "-loc" not in asked


def test_service_and_observatory_have_defaults() -> None:
    assert make_provider("skybot", Settings()) == Skybot("950", SKYBOT_URL)
    assert SKYBOT_URL.startswith("https://ssp.imcce.fr/")


def test_nothing_there_is_an_empty_table() -> None:
    with serving("nothing") as server:
        found = ask(server)
    assert tuple(found.columns) == COLUMNS
    assert found.empty


@pytest.mark.parametrize(("moods", "n_asked"), [(["no_rows"], 1), (["empty_body"], 2), (["no_table"], 1)])
def test_no_rows_with_status_ok_and_empty_content_twice_are_nothing_there(moods: list[str], n_asked: int) -> None:
    with serving(*moods) as server:
        found = ask(server)
        assert tuple(found.columns) == COLUMNS and found.empty
        assert ask(server).empty  # kept
    assert len(server.asked) == n_asked


def test_empty_content_once_is_asked_again() -> None:
    with serving("empty_body", "good") as server:
        assert len(ask(server)) == 2


def write_date(path: Path, asked: str | None) -> None:
    kept = json.loads(path.read_text())
    kept.pop("asked")
    path.write_text(json.dumps(kept | ({} if asked is None else {"asked": asked})))


@pytest.mark.parametrize(("asked", "n_asked"), [("2020-01-01", 2), (None, 2), ("today", 1)])
def test_old_answers_are_renewed(cache_dir: Path, asked: str | None, n_asked: int) -> None:
    with serving("good") as server:
        first = ask(server)
        (path,) = cache_dir.rglob("*.json")
        write_date(path, first.attrs["asked"] if asked == "today" else asked)
        again = ask(server)
    assert len(server.asked) == n_asked
    pd.testing.assert_frame_equal(again, first)
    assert again.attrs["asked"] == first.attrs["asked"] == f"{datetime.now(UTC):%Y-%m-%d}"


def test_an_old_answer_holds_while_there_is_no_newer_one_unless_one_is_asked_for(cache_dir: Path) -> None:
    with serving("good", "forbidden") as server:
        ask(server)
        (path,) = cache_dir.rglob("*.json")
        write_date(path, "2020-01-01")
        assert ask(server).attrs["asked"] == "2020-01-01"
        with pytest.raises(LookupFailed):
            look_up(make_question(server.url), QUICK, renew=True)


def test_second_checks_ask_again() -> None:
    assert make_provider("skybot", Settings(), renew=True).renew
    assert not make_provider("skybot", Settings()).renew


@pytest.mark.parametrize(
    ("mood", "n_tries", "reason"),
    [
        ("overloaded", 3, "HTTP 503"),
        ("internal", 3, "HTTP 500"),
        ("reset", 3, "ConnectionError"),
        ("half", 3, "half|bytes|IncompleteRead"),
        ("half_without_length", 3, "no whole VOTable"),
        ("garbage", 3, "no whole VOTable"),
        ("blocked", 1, "a web page instead of a table: .*You are blocked"),
        ("forbidden", 1, "HTTP 403"),
        ("no_rows_no_status", 1, "a table without rows and without a reason"),
        ("error_status", 1, "status ERROR Wrong epoch"),
        ("error_flag", 1, "the epoch is wrong"),
    ],
)
def test_no_answer_is_an_error_with_its_reason_and_never_an_empty_field(mood: str, n_tries: int, reason: str) -> None:
    complaint = r"^SkyBoT gave no answer for ra 81\.28.*try later"
    with serving(mood) as server, pytest.raises(LookupFailed, match=complaint) as caught:
        ask(server)
    assert re.search(reason, str(caught.value))
    assert "\n" not in str(caught.value)
    assert len(server.asked) == n_tries


@pytest.mark.parametrize("mood", ["overloaded", "reset", "half", "half_without_length", "hang"])
def test_passing_trouble_is_overcome(mood: str) -> None:
    with serving(mood, "good") as server:
        assert len(ask(server)) == 2
    assert len(server.asked) == 2


@pytest.mark.parametrize(("mood", "wait_s"), [("too_many", 1.0), ("too_many_until", 1.0)])
def test_service_is_left_alone_as_long_as_it_asks_for(mood: str, wait_s: float) -> None:
    with serving(mood, "good") as server:
        assert len(ask(server, replace(QUICK, total_s=30, read_s=10))) == 2
    first, second = server.starts
    assert second - first >= wait_s


def test_wait_beyond_the_deadline_is_not_waited_for() -> None:
    with serving("too_many_for_long") as server:
        started = time.monotonic()
        with pytest.raises(LookupFailed, match="HTTP 429; no time for another try"):
            ask(server)
        assert time.monotonic() - started < 20
        with pytest.raises(LookupFailed, match="the next request may start in"):
            ask(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize("mood", ["hang", "drip", "drip_header"])
def test_deadline_bounds_the_whole_look_up(mood: str) -> None:
    with serving(mood) as server:
        started = time.monotonic()
        with pytest.raises(LookupFailed):
            ask(server, replace(QUICK, total_s=1.0))
        assert time.monotonic() - started < 10  # the server continues for half a minute and more


def test_service_that_is_not_there_is_told() -> None:
    with serving("good") as server:
        pass
    with pytest.raises(LookupFailed, match="ConnectionError"):
        ask(server)


def test_address_that_is_none_is_told_with_the_cure() -> None:
    with pytest.raises(LookupFailed, match=r"correct GOTORB_SKYBOT_URL in \.env"):
        look_up(make_question("skybot"), QUICK)


def test_place_of_the_locks_that_cannot_be_written_is_told(cache_dir: Path) -> None:
    (cache_dir / f"gotorb-skybot-{os.getuid()}").write_text("in the way")
    with serving("good") as server, pytest.raises(LookupFailed, match=r"no lock in .*set TMPDIR"):
        ask(server)
    assert server.asked == []


@pytest.mark.parametrize("mood", ["good", "nothing"])
def test_question_is_asked_once(mood: str) -> None:
    with serving(mood) as server:
        first = ask(server)
        for field in (FIELD, replace(FIELD, ra=FIELD.ra + 1e-9), replace(FIELD, ra=FIELD.ra - 360)):
            pd.testing.assert_frame_equal(ask(server, field=field), first)
        assert len(server.asked) == 1
        for field in (replace(FIELD, epoch_mjd=FIELD.epoch_mjd + 1e-5), replace(FIELD, radius_deg=0.3)):
            ask(server, field=field)
        assert len(server.asked) == 3


def test_errors_are_not_kept() -> None:
    with serving("blocked", "good") as server:
        with pytest.raises(LookupFailed):
            ask(server)
        assert len(ask(server)) == 2


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"question": 1}', "cut", "rows"])
def test_broken_file_of_the_cache_is_asked_again(cache_dir: Path, broken: str) -> None:
    with serving("good") as server:
        whole = ask(server)
        (path,) = (cache_dir / "skybot").iterdir()
        kept = json.loads(path.read_text())
        texts = {"cut": path.read_text()[:-20], "rows": json.dumps(kept | {"rows": [["Ceres", 1.0]]})}
        path.write_text(texts.get(broken, broken))
        pd.testing.assert_frame_equal(ask(server), whole)
        assert len(server.asked) == 2
        pd.testing.assert_frame_equal(ask(server), whole)
        assert len(server.asked) == 2


def test_dead_service_costs_few_deadlines_then_nothing_for_a_while() -> None:
    limits = replace(QUICK, tries=1, n_failures=2, rest_s=60)
    with serving("overloaded", "overloaded", "good") as server:
        for _ in range(2):
            with pytest.raises(LookupFailed):
                ask(server, limits)
        with pytest.raises(LookupFailed, match=r"2 look-ups failed in a row, none .* \d+ s; the last: HTTP 503"):
            ask(server, limits)
        assert len(server.asked) == 2
        skybot._breaker._rest_until = 0.0
        assert len(ask(server, limits)) == 2


def test_processes_together_are_polite_and_ask_nothing_twice(tmp_path: Path) -> None:
    fields, limits = (
        [replace(FIELD, ra=float(ra)) for ra in range(8)],
        replace(QUICK, total_s=120, read_s=30.0, pause_s=0.2),
    )
    journal = tmp_path / "starts"
    spawn = multiprocessing.get_context("spawn")
    with serving("good", delay_s=0.5) as server, ProcessPoolExecutor(3, mp_context=spawn) as pool:
        for _ in range(2):
            jobs = [pool.submit(note_and_look_up, make_question(server.url, one), journal, limits) for one in fields]
            assert [job.result() for job in jobs] == [2] * 8
    assert len(server.asked) == len(set(server.asked)) == 8
    assert server.most_at_once <= 2
    starts = sorted(float(line) for line in journal.read_text().split())
    assert len(starts) == 8 and np.diff(starts).min() >= 0.2 - 1e-6


def test_question_is_the_one_that_astroquery_asks_but_for_the_observer() -> None:
    """astroquery names the observatory -loc, which the service ignores; the rest is its spelling."""
    epoch = Time(59000.25, format="mjd", scale="utc")
    theirs = imcce.Skybot().cone_search(
        SkyCoord(10, 5, unit="deg"), 1.8 * units.deg, epoch, location="950", get_query_payload=True
    )
    ours = make_question("url", Field(10.0, 5.0, 1.8, 59000.25)).payload
    assert ours.pop("-from") == "gotorb" and ours.pop("-observer") == theirs.pop("-loc") == "950"
    assert set(ours) == set(theirs)
    numbers = ("-ra", "-dec", "-rd", "-ep", "-filter")
    assert [float(ours[key]) for key in numbers] == [float(theirs[key]) for key in numbers]
    assert all(ours[key] == theirs[key] for key in set(ours) - set(numbers))
    assert imcce.conf.skybot_server == SKYBOT_URL
