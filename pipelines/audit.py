"""Stage ``audit``: labels and models against the simulated survey's truth."""

from pathlib import Path

from gotorb.audit import audit_labels, audit_models, cut_images
from gotorb.core.files import write_json
from gotorb.dataset.split import images_of
from gotorb.dataset.store import read_table
from gotorb.params import read_params
from gotorb.tracking.runs import track_stage
from pipelines import open_survey, run_stage


def main() -> None:
    """Write reports/purity.json and reports/truth.json."""
    params = read_params()
    survey_dir, data_dir, reports = Path("data/survey"), Path("data/dataset"), Path("reports")
    model_dirs = [Path("models") / name for name in params.judged_models]
    options = params.evaluate.model_dump(include={"n_samples", "n_bootstrap"}) | {"seed": params.seed}
    with open_survey(params), track_stage("audit", params) as run:
        purity = {
            "before_cleaning": audit_labels(Path("data/label"), survey_dir),
            "after_cleaning": audit_labels(data_dir, survey_dir),
        }
        detections = cut_images(Path("data/label"), images_of(read_table(data_dir), "test"), out_dir=Path("data"))
        truth = audit_models(model_dirs, detections, survey_dir, **options).report
        write_json(reports / "purity.json", purity)
        write_json(reports / "truth.json", truth)
        run.log_headlines(truth["models"])
        run.log_json(purity, "purity.json")
        run.log_json(truth, "truth.json")


if __name__ == "__main__":
    run_stage(main)
