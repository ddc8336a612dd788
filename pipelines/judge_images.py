"""Stage ``judge_images``: every detection of the judging survey, and transients injected into its images."""

from pathlib import Path

from gotorb import label_data
from gotorb.audit import cut_images
from gotorb.dataset.store import read_table
from gotorb.params import read_params
from gotorb.settings import read_settings
from gotorb.simulate.transients import InjectionOptions, add_transients
from gotorb.tracking.runs import track_stage
from pipelines import open_survey, run_stage


def main() -> None:
    """Write the data sets data/judge/label, data/judge/detections and data/judge/injected."""
    params, out_dir = read_params(), Path("data/judge")
    n_processes = params.label.n_processes
    with open_survey(params, "data/judge/survey"), track_stage("judge_images", params, beside=True):
        labelled = label_data.make(
            params.judge.n_fields * params.judge.n_visits, out_dir, name="label", provider=params.label.provider,
            stamp_size=params.label.stamp_size, n_processes=n_processes, seed=params.seed,
        )  # fmt: skip
        image_ids = set(read_table(labelled)["image_id"])
        cut_images(labelled, image_ids, out_dir=out_dir, name="detections", n_processes=n_processes)
        what = params.recovery.model_dump(exclude={"fpr"})
        files, size = label_data.cut_options(params.label.stamp_size).files, params.label.stamp_size
        options = InjectionOptions(
            catshtm_dir=read_settings().catshtm_dir, **what, stamp_size=size, files=files, seed=params.seed
        )
        add_transients(labelled, image_ids, options, out_dir=out_dir, n_processes=n_processes)


if __name__ == "__main__":
    run_stage(main)
