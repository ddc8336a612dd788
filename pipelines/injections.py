"""Stage ``injections``: transients injected into the held-out images that the models find."""

from pathlib import Path

from gotorb import label_data
from gotorb.core.params import read_params
from gotorb.core.settings import read_settings
from gotorb.dataset.card import write_json
from gotorb.dataset.split import images_of
from gotorb.dataset.store import open_dataset
from gotorb.evaluation.injections import evaluate_injections
from gotorb.evaluation.report import write_figures
from gotorb.evaluation.truth import read_thresholds
from gotorb.simulate.transients import InjectionOptions, add_transients
from gotorb.tracking.runs import track_stage
from pipelines import open_survey, run_stage, write_headline


def main() -> None:
    """Write reports/injections.json, the maps in evaluations/injections/ and the headline numbers."""
    params, data = read_params(), open_dataset("data/dataset")
    what = params.recovery.model_dump(exclude={"fpr"})
    model_dirs = [Path("models") / name for name in params.judged_models]
    with open_survey(params), track_stage("injections", params, experiment="-evaluation") as run:
        files, catshtm_dir = label_data.cut_options(data.size).files, read_settings().catshtm_dir
        options = InjectionOptions(catshtm_dir=catshtm_dir, **what, stamp_size=data.size, files=files, seed=params.seed)
        injected = add_transients("data/label", images_of(data.table, "test"), options, out_dir="data")
        found = evaluate_injections(
            model_dirs, injected, data.data_dir,
            fpr=params.recovery.fpr, n_samples=params.evaluate.n_samples, seed=params.seed,
            true_thresholds=read_thresholds(Path("reports/truth.json"), params.recovery.fpr),
        )  # fmt: skip
        write_json("reports/injections.json", found.report)
        write_headline("injections", found.headline)
        plots = write_figures(found.figures, Path("evaluations/injections"))
        run.log_metrics({"injections": found.slices})
        run.log_plots(plots)
        run.log_json(found.report, "injections.json")


if __name__ == "__main__":
    run_stage(main)
