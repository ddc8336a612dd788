"""Self-contained pages: templates with every text escaped, style and script known by digest, curves as SVG paths."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from gotorb.core.files import write_text
from gotorb.evaluation.posterior import posterior_density

FOLDER = "templates"


def write_page(
    path: Path, template: str, *, style: str = "page.css", script: str | None = "detections.js", **values: Any
) -> Path:
    """Fill a template of this package and write the page, whole or not at all.

    The page's policy lets nothing but its style and script run, be fetched or be sent, whatever the values hold.

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

    Returns
    -------
    Path
        The same path.
    """
    look, code = _read_part(style), _read_part(script) if script else ""
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(look)}; script-src {_source(code)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(f"{template}.html").render(
        policy=policy, style=Markup(look), script=Markup(code), **values
    )  # fmt: skip
    return write_text(path, page)


@cache
def _read_part(name: str) -> str:
    """A style sheet or script of this package."""
    return (files("gotorb.visualise") / FOLDER / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """Name of an inline text in a policy: its digest."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


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
