"""Stage ``other_fields``: models on every detection of a survey of other fields, and on transients injected there."""

from pathlib import Path

from gotorb.core.files import write_json
from gotorb.core.params import read_params
from gotorb.evaluation.injections import evaluate_injections
from gotorb.evaluation.report import write_figures, write_scores
from gotorb.evaluation.truth import evaluate_on_truth
from gotorb.tracking.runs import headlines, track_stage
from pipelines import run_stage


def main() -> None:
    """Write reports/other_fields.json, the scores and the maps in evaluations/other_fields/."""
    params, here, out_dir = read_params(), Path("data/other"), Path("evaluations/other_fields")
    model_dirs = [Path("models") / name for name in params.judged_models]
    options = params.evaluate.model_dump(include={"n_samples", "n_bootstrap"}) | {"seed": params.seed}
    with track_stage("other_fields", params, used=options, experiment="-evaluation") as run:
        truth = evaluate_on_truth(model_dirs, here / "detections", here / "survey", **options)
        found = evaluate_injections(
            model_dirs, here / "injected", Path("data/dataset"),
            fpr=params.recovery.fpr, n_samples=params.evaluate.n_samples, seed=params.seed,
        )  # fmt: skip
        write_json("reports/other_fields.json", {"truth": truth.report, "injections": found.report})
        plots = write_figures(found.figures, out_dir)
        write_scores(out_dir / "detections.csv", truth.scores)
        write_scores(out_dir / "injected.csv", found.scores)
        run.log_metrics({name: {"truth": headlines(one)} for name, one in truth.report["models"].items()})
        run.log_plots(plots)


if __name__ == "__main__":
    run_stage(main)
