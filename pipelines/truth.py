"""Stage ``truth``: labels and models against the simulated survey's truth."""

import shutil
from pathlib import Path

from gotorb import label_data
from gotorb.core import layout
from gotorb.core.files import write_json
from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.dataset.split import images_of
from gotorb.dataset.store import open_dataset
from gotorb.evaluation.report import make_headline
from gotorb.evaluation.truth import check_labels, cut_images, evaluate_on_truth
from gotorb.tracking.contents import md5
from gotorb.tracking.runs import headlines, track_stage
from pipelines import open_survey, run_stage, write_headline

SCRATCH = "detections"
"""Data set below data/ that only this stage uses."""


def main() -> None:
    """Write reports/purity.json, reports/truth.json and the headline numbers."""
    params, data = read_params(), open_dataset("data/dataset")
    survey_dir, labels_dir, reports = Path("data/survey"), Path("data/label"), Path("reports")
    model_dirs = [Path("models") / name for name in params.judged_models]
    options = params.evaluate.model_dump(include={"n_samples", "n_bootstrap"}) | {"seed": params.seed}
    about = f"Labels, and {', '.join(params.judged_models)}, against the simulator's truth of the held-out images."
    with open_survey(params), track_stage("truth", params, used=options, about=about) as run:
        run.log_data(data.data_dir, make_card(data.data_dir), context="truth")
        purity = {
            "before_cleaning": check_labels(labels_dir, survey_dir),
            "after_cleaning": check_labels(data.data_dir, survey_dir),
        }
        shutil.rmtree(Path("data") / SCRATCH, ignore_errors=True)  # of another run, whose images may have been others
        cut = label_data.cut_options(data.size)
        detections = cut_images(labels_dir, images_of(data.table, "test"), cut, out_dir=Path("data"), name=SCRATCH)
        truth = evaluate_on_truth(model_dirs, detections, survey_dir, **options).report
        write_json(reports / "purity.json", purity)
        write_json(reports / "truth.json", truth)
        write_headline("truth", {name: make_headline(one, "truth_") for name, one in truth["models"].items()})
        for folder in model_dirs:
            run.log_judged(md5(folder / layout.MODEL_H5), {"truth": headlines(truth["models"][folder.name])})
        run.describe({name: f"AUC {one['auc']:.4f}" for name, one in truth["models"].items()})
        run.log_json(purity, "purity.json")
        run.log_json(truth, "truth.json")


if __name__ == "__main__":
    run_stage(main)
