"""One thin script per DVC stage: read parameters, call the library, record the run."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from gotorb import label_data
from gotorb.errors import GotorbError
from gotorb.logs import show_on_console
from gotorb.params import Params
from gotorb.settings import Settings
from gotorb.simulate.source import survey_environment

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage as a process: an error the user can act on is one line and exit code 1."""
    show_on_console()
    try:
        main()
    except GotorbError as error:
        sys.exit(f"gotorb: {error}")


def open_survey(params: Params, survey_dir: str = "data/survey") -> AbstractContextManager[Settings]:
    """The survey that params name, as the label code sees it while the block runs."""
    if params.label.adapter is not None:
        label_data.adapt(params.label.adapter)
    return survey_environment(params.label.source, Path(survey_dir))
