"""Stage ``external_classifiers``: our classifier compared with other classifiers' scores of the same rows."""

import sys
from pathlib import Path

from gotorb.classifier.scores import score_peers
from gotorb.core import layout
from gotorb.core.files import write_json, write_text
from gotorb.core.params import Params, read_params
from gotorb.dataset.store import read_csv, read_table
from gotorb.evaluation import external_classifiers as external
from gotorb.tracking.runs import track_stage
from pipelines import run_stage

SOFT = (
    " Soft labels and undecided rows take the probability from these scores, so what they know, human labels behind a "
    "network included, is inside our numbers."
)


def main() -> None:
    """Write reports/external_classifiers.json and reports/external_classifiers.md."""
    params, reports, data_dir = read_params(), Path("reports"), Path("data/dataset")
    about = "The promoted classifier compared with other classifiers' scores of the same rows."
    with track_stage("external_classifiers", params, used={}, about=about, experiment="-evaluation") as run:
        network, held_out = external.read_promoted(Path("evaluations"), reports / "promotion.json")
        rows = read_table(data_dir).set_index("id").join(score_peers(params.peers.models, data_dir))
        trainings = read_csv(Path(layout.OUT_OF_FOLD_CSV))
        annotations = Path(params.peers.annotations or Path(sys.argv[1], layout.ANNOTATIONS_CSV))
        annotated = external.read_annotations(annotations, rows) if annotations.exists() else None
        tables, spread = external.compare_all(rows, held_out, trainings, network=network, annotated=annotated)
        write_json(reports / "external_classifiers.json", tables | ({"spread": spread} if spread else {}))
        title, learned = f"{params.promote.name} and other classifiers", describe_labellers(params)
        text = external.format_tables(tables, title=title, spread=spread, labellers=learned)
        write_text(reports / "external_classifiers.md", text)
        run.log_metrics({"external_classifiers": tables})


def describe_labellers(params: Params) -> str:
    """Sentences on what the labels of the training were made from."""
    archive, soft = params.label.archive, params.dataset.soft_scores
    source = f"the archive's column {archive.proxy_column}" if archive.labels == "proxy" else "catalogues"
    copied = archive.old_score_column if archive.labels == "rules" else None
    named = [source, *([copied] if copied else []), *(name.removeprefix(external.PREFIX) for name in soft or ())]
    told = f"The labels learned from: {', '.join(dict.fromkeys(named))}."
    return told + (SOFT if soft else "")


if __name__ == "__main__":
    run_stage(main)
