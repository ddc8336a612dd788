"""The only place that configures logging: the console, and one file per run folder."""

import logging
import sys
from collections.abc import Iterator
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
