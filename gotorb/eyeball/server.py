"""Server of the labelling page and the explorer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as PathParam
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from gotorb.errors import GotorbError
from gotorb.eyeball.context import make_links
from gotorb.eyeball.decisions import ARTEFACTS, LATEST, NOTE, SOURCES, TAGS, Event, Journal, compare_labellers
from gotorb.eyeball.explorer import pack_points
from gotorb.eyeball.rows import N_NEIGHBOURS, ORDERS, Filters, Rows, keep_rows, order_rows, plain_number, usable_orders
from gotorb.stamps.images import pack_pixels, stretch_constants
from gotorb.visualise.pages import read_part

SCRIPTS = ("eyeball.js", "outbox.js", "ahead.js", "stretch.js", "view.js", "sheet.js", "choices.js", "dialogs.js",
           "page.js", "panel.js", "explorer.js", "points.js")  # fmt: skip
FILES = {"eyeball.css": "text/css", "explorer.css": "text/css"} | dict.fromkeys(SCRIPTS, "text/javascript")
"""Files that are served, and no others."""
MOST_ROWS, MOST_CHOSEN, MOST_PIXELS = 256, 200_000, 96
SWAYING = ("minor planet",)
"""Flags that a blind server does not send."""
FOREVER = "private, max-age=604800, immutable"
MOST_WORDS, MOST_TOLD = 1000, 5
N_EXAMPLES = 4
"""Rows shown for each tag."""
RowNumber = Annotated[int, Field(ge=0, lt=2**63)]


def _whole_text(text: str) -> str:
    """Text that can be kept: without halves of letters, which are no UTF-8."""
    if any("\ud800" <= one <= "\udfff" or one == "\0" for one in text):
        raise ValueError("text with half a letter or a zero in it")
    return text


Text = Annotated[str, AfterValidator(_whole_text)]
Name = Annotated[Text, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
Words = Annotated[list[Annotated[Text, StringConstraints(max_length=200)]], Field(max_length=MOST_WORDS)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Body(BaseModel):
    """Base of what pages send: no unknown names."""

    model_config = ConfigDict(extra="forbid")


class EventBody(Body):
    """One key press; see `decisions.Event`."""

    uuid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")]
    row: RowNumber
    id: Annotated[Text, StringConstraints(max_length=200)]
    kind: Literal["real", "bogus", "unsure", "flag", "tags", "note", "undo"]
    target: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")] | None = None
    blind: bool = False
    sequence: Annotated[Text, StringConstraints(max_length=32)] = "as_is"
    shown_ms: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    made_at: Annotated[Text, StringConstraints(max_length=40)] = ""
    value: Annotated[Text, StringConstraints(max_length=2000)] = ""
    batch: Annotated[Text, StringConstraints(max_length=36)] = ""


class EventsBody(Body):
    """Key presses of one labeller, in order."""

    labeller: Name
    events: Annotated[list[EventBody], Field(max_length=1000)]


class OrderBody(Body):
    """Choice of rows and their order."""

    labeller: Annotated[Text, StringConstraints(max_length=64)] = ""
    order: Annotated[Text, StringConstraints(max_length=32)] = "as_is"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    metalabels: Words = []
    telescopes: Words = []
    min_mag: Number | None = None
    max_mag: Number | None = None
    who: Literal["all", "mine_left", "second", "disputed", "mine"] = "all"
    rows: Annotated[list[RowNumber], Field(max_length=MOST_CHOSEN)] = []
    after: Annotated[int, Field(ge=-1, lt=2**63)] | None = None


class NeighboursBody(Body):
    """A row and how many neighbours of it are wanted."""

    rows: Annotated[list[RowNumber], Field(min_length=1, max_length=1)]
    n: Annotated[int, Field(ge=1, le=2000)] = N_NEIGHBOURS


class RowsBody(Body):
    """Some row numbers."""

    rows: Annotated[list[RowNumber], Field(max_length=MOST_CHOSEN)]


class LabellerBody(Body):
    """A labeller."""

    labeller: Name


class HistoryBody(Body):
    """A labeller, and the event before which decisions are wanted."""

    labeller: Name
    before: RowNumber = LATEST


class FindBody(Body):
    """An id, a candidate's id, or a row number."""

    text: Annotated[Text, StringConstraints(strip_whitespace=True, max_length=200)]


@dataclass(frozen=True)
class Start:
    """Options of the pages: name of the labeller ("" asks), first order, seed; blind: scores are not sent."""

    labeller: str = ""
    order: str = "as_is"
    seed: int = 0
    blind: bool = False


def make_app(rows: Rows, journal: Journal, *, start: Start | None = None) -> FastAPI:
    """Build the app, which is served behind a `Guard`.

    Parameters
    ----------
    rows : Rows
    journal : Journal
    start : Start, optional

    Returns
    -------
    FastAPI
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(GotorbError)
    def _told(_: Request, error: GotorbError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=503)

    @app.exception_handler(RequestValidationError)
    def _refused(_: Request, error: RequestValidationError) -> Response:
        told = [{"loc": list(map(str, one["loc"]))[:4], "msg": str(one["msg"])} for one in error.errors()[:MOST_TOLD]]
        return Response(json.dumps({"detail": told}), 422, media_type="application/json")  # ASCII, without the input

    _add_files(app)
    _add_rows(app, rows, journal, start or Start())
    _add_journal(app, rows, journal, start or Start())
    _add_explorer(app, rows, journal, start or Start())
    return app


def _add_files(app: FastAPI) -> None:
    pages = {"/": "eyeball.html", "/explorer": "explorer.html"}
    for path, name in pages.items():
        app.get(path)(_text(read_part(name), "text/html"))
    for name, kind in FILES.items():
        app.get(f"/static/{name}")(_text(read_part(name), kind))


def _text(text: str, kind: str) -> Callable[[], Response]:
    return lambda: Response(text, media_type=kind, headers={"cache-control": "no-cache"})


def _check(rows: Rows, numbers: list[int], most: int) -> list[int]:
    n = rows.probes.n_shown
    if len(numbers) > most or any(number >= n for number in numbers):
        raise HTTPException(422, f"give at most {most} row numbers below {n}")
    return numbers


def _places(rows: Rows, numbers: list[int], most: int) -> list[int]:
    """Rows of the data set behind numbers, of which some may be repeats."""
    return [number % len(rows.data) for number in _check(rows, numbers, most)]


def _add_rows(app: FastAPI, rows: Rows, journal: Journal, start: Start) -> None:
    told = describe_set(rows, start)

    tagged = {"columns": [*told["columns"], "tag"], "kinds": told["kinds"] | {"tag": [*ARTEFACTS, *SOURCES]}}

    @app.get("/api/meta")
    def _meta() -> dict[str, Any]:
        return told | tagged

    @app.get("/pixels/{numbers}.bin")
    def _pixels(numbers: Annotated[str, PathParam(pattern=r"^\d{1,9}(,\d{1,9})*$")]) -> Response:
        chosen = _places(rows, [int(number) for number in numbers.split(",")], MOST_PIXELS)
        packed = pack_pixels(rows.data.read_stamps(chosen))
        return Response(packed, media_type="application/octet-stream", headers={"cache-control": FOREVER})

    @app.post("/api/rows")
    def _rows(body: RowsBody) -> dict[str, Any]:
        return {"rows": _describe(rows, journal, _check(rows, body.rows, MOST_ROWS), blind=start.blind)}

    @app.post("/api/order")
    def _order(body: OrderBody) -> dict[str, Any]:
        if body.order not in ORDERS or not told["orders"][body.order]["usable"]:
            raise HTTPException(422, "this data set has no such order")
        wanted = body.model_dump(include={"metalabels", "telescopes", "min_mag", "max_mag", "who"})
        filters = Filters(rows=tuple(body.rows) or rows.given, **wanted)
        current = journal.current()
        kept = keep_rows(rows.table, filters, current, body.labeller)
        ordered = order_rows(rows.table, body.order, kept, seed=body.seed)
        if rows.probes.hidden and not body.rows and body.who in ("all", "mine_left"):
            ordered = rows.probes.mix(ordered, body.seed)
        own = [rows.row_of(id_) for id_ in current.loc[current["labeller"] == body.labeller, "id"]]
        mine = np.isin(np.arange(rows.probes.n_shown), [row for row in own if row is not None])
        return {"rows": ordered.tolist(), "at": _resume_at(ordered, mine, body.after)}

    @app.post("/api/find")
    def _find(body: FindBody) -> dict[str, Any]:
        return {"row": _find_row(rows, body.text)}


HIDDEN = ("metalabel", "rule", "object_id", "host_id", "split", "score", "std", "p_real", "confidence", "bald", "doubt",
          "samples", "density", "realbogus", "cnn_realbogus", "votes", "marks")  # fmt: skip
"""Values of a row that a blind server does not send."""


def _describe(rows: Rows, journal: Journal, numbers: list[int], *, blind: bool) -> list[dict[str, Any]]:
    """Rows as plain values, with flags, decisions, tags and notes; those of others and scores not to the blind."""
    found = [rows.describe(row) | {"votes": [], "marks": []} for row in numbers]
    by_id = {row["id"]: row for row in found}
    places = [row["name"] for row in found]
    for row, flags in zip(found, rows.context.flags(places), strict=True):
        row["flags"] = flags
    for vote in journal.votes(list(by_id)).itertuples():
        by_id[vote.id]["votes"].append([vote.labeller, vote.label])
    for mark in journal.marks(list(by_id)).itertuples():
        by_id[mark.id]["marks"].append([mark.labeller, mark.kind, mark.value])
    return [_veil(row, rows.links) for row in found] if blind else found


def _veil(row: dict[str, Any], links: Mapping[str, str]) -> dict[str, Any]:
    """Values of a row that do not influence an annotator."""
    kept = {name: value for name, value in row.items() if name not in HIDDEN}
    kept |= {"label": None, "votes": [], "marks": [], "links": make_links(kept | {"id": kept["shown_id"]}, links)}
    kept["flags"] = [flag for flag in row["flags"] if flag not in SWAYING]
    return kept | {"others": [other | {"label": None, "score": None} for other in row["others"]]}


def _resume_at(ordered: np.ndarray, mine: np.ndarray, after: int | None) -> int:
    """Place of the first row that the labeller has not decided on, from the row where the page was."""
    start = int(np.flatnonzero(ordered == after)[0]) if after is not None and (ordered == after).any() else 0
    left = ~mine[ordered]
    ahead, all_left = np.flatnonzero(left[start:]), np.flatnonzero(left)
    return start + int(ahead[0]) if len(ahead) else int(all_left[0]) if len(all_left) else start


def describe_set(rows: Rows, start: Start) -> dict[str, Any]:
    """Description of the data set for the page, sent before any row.

    Parameters
    ----------
    rows : Rows
    start : Start

    Returns
    -------
    dict
    """
    table = rows.table
    orders = usable_orders(table)
    telescopes = sorted(set(table["ut"]) - {""}) if "ut" in table else []
    mags = table["mag"].to_numpy(float) if "mag" in table else np.array([])
    known = mags[np.isfinite(mags)]
    return {
        "name": rows.data.data_dir.resolve().name,
        "digest": rows.digest,
        "n": len(table),
        "size": rows.data.size,
        "layers": list(rows.data.layers),
        "model": rows.opinions.name,
        "has_samples": rows.opinions.samples is not None,
        "threshold": None if start.blind else rows.opinions.threshold,
        "calibrated": rows.opinions.calibrated,
        "orders": {name: {"text": ORDERS[name][0], "usable": usable} for name, usable in orders.items()},
        "stretch": stretch_constants(),
        "metalabels": sorted(set(table["metalabel"].astype(str))),
        "telescopes": telescopes,
        "mag": [plain_number(known.min()), plain_number(known.max())] if len(known) else None,
        "artefacts": list(ARTEFACTS),
        "sources": list(SOURCES),
        "maps": [] if start.blind else list(rows.opinions.places or {}),
        "columns": list(rows.values(np.array([], int))),
        "kinds": rows.kinds,
        "start": vars(start),
    }


def _find_row(rows: Rows, text: str) -> int | None:
    """Row number of an id, of a candidate's id, or as given; None when there is none."""
    if text in rows.number_of:
        return rows.number_of[text]
    if "candidate_id" in rows.table:
        found = np.flatnonzero(rows.table["candidate_id"].to_numpy() == text) if text else np.array([])
        if len(found):
            return int(found[0])
    number = int(text) if text.isdecimal() and len(text) < 12 else -1
    return number if 0 <= number < len(rows.data) else None


def _add_journal(app: FastAPI, rows: Rows, journal: Journal, start: Start) -> None:
    @app.post("/api/events")
    def _events(body: EventsBody) -> dict[str, Any]:
        good = [one for one in body.events if rows.row_of(one.id) == one.row and _is_sound(one)]
        kept = journal.append(
            Event(labeller=body.labeller, model=rows.opinions.name, **one.model_dump(exclude={"row"})) for one in good
        )
        refused = {one.uuid for one in body.events} - set(kept)
        return {"acknowledged": kept, "refused": sorted(refused)}

    @app.post("/api/history")
    def _history(body: HistoryBody) -> dict[str, Any]:
        found = journal.history(body.labeller, before=body.before)
        found = found.assign(row=found["id"].map(rows.row_of)).dropna(subset="row").astype({"row": int})
        return {"events": found.to_dict(orient="records"), "n": journal.count(body.labeller)}

    @app.post("/api/examples")
    def _examples(body: LabellerBody) -> dict[str, Any]:
        marks = journal.marks()
        marks = marks[(marks["kind"] == TAGS) & (marks["value"] != "")]
        if start.blind:  # tags of others would tell their labels
            marks = marks[marks["labeller"] == body.labeller]
        return {"examples": _tag_examples(rows, marks)}

    @app.post("/api/agreement")
    def _agreement(body: RowsBody) -> dict[str, Any]:
        if start.blind:
            raise HTTPException(403, "this server is blind: agreement is shown by `gotorb eyeball agreement`")
        known = rows.table.set_index("id")["label"]
        current = journal.current()
        found = compare_labellers(current, known)
        cells = [[cell if isinstance(cell, str) else plain_number(cell) for cell in pair] for pair in
                 found.itertuples(index=False)]  # fmt: skip
        counts = current.groupby(["labeller", "label"]).size()
        return {
            "pairs": [dict(zip(found.columns, pair, strict=True)) for pair in cells],
            "counts": [[*key, int(n)] for key, n in counts.items()],
        }


def _is_sound(event: EventBody) -> bool:
    """False for tags that do not exist, and for a value where none belongs."""
    if event.kind == TAGS:
        return all(tag in (*ARTEFACTS, *SOURCES) for tag in event.value.split(",") if tag)
    return event.kind == NOTE or not event.value


def _tag_examples(rows: Rows, marks: pd.DataFrame) -> dict[str, list[int]]:
    """Rows that have each tag, the latest first; tags without one are left out."""
    found: dict[str, list[int]] = {name: [] for name in (*ARTEFACTS, *SOURCES)}
    for id_, value in marks.sort_values("number", ascending=False)[["id", "value"]].itertuples(index=False):
        row = rows.row_of(id_)
        for name in value.split(","):
            if row is not None and row not in found[name] and len(found[name]) < N_EXAMPLES:
                found[name].append(row)
    return {name: numbers for name, numbers in found.items() if numbers}


def _tag_codes(rows: Rows, journal: Journal) -> np.ndarray:
    """Each row's first tag as its place among all tags, (n,) float32; NaN without one."""
    codes, names = np.full(len(rows.data), np.nan, "<f4"), [*ARTEFACTS, *SOURCES]
    marks = journal.marks()
    for id_, value in marks.loc[(marks["kind"] == TAGS) & (marks["value"] != ""), ["id", "value"]].itertuples(
        index=False
    ):
        if id_ in rows.number_of:
            codes[rows.number_of[id_]] = names.index(value.split(",")[0])
    return codes


def _add_explorer(app: FastAPI, rows: Rows, journal: Journal, start: Start) -> None:
    @app.get("/api/points.bin")
    def _points() -> Response:
        if start.blind:
            raise HTTPException(403, "this server is blind: its map would tell labels and scores")
        packed = pack_points(rows) + _tag_codes(rows, journal).tobytes()
        return Response(packed, media_type="application/octet-stream", headers={"cache-control": "no-cache"})

    @app.post("/api/neighbours")
    def _neighbours(body: NeighboursBody) -> dict[str, Any]:
        (row,) = _places(rows, body.rows, 1)
        return {"rows": rows.neighbours(row, n=body.n)}

    @app.post("/api/ids")
    def _ids(body: RowsBody) -> dict[str, Any]:
        numbers = _places(rows, body.rows, len(rows.data))
        return {"ids": rows.table["id"].iloc[numbers].tolist()}
