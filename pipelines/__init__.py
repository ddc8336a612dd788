"""One thin script per DVC stage: read parameters, call the library, record the run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotorb.core.logs import show_on_console
from gotorb.errors import GotorbError

if TYPE_CHECKING:
    from gotorb.core.params import Params
    from gotorb.core.settings import Settings


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage as a process: an error the user can act on is one line and exit code 1."""
    show_on_console()
    first_line = (sys.modules["__main__"].__doc__ or "").splitlines()[0]
    logging.getLogger("gotorb").info(first_line.removeprefix("Stage ").replace("``", ""))
    try:
        main()
    except GotorbError as error:
        sys.exit(f"gotorb: {error}")


def open_survey(params: Params, survey_dir: str = "data/survey") -> AbstractContextManager[Settings]:
    """The survey that params name, as the label code sees it while the block runs."""
    from gotorb import label_data  # here, for `make repro` with nothing to do is to be quick
    from gotorb.simulate.archive import survey_environment

    if params.label.source == "own":
        label_data.use_adapter(params.label.adapter)
    return survey_environment(params.label.source, Path(survey_dir))


def write_headline(name: str, numbers: Mapping[str, Any]) -> None:
    """Write headline numbers, which `dvc metrics` compares, to reports/headline/<name>.json."""
    from gotorb.core.files import write_json

    write_json(Path("reports/headline") / f"{name}.json", dict(numbers))
