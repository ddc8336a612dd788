"""Stage ``evaluate``: evaluate the model named on the command line on the held-out rows."""

import json
import sys
from pathlib import Path

from gotorb import classifier
from gotorb.core import layout
from gotorb.core.files import write_json
from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.dataset.store import open_dataset
from gotorb.evaluation.report import make_headline, round_headline
from gotorb.tracking.contents import md5
from gotorb.tracking.delivery import MD5_TAG
from gotorb.tracking.runs import NETWORK_TAG, flat_metrics, headlines, track_stage
from pipelines import run_stage, write_headline

N_TIMED = 1024
"""Stamps on which a model's speed is measured."""


def main() -> None:
    """Write evaluations/<name>/, reports/<name>.json and the headline numbers."""
    params, name = read_params(), sys.argv[1]
    data_dir, model_dir = Path("data/dataset"), Path("models") / name
    model_path, meta_path = model_dir / layout.MODEL_H5, model_dir / layout.META_HKL
    options = params.evaluate.model_dump(include={"n_samples", "n_bootstrap"})
    about, used = f"Evaluation of {name} on the held-out test rows.", options | {"network": name}
    with track_stage("evaluate", params, name=f"evaluate {name}", used=used, about=about) as run:
        digest = md5(model_path)
        run.set_tags({MD5_TAG: digest, NETWORK_TAG: name})
        run.log_data(data_dir, make_card(data_dir), context="test")
        evaluation = classifier.evaluate(model_path, meta_path, data_dir, out_dir=Path("evaluations") / name, **options)
        write_json(Path("reports") / f"{name}.json", evaluation.metrics)
        headline = make_headline(evaluation.metrics) | {"ece": round_headline(evaluation.metrics["ece"])}
        write_headline(name, {name: headline})
        test = {"test": headlines(evaluation.metrics)}
        run.log_metrics(test)
        run.log_judged(digest, test, child=True)
        run.describe(flat_metrics(test))
        run.log_plots(evaluation.plots)
        run.log_json(evaluation.metrics, layout.METRICS_JSON)
        run.log_metrics({"cost": {"stamps_per_second": record_speed(name, model_dir, data_dir)}})


def record_speed(name: str, model_dir: Path, data_dir: Path) -> float:
    """Measure a model's speed, and keep it for the report; it is of this machine, so no output of the stage."""
    from gotorb.training.inference import measure_speed

    (model, meta), data = classifier.load(model_dir), open_dataset(data_dir)
    speed = measure_speed(model, data.read_stamps(range(min(N_TIMED, len(data.table))), layers=(meta or {})["layers"]))
    path = Path(layout.SPEED_JSON)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, known | {name: round(speed, 1)})
    return speed


if __name__ == "__main__":
    run_stage(main)
