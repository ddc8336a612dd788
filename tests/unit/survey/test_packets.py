"""Alert packets of every framing and survey give the same stamps and columns; hostile ones cost no time or memory."""

import bz2
import gzip
import http.server
import io
import json
import lzma
import resource
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

from gotorb.core.params import ArchiveParams, PacketFields
from gotorb.errors import DataError, PacketError
from gotorb.survey import alerts
from gotorb.survey.alerts import (
    find_packets,
    holds_packets,
    make_reader,
    open_packets,
    read_packet,
    stream_packets,
)  # fmt: skip
from gotorb.survey.alerts.cutouts import read_cutout
from gotorb.survey.alerts.records import MAX_BLOCK, Block, read_records
from gotorb.survey.alerts.schemas import SchemaStore, parse_schema, plain_schema, shipped_versions
from tests.unit.survey.packets import (
    asteroid,
    bare,
    container,
    long,
    other_packet,
    rubin_cutout,
    rubin_record,
    rubin_schema,
    snappy,
    wire,
)  # fmt: skip
from tests.unit.survey.synthetic import make_image, real_data, write_packet

VERSIONS = ("7.0", "7.4", "8.0", "9.0", "10.0", "11.1")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_read_from_the_wire(tmp_path: Path, version: str) -> None:
    record, stamp = read_packet(write(tmp_path / "a.bin", wire(rubin_record(version), version)))
    assert (record["candid"], record["objectId"], record["survey"]) == (str(2**60 + 1), "77", "rubin")
    assert (record["ra"], record["dec"], record["survey_score"]) == (10.5, -45.25, 0.875)
    assert abs(record["jd"] - Time(61000.5, format="mjd", scale="tai").utc.jd) < 1e-8
    assert record["magpsf"] == pytest.approx(31.4 - 7.5)
    assert stamp.shape == (29, 29, 3) and (stamp[14, 14] == 1000).all()


@pytest.mark.parametrize("reference", [(15.0, 15.0), (15.49, 16.4), (14.6, 16.0), (1.0, 30.0), (30.4, 0.6)])
def test_the_source_is_at_the_reference_pixel(tmp_path: Path, reference: tuple[float, float]) -> None:
    cutouts = {f"cutout{name}": rubin_cutout(1, reference) for name in ("Science", "Template", "Difference")}
    _, stamp = read_packet(write(tmp_path / "a.bin", wire(rubin_record() | cutouts, "10.0")))
    assert (stamp[14, 14] == 1000).all()
    at_edge = min(reference) < 10 or max(reference) > 20
    assert np.isnan(stamp).any() == at_edge


def test_a_stamp_larger_than_its_cutout_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bin", wire(rubin_record(), "10.0"))
    assert read_packet(path, make_reader(size=31))[1].shape == (31, 31, 3)
    with pytest.raises(PacketError, match="55 are wanted"):
        read_packet(path, make_reader(size=55))


@pytest.mark.parametrize(
    ("source", "objectId", "sign"),
    [
        ({"diaObjectId": None, "ssObjectId": None, "isNegative": True}, "", "f"),
        ({"diaObjectId": 0, "ssObjectId": 0, "psfFlux": -5.0, "isNegative": False}, "", "t"),
        ({"diaObjectId": 2**60 + 3, "psfFlux": -5.0, "isNegative": None}, str(2**60 + 3), "f"),
        ({"diaObjectId": 0, "ssObjectId": 9}, "9", "t"),
    ],
)
def test_none_and_nought_are_no_object(tmp_path: Path, source: dict[str, Any], objectId: str, sign: str) -> None:
    record, _ = read_packet(write(tmp_path / "a.bin", wire(rubin_record(**({"isNegative": False} | source)), "10.0")))
    assert (record["objectId"], record["isdiffpos"]) == (objectId, sign)
    assert np.isnan(record["ssdistnr"]) and record["ssnamenr"] is None


@pytest.mark.parametrize(
    ("version", "ephemeris", "distance", "name"),
    [
        ("10.0", {"ephOffset": 0.03125, "ephVmag": 20.5, "designation": "2001 TC50", "diaDistanceRank": 1},
         0.03125, "2001 TC50"),
        ("11.1", {"ephOffset": 0.5}, 0.5, "21"),
        ("10.0", {"ephOffset": 0.03125, "diaDistanceRank": 2}, np.nan, None),
        ("10.0", {}, np.nan, None),
        ("9.0", {"residualRa": 3e-5, "residualDec": 4e-5}, 0.18, "21"),
    ],
)  # fmt: skip
def test_an_ephemeris_is_the_match(
    tmp_path: Path, version: str, ephemeris: dict[str, Any], distance: float, name: str | None
) -> None:
    record = rubin_record(version, ssObjectId=21, history=2) | {"ssSource": asteroid(version, **ephemeris)}
    found, _ = read_packet(write(tmp_path / "a.bin", wire(record, version)))
    np.testing.assert_allclose(found["ssdistnr"], distance, rtol=1e-9)
    assert found["ssnamenr"] == name


@pytest.mark.parametrize("schema_id", [0, 101, 650, 1200, 2**31])
def test_an_unknown_schema_is_named_and_never_guessed(tmp_path: Path, schema_id: int) -> None:
    path = write(tmp_path / "a.bin", wire(rubin_record(), "10.0", schema_id))
    with pytest.raises(PacketError, match=rf"Confluent .* schema id {schema_id}\b.*GOTORB_SCHEMA_REGISTRY"):
        read_packet(path)


@pytest.mark.parametrize(("version", "other"), [("10.0", 900), ("9.0", 1000), ("7.4", 1000), ("11.1", 1100)])
def test_a_wrong_schema_does_not_pass(tmp_path: Path, version: str, other: int) -> None:
    """By the layout of 10.0 and 9.0 some packets read to the last byte: then only the id decides, and it is used."""
    record = rubin_record(version, ssObjectId=21, history=1)
    try:
        found, _ = read_packet(write(tmp_path / "a.bin", wire(record, version, other)))
    except PacketError:
        return
    assert (version, other) in {("10.0", 900), ("9.0", 1000)} and found["candid"] == str(2**60 + 1)


@pytest.fixture
def registry() -> Iterator[tuple[str, list[str]]]:
    """A schema registry that fails once, then answers id 4711 with JSON inside JSON, as Rubin's does."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            known = self.path == "/schemas/ids/4711" and len(asked) > 1
            self.send_response(200 if known else 500)
            self.end_headers()
            if known:
                self.wfile.write(json.dumps({"schema": json.dumps(shipped_versions()["10.0"])}).encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_registry_is_asked_once_and_its_answer_kept(tmp_path: Path, registry: tuple[str, list[str]]) -> None:
    url, asked = registry
    message = wire(rubin_record(), "10.0", 4711)

    def read() -> str:
        reader = alerts.PacketReader(store=SchemaStore(registry=url, cache_dir=tmp_path))
        return next(reader.read_message(message)).record["candid"]

    with pytest.raises(PacketError, match="no schema 4711 from the registry"):
        read()
    assert read() == read() == str(2**60 + 1)
    assert asked == ["/schemas/ids/4711"] * 2


@pytest.mark.parametrize("layout", ["id", "rubin"])
def test_schemas_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    schema = json.loads(shipped_versions()["9.0"])
    names = {"id": ("77.avsc", 77), "rubin": ("lsst.v12_3.alert.avsc", 1203)}
    name, schema_id = names[layout]
    (tmp_path / "schemas" / "deep").mkdir(parents=True)
    (tmp_path / "schemas" / "deep" / name).write_text(json.dumps(schema))
    monkeypatch.setenv("GOTORB_ALERT_SCHEMAS", str(tmp_path / "schemas"))
    record, _ = read_packet(write(tmp_path / "a.bin", wire(rubin_record("9.0"), "9.0", schema_id)))
    assert record["candid"] == str(2**60 + 1)
    (tmp_path / "schemas" / "deep" / name).write_text("{")
    with pytest.raises(PacketError, match=name):
        read_packet(tmp_path / "a.bin")


def test_a_key_that_holds_the_schema_reads_a_bare_record() -> None:
    key = json.dumps(json.loads(shipped_versions()["10.0"])).encode()
    found = list(make_reader().read_message(bare(rubin_record(), rubin_schema("10.0")), key=key))
    assert [alert.record["candid"] for alert in found] == [str(2**60 + 1)]


PACKERS = {
    "null": bytes, "snappy": snappy, "bzip2": bz2.compress, "xz": lzma.compress,
    "deflate": lambda data: zlib.compress(data)[2:-4],
    "zstandard": lambda data: __import__("pyarrow").Codec("zstd").compress(data, asbytes=True),
}  # fmt: skip


@pytest.mark.parametrize("codec", PACKERS)
def test_a_container_holds_any_number_of_alerts(tmp_path: Path, codec: str) -> None:
    schema = json.loads(shipped_versions()["10.0"])
    rows = [bare(rubin_record(alert_id=number), rubin_schema("10.0")) for number in (1, 2, 3)]
    blocks = [(2, PACKERS[codec](rows[0] + rows[1])), (1, PACKERS[codec](rows[2]))]
    path = write(tmp_path / "many.avro", container(schema, blocks, codec))
    folder = open_packets(find_packets(tmp_path))
    assert folder.table["candid"].tolist() == ["1", "2", "3"] and len(folder) == 3
    assert [len(stamps) for stamps, _ in folder.batches(2)] == [2, 1]
    (table, raw), *_ = stream_packets([path], 5)
    assert table["candid"].tolist() == ["1", "2", "3"] and (raw[:, 14, 14] == 1000).all()
    with pytest.raises(PacketError, match="several alerts"):
        read_packet(path)
    path.write_bytes(path.read_bytes()[:-9])
    assert open_packets([path]).table["candid"].tolist() == ["1", "2"]


def test_a_bad_alert_in_a_container_stops_no_other(tmp_path: Path) -> None:
    schema = json.loads(shipped_versions()["10.0"])
    records = [rubin_record(alert_id=1), rubin_record(alert_id=2) | {"cutoutTemplate": b"SIMPLE"},
               rubin_record(alert_id=3, ra=999.0), rubin_record(alert_id=4)]  # fmt: skip
    rows = b"".join(bare(record, rubin_schema("10.0")) for record in records)
    path = write(tmp_path / "many.avro", container(schema, [(4, rows)]))
    folder = open_packets([path])
    assert folder.table["candid"].tolist() == ["1", "4"] and folder.n_skipped == 2
    with pytest.raises(PacketError, match="cutoutTemplate of alert 2 of"):
        list(make_reader().read_file(path))


def test_many_marks_cost_no_time() -> None:
    data = wire(rubin_record(), "10.0")[:2000] + b"SIMPLE  =" * 1_000_000
    start = time.process_time()
    with pytest.raises(PacketError):
        list(make_reader().read_message(data))
    assert time.process_time() - start < 1


RECURSIVE = {"type": "record", "name": "n", "fields": [{"name": "next", "type": ["null", "n"]}]}
NULLS = {"type": "record", "name": "n", "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}]}
EMPTY = {"type": "record", "name": "e", "fields": []}
EMPTIES = {"type": "record", "name": "n", "fields": [{"name": "a", "type": {"type": "array", "items": EMPTY}}]}


def doubling() -> dict[str, Any]:
    """Records of two records of two records ...: 2^40 fields in 2 kB of schema and no byte of data."""
    kind: Any = "null"
    for depth in range(40):
        fields = [{"name": "a", "type": kind}, {"name": "b", "type": kind if isinstance(kind, str) else kind["name"]}]
        kind = {"type": "record", "name": f"r{depth}", "fields": fields}
    return kind


def deep_lists() -> bytes:
    return b'{"type":"record","name":"n","fields":[{"name":"a","type":' + b"[" * 5000 + b"]" * 5000 + b"}]}"


HOSTILE = {
    "a record in itself": container(RECURSIVE, [(1, b"\x02" * 2_000_000)]),
    "a list of nothing": container(NULLS, [(1, long(2**60) + b"\0")]),
    "a list of empty records": container(EMPTIES, [(1, long(2**60) + b"\0")]),
    "doubling records": container(doubling(), [(1, b"")]),
    "deep lists": container(deep_lists(), [(1, b"\0")]),
    "more alerts than bytes": container({"type": "record", "name": "n", "fields": []}, [(2**60, b"")]),
    "a block of exabytes": container(EMPTY, [])[:-16] + long(1) + long(2**62),
    "a negative block": container(EMPTY, []) + long(-5) + long(-7),
    "a deflate bomb": container(
        RECURSIVE | {"fields": []}, [(1, zlib.compress(bytes(3 * MAX_BLOCK))[2:-4])], "deflate"
    ),
    "a snappy of exabytes": container(EMPTY, [(1, b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(8))], "snappy"),
    "a zstd bomb": container(EMPTY, [(1, PACKERS["zstandard"](bytes(3 * MAX_BLOCK)))], "zstandard"),
    "an xz bomb": container(EMPTY, [(1, lzma.compress(bytes(2 * MAX_BLOCK), preset=0))], "xz"),
    "a header without end": b"Obj\x01" + long(2**50) + b"ab" * 40,
    "a schema of gigabytes": b"Obj\x01" + long(1) + long(11) + b"avro.schema" + long(2**40) + b"{}",
    "an endless number": b"Obj\x01" + b"\xff" * 90,
    "no schema": b"Obj\x01" + long(0) + bytes(16) + long(1) + long(1) + b"a" + bytes(16),
    "a schema of text": container(b'"string"', [(1, b"\x02a")]),
    "an unknown codec": container(EMPTY, [(1, b"a")], "lzo"),
    "a long in the wire": b"\0\0\0\x03\xe8" + b"\xff" * 95,
    "an empty file": b"",
    "only a header": b"\0\0\0\x03\xe8",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_packet_costs_neither_time_nor_memory(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.avro", HOSTILE[kind])
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PacketError) as caught:
        read_packet(path)
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB
    assert "a.avro" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "make", [lambda: wire(rubin_record(history=2), "10.0"), lambda: wire(rubin_record("7.3"), "7.3")]
)
def test_damaged_messages_give_an_alert_or_one_error(make: Any) -> None:
    whole, rng, reader = make(), np.random.default_rng(3), make_reader()
    for _ in range(150):
        broken = bytearray(whole)
        for place in rng.integers(0, 3000, 3):
            broken[place] = rng.integers(256)
        cut = rng.integers(0, len(whole))
        for data in (bytes(broken), whole[:cut], whole + b"\0", bytes(broken[:cut]) + whole[cut + 1 :]):
            try:
                for alert in reader.read_message(data):
                    assert alert.stamp.shape == (29, 29, 3) and 0 <= alert.record["ra"] <= 360
            except PacketError as error:
                assert "\n" not in str(error)
    with pytest.raises(PacketError):
        list(reader.read_message(whole + b"\0"))


FAKE = b"SIMPLE  =" + bytes(3)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("history", [0, 3])
def test_the_history_is_skipped_without_a_difference(version: str, history: int) -> None:
    """A text in the record that looks like the start of a FITS file is not taken for one."""
    name = "target_name" if version in ("8.0", "9.0", "10.0", "11.1") else ""
    extra = {name: FAKE.decode()} if name else {}
    data = bare(rubin_record(version, history=history, band="SIMPLE  =") | extra, rubin_schema(version))
    block = Block(data=data, count=1, schema=parse_schema(json.loads(shipped_versions()[version])))
    (fast,), (whole,) = (list(read_records(block, history=full)) for full in (False, True))
    assert "prvDiaSources" not in fast and "prvDiaSources" in whole
    assert fast == {key: whole[key] for key in fast}


def test_a_cutout_of_null_is_told_with_its_name(tmp_path: Path) -> None:
    record = rubin_record(history=1) | {"cutoutTemplate": None}
    with pytest.raises(PacketError, match="cutoutTemplate of"):
        read_packet(write(tmp_path / "a.bin", wire(record, "10.0")))


@pytest.mark.parametrize("shift", [{"ra": 400.0}, {"dec": -91.0}, {"midpointMjdTai": 2461000.5}, {"ra": float("nan")}])
def test_impossible_places_and_times_are_refused(tmp_path: Path, shift: dict[str, float]) -> None:
    with pytest.raises(PacketError, match="has the position"):
        read_packet(write(tmp_path / "a.bin", wire(rubin_record(**shift), "10.0")))


IMAGES = {
    "floats": fits.PrimaryHDU(make_image()),
    "doubles": fits.PrimaryHDU(make_image().astype(">f8")),
    "integers": fits.PrimaryHDU(np.arange(30, dtype=">i2").reshape(5, 6)),
    "scaled": fits.PrimaryHDU(np.arange(30, dtype=">i4").reshape(5, 6)),
    "unsigned": fits.PrimaryHDU(np.arange(30, dtype="u2").reshape(5, 6)),
    "long header": fits.PrimaryHDU(make_image(), fits.Header([(f"K{n}", n) for n in range(90)])),
    "not square": fits.PrimaryHDU(np.arange(42, dtype=">f4").reshape(7, 6)),
    "gaps": fits.PrimaryHDU(np.array([[np.nan, np.inf], [-3.4e38, 0]], ">f4")),
    "nought scaled": fits.PrimaryHDU(make_image(), fits.Header([("BSCALE", 2.0), ("BZERO", 5.0)])),
}
IMAGES["scaled"].header.update({"BSCALE": 0.5, "BZERO": 3.0})


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("packed", [False, True])
def test_cutouts_are_read_as_astropy_reads_them(kind: str, packed: bool) -> None:
    buffer = io.BytesIO()
    IMAGES[kind].writeto(buffer)
    data = buffer.getvalue()
    with fits.open(io.BytesIO(data)) as hdus:
        expected = np.asarray(hdus[0].data, np.float32)
    found = read_cutout(gzip.compress(data) if packed else data)
    np.testing.assert_array_equal(np.asarray(found.pixels, np.float32), expected)
    assert found.reference is None
    with pytest.raises((ValueError, OSError, EOFError)):
        read_cutout(gzip.compress(data)[:-40] if packed else data[:2000])


ZTF_CUTOUTS = {"science": "cutoutScience", "template": "cutoutTemplate", "difference": "cutoutDifference"}


@pytest.mark.parametrize(
    ("survey", "publisher", "names", "candidate", "ids", "layers", "jd"),
    [
        ("winter", "WINTER-mirar", {key: f"cutout_{key}" for key in ZTF_CUTOUTS},
         {"jd": 2460381.0, "exptime": 120.0, "field": 3, "ra": 1.0, "dec": 2.0, "rb": 0.25}, "objectid", 3,
         2460381.0 + 60 / 86400),
        ("decam", "DESIRT", ZTF_CUTOUTS, {"mjd": 61229.5, "ra": 1.0, "dec": 2.0, "band": "g", "reliability": 0.25,
                                           "forcediffimmag": 20.0}, "objectId", 3, 2461230.0),
        ("atlas", "ATLAS-02a", {key: ZTF_CUTOUTS[key] for key in ("science", "difference")},
         {"mjd": 59521.5, "RA": 1.0, "Dec": 2.0, "Mag": 16.5, "X": 4.0, "Y": 5.0, "pid": 7}, "objectId", 2, 2459522.0),
    ],
)  # fmt: skip
def test_surveys_like_ztf_are_read(
    tmp_path: Path, survey: str, publisher: str, names: dict[str, str], candidate: dict[str, Any], ids: str,
    layers: int, jd: float,
) -> None:  # fmt: skip
    data = other_packet(names, candidate, **{"publisher": publisher, ids: "O1", "candid": 2**61 + 1})
    record, stamp = read_packet(write(tmp_path / "a.avro", data))
    assert (record["survey"], record["candid"], record["objectId"]) == (survey, str(2**61 + 1), "O1")
    assert (record["ra"], record["dec"]) == (1.0, 2.0) and record["jd"] == pytest.approx(jd, abs=1e-8)
    assert stamp.shape == (41, 41, layers) and (stamp[31, 31] > 30).all()


def test_a_mapping_in_params_reads_another_survey(tmp_path: Path) -> None:
    mapping = PacketFields(
        publisher="MINE", id="alert", object_id="star", candidate="candidate", time="t", time_format="mjd",
        time_scale="tai", time_at="middle", columns={"ra": "a", "dec": "d", "magpsf": "m"},
        cutouts={"difference": "img"},
    )  # fmt: skip
    params = ArchiveParams.model_validate({"packets": {"mine": mapping.model_dump(mode="json")}})
    candidate = {"t": 61000.5, "a": 1.0, "d": 2.0, "m": 18.0}
    data = other_packet({"difference": "img"}, candidate, publisher="MINE-1", alert="x1", star="s1")
    reader = make_reader(params.packets)
    record, stamp = read_packet(write(tmp_path / "a.avro", data), reader)
    assert (record["survey"], record["magpsf"], stamp.shape) == ("mine", 18.0, (41, 41, 1))
    assert record["jd"] == pytest.approx(Time(61000.5, format="mjd", scale="tai").utc.jd, abs=1e-8)
    with pytest.raises(PacketError, match=r"label\.archive\.packets"):
        read_packet(tmp_path / "a.avro")


def test_packets_of_two_surveys_make_no_set(tmp_path: Path) -> None:
    write(tmp_path / "a.bin", wire(rubin_record(), "10.0"))
    write_packet(tmp_path / "b.avro")
    folder = open_packets(find_packets(tmp_path))
    assert folder.table["survey"].tolist() == ["rubin"] and folder.n_skipped == 1


def test_a_packet_delivered_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.bin", wire(rubin_record(alert_id=5 if name != "b" else 6), "10.0"))
    folder = open_packets(find_packets(tmp_path))
    assert folder.table["candid"].tolist() == ["5", "6"] and folder.n_skipped == 1 and "c.bin" in caplog.text
    assert sum(len(stamps) for stamps, _ in folder.batches()) == 2


def test_time_of_ztf_is_the_middle_of_its_exposure(tmp_path: Path) -> None:
    record, _ = read_packet(write_packet(tmp_path / "a.avro", jd=2459000.5, exptime=300.0))
    assert record["jd"] == pytest.approx(2459000.5 + 150 / 86400, abs=1e-8)
    record, _ = read_packet(write_packet(tmp_path / "b.avro", jd=2459000.5))
    assert record["jd"] == pytest.approx(2459000.5 + 15 / 86400, abs=1e-8)


@pytest.mark.parametrize("absent", [("xpos",), ("ypos",), ("xpos", "ypos")])
def test_a_short_cutout_without_a_position_is_refused(tmp_path: Path, absent: tuple[str, ...]) -> None:
    short = np.stack([make_image(layer)[:, 12:] for layer in range(3)], axis=-1)
    with pytest.raises(PacketError, match="which edge"):
        read_packet(write_packet(tmp_path / "a.avro", images=short, leave_out=absent))


def test_only_files_that_begin_as_packets_are_packets(tmp_path: Path) -> None:
    write(tmp_path / "weights.bin", b"\x93NUMPY")
    assert not holds_packets(tmp_path)
    write(tmp_path / "1.bin", wire(rubin_record(), "10.0"))
    assert holds_packets(tmp_path) and [path.name for path in find_packets(tmp_path)] == ["1.bin"]
    with pytest.raises(DataError, match="none of 0"):
        open_packets([])


def test_shipped_schemas_are_those_of_the_survey() -> None:
    from pipelines.alert_schemas import shipped_text

    folder = real_data("alerts") / "schemas"
    assert shipped_text(folder).splitlines() == [f"{key}\t{text}" for key, text in shipped_versions().items()]
    assert '"doc"' not in "".join(shipped_versions().values())
    assert plain_schema({"type": "long", "doc": "x"}) == "long"


@pytest.mark.parametrize(
    ("folder", "n", "n_asteroids", "side"),
    [
        ("rubin_wire_verbatim", 5, 0, 29), ("rubin_container_fink_v9", 36, 2, 29), ("rubin_wire_v10", 32, 14, 29),
        ("rubin_wire_v11", 4, 2, 29),
    ],
)  # fmt: skip
def test_real_packets_of_rubin(folder: str, n: int, n_asteroids: int, side: int) -> None:
    packets = open_packets(find_packets(real_data("alerts") / folder))
    assert len(packets) == n and packets.n_skipped == 0
    assert (packets.table["ssdistnr"] < 0.5).sum() == n_asteroids
    bright = packets.table.index[(packets.table["ssdistnr"] < 0.5) & (packets.table["snr"] > 30)]
    stamps = np.concatenate([stamps for stamps, _ in packets.batches()])[bright][..., 2]
    peaks = np.array([np.unravel_index(np.argmax(stamp), stamp.shape) for stamp in stamps]).reshape(-1, 2)
    assert not len(peaks) or (np.median(np.abs(peaks - side // 2), axis=0) <= 1).all()
    assert packets.table["candid"].tolist() == [path.stem for path in packets.paths]


def test_real_packets_of_other_surveys() -> None:
    found = {path.name: read_packet(path) for path in find_packets(real_data("alerts") / "other_surveys")}
    assert sorted(record["survey"] for record, _ in found.values()) == ["atlas", "atlas", "decam"]
    assert sorted(stamp.shape for _, stamp in found.values()) == [(61, 61, 2), (61, 61, 2), (121, 121, 3)]
