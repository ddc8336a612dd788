"""params.yaml: every border is refused with the parameter's name, before any stage starts."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gotorb.core import layout
from gotorb.core.params import Params, find_params, flatten, read_params
from gotorb.errors import ConfigError

ROOT = Path(__file__).parents[2]


def write(folder: Path, tree: Any) -> Path:
    path = folder / layout.PARAMS_YAML
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


def nested(name: str, value: Any) -> dict[str, Any]:
    """``a.b`` and a value to {"a": {"b": value}}, with a seed."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return {"seed": 1} | value


def refusal(folder: Path, tree: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_params(write(folder, tree))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_projects_own_file_is_valid_and_names_every_stage() -> None:
    tree = yaml.safe_load((ROOT / layout.PARAMS_YAML).read_text())
    assert read_params(ROOT / layout.PARAMS_YAML).flat().keys() >= {"seed", "train.epochs", "label.archive.columns.ra"}
    assert set(tree) == set(Params.model_fields)


def test_only_the_seed_is_required(tmp_path: Path) -> None:
    assert read_params(write(tmp_path, {"seed": 5})) == Params(seed=5)
    assert "parameter 'seed'" in refusal(tmp_path, {"train": {"epochs": 1}})


@pytest.mark.parametrize("name", ["epochs", "train.epoch", "label.archive.colums", "train.epochs.more"])
def test_unknown_or_misplaced_name_is_told(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, nested(name, 3))
    assert name.removesuffix(".more") in message
    assert "gotorb params" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("seed", "1"),
        ("seed", True),
        ("train.epochs", "three"),
        ("train.epochs", 0),
        ("train.epochs", None),
        ("train.dropout", 1.0),
        ("train.dropout", -0.1),
        ("train.learning_rate", 0.0),
        ("train.models", []),
        ("train.models", ["resnet"]),
        ("train.models", "vgg6"),
        ("train.layers", []),
        ("train.layers", ["science", "colour"]),
        ("survey.size", 319),
        ("survey.size", 8193),
        ("survey.n_exposures", 2),
        ("label.source", "goto"),
        ("label.provider", "horizons"),
        ("label.search_radius_deg", 10.1),
        ("label.match_radius_arcsec", 0.0),
        ("label.stamp_size", 14),
        ("label.min_realbogus", 1.1),
        ("dataset.test_fraction", 0.0),
        ("dataset.test_fraction", 1.0),
        ("synthetic.negative_fraction", 1.01),
        ("evaluate.n_samples", 1),
        ("evaluate.models", []),
        ("evaluate.models", ["resnet"]),
        ("tune.method", "grid"),
        ("tune.objective", "loss"),
        ("tune.max_trials", 0),
        ("tune.max_epochs", 0),
        ("tune.factor", 1.9),
        ("tune.iterations", 0),
        ("tune.max_parameters", 0),
        ("tune.n_workers", 0),
        ("tune.space", "wide"),
        ("evaluate.n_bootstrap", 9),
        ("evaluate.threshold_fpr", 0.0),
        ("promote.name", ""),
        ("promote.metric", "luck"),
        ("label.archive.max_bogus_score", 1.5),
    ],
)
def test_impossible_value_is_told_with_name_and_value(tmp_path: Path, name: str, value: Any) -> None:
    message = refusal(tmp_path, nested(name, value))
    assert f"parameter '{name}" in message
    assert str(value[-1] if isinstance(value, list) and value else value) in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 0),
        ("survey.size", 320),
        ("survey.size", 8192),
        ("train.dropout", 0.0),
        ("train.epochs", 1),
        ("label.stamp_size", 15),
        ("label.search_radius_deg", 10.0),
        ("label.min_realbogus", None),
        ("label.min_realbogus", 1.0),
        ("synthetic.negative_fraction", 1),
        ("evaluate.n_samples", 2),
        ("tune.max_trials", None),
        ("tune.max_trials", 1),
        ("tune.max_epochs", 1),
        ("tune.factor", 2),
        ("evaluate.threshold_fpr", None),
    ],
)
def test_value_at_the_border_is_taken(tmp_path: Path, name: str, value: Any) -> None:
    assert read_params(write(tmp_path, nested(name, value))).flat()[name] == value


def test_only_what_is_trained_can_be_judged(tmp_path: Path) -> None:
    tree = {"seed": 1, "train": {"models": ["vgg6"]}}
    assert read_params(write(tmp_path, tree)).judged_models == ("vgg6",)
    assert read_params(write(tmp_path, tree | {"evaluate": {"models": ["vgg6", "tuned"]}})).judged_models[1] == "tuned"
    assert "evaluate.models names bayesian_vgg6" in refusal(
        tmp_path, tree | {"evaluate": {"models": ["bayesian_vgg6"]}}
    )


def test_missing_file_is_told_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"no params\.yaml in {tmp_path}; run inside the project's folder"):
        read_params(tmp_path / layout.PARAMS_YAML)


def test_bad_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    assert "not valid YAML" in refusal(tmp_path, "seed: 1\ntrain: [1\n")
    assert "line 3" in refusal(tmp_path, "seed: 1\ntrain: [1\n")


@pytest.mark.parametrize("text", ["", "seed", "- 1\n- 2\n", "3"])
def test_file_that_is_no_mapping_is_told(tmp_path: Path, text: str) -> None:
    assert "the whole file" in refusal(tmp_path, text)


def test_params_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Params(seed=1).train.epochs = 3  # type: ignore[misc]


def test_flat_names_are_dotted_to_any_depth() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}
    assert flatten({}) == {}


def test_outside_a_project_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_params() == Params(seed=0)
    path = write(tmp_path, {"seed": 9})
    assert find_params().seed == 9
    assert find_params(path).seed == 9


@pytest.mark.parametrize("freeze", [None, 4, "conv", ["conv1", "dense"]])
def test_layers_to_freeze_may_be_a_number_a_name_or_names(tmp_path: Path, freeze: Any) -> None:
    params = read_params(write(tmp_path, nested("train.freeze", freeze)))
    assert params.train.freeze == freeze and params.train.init_from is None
    assert "train.freeze" in refusal(tmp_path, nested("train.freeze", 1.5))


@pytest.mark.parametrize("template", ["javascript:alert(1)", "https://a.org/{host}", "https://a.org/{", "https://a.org/{}",
                                      "https://a.org/{ra.__class__}"])  # fmt: skip
def test_links_that_cannot_be_filled_are_refused(tmp_path: Path, template: str) -> None:
    assert "links" in refusal(tmp_path, {"seed": 1, "links": {"a": template}})
    assert read_params(write(tmp_path, {"seed": 1, "links": {"a": "http://a.org/{ra_hms}"}})).links == {
        "a": "http://a.org/{ra_hms}"
    }
