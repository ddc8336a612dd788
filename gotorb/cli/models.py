"""Commands that make and evaluate models."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gotorb
from gotorb.cli.options import add_json, add_options, add_params, call, say_next, show
from gotorb.core import params
from gotorb.core.files import file_digest
from gotorb.core.logs import show_on_console

if TYPE_CHECKING:
    from gotorb.evaluation.report import Evaluation

TRAIN = (params.TrainParams, params.DatasetParams, params.EvaluateParams)
TUNE = (params.TuneParams, params.TrainParams, params.DatasetParams)
GOALS = ("purity", "completeness", "per_night")
CALLABLE = "Keras objects and functions are for Python: see the docstring of `classifier.train`."


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = CALLABLE
    add_options(parser, gotorb.classifier.train, params.FitParams, *TRAIN)
    add_params(parser)


def run_train(args: argparse.Namespace) -> int:
    """Train a network on a data set, and write model.h5 and meta.hkl into a folder of its own.

    An interrupted training resumes when the same command is given again with the same --name.

    Examples:
      gotorb train data/dataset --model bayesian_vgg6 --epochs 20 --schedule cosine
      gotorb train data/dataset --params params.yaml --out-dir models --name bayesian_vgg6
      gotorb train data/dataset --init-from models:/gotorb@champion --freeze conv
    """
    show_on_console()
    _, meta = call(args, gotorb.classifier.train, *TRAIN)
    print(meta["run_dir"])
    say_next(f"gotorb evaluate {meta['run_dir']}")
    return 0


def _adopt_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser, gotorb.classifier.adopt, params.AdoptParams, *TRAIN)
    add_params(parser)


def run_adopt(args: argparse.Namespace) -> int:
    """Start a survey's classifier from another survey and the first 25 to 100 labels of its own.

    Writes model.h5 and meta.hkl of a model `measured`. Rows outside its conformal sets are for an annotator.

    Examples:
      gotorb adopt data/dataset mysurvey/first_labels --name first
      gotorb adopt models/fusion mysurvey/first_labels --keep 0.9
    """
    show_on_console()
    _, meta = call(args, gotorb.classifier.adopt, *TRAIN)
    sets = meta["conformal"]
    print(meta["run_dir"])
    if sets["low"] is None or sets["high"] is None:
        print(f"sets that hold {sets['keep']:g} of a class need {sets['needed']} labels of it; every row is unsure")
    else:
        print(
            f"score below {sets['low']:.3f}: bogus; above {sets['high']:.3f}: real; {sets['keep']:g} of each class kept"
        )
    say_next(f"gotorb score {meta['run_dir']} SOURCE")
    return 0


def _tune_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser, gotorb.hyperparameter_tuning.run_model_tuning, *TUNE, params.FitParams)
    add_params(parser)
    add_json(parser)


def run_tune(args: argparse.Namespace) -> int:
    """Search the hyperparameters of bayesian_vgg6 on a data set's training and validation rows.

    Writes trials.csv, best.json and trials.png. An interrupted search resumes when the same command is given again.

    Examples:
      gotorb tune data/dataset --out-dir tuning --params params.yaml
          what `make repro` does
      gotorb tune data/dataset --out-dir tuning --max-trials null --max-epochs 27
          as many trials as Hyperband wants, the longest of 27 epochs
      gotorb tune data/dataset --method random --max-trials 20 --objective val_auc --n-workers 2 --threads 1
      gotorb tune data/dataset --space '{"dropout": [0.05, 0.5], "activation": ["relu", "elu"]}'
    """
    show_on_console()
    tuning = call(args, gotorb.hyperparameter_tuning.run_model_tuning, *TUNE)
    best, trained = tuning.best, tuning.best["train"]
    settings = {name: trained[name] for name in ("learning_rate", "dropout")} | trained["model_kwargs"]
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    line = f"best: trial {best['trial']}, {best['objective']['name']} {best['objective']['value']:g}: {told}"
    show(args, best, [line])
    say_next(f"train it by classifier.train(DIR, **read_best({str(tuning.out_dir)!r}))")
    return 0


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser, gotorb.classifier.evaluate, params.EvaluateParams, params.ScoreParams)
    add_params(parser)


def run_evaluate(args: argparse.Namespace) -> int:
    """Evaluate a model on the validation and test rows of the data set that it was trained on.

    Writes metrics.json, predictions.csv and plots into the model's folder.

    Example: gotorb evaluate models/bayesian_vgg6 --out-dir evaluations/bayesian_vgg6
    """
    return _tell(call(args, gotorb.classifier.evaluate, params.EvaluateParams))


def _benchmark_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser, gotorb.classifier.benchmark, params.EvaluateParams, params.ScoreParams)
    add_params(parser)


def run_benchmark(args: argparse.Namespace) -> int:
    """Evaluate a model on all labelled rows of any data set.

    Writes the same files as `gotorb evaluate`, into benchmark_<data set>/ of the model's folder.

    Example: gotorb benchmark models/bayesian_vgg6 datapack --n-samples 50
    """
    return _tell(call(args, gotorb.classifier.benchmark, params.EvaluateParams))


def _export_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser, gotorb.classifier.export, required=("out_path",))


def run_export(args: argparse.Namespace) -> int:
    """Write a model as ONNX: plain scores by onnxruntime, without TensorFlow and without a posterior.

    `gotorb score model.onnx SOURCE --out-path scores.csv` uses the file. Its scores are compared with the model's
    before it is kept. Trees on measured features are part of the file. Exporting needs what
    `pip install 'gotorb[onnx]'` brings; scoring needs onnxruntime alone.

    Examples:
      gotorb export models/bayesian_vgg6 --out-path model.onnx
      gotorb export models:/gotorb@champion --out-path champion.onnx
    """

    path = call(args, gotorb.classifier.export)
    print(f"{path}: sha256:{file_digest(path)}")
    say_next(f"gotorb score {path} SOURCE --out-path scores.csv")
    return 0


def _ask_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser, gotorb.active_learning.choose, params.AskParams)
    parser.add_argument("--out-path", type=Path, required=True, metavar="FILE", help="csv to write")


def run_ask(args: argparse.Namespace) -> int:
    """Choose the rows of a data set to label next, and write them as csv.

    Fill in the column label, 1 real or 0 bogus, and delete the lines that cannot be decided. `gotorb relabel` then
    gives the rows these labels, and `gotorb marshall` adds the candidates to another data set. --already names the
    files of earlier rounds, whose rows are not chosen again.

    Examples:
      gotorb ask models/bayesian_vgg6 data/dataset --n 100 --out-path ask.csv
      gotorb ask models:/gotorb@champion data/dataset --n 100 --already ask.csv --out-path ask2.csv
    """
    learning = gotorb.active_learning
    rows = call(args, learning.choose, already=learning.read_asked(getattr(args, "already", ())))
    print(f"{learning.write_ask(rows, args.out_path)}: {len(rows)} rows to label")
    say_next(f"fill in the column label, then gotorb relabel {args.out_path} {args.data_dir}")
    return 0


def _learning_curves_options(parser: argparse.ArgumentParser) -> None:
    curves = gotorb.active_learning.learning_curves
    add_options(parser, curves, params.CurvesParams, params.TrainParams, required=("out_path",))


def run_learning_curves(args: argparse.Namespace) -> int:
    """Learning curves of ways to choose labels against random choice: AUC and error on the test rows.

    A part of the train rows is labelled at first; the labels of others are revealed as they are chosen. After each
    round a network is trained again, always for the same number of optimizer steps. Writes the report (json), a figure
    (png), and each finished round (.runs.json): the same command resumes, more seeds add to it.

    Examples:
      gotorb learning-curves data/dataset --out-path reports/active_learning.json
      gotorb learning-curves data/dataset --out-path short.json --seeds 1 2 --n-start 50 --n-step 50 --n-rounds 3
    """
    show_on_console()
    report = call(args, gotorb.active_learning.learning_curves)
    for method, found in report["summary"]["methods"].items():
        if "gain" in found["auc"]:
            gain, ratio = found["auc"]["gain"], found["auc"]["labels_ratio"]
            print(
                f"{method}: AUC {_number(gain['mean'], '+.4f')} ({_number(gain['low'], '+.4f')} to "
                f"{_number(gain['high'], '+.4f')}) against random; random needs {_number(ratio['value'], '.2f')} times "
                f"the labels ({_number(ratio['low'], '.2f')} to {_number(ratio['high'], '.2f')})"
            )
    print(args.out_path)
    return 0


def _compare_options(parser: argparse.ArgumentParser) -> None:
    from gotorb import classifier

    parser.add_argument("one", help="folder of an evaluation, model folder, or registry address")
    parser.add_argument("other", help="the same")
    add_options(parser, classifier.compare, params.DecideParams)
    add_json(parser)


def run_compare(args: argparse.Namespace) -> int:
    """Compare two models on the same test rows: AUC and recovered fractions with paired bootstrap intervals, wrong
    calls with McNemar's exact test.

    Examples:
      gotorb compare evaluations/bayesian_vgg6 evaluations/vgg6
      gotorb compare models:/gotorb@champion models:/gotorb/3 --data-dir data/dataset --json
    """
    from gotorb import classifier

    found = call(args, classifier.compare)
    show(args, found, _compared(found))
    return 0


def _threshold_options(parser: argparse.ArgumentParser) -> None:
    from gotorb.evaluation.thresholds import Night

    parser.add_argument("evaluation", type=Path, help="folder of an evaluation or a model, or its predictions.csv")
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--purity", type=float, help="least fraction of real ones among what is called real")
    goal.add_argument("--completeness", type=float, help="least fraction of the real ones that is found")
    goal.add_argument("--per-night", type=float, help="most detections of a night that can be looked at")
    goal.add_argument("--keep", type=float, help="fraction of each class that is called right or shown to an annotator")
    add_options(parser, Night, params.DecideParams)
    parser.add_argument("--by-mag", action="store_true", help="error rates in bins of magnitude too")
    add_json(parser)


def run_threshold(args: argparse.Namespace) -> int:
    """Choose a threshold on a model's validation rows for what you need, with its costs on the test rows.

    Reads predictions.csv of an evaluation (`make repro`, or `gotorb evaluate`).

    Examples:
      gotorb threshold evaluations/bayesian_vgg6 --purity 0.95 --real-fraction 0.05 --n-detections 5000
      gotorb threshold evaluations/bayesian_vgg6 --completeness 0.99 --by-mag
      gotorb threshold evaluations/bayesian_vgg6 --per-night 40 --real-fraction 0.01 --n-detections 3000 --json
      gotorb threshold evaluations/fusion --keep 0.99 --real-fraction 0.05
    """

    from gotorb.evaluation.metrics import rounded
    from gotorb.evaluation.report import read_predictions
    from gotorb.evaluation.thresholds import Night, advise, keep_classes

    if args.keep is not None:
        known = rounded(keep_classes(read_predictions(args.evaluation), args.keep, call(args, Night)))
        show(args, known, [_kept(known)])
        return 0
    goal = next(name for name in GOALS if getattr(args, name) is not None)
    advice = advise(read_predictions(args.evaluation), goal, getattr(args, goal), call(args, Night))
    known = rounded(asdict(advice))
    if not args.by_mag:
        del known["by_mag"]
    show(args, known, _advised(known))
    return 0


def _report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", help="folder of the pipeline (default: this one)")
    parser.add_argument("--out-path", metavar="FILE", help="page to write (default: report.html in that folder)")


def run_report(args: argparse.Namespace) -> int:
    """Write the report of a finished pipeline as one page: verdict, models with intervals, figures, worst detections.

    The page fetches nothing and needs no server. `make repro` writes it, too.

    Examples:
      gotorb report
      gotorb report sources/night1 --out-path night1.html
    """
    from gotorb.visualise.report_page import write_report

    print(write_report(args.folder, args.out_path))
    return 0


def _figure_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="fnr-fpr, roc, posteriors, latent, recovery, injections, reliability, "
                        "examples or misclassified")  # fmt: skip
    parser.add_argument("--rev", help="tag, branch or commit (default: the files of this checkout)")
    parser.add_argument("--network", help="folder in models/ (default: the one that was promoted)")
    parser.add_argument("--out-dir", type=Path, default=Path("figures"), metavar="DIR",
                        help="folder to write into (default: %(default)s)")  # fmt: skip
    parser.add_argument("--format", dest="kind", choices=("png", "pdf", "svg"), default="png",
                        help="of the picture; png has 200 dpi (default: %(default)s)")  # fmt: skip
    parser.add_argument("--style", choices=("page", "column"), default="page",
                        help="width and text size of a journal's page or column (default: %(default)s)")  # fmt: skip


def run_figure(args: argparse.Namespace) -> int:
    """Draw a figure of a model's test rows: of this checkout, or of a tagged version of data and model.

    Writes NAME.png, the numbers it shows (NAME.csv), and the origin of both (NAME.json). With --rev the version is
    checked out in a place of its own: your files stay as they are. The same version gives the same numbers.

    Examples:
      gotorb figure fnr-fpr --rev dataset-v1
      gotorb figure latent --rev dataset-v1 --network vgg6 --out-dir paper/
      gotorb figure roc --format pdf --style column
      gotorb figure injections --network fusion
    """
    from gotorb.tracking.versions import draw_here, draw_version

    places = {"network": args.network, "out_dir": args.out_dir, "kind": args.kind, "style": args.style}
    written = draw_version(args.name, args.rev, **places) if args.rev else draw_here(args.name, **places)
    print("\n".join(str(path) for path in written))
    return 0


def _tell(evaluation: "Evaluation") -> int:
    """Print the headline numbers, the folder, and the next step."""
    found, rates = evaluation.metrics, evaluation.metrics["at_threshold"]
    told = {"AUC": found["auc"], "threshold": found["threshold"], "FPR": rates["fpr"], "FNR": rates["fnr"]}
    told["FPR without real sources among the labels"] = found["corrected"]["fpr"]
    night = found["night"]
    told[f"purity where {100 * night['real_fraction']:g} % are real"] = night.get("purity")
    print(", ".join(f"{name} {value:.4f}" for name, value in told.items() if value is not None))
    print(evaluation.out_dir)
    say_next(f"gotorb threshold {evaluation.out_dir} --keep 0.99")
    return 0


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _compared(found: dict[str, Any]) -> list[str]:
    """A comparison in lines."""
    auc = found["auc"]
    lines = [
        f"{found['n_rows']} test rows, {found['n_real']} real; A is {found['one']}, B is {found['other']}",
        "",
        f"{'':24}{'A':>9}{'B':>9}{'A - B':>9}  95 % interval",
        _line("AUC", auc["auc_a"], auc["auc_b"], auc["difference"], (auc["difference_low"], auc["difference_high"])),
    ]
    for row in found["found"]:
        title = f"found at {100 * row['fpr']:g} % FPR"
        interval = (row["difference_low"], row["difference_high"])
        lines.append(_line(title, row["tpr_a"], row["tpr_b"], row["difference"], interval))
    lines += ["", f"{'wrong calls':24}{'rows':>7}{'A':>6}{'B':>6}{'A alone':>9}{'B alone':>9}{'p':>9}"]
    for row in found["calls"]:
        counts = f"{row['n']:>7}{row['wrong']:>6}{row['wrong_other']:>6}{row['only_one']:>9}{row['only_other']:>9}"
        lines.append(f"{row['group']:24}{counts}{row['p_value']:>9.4f}")
    return lines


def _line(title: str, a: float, b: float, difference: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{title:24}{a:9.4f}{b:9.4f}{difference:+9.4f}  {low:+.4f} to {high:+.4f}"


def _kept(known: dict) -> str:
    low, high = sorted((known["low"], known["high"]))
    return (
        f"an annotator decides from score {low:.6f} to {high:.6f}; real above, bogus below\n"
        f"on the test rows: {100 * known['real_kept']:.1f} % of the real and {100 * known['bogus_kept']:.1f} % of the "
        f"bogus kept, {100 * known['person']:.1f} % of a night's rows go to an annotator "
        f"({100 * known['person_real']:.1f} % of the real, {100 * known['person_bogus']:.1f} % of the bogus)"
    )


def _advised(known: dict) -> list[str]:
    night, test = known["night"], known["test"]
    expected = test["night"]
    lines = [
        f"threshold {known['threshold']:.6f}: {known['goal'].replace('_', ' ')} {known['wanted']:g} on the "
        f"{known['validation']['n_real']} real and {known['validation']['n_bogus']} bogus validation rows",
        f"on the test rows: FPR {_rate(test, 'fpr')}, at most {100 * test['fpr_limit']:.2f} %; "
        f"FNR {_rate(test, 'fnr')}",
        f"a night of {night['n_detections']} detections, {100 * night['real_fraction']:g} % real: "
        f"{expected['called_real']:.1f} called real, of which {expected['bogus_accepted']:.1f} bogus; "
        f"{expected['real_missed']:.1f} real missed",
    ]
    if expected["purity"] is not None:
        lines[-1] += f"; purity {100 * expected['purity']:.1f} %, at least {100 * expected['purity_limit']:.1f} %"
    for name, errors in known.get("by_mag", {}).items():
        lines.append(f"mag {name}: FPR {_rate(errors, 'fpr')}, FNR {_rate(errors, 'fnr')}")
    return lines


def _rate(errors: dict, name: str) -> str:
    if errors[name] is None:
        return "undefined (no rows)"
    of = errors["n_bogus" if name == "fpr" else "n_real"]
    low, high = 100 * errors[f"{name}_low"], 100 * errors[f"{name}_high"]
    return f"{100 * errors[name]:.1f} % ({low:.1f} to {high:.1f}, of {of})"
