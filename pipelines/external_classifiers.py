"""Stage ``external_classifiers``: our classifier compared with other classifiers' scores of the same rows."""

from pathlib import Path

from gotorb import classifier
from gotorb.classifier.scores import score_peers
from gotorb.core.files import write_json, write_text
from gotorb.core.params import read_params
from gotorb.dataset.store import read_table
from gotorb.evaluation.external_classifiers import compare_with_external, format_tables, read_promoted
from gotorb.tracking.runs import track_stage
from pipelines import run_stage


def main() -> None:
    """Write reports/external_classifiers.json and reports/external_classifiers.md."""
    params, reports, data_dir = read_params(), Path("reports"), Path("data/dataset")
    about = "The promoted classifier compared with other classifiers' scores of the same rows."
    with track_stage("external_classifiers", params, used={}, about=about, experiment="-evaluation") as run:
        network, held_out = read_promoted(Path("evaluations"), reports / "promotion.json")
        out_of_fold = classifier.score_out_of_fold(data_dir, network, params)
        scores = {"held_out": held_out, "out_of_fold": out_of_fold}
        rows = read_table(data_dir).set_index("id").join(score_peers(params.peers.models, data_dir))
        tables = {name: compare_with_external(rows, ours) for name, ours in scores.items() if len(ours)}
        write_json(reports / "external_classifiers.json", tables)
        title = f"{params.promote.name} and other classifiers"
        write_text(reports / "external_classifiers.md", format_tables(tables, title=title))
        run.log_metrics({"external_classifiers": tables})


if __name__ == "__main__":
    run_stage(main)
