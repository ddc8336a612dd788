"""Stage ``peers``: our classifier beside other classifiers' scores of the same rows."""

from pathlib import Path

from gotorb.core.files import write_json, write_text
from gotorb.evaluation.peers import format_peers
from gotorb.params import read_params
from gotorb.peers import judge_peers
from gotorb.tracking.runs import track_stage
from pipelines import run_stage


def main() -> None:
    """Write reports/peers.json and reports/peers.md."""
    params, reports = read_params(), Path("reports")
    with track_stage("peers", params, experiment="-evaluation") as run:
        tables = judge_peers(Path("evaluations"), Path("data/dataset"), reports / "promotion.json", params)
        write_json(reports / "peers.json", tables)
        write_text(reports / "peers.md", format_peers(tables, title=f"{params.promote.name} and its peers"))
        run.log_metrics({"peers": tables})


if __name__ == "__main__":
    run_stage(main)
