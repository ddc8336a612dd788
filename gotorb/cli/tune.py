"""Search the hyperparameters of bayesian_vgg6 on a data set's training and validation rows.

Writes trials.csv, best.json and trials.png. A search that was stopped or killed goes on when the same command is
given again. Defaults are those of params.yaml.

Examples:
  gotorb tune data/dataset --out tuning
      what `make repro` does
  gotorb tune data/dataset --out tuning --trials 0 --epochs 27
      as many trials as Hyperband wants, the longest of 27 epochs
  gotorb tune data/dataset --out tuning --method random --trials 20 --objective val_auc --workers 2 --threads 1
  gotorb tune data/dataset --out tuning --space '{"dropout": [0.05, 0.5], "activation": ["relu", "elu"]}'
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data_dir", type=Path, metavar="DIR", help="data set")
    parser.add_argument("--out", type=Path, help="folder of the results (default: DIR/tuning)")
    parser.add_argument("--method", help="hyperband, random or bayesian")
    parser.add_argument("--objective", help="val_binary_crossentropy, val_loss, val_auc, val_average_precision, ...")
    parser.add_argument("--trials", type=int, help="trials at most; 0: as many as Hyperband wants")
    parser.add_argument("--epochs", type=int, help="of the longest trial")
    parser.add_argument("--workers", type=int, help="trials at a time")
    parser.add_argument("--threads", type=int, help="CPU threads of a trial")
    parser.add_argument("--space", help="narrower limits, as json")
    parser.add_argument("--seed", type=int, help="of everything random")
    parser.add_argument("--params", help="params.yaml to read")
    parser.add_argument("--json", action="store_true", help="print what best.json holds")


def run(args: argparse.Namespace) -> int:
    """Tune and say what is best."""
    from gotorb.hyperparameter_tuning import run_model_tuning
    from gotorb.logs import show_on_console
    from gotorb.params import find_params

    show_on_console()
    params = find_params(args.params)
    options = params.tune.model_dump() | {"seed": params.seed}
    options |= params.train.model_dump(include={"layers", "batch_size", "patience", "normalise", "threads"})
    best = run_model_tuning(args.data_dir, out_dir=args.out, **(options | _asked(args))).best
    trained = best["train"]
    settings = {name: trained[name] for name in ("learning_rate", "dropout")} | trained["model_kwargs"]
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    line = f"best: trial {best['trial']}, {best['objective']['name']} {best['objective']['value']:g}: {told}"
    print(json.dumps(best, indent=2) if args.json else line, file=sys.stdout)
    return 0


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """Options given on the command line."""
    from gotorb.errors import ConfigError

    names = {
        "method": "method", "objective": "objective", "trials": "max_trials", "epochs": "max_epochs",
        "workers": "n_workers", "threads": "threads", "seed": "seed",
    }  # fmt: skip
    asked = {name: getattr(args, key) for key, name in names.items() if getattr(args, key) is not None}
    if asked.get("max_trials") == 0:
        asked["max_trials"] = None
    if args.space is not None:
        try:
            asked["space"] = dict(json.loads(args.space))
        except (ValueError, TypeError):
            raise ConfigError(f"--space is {args.space!r}; give json such as '{{\"dropout\": [0.05, 0.5]}}'") from None
    return asked
