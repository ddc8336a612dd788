"""Stage ``clean``: leave out random bogus that are probably real."""

from gotorb import clean_data
from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.tracking.runs import track_stage
from pipelines import open_survey, run_stage


def main() -> None:
    """Write the cleaned data set data/clean."""
    params = read_params()
    options = params.clean.model_dump() | {"seed": params.seed}
    about = "Random bogus that are probably real are left out."
    with open_survey(params), track_stage("clean", params, used=options, about=about) as run:
        data_dir = clean_data.clean("data/synthetic", out_dir="data", name="clean", **options)
        run.log_data(data_dir, make_card(data_dir), context="cleaned labels")


if __name__ == "__main__":
    run_stage(main)
