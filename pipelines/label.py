"""Stage ``label``: minor planets are real, random unmatched detections bogus."""

from gotorb import label_data
from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.tracking.runs import track_stage
from pipelines import open_survey, run_stage


def main() -> None:
    """Write the labelled data set data/label."""
    params = read_params()
    options = params.label.model_dump(exclude={"source", "adapter", "archive"})
    about = "Labels: minor planets are real, random unmatched detections bogus."
    with open_survey(params), track_stage("label", params, used=options, about=about) as run:
        data_dir = label_data.make(out_dir="data", name="label", seed=params.seed, **options)
        run.log_data(data_dir, make_card(data_dir), context="labels")


if __name__ == "__main__":
    run_stage(main)
