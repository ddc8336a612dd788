"""Answers of the server, and requests that it refuses."""

import asyncio
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gotorb import eyeball
from gotorb.core.params import LINKS
from gotorb.dataset.store import open_dataset, read_table
from gotorb.errors import ConfigError
from gotorb.eyeball.context import make_links
from gotorb.eyeball.decisions import Journal
from gotorb.eyeball.server import FILES, make_app
from gotorb.stamps.images import pack_pixels
from gotorb.visualise.pages import Guard, check_bind, json_for_script, own_names, read_part
from tests.unit.apps.small import make_small, write_answers

HOME = "127.0.0.1:8650"


class Client:
    """Calls the guarded app as a web server does, with any headers."""

    def __init__(self, data_dir: Path, **options: Any) -> None:
        self.journal = Journal(data_dir / "journal")
        self.app = Guard(make_app(eyeball.open_rows(data_dir, **options), self.journal), own_names(8650))

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        sent: list[dict[str, Any]] = []
        named = {"host": HOME, "content-length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])

    def post(self, path: str, body: Any) -> Any:
        status, _, answer = self("POST", path, json.dumps(body).encode(), content_type="application/json")
        return json.loads(answer) if status == 200 else status


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(make_small(tmp_path / "data"))


def press(row: int, kind: str = "real", **more: Any) -> dict[str, Any]:
    return {"uuid": str(uuid.uuid4()), "row": row, "id": f"row-{row:04d}", "kind": kind} | more


def test_pages_and_files_are_served_with_a_strict_policy(client: Client) -> None:
    for path in ("/", "/explorer", *(f"/static/{name}" for name in FILES)):
        status, headers, body = client("GET", path)
        assert (status, headers["x-content-type-options"]) == (200, "nosniff")
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in headers["content-security-policy"]
        assert b"http://" not in body and b"https://" not in body


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e/x", "/pixels/../x.bin",
                                  "/pixels/-1.bin", "/pixels/40.bin", "/pixels/1,,2.bin", "/pixels/x.bin",
                                  f"/pixels/{','.join('1' * 200)}.bin", "/pixels/1%2F..%2F2.bin",
                                  "/docs", "/openapi.json"])  # fmt: skip
def test_nothing_else_is_served(client: Client, path: str) -> None:
    assert client("GET", path)[0] in (404, 422)


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example:8650"}, {"host": "127.0.0.1"}, {"host": ""}, {"origin": "http://evil.example"},
     {"origin": "null"}, {"origin": "https://127.0.0.1:8650"}, {"origin": "http://127.0.0.1:9"},
     {"sec_fetch_site": "cross-site"}],
)  # fmt: skip
def test_foreign_pages_and_names_are_refused(client: Client, headers: dict[str, str]) -> None:
    event = json.dumps({"labeller": "x", "events": [press(1)]}).encode()
    for method, path in (("GET", "/api/meta"), ("GET", "/pixels/1.bin"), ("POST", "/api/events")):
        status, _, body = client(method, path, event, **({"content_type": "application/json"} | headers))
        assert status == 403
        assert b"row" not in body
    assert client.journal.events().empty


def test_a_link_from_elsewhere_opens_the_page_and_nothing_else(client: Client) -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert client("GET", "/", **link)[0] == 200
    assert client("GET", "/api/meta", **link)[0] == 403
    assert client("GET", "/", **link | {"sec_fetch_dest": "iframe"})[0] == 403
    assert client("GET", "/", **link | {"host": "evil.example:8650"})[0] == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_changes_anything(client: Client, kind: str) -> None:
    body = json.dumps({"labeller": "x", "events": [press(1)]}).encode()
    assert client("POST", "/api/events", body, content_type=kind)[0] == 415
    assert client("POST", "/api/events", body, content_type="application/json", content_length="99999999999")[0] == 413


@pytest.mark.parametrize(
    "change",
    [{"uuid": "1"}, {"kind": "maybe"}, {"row": -1}, {"row": "a"}, {"more": 1}, {"id": "x" * 201}, {"target": "../x"},
     {"shown_ms": -1}],
)  # fmt: skip
def test_malformed_events_are_refused_whole(client: Client, change: dict[str, Any]) -> None:
    assert client.post("/api/events", {"labeller": "ann", "events": [press(1), press(2) | change]}) == 422
    assert client.journal.events().empty


def test_events_of_another_data_set_are_refused_by_id(client: Client) -> None:
    good, wrong, beyond = press(3), press(4) | {"id": "row-0005"}, press(4) | {"row": 400}
    told = client.post("/api/events", {"labeller": " ann ", "events": [good, wrong, beyond]})
    assert told == {"acknowledged": [good["uuid"]], "refused": sorted([wrong["uuid"], beyond["uuid"]])}
    (event,) = client.journal.events().itertuples()
    assert (event.labeller, event.id, event.kind) == ("ann", "row-0003", "real")


def test_rows_history_and_find(client: Client, tmp_path: Path) -> None:
    client.post("/api/events", {"labeller": "bob", "events": [press(7, "bogus")]})
    (row,) = client.post("/api/rows", {"rows": [7]})["rows"]
    assert (row["id"], row["label"], row["metalabel"], row["ut"]) == ("row-0007", 1, "mp", "2")
    assert row["ra"] == pytest.approx(read_table(tmp_path / "data")["ra"][7], abs=1e-6), "a place is exact"
    assert row["votes"] == [["bob", "bogus"]]
    assert client.post("/api/rows", {"rows": [40]}) == 422
    assert [event["row"] for event in client.post("/api/history", {"labeller": "bob"})["events"]] == [7]
    found = [client.post("/api/find", {"text": text})["row"] for text in ("row-0011", "9012", " 13 ", "99", "", "²")]
    assert found == [11, 12, 13, None, None, None]
    assert client.post("/api/order", {"order": "bald"}) == 422
    assert client.post("/api/order", {"order": "as_is", "metalabels": ["mp"]})["rows"] == list(range(1, 40, 2))


def test_pixels_of_rows_come_in_the_order_asked(client: Client) -> None:
    status, headers, body = client("GET", "/pixels/12,3.bin")
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert body == pack_pixels(open_dataset(client.journal.path.parent).read_stamps([12, 3]))


def test_explorer_gives_points_neighbours_and_ids(tmp_path: Path) -> None:
    data_dir = make_small(tmp_path / "data")
    labels = open_dataset(data_dir).labels
    client = Client(data_dir, model=str(write_answers(data_dir, labels, np.random.default_rng(5))))
    meta = json.loads(client("GET", "/api/meta")[2])
    assert (meta["maps"], meta["has_samples"], meta["model"]) == (["pca"], True, "model")
    values = np.frombuffer(client("GET", "/api/points.bin")[2], "<f4").reshape(-1, 40)
    assert len(values) == 2 + len(meta["columns"])
    assert values[:2].min() >= 0 and values[:2].max() == pytest.approx(1)
    np.testing.assert_array_equal(values[2 + meta["columns"].index("label")], labels)
    assert values[0][labels == 1].min() > values[0][labels == 0].max()
    near = client.post("/api/neighbours", {"rows": [5]})["rows"]
    assert len(near) == 12 and 5 not in near
    assert {int(labels[row]) for row in near} == {int(labels[5])}
    assert client.post("/api/ids", {"rows": [3, 1]})["ids"] == ["row-0003", "row-0001"]
    assert client.post("/api/order", {"order": "uncertain", "rows": [3, 1]})["rows"] in ([1, 3], [3, 1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_other_machines_are_kept_out(host: str) -> None:
    with pytest.raises(ConfigError, match="open to other machines"):
        check_bind(host)
    assert check_bind("127.0.0.1") and check_bind("::1") and check_bind("localhost")


def test_embedded_json_does_not_end_its_element() -> None:
    hostile = {"a": "</script><script>alert(1)</script><!--", "b": "\u2028&"}
    text = json_for_script(hostile)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == hostile


def test_no_page_makes_html_of_text() -> None:
    for name in FILES:
        text = read_part(name)
        assert not any(word in text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
                                                 "eval(", "new Function"))  # fmt: skip


def test_the_server_reads_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from gotorb import eyeball; from gotorb.eyeball import server; "
        f"eyeball.open_rows({str(make_small(tmp_path / 'data'))!r}).table; "
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "change", [{"shown_ms": 2**63}, {"shown_ms": 2**53}, {"row": 2**63}, {"made_at": "\ud800"}, {"sequence": "a\0"}]
)
def test_numbers_and_text_that_cannot_be_kept_are_refused(client: Client, change: dict[str, Any]) -> None:
    assert client.post("/api/events", {"labeller": "ann", "events": [press(1) | change]}) == 422
    assert client.post("/api/events", {"labeller": "a\udc00", "events": [press(1)]}) == 422
    assert len(client.post("/api/events", {"labeller": "ann", "events": [press(2)]})["acknowledged"]) == 1


@pytest.mark.parametrize(
    "change",
    [{"metalabels": ["x"] * 10**6}, {"telescopes": ["1"] * 1001}, {"rows": [0] * 10**6}, {"order": "x" * 10**6},
     {"metalabels": ["x" * 1000]}],
)  # fmt: skip
def test_fields_have_bounds(client: Client, change: dict[str, Any]) -> None:
    assert client.post("/api/order", change) == 422


def test_links_hold_values_as_text_and_lack_none() -> None:
    row = {"ra": 10.5, "dec": -5.25, "jd": 2459000.75, "object_id": "a/b?c=<script>&d", "id": "x"}
    templates = {
        "all": "https://a.org/{ra}/{dec}/{ra_hms}/{dec_dms}/{mjd}/{date}/{object_id}",
        "none": "https://b.org/{host}",
    }
    assert make_links(row, templates) == [
        ["all", "https://a.org/10.5/-5.25/00%2042%2000.00/-05%2015%2000.0/59000.25000/2020-05-31/"
                "a%2Fb%3Fc%3D%3Cscript%3E%26d"]
    ]  # fmt: skip
    assert make_links({"ra": None, "dec": 1.0, "id": "x"}, LINKS) == []


def test_tags_that_do_not_exist_are_refused_and_others_kept(client: Client) -> None:
    events = [press(1, "tags", value="dipole,<b>"), press(1, "tags", value="edge"), press(2, "note", value="<b>"),
              press(3, "real", value="x"), press(4, "tags", value="")]  # fmt: skip
    told = client.post("/api/events", {"labeller": "ann", "events": events})
    assert told["refused"] == sorted([events[0]["uuid"], events[3]["uuid"]])
    assert client.journal.marks()["value"].tolist() == ["edge", "<b>", ""]
    rows = client.post("/api/rows", {"rows": [1, 2]})["rows"]
    assert [row["marks"] for row in rows] == [[["ann", "tags", "edge"]], [["ann", "note", "<b>"]]]


def test_the_map_has_the_first_tag_of_each_row(tmp_path: Path) -> None:
    data_dir = make_small(tmp_path / "data")
    labels = open_dataset(data_dir).labels
    client = Client(data_dir, model=str(write_answers(data_dir, labels, np.random.default_rng(5))))
    client.post(
        "/api/events", {"labeller": "ann", "events": [press(3, "tags", value="ghost,edge"), press(4, "tags", value="")]}
    )
    meta = json.loads(client("GET", "/api/meta")[2])
    values = np.frombuffer(client("GET", "/api/points.bin")[2], "<f4").reshape(-1, 40)
    codes = values[2 + meta["columns"].index("tag")]
    assert meta["kinds"]["tag"][int(codes[3])] == "ghost" and np.isnan(np.delete(codes, 3)).all()
