"""Pages and their safety: templates whose texts stay text, policies for own scripts only, and a server's guard."""

from __future__ import annotations

import base64
import hashlib
import html
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from gotorb.core.files import write_text
from gotorb.errors import ConfigError
from gotorb.evaluation.posterior import posterior_density

FOLDER = "templates"


def write_page(
    path: Path, template: str, *, style: str = "page.css", script: str | None = "detections.js", **values: Any
) -> Path:
    """Fill a template of this package and write the page, whole or not at all.

    The page's policy allows its own style and script only; nothing is fetched or sent, whatever the values hold.

    Parameters
    ----------
    path : Path
        The page.
    template : str
        Name of the template without its suffix.
    style, script : str
        Files of this package; None: a page without a script.
    **values
        For the template; every text is escaped.
    """
    look, code = read_part(style), read_part(script) if script else ""
    policy = (
        f"default-src 'none'; img-src data:; style-src {script_hash(look)}; script-src {script_hash(code)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(f"{template}.html").render(
        policy=policy, style=Markup(look), script=Markup(code), **values
    )  # fmt: skip
    return write_text(path, page)


@cache
def read_part(name: str) -> str:
    """Text of a template, style sheet or script of this package.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    return (files("gotorb.visualise") / FOLDER / name).read_text(encoding="utf-8")


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gotorb.visualise", FOLDER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "shade": shade}
    return environment


def number(value: Any, digits: int = 2) -> str:
    """Text of a number; a dash for a missing one.

    Parameters
    ----------
    value : float or None
    digits : int
        Decimal places.

    Returns
    -------
    str

    Examples
    --------
    >>> number(1.234), number(float("nan")), number(None)
    ('1.23', '–', '–')
    """
    return "–" if value is None or value != value else f"{float(value):.{digits}f}"


def shade(value: Any) -> str:
    """Class of a score's colour.

    Parameters
    ----------
    value : float or None

    Returns
    -------
    str
        s0 (bogus) to s10 (real), or none.

    Examples
    --------
    >>> shade(0.96), shade(float("nan"))
    ('s10', 'none')
    """
    return "none" if value is None or value != value else f"s{round(min(max(float(value), 0.0), 1.0) * 10)}"


WIDTH, HEIGHT = 150, 46
GRID = np.linspace(0, 1, 76)


def posterior_path(samples: np.ndarray) -> str:
    """Outline of one posterior's density, its peak at the top, to be filled.

    Parameters
    ----------
    samples : ndarray
        (n_samples,).

    Returns
    -------
    str
        Path of SVG.
    """
    density = posterior_density(samples, GRID)
    return _outline(density / density.max())


def _outline(heights: np.ndarray) -> str:
    """Closed path over equal steps of [0, 1], heights 0 to 1.

    >>> _outline(np.array([0.0, 1.0]))
    'M0 46L0 46L150 2L150 46Z'
    """
    x = np.linspace(0, WIDTH, len(heights))
    y = HEIGHT - (HEIGHT - 2) * heights
    points = "".join(f"L{a:.4g} {b:.3g}" for a, b in zip(x, y, strict=True))
    return f"M0 {HEIGHT}{points}L{WIDTH} {HEIGHT}Z"


def ticks(samples: np.ndarray) -> str:
    """Short lines, one for each sample.

    Parameters
    ----------
    samples : ndarray
        (n_samples,).

    Returns
    -------
    str
        Path of SVG.
    """
    return "".join(f"M{x:.4g} {HEIGHT}v-5" for x in np.unique(np.round(samples * WIDTH, 1)))


LARGEST_BODY = 16 << 20
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def content_policy(*, script: str = "'self'", style: str = "'self'", connect: str = "'self'") -> str:
    """Content-security policy of a page: only named sources, and no text that becomes a script.

    Parameters
    ----------
    script, style, connect : str
        Sources, as the header spells them: ``'self'`` of a served page, `script_hash` of a file that holds all.

    Returns
    -------
    str
        Value of the header Content-Security-Policy.

    Examples
    --------
    >>> content_policy(connect="'none'").split("; ")[:3]
    ["default-src 'none'", "script-src 'self'", "style-src 'self'"]
    """
    rules = [
        "default-src 'none'", f"script-src {script}", f"style-src {style}", f"connect-src {connect}",
        "img-src 'self' data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'", "trusted-types 'none'",
    ]  # fmt: skip
    return "; ".join(rules)


def script_hash(text: str) -> str:
    """Name of an inline script or style in a policy: the digest of its text.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def escape(text: object) -> str:
    """Text for an HTML page: neither tag nor end of an attribute.

    Parameters
    ----------
    text : object

    Returns
    -------
    str

    Examples
    --------
    >>> escape('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(str(text), quote=True)


def json_for_script(value: Any) -> str:
    """Json for a ``<script type="application/json">``, in which no text ends the element or begins a comment.

    Parameters
    ----------
    value : object
        Plain values; every number finite.

    Returns
    -------
    str

    Examples
    --------
    >>> json_for_script({"name": "</script>"})
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"),
                       ("\u2029", "\\u2029")):  # fmt: skip
        text = text.replace(sign, code)
    return text


def check_bind(host: str) -> str:
    """Refuse an address that other machines can reach, since the pages have no password.

    Parameters
    ----------
    host : str

    Returns
    -------
    str
        The same address.

    Raises
    ------
    ConfigError
        If it is not a loopback address.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"host {host!r} is open to other machines, and the page has no password; "
            "listen on 127.0.0.1 and reach it from elsewhere by `ssh -L PORT:127.0.0.1:PORT`"
        )
    return host


def _follows_link(scope: Message, headers: dict[str, str]) -> bool:
    """True for a visit by a link, as from a page of `gotorb visualise`: the browser opens our page by itself."""
    asked = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return scope["method"] == "GET" and asked == ("navigate", "document") and scope["path"] == "/"


def own_names(port: int) -> tuple[str, ...]:
    """Names under which a server on loopback may be addressed.

    Parameters
    ----------
    port : int

    Returns
    -------
    tuple of str
    """
    return tuple(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))


@dataclass(frozen=True)
class Guard:
    """ASGI layer in front of an app: refuses foreign requests, adds the headers of safety to each answer.

    Attributes
    ----------
    app : callable
        The ASGI app behind.
    names : tuple of str
        Hosts with port that are ours (`own_names`).
    policy : str
        Content-security policy.
    """

    app: App
    names: tuple[str, ...]
    policy: str = content_policy()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with 403, 413 or 415."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no web socket is served
        refused = self._refuse(scope)
        if refused:
            await _answer(self._with_headers(send), *refused)
        else:
            await self.app(scope, receive, self._with_headers(send))

    def _refuse(self, scope: Message) -> tuple[int, str] | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("host") not in self.names:
            return 403, "this server answers only to its own address"
        if headers.get("origin", f"http://{headers['host']}") not in {f"http://{name}" for name in self.names}:
            return 403, "only this server's own pages may ask"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _follows_link(scope, headers):
            return 403, "only this server's own pages may ask"
        if scope["method"] in CHANGING:
            if headers.get("content-type", "").split(";")[0].strip() != "application/json":
                return 415, "send application/json"
            length = headers.get("content-length", "")
            if not length.isdigit() or int(length) > LARGEST_BODY:  # chunked bodies have no length
                return 413, f"send at most {LARGEST_BODY} bytes, with their number"
        return None

    def _with_headers(self, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers()]
            await send(message)

        return wrapped

    def _headers(self) -> Iterable[tuple[bytes, bytes]]:
        return (
            (b"content-security-policy", self.policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"x-frame-options", b"DENY"),
        )


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
