"""Stage ``promote``: register the best model; it becomes champion if it is not worse than the present one."""

from pathlib import Path

from gotorb.core import layout
from gotorb.core.files import write_json
from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.tracking.delivery import MD5_TAG
from gotorb.tracking.promotion import promote_best
from gotorb.tracking.registry import CHAMPION, find_alias, previous_holder
from gotorb.tracking.runs import NETWORK_TAG, track_stage
from gotorb.visualise.report_page import write_report
from pipelines import run_stage


def main() -> None:
    """Write reports/promotion.json, and the same with the versions of this checkout's registry into evaluations/."""
    params, data_dir = read_params(), Path("data/dataset")
    used = params.promote.model_dump() | {"models": params.judged_models, "n_bootstrap": params.evaluate.n_bootstrap}
    about = "The model chosen by the validation rows is registered; it becomes champion if it is not worse on the test."
    with track_stage("promote", params, used=used, about=about) as run:
        decision = promote_best(Path("models"), data_dir, params)
        write_json(layout.PROMOTION_JSON, decision)
        write_json(layout.RECEIPT_JSON, decision | describe_holder(params.promote.name))
        run.log_json(decision, "promotion.json")
        run.log_file(write_report())
        run.set_tags({NETWORK_TAG: decision["model"], MD5_TAG: decision["md5"]})
        run.log_data(data_dir, make_card(data_dir), context="test")
        run.log_metrics({"test": {"auc": decision.get("test_auc")}})
        run.describe(decision)


def describe_holder(name: str) -> dict[str, str]:
    """Versions of the champion and of the one that it replaced, where there are any."""
    now, before = find_alias(name, CHAMPION), previous_holder(name, CHAMPION)
    known = {"version": now, "replaced": before if before is None or now is None or before.md5 != now.md5 else None}
    return {key: holder.version for key, holder in known.items() if holder is not None}


if __name__ == "__main__":
    run_stage(main)
