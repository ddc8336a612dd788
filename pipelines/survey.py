"""Stage ``survey``: simulate the embedded mini survey."""

from dataclasses import asdict
from pathlib import Path

from gotorb.params import read_params
from gotorb.simulate.survey import make_survey
from gotorb.tracking.runs import track_stage
from pipelines import run_stage


def main() -> None:
    """Write images, tables and catalogues to data/survey."""
    params = read_params()
    with track_stage("survey", params) as run:
        catalogue = params.survey.catalogue
        summary = make_survey(Path("data/survey"), params.survey, seed=params.seed, catalogue=catalogue)
        run.log_metrics(asdict(summary))


if __name__ == "__main__":
    run_stage(main)
