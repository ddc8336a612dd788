"""Stage ``judge``: the models on every detection of a survey of other fields, and on transients injected there."""

from pathlib import Path

from gotorb.audit import audit_models
from gotorb.core.files import write_json
from gotorb.evaluation.report import write_figures, write_scores
from gotorb.params import read_params
from gotorb.recovery import judge_recovery
from gotorb.tracking.runs import track_stage
from pipelines import run_stage


def main() -> None:
    """Write reports/judge.json, the scores and the maps in evaluations/judge/."""
    params, here, out_dir = read_params(), Path("data/judge"), Path("evaluations/judge")
    model_dirs = [Path("models") / name for name in params.judged_models]
    options = params.evaluate.model_dump(include={"n_samples", "n_bootstrap"}) | {"seed": params.seed}
    with track_stage("judge", params, experiment="-evaluation") as run:
        audit = audit_models(model_dirs, here / "detections", here / "survey", **options)
        recovery = judge_recovery(
            model_dirs, here / "injected", Path("data/dataset"),
            fpr=params.recovery.fpr, n_samples=params.evaluate.n_samples, seed=params.seed,
        )  # fmt: skip
        write_json("reports/judge.json", {"truth": audit.report, "recovery": recovery.report})
        plots = write_figures(recovery.figures, out_dir)
        write_scores(out_dir / "detections.csv", audit.scores)
        write_scores(out_dir / "injected.csv", recovery.scores)
        run.log_headlines(audit.report["models"])
        run.log_plots(plots)


if __name__ == "__main__":
    run_stage(main)
