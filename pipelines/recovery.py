"""Stage ``recovery``: which transients injected into the held-out images the models find."""

from pathlib import Path

from gotorb import label_data
from gotorb.dataset.card import write_json
from gotorb.dataset.split import images_of
from gotorb.dataset.store import open_dataset
from gotorb.evaluation.report import write_figures
from gotorb.params import read_params
from gotorb.recovery import judge_recovery
from gotorb.settings import read_settings
from gotorb.simulate.transients import InjectionOptions, add_transients
from gotorb.tracking.runs import track_stage
from pipelines import open_survey, run_stage


def main() -> None:
    """Write reports/recovery.json and the maps in evaluations/recovery/."""
    params, data = read_params(), open_dataset("data/dataset")
    what = params.recovery.model_dump(exclude={"fpr"})
    model_dirs = [Path("models") / name for name in params.judged_models]
    with open_survey(params), track_stage("recovery", params, experiment="-evaluation", beside=True) as run:
        files, catshtm_dir = label_data.cut_options(data.size).files, read_settings().catshtm_dir
        options = InjectionOptions(catshtm_dir=catshtm_dir, **what, stamp_size=data.size, files=files, seed=params.seed)
        injected = add_transients("data/label", images_of(data.table, "test"), options, out_dir="data")
        recovery = judge_recovery(
            model_dirs, injected, data.data_dir,
            fpr=params.recovery.fpr, n_samples=params.evaluate.n_samples, seed=params.seed,
        )  # fmt: skip
        write_json("reports/recovery.json", recovery.report)
        plots = write_figures(recovery.figures, Path("evaluations/recovery"))
        run.log_metrics({"recovery": recovery.slices})
        run.log_plots(plots)
        run.log_json(recovery.report, "recovery.json")


if __name__ == "__main__":
    run_stage(main)
