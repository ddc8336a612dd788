"""Stage ``survey``: simulate the embedded mini survey."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gotorb.core.params import Params, SurveyParams, read_params
from gotorb.simulate.survey import make_survey
from gotorb.tracking.runs import track_stage
from pipelines import run_stage

SURVEY, OTHER = "survey", "other"
SURVEYS: dict[str, Callable[[Params], tuple[str, SurveyParams, int]]] = {
    SURVEY: lambda params: ("data/survey", params.survey, params.seed),
    OTHER: lambda params: ("data/other/survey", params.judge, params.seed + 1),
}
"""Name -> folder, parameters, seed: the survey that models learn from, and one of other fields."""


def main() -> None:
    """Write images, tables and catalogues to the folder of the survey named on the command line."""
    params, name = read_params(), (sys.argv[1:] or [SURVEY])[0]
    out_dir, survey, seed = SURVEYS[name](params)
    used, about = survey.model_dump() | {"seed": seed}, "A simulated survey: images, tables and catalogues."
    with track_stage("survey", params, name=name, used=used, about=about) as run:
        summary = make_survey(Path(out_dir), survey, seed=seed, catalogue=survey.catalogue)
        run.log_metrics(asdict(summary))


if __name__ == "__main__":
    run_stage(main)
