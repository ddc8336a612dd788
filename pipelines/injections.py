"""Stage ``injections``: transients injected into the held-out images that the models find."""

import shutil
from pathlib import Path

from gotorb import label_data
from gotorb.core import layout
from gotorb.core.files import write_csv, write_json
from gotorb.core.params import read_params
from gotorb.core.settings import read_settings
from gotorb.dataset.card import make_card
from gotorb.dataset.split import images_of
from gotorb.dataset.store import open_dataset
from gotorb.evaluation.injections import evaluate_injections, score_injected
from gotorb.evaluation.report import write_figures
from gotorb.evaluation.truth import read_thresholds
from gotorb.simulate.transients import InjectionOptions, add_transients
from gotorb.tracking.contents import md5
from gotorb.tracking.runs import track_stage
from gotorb.tracking.trainings import judged
from pipelines import open_survey, run_stage, write_headline

SCRATCH = ("injected", "injected_validation")
"""Data sets below data/ that only this stage uses."""


def main() -> None:
    """Write reports/injections.json, the headline numbers, and in evaluations/injections/ maps and validation.csv.

    The latter holds scores of sources in the images of validation rows: promote chooses by these, not by those of test.
    """
    params, data = read_params(), open_dataset("data/dataset")
    what = params.recovery.model_dump(exclude={"fpr"})
    model_dirs = [Path("models") / name for name in params.judged_models]
    used = what | {"fpr": params.recovery.fpr, "n_samples": params.evaluate.n_samples}
    about = f"Transients injected into the held-out images that {', '.join(params.judged_models)} find."
    with open_survey(params), track_stage("injections", params, used=used, about=about) as run:
        run.log_data(data.data_dir, make_card(data.data_dir), context="injections")
        files, catshtm_dir = label_data.cut_options(data.size).files, read_settings().catshtm_dir
        options = InjectionOptions(catshtm_dir=catshtm_dir, **what, stamp_size=data.size, files=files, seed=params.seed)
        for scratch in SCRATCH:  # of another run, whose images may have been others
            shutil.rmtree(Path("data") / scratch, ignore_errors=True)
        injected = add_transients("data/label", images_of(data.table, "test"), options, out_dir="data", name=SCRATCH[0])
        found = evaluate_injections(
            model_dirs, injected, data.data_dir,
            fpr=params.recovery.fpr, n_samples=params.evaluate.n_samples, seed=params.seed,
            true_thresholds=read_thresholds(Path("reports/truth.json"), params.recovery.fpr),
        )  # fmt: skip
        tried = add_transients(
            "data/label", images_of(data.table, "validation"), options, out_dir="data", name=SCRATCH[1]
        )
        write_csv(layout.CHOICE_CSV, score_injected(model_dirs, tried), float_format="%.9f")
        write_json("reports/injections.json", found.report)
        write_headline("injections", found.headline)
        plots = write_figures(found.figures, Path("evaluations/injections"))
        for folder in model_dirs:
            run.log_judged(md5(folder / layout.MODEL_H5), judged({}, {}, found.report, folder.name))
        run.describe({name: f"found {one['found']}" for name, one in found.headline.items()})
        run.log_plots(plots)
        run.log_json(found.report, "injections.json")


if __name__ == "__main__":
    run_stage(main)
