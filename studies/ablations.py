"""Run the variants of ablations.yaml as DVC experiments of their study, and put them into one table.

Each experiment works in the study's folder, on a smaller survey that is made once. Results that DVC has seen before
come from its cache. The folder's committed state is restored at the end, without the large survey: it is in no cache.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from gotorb.core import layout
from gotorb.core.files import write_json, write_text
from gotorb.core.params import read_params
from gotorb.errors import ConfigError, GotorbError
from pipelines.repro import stage_environment
from studies.ablation_table import Training, compare_variants, format_variants

PLAN = Path(__file__).with_name("ablations.yaml")


def main() -> int:
    """Write ablations.json and ablations.md into the study's folder."""
    plan = yaml.safe_load(PLAN.read_text())
    folder = Path(plan["folder"])
    try:
        _check_clean(folder)
        variants: dict[str, list[Training]] = {}
        try:
            for name, changes in plan["variants"].items():
                found = []
                for seed in plan["seeds"]:
                    run_experiment(folder, name, plan["base"] | changes | {"train.seed": seed}, plan["targets"])
                    found.append(read_training(folder))
                variants[name] = found
        finally:
            _restore(folder)
            if plan["baseline"] in variants:  # an interrupted run leaves the table of what is done
                report = compare_variants(variants, plan["baseline"])
                write_json(folder / "ablations.json", report)
                write_text(folder / "ablations.md", format_variants(report))
    except GotorbError as error:
        print(f"make ablations: {error}", file=sys.stderr)
        return 1
    return 0


def run_experiment(folder: Path, name: str, changes: dict[str, Any], targets: list[str]) -> None:
    """Run one experiment with changed parameters up to some stages, in the folder itself.

    Raises
    ------
    ConfigError
        If it fails.
    """
    label = "-".join("".join(c if c.isalnum() else " " for c in f"{name} seed {changes['train.seed']}").split())
    # ++: params.yaml need not name them; each stage refuses what it does not know
    options = [word for key, value in changes.items() for word in ("-S", f"++{key}={value}")]
    dvc = [sys.executable, "-m", "dvc", "exp"]
    # not `exp run --force`, which would do every stage again, not only take the name
    subprocess.run([*dvc, "remove", "--quiet", label], cwd=folder, check=False, capture_output=True)
    # an experiment leaves its parameters behind: the next one would have them too
    subprocess.run(["git", "checkout", "--quiet", "--", layout.PARAMS_YAML], cwd=folder, check=True)
    if subprocess.run(
        [*dvc, "run", "--name", label, *options, *targets], cwd=folder, env=stage_environment(), check=False
    ).returncode:
        raise ConfigError(f"experiment {label!r} failed; its output is above")


def read_training(folder: Path) -> Training:
    """Read the results of an experiment from the study's folder: those of the last model that it evaluated."""
    network = read_params(folder / layout.PARAMS_YAML).judged_models[-1]
    scores = {name: pd.read_csv(folder / f"evaluations/other_fields/{name}.csv") for name in ("detections", "injected")}
    own = json.loads((folder / f"reports/{network}.json").read_text())
    card = json.loads((folder / "data/dataset/card.json").read_text())
    return Training(
        scores["detections"].rename(columns={network: "score"})[["is_real", "snr", "score"]],
        scores["injected"].rename(columns={f"{network}_found": "found"})[["mag", "snr", "host_offset_arcsec", "found"]],
        card["by_split"]["train"]["rows"],
        own["auc"],
    )


def _check_clean(folder: Path) -> None:
    """Refuse a folder with changes that the experiments would mix with or lose."""
    call = ["git", "status", "--porcelain", "--untracked-files=no", "--", str(folder)]
    changed = subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
    if changed or not (folder / "dvc.lock").exists():
        raise ConfigError(f"{folder} has uncommitted changes or no results; run `make study` and commit them first")


def _restore(folder: Path) -> None:
    subprocess.run(["git", "checkout", "--quiet", "--", str(folder)], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "--quiet"], cwd=folder, check=False)


if __name__ == "__main__":
    sys.exit(main())
