"""One thin script per DVC stage: read parameters, call the library, record the run."""

import os
import sys
from collections.abc import Callable

from gotorb.errors import GotorbError
from gotorb.logs import show_on_console

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage as a process: an error the user can act on is one line and exit code 1."""
    show_on_console()
    try:
        main()
    except GotorbError as error:
        sys.exit(f"gotorb: {error}")
