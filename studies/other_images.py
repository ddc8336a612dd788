"""Stage ``other_images``: every detection of a survey of other fields, and transients injected into its images."""

from pathlib import Path

from gotorb import label_data
from gotorb.core.params import read_params
from gotorb.core.settings import read_settings
from gotorb.dataset.store import read_table
from gotorb.evaluation.truth import cut_images
from gotorb.simulate.transients import InjectionOptions, add_transients
from gotorb.tracking.runs import track_stage
from pipelines import open_survey, run_stage


def main() -> None:
    """Write the data sets data/other/label, data/other/detections and data/other/injected."""
    params, out_dir = read_params(), Path("data/other")
    n_processes = params.label.n_processes
    with open_survey(params, "data/other/survey"), track_stage("other_images", params):
        labelled = label_data.make(
            params.judge.n_fields * params.judge.n_visits, out_dir, name="label", provider=params.label.provider,
            stamp_size=params.label.stamp_size, n_processes=n_processes, seed=params.seed,
        )  # fmt: skip
        image_ids = set(read_table(labelled)["image_id"])
        size = params.label.stamp_size
        cut = label_data.cut_options(size)
        cut_images(labelled, image_ids, cut, out_dir=out_dir, n_processes=n_processes)
        what, files = params.recovery.model_dump(exclude={"fpr"}), cut.files
        options = InjectionOptions(
            catshtm_dir=read_settings().catshtm_dir, **what, stamp_size=size, files=files, seed=params.seed
        )
        add_transients(labelled, image_ids, options, out_dir=out_dir, n_processes=n_processes)


if __name__ == "__main__":
    run_stage(main)
