"""Safety of all pages: served to this machine only, own scripts only, and text that stays text."""

from __future__ import annotations

import base64
import hashlib
import html
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from gotorb.errors import ConfigError

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
