"""Stage ``promote``: register the best model; it becomes champion if it is not worse than the present one."""

from pathlib import Path

from gotorb.core.files import write_json
from gotorb.core.params import read_params
from gotorb.tracking.promotion import promote_best
from gotorb.tracking.runs import track_stage
from gotorb.visualise.report_page import write_report
from pipelines import run_stage


def main() -> None:
    """Write reports/promotion.json, and the same into evaluations/ as a receipt of this checkout's registry."""
    params = read_params()
    with track_stage("promote", params) as run:
        decision = promote_best(Path("models"), Path("data/dataset"), params)
        for folder in ("reports", "evaluations"):
            write_json(Path(folder) / "promotion.json", decision)
        run.log_json(decision, "promotion.json")
        run.log_metrics(decision)
        run.log_plots([write_report()])


if __name__ == "__main__":
    run_stage(main)
