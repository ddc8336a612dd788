"""Stage ``synthetic``: add simulated transients and galaxy residuals."""

from gotorb import label_data
from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.tracking.runs import track_stage
from pipelines import open_survey, run_stage


def main() -> None:
    """Write the supplemented data set data/synthetic."""
    params = read_params()
    options = params.synthetic.model_dump() | {"provider": params.label.provider, "variables": params.clean.variables}
    options |= {"n_processes": params.label.n_processes, "seed": params.seed}
    about = "Simulated transients and galaxy residuals added to the labels."
    with open_survey(params), track_stage("synthetic", params, used=options, about=about) as run:
        data_dir = label_data.add_synthetic_transients("data/label", out_dir="data", name="synthetic", **options)
        run.log_data(data_dir, make_card(data_dir), context="labels and synthetic transients")


if __name__ == "__main__":
    run_stage(main)
