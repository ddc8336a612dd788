"""Points of the latent explorer as bytes, and the explorer as one page that needs no server."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from gotorb.errors import DataError
from gotorb.stamps.images import draw_strip
from gotorb.visualise.safety import content_policy, escape, json_for_script, script_hash

if TYPE_CHECKING:
    from gotorb.eyeball.rows import Rows


SHEET_COLUMNS = 40
THUMBNAIL = 32
JPEG_QUALITY = 80


def pack_points(rows: Rows, chosen: np.ndarray | None = None) -> bytes:
    """Pack the points of the explorer: little-endian float32 arrays, one after the other; NaN where unknown.

    First come the places on each map, scaled to 0 to 1 (x of all rows, then y), then each column of `Rows.values`.

    Parameters
    ----------
    rows : Rows
    chosen : ndarray of int, optional
        Row numbers; all when left out.

    Returns
    -------
    bytes
    """
    parts = []
    for places in (rows.opinions.places or {}).values():
        low, high = places.min(axis=0), places.max(axis=0)
        scaled = (places - low) / np.where(high > low, high - low, 1).max()
        parts += list((scaled if chosen is None else scaled[chosen]).T)
    parts += list(rows.values(chosen).values())
    return b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in parts)


def _draw_sheet(rows: Rows, chosen: np.ndarray, layers: tuple[str, ...]) -> bytes:
    """One JPEG with a small picture of each chosen row: its layers side by side, SHEET_COLUMNS rows to a line."""
    from PIL import Image

    width, n_lines = THUMBNAIL * len(layers), -(-len(chosen) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (width * SHEET_COLUMNS, THUMBNAIL * n_lines))
    at = 0
    for _, stamps in rows.data.batches(chosen, layers=layers):
        for stamp in stamps:
            picture = Image.fromarray(draw_strip(stamp, layers)).resize((width, THUMBNAIL))
            sheet.paste(picture, (at % SHEET_COLUMNS * width, at // SHEET_COLUMNS * THUMBNAIL))
            at += 1
    file = io.BytesIO()
    sheet.save(file, "jpeg", quality=JPEG_QUALITY)
    return file.getvalue()


def write_page(rows: Rows, told: dict[str, Any], templates: dict[str, str], *, most_stamps: int, seed: int) -> str:
    """The explorer as one self-contained page: coordinates, colours and small stamps, no server, no network.

    Parameters
    ----------
    rows : Rows
        With maps.
    told : dict
        `label_server.describe_set`.
    templates : dict of str to str
        explorer.html, explorer.css and the scripts page.js, stretch.js, points.js, explorer.js.
    most_stamps : int
        Rows drawn at random that have a picture.
    seed : int
        Of the draw.

    Returns
    -------
    str
        Page as html.

    Raises
    ------
    DataError
        If there is no map.
    """
    if not rows.opinions.places:
        raise DataError(f"no map of {rows.data.data_dir}: no model was run on its stamps; give one with --model")
    n = len(rows.data)
    drawn = np.random.default_rng([seed, n]).permutation(n)[:most_stamps]
    layers: tuple[str, ...] = tuple(name for name in ("science", "template", "difference") if name in rows.data.layers)
    layers = layers or rows.data.layers[:3]
    pictured = np.sort(drawn)
    data = told | {
        "points": base64.b64encode(pack_points(rows)).decode(),
        "ids": rows.table["id"].astype(str).tolist(),
        "pictured": pictured.tolist(),
        "sheet": base64.b64encode(_draw_sheet(rows, pictured, layers)).decode(),
        "sheet_columns": SHEET_COLUMNS,
        "thumbnail": THUMBNAIL,
        "sheet_layers": list(layers),
    }
    script = _join_scripts(*(templates[name] for name in ("page.js", "stretch.js", "points.js", "explorer.js")))
    style = templates["eyeball.css"] + templates["explorer.css"]
    policy = content_policy(script=script_hash(script), style=script_hash(style), connect="'none'")
    policy = "; ".join(rule for rule in policy.split("; ") if not rule.startswith("frame-"))  # not known to <meta>
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        f"<title>{escape(told['name'])} - latent explorer</title><style>{style}</style>"
    )
    tail = (
        f'<script type="application/json" id="embedded">{json_for_script(data)}</script>'
        f'<script type="module">{script}</script>'
    )
    page = templates["explorer.html"]
    before, _, rest = page.partition("<!--head-->")
    body, _, after = rest.partition("<!--/head-->")[2].partition("<!--tail-->")
    return before + head + body + tail + after.partition("<!--/tail-->")[2]


def _join_scripts(*scripts: str) -> str:
    """Modules as one: their imports of each other fall away, their exports become plain names."""
    lines = [line for script in scripts for line in script.splitlines() if not line.startswith("import ")]
    return "\n".join(line.removeprefix("export ") for line in lines)
