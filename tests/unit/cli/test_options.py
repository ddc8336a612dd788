"""One home of defaults: signatures, options and params.yaml spell a parameter alike and give it the same default."""

import argparse
import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import gotorb
from gotorb import classifier, cli
from gotorb.classifier.jobs import Options, score_sources, watch_folder
from gotorb.cli import options
from gotorb.core import layout, params
from gotorb.core.params import Params, PlaceParams, Section, read_params
from gotorb.evaluation.promotion_checks import Limits
from gotorb.evaluation.thresholds import Night
from gotorb.visualise.night import NightOptions
from gotorb.visualise.why import explain

ROOT = Path(__file__).parents[3]
TRAIN = (params.FitParams, params.TrainParams, params.DatasetParams, params.EvaluateParams)
DOORS: dict[Callable[..., Any], tuple[type[Section], ...]] = {
    gotorb.label_data.make: (params.LabelParams,),
    gotorb.label_data.add_synthetic_transients: (params.SyntheticParams, params.CleanParams, params.LabelParams),
    gotorb.label_data.add_marshall_cands: (params.LabelParams,),
    gotorb.label_data.cut_image: (params.LabelParams,),
    gotorb.clean_data.clean: (params.CleanParams,),
    gotorb.clean_data.remove_asteroids: (params.CleanParams,),
    gotorb.clean_data.cap_flagged_images: (params.CleanParams,),
    gotorb.clean_data.relabel: (),
    gotorb.import_data.import_stamps: (),
    gotorb.import_data.import_alerts: (),
    gotorb.import_data.import_datapack: (),
    gotorb.classifier.train: TRAIN,
    gotorb.classifier.evaluate: (params.EvaluateParams, params.ScoreParams),
    gotorb.classifier.benchmark: (params.EvaluateParams, params.ScoreParams),
    gotorb.classifier.predict: (params.ScoreParams,),
    gotorb.classifier.score_rows: (params.EvaluateParams,),
    gotorb.classifier.dropout_pred: (params.ScoreParams,),
    gotorb.classifier.latentvec_pred: (params.ScoreParams,),
    gotorb.hyperparameter_tuning.run_model_tuning: (params.TuneParams, *TRAIN),
    gotorb.active_learning.choose: (params.AskParams,),
    gotorb.active_learning.learning_curves: (params.CurvesParams, params.TrainParams),
    gotorb.eyeball.serve: (params.EyeballParams,),
    gotorb.eyeball.open_rows: (params.EyeballParams,),
    gotorb.eyeball.export: (params.EyeballParams,),
    gotorb.eyeball.explore: (params.EyeballParams,),
    gotorb.eyeball.get_candidate_data: (params.LabelParams,),
    gotorb.visualise.Look: (params.ScoreParams,),
    NightOptions: (params.ScoreParams,),
    Options: (params.ScoreParams,),
    score_sources: (params.ScoreParams,),
    watch_folder: (params.ScoreParams,),
    explain: (params.WhyParams,),
    classifier.compare: (params.DecideParams,),
    Night: (params.DecideParams,),
    Limits: (params.DecideParams,),
}
"""Front doors, with the sections that hold their defaults."""
MEANT = {
    ("make", "out_dir"): "a labelled set is made where one is, others next to the set that they change",
    ("import_stamps", "out_dir"): "as for make",
    ("import_alerts", "out_dir"): "as for make",
    ("import_datapack", "out_dir"): "as for make",
    ("get_candidate_data", "out_dir"): "as for make",
    ("remove_asteroids", "provider"): "the function is the check; a section's null means no check",
    ("dropout_pred", "seed"): "fresh randomness unless a seed is given",
    ("run_model_tuning", "space"): "None, for a mapping would be shared by all calls",
}
"""Function and parameter -> why its default is not the section's."""
OTHER_NAMES = {
    (gotorb.clean_data.remove_variable_stars, "radius_arcsec"): params.CleanParams().variable_radius_arcsec,
    (gotorb.clean_data.remove_variable_stars, "action"): params.CleanParams().variable_action,
    (gotorb.clean_data.remove_galaxies, "radius_arcsec"): params.GALAXY_RADIUS_ARCSEC,
    (gotorb.clean_data.remove_galaxies, "max_mag"): params.CleanParams().max_galaxy_mag,
    (gotorb.models.bayesian_vgg6, "dropout"): params.TrainParams().dropout,
    (gotorb.classifier.dropout_pred, "nsamples"): params.EvaluateParams().n_samples,
}
"""Parameters whose name is shorter than, or older than, the section's."""
SECTIONS = [value for value in vars(params).values() if isinstance(value, type) and issubclass(value, Section)]
UNITS = {"_arcsec": "[arcsec]", "_deg": "[deg]", "_mag": "[mag]", "_s": "[s]", "size": "[pixel]"}
NO_UNIT = ("batch_size",)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_signatures_take_their_defaults_from_the_sections(door: Callable[..., Any]) -> None:
    fields = options.known_fields(*DOORS[door])
    wrong = {
        name: parameter.default
        for name, parameter in inspect.signature(door).parameters.items()
        if name in fields and parameter.default is not parameter.empty and (door.__name__, name) not in MEANT
        if parameter.default != fields[name].get_default(call_default_factory=True)
    }
    assert wrong == {}


def test_differences_that_are_meant_are_differences() -> None:
    by_name = {door.__name__: door for door in DOORS}
    for name, parameter in MEANT:
        fields = options.known_fields(*DOORS[by_name[name]])
        default = inspect.signature(by_name[name]).parameters[parameter].default
        assert default != fields[parameter].get_default(call_default_factory=True), (name, parameter)


def test_parameters_of_other_names_have_the_same_default() -> None:
    for (door, name), default in OTHER_NAMES.items():
        assert inspect.signature(door).parameters[name].default == default


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_parameter_is_described_with_its_unit(section: type[Section]) -> None:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            continue
        assert field.description, f"{section.__name__}.{name} has no description"
        for ending, unit in UNITS.items():
            if name.endswith(ending) and name not in NO_UNIT:
                assert unit in field.description, f"{section.__name__}.{name} has no unit"


def test_params_yaml_names_the_default_wherever_it_differs() -> None:
    """The comment of such a line says ``default VALUE`` and the reason; no other line does."""
    lines = commented((ROOT / layout.PARAMS_YAML).read_text())
    differing = dict(differences(read_params(ROOT / layout.PARAMS_YAML), Params(seed=0)))
    told = {}
    for name, comment in lines.items():
        if found := re.search(r"\bdefault (\[.*?\]|\{.*?\}|[^\s:,;]+)[:,;] \w", comment):
            told[name] = plain(yaml.safe_load(found.group(1)))
    assert told == differing


def commented(text: str) -> dict[str, str]:
    """Dotted names of a file's second level -> their comments, at the end of the line or on the line before."""
    found, section, before = {}, "", ""
    for line in text.splitlines():
        key, _, comment = line.partition("#")
        if match := re.match(r"( *)(\w+):", key):
            section = match.group(2) if not match.group(1) else section
            if len(match.group(1)) == 2:
                found[f"{section}.{match.group(2)}"] = f"{comment} {before}"
        before = "" if key.strip() else comment
    return found


def differences(one: Section, other: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and defaults of what differs, without the seed and the sample of an archive's columns."""
    for name in type(one).model_fields:
        value, default = getattr(one, name), getattr(other, name)
        if isinstance(value, Section):
            yield from () if name == "archive" else differences(value, default, f"{prefix}{name}.")
        elif value != default and name != "seed":
            yield f"{prefix}{name}", plain(default)


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The filled parser of one command."""
    made: list[argparse.ArgumentParser] = []
    fill = cli._fill
    monkeypatch.setattr(cli, "_fill", lambda parser, group, name: (fill(parser, group, name), made.append(parser)))
    with pytest.raises(SystemExit):
        cli._parse([command, "--help"])
    return made[0]


COMMANDS: dict[str, tuple[Callable[..., Any], ...]] = {
    "label": (gotorb.label_data.make,), "synthetic": (gotorb.label_data.add_synthetic_transients,),
    "marshall": (gotorb.label_data.add_marshall_cands,), "clean": (gotorb.clean_data.clean,),
    "relabel": (gotorb.clean_data.relabel,), "train": (gotorb.classifier.train,),
    "tune": (gotorb.hyperparameter_tuning.run_model_tuning,), "evaluate": (gotorb.classifier.evaluate,),
    "benchmark": (gotorb.classifier.benchmark,), "export": (gotorb.classifier.export,),
    "ask": (gotorb.active_learning.choose,), "learning-curves": (gotorb.active_learning.learning_curves,),
    "score": (Options, score_sources), "night": (NightOptions,), "visualise": (gotorb.visualise.Look,),
    "why": (explain,), "eyeball": (gotorb.eyeball.serve, gotorb.eyeball.export), "compare": (classifier.compare,),
    "explore": (gotorb.eyeball.explore,), "threshold": (Night,), "promote": (Limits,),
    "dataset": (params.DatasetParams,), "alerts": (params.AlertsParams,), "simulate": (params.SurveyParams,),
}  # fmt: skip
"""Command -> the front doors that it calls."""
NOT_ASKED = {
    "archive": "a section: --params names it", "callbacks": "Keras objects", "fit_kwargs": "of Keras, from Python only",
    "strategy": "a TensorFlow object", "on_epoch": "a function", "on_trial": "a function", "on_ready": "a function",
    "options": "built of the other options", "links": "a mapping of params.yaml",
}  # fmt: skip
"""Parameters that no option gives, with the reason."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_is_an_option_with_the_same_default(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    actions = {
        name: action
        for action in parser_of(command, monkeypatch)._actions
        for name in (*action.option_strings, action.dest)
    }
    for door in COMMANDS[command]:
        for name, parameter in inspect.signature(door).parameters.items():
            spelled = f"--{name.replace('_', '-')}"
            if parameter.default is parameter.empty:
                assert {name, "words"} & actions.keys() or name in NOT_ASKED, name
            elif name not in NOT_ASKED:
                assert actions[spelled].dest == name
            if spelled in actions and isinstance(parameter.default, int | float | str) and parameter.default != "":
                assert str(actions[spelled].help).endswith(f"(default: {options._shown(parameter.default)})"), name


@pytest.mark.parametrize(
    ("section", "name", "words"),
    [
        (params.LabelParams, "n_images", "a whole number, at least 1"),
        (params.LabelParams, "provider", "one of pympc, skybot"),
        (params.LabelParams, "match_radius_arcsec", "a number, above 0, at most 60"),
        (params.LabelParams, "min_realbogus", "a fraction from 0 to 1"),
        (params.DatasetParams, "test_fraction", "a fraction between 0 and 1"),
        (params.DatasetParams, "label_noise", "a number, at least 0, at most 0.5"),
        (params.TrainParams, "dropout", "a fraction, at least 0, below 1"),
        (params.TrainParams, "models", "several of vgg6, bayesian_vgg6, measured, fusion"),
        (params.TrainParams, "freeze", "a whole number or text or a list"),
        (params.TuneParams, "max_trials", "a whole number, at least 1"),
        (params.CleanParams, "new_sources", "true or false"),
        (params.PromoteParams, "metric", "auc"),
        (params.TuneParams, "space", "a mapping"),
        (PlaceParams, "out_dir", "a path"),
    ],
)
def test_allowed_values_are_told_in_words(section: type[Section], name: str, words: str) -> None:
    assert options.allowed(section.model_fields[name]) == words


@pytest.mark.parametrize(
    ("word", "section", "name", "value"),
    [
        ("null", params.TuneParams, "max_trials", None),
        ("27", params.TuneParams, "max_trials", 27),
        ("1e-3", params.TrainParams, "learning_rate", 1e-3),
        ("4", params.TrainParams, "freeze", 4),
        ("conv", params.TrainParams, "freeze", "conv"),
        ("[conv, dense]", params.TrainParams, "freeze", ["conv", "dense"]),
        ("{block1: 8}", params.TuneParams, "space", {"block1": 8}),
        ("2020-11-05", PlaceParams, "name", "2020-11-05"),
        ("1.0", PlaceParams, "name", "1.0"),
        ("none", params.TrainParams, "normalise", "none"),
    ],
)
def test_words_become_values(word: str, section: type[Section], name: str, value: Any) -> None:
    read = options._reader(section.model_fields[name], "words")
    assert read(word) == value and type(read(word)) is type(value)


@pytest.mark.parametrize(
    "words",
    [("--n-images", "0"), ("--provider", "horizons"), ("--match-radius-arcsec", "61"), ("--stamp-size", "55.5")],
)
def test_impossible_option_is_wrong_usage(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["label", *words])
    assert end.value.code == 2
    assert f"argument {words[0]}: '{words[1]}' is not allowed; give " in capsys.readouterr().err


def test_params_file_gives_what_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / layout.PARAMS_YAML
    path.write_text("seed: 4\ntrain: {epochs: 3, threads: 2}\ntune: {max_trials: null}\n")
    args = argparse.Namespace(params=str(path), batch_size=7, data_dir=Path("d"), command="train")
    found = options.chosen(args, gotorb.classifier.train, params.TrainParams)
    assert (found["epochs"], found["threads"], found["batch_size"], found["seed"]) == (3, 2, 7, 4)
    assert "models" not in found and "command" not in found
    tuned = options.chosen(args, gotorb.hyperparameter_tuning.run_model_tuning, params.TuneParams, params.TrainParams)
    assert tuned["max_trials"] is None and tuned["batch_size"] == 7
    assert options.chosen(args, gotorb.classifier.train) == {"data_dir": Path("d"), "batch_size": 7}


FREE = {
    "scores": {"threshold"}, "models": {"threshold"},  # of a model that names none
    "subtraction": {"threshold", "order"}, "visit": {"order"},  # of a detection, of a polynomial
    "executor": {"n_processes", "chunk"},  # of any work, not of labelling
    "figures": {"size"}, "psf": {"factor"}, "recipe": {"verbose"},
    "transients": {"n_exposures"},
    "store": {"batch"}, "alerts": {"batch"}, "posterior": {"threshold"},  # of stamps read, of scores without a model
    "journal": {"n"}, "skybot": {"pause_s"},  # of stamps read, of letters listed, between questions
}  # fmt: skip
"""Module -> parameters whose name a section has too, for another thing."""


def literals(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each parameter or field that a section has too, and whose default is a literal number."""
    names = {name for section in SECTIONS for name in section.model_fields}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.FunctionDef):
            every = [*node.args.posonlyargs, *node.args.args]
            pairs = [(arg.arg, default) for arg, default in zip(every[::-1], node.args.defaults[::-1], strict=False)]
            pairs += [
                (arg.arg, default) for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            ]
        elif isinstance(node, ast.ClassDef):
            pairs = [
                (line.target.id, line.value)
                for line in node.body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
            ]
        for name, default in pairs:
            if name in names - {"seed"} and isinstance(default, ast.Constant) and type(default.value) in (int, float):
                yield path.stem, name


def test_no_other_module_has_a_default_of_its_own() -> None:
    paths = [path for path in (ROOT / "gotorb").rglob("*.py") if path.stem != "params"]
    found = {name for path in paths for name in literals(path)}
    assert {(module, name) for module, name in found if name not in FREE.get(module, set())} == set()
