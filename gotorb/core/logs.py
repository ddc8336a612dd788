"""Configuration of logging: the console, and one file per run folder."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gotorb.core import layout

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def show_on_console(level: int = logging.INFO) -> None:
    """Send gotorb's messages to stderr; calling it again changes only the level.

    Parameters
    ----------
    level : int
        Lowest level that is shown.
    """
    logger = logging.getLogger("gotorb")
    logger.setLevel(level)
    if not any(getattr(handler, "is_gotorb_console", False) for handler in logger.handlers):
        handler = _Console()
        handler.setFormatter(logging.Formatter("%(levelname).1s %(message)s"))
        handler.is_gotorb_console = True  # type: ignore[attr-defined]
        logger.addHandler(handler)
        logger.propagate = False  # else the root handlers that other libraries install would say all twice


def one_line(text: object, most: int = 0) -> str:
    """Join text, such as another library's message, to one line.

    Parameters
    ----------
    text : object
        Text, or an error.
    most : int
        Letters at most; 0 for all.

    Returns
    -------
    str
        Text on one line.
    """
    line = " ".join(str(text).split())
    return line[:most] if most else line


def first_line(error: BaseException) -> str:
    """First line of an error's message, of at most 300 characters; the error's type where it has none.

    Parameters
    ----------
    error : exception
        Any.

    Returns
    -------
    str
        For a message of our own.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def list_values(values: Mapping[str, Any], *names: str) -> str:
    """List values as text for a line of a log.

    Parameters
    ----------
    values : mapping
        Names and values.
    *names : str
        Those that are listed, in this order; all when left out.

    Returns
    -------
    str

    Examples
    --------
    >>> list_values({"epochs": 20, "learning_rate": 1e-3, "layers": ["science", "template"]})
    'epochs 20, learning_rate 0.001, layers science+template'
    """
    return ", ".join(f"{name} {_as_word(values[name])}" for name in names or values if name in values)


def _as_word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def describe_duration(seconds: float) -> str:
    """Describe a duration as text with one unit.

    Parameters
    ----------
    seconds : float
        Duration [s].

    Returns
    -------
    str

    Examples
    --------
    >>> describe_duration(42.3), describe_duration(200), describe_duration(9000)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """The stderr of the moment, not that of the start, which may be closed since."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


@contextmanager
def run_log(run_dir: Path) -> Iterator[Path]:
    """Copy gotorb's messages into ``<run_dir>/<run_dir>.log`` while the block runs.

    Parameters
    ----------
    run_dir : Path

    Yields
    ------
    Path
        The log file.
    """
    path = layout.log_path(run_dir)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger("gotorb")
    level = logger.level
    if level == logging.NOTSET or level > logging.INFO:
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield path
    except BaseException as error:
        logger.error("run ended early: %s: %s", type(error).__name__, error)
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(level)
