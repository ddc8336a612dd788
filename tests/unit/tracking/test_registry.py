"""The registry: one version for one model file, one holder of an alias, the same scores back."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from gotorb import classifier
from gotorb.core import layout
from gotorb.dataset.store import open_dataset
from gotorb.errors import ModelError, TrackingError
from gotorb.tracking.contents import md5
from gotorb.tracking.registry import (
    CHAMPION,
    Registered,
    find_alias,
    is_registry_uri,
    list_models,
    load_registered,
    register,
    set_alias,
)
from gotorb.tracking.runs import track_stage
from tests.unit.tracking.tiny import LAYERS, make_params


def log(model_dir: Path) -> str:
    """A run that logged a model."""
    with track_stage("train", make_params()) as run:
        run.log_model(model_dir / layout.MODEL_H5, tags={})
    return run.run_id


def add(model_dir: Path) -> Registered:
    return register("gotorb", log(model_dir), md5(model_dir / layout.MODEL_H5), {"layers": ",".join(LAYERS)})


def test_same_bytes_are_registered_once(project: Path, models_dir: Path) -> None:
    first, again, other = (add(models_dir / name) for name in ("vgg6", "vgg6", "bayesian_vgg6"))
    assert (first.version, again.version, other.version) == ("1", "1", "2")
    assert [row["version"] for row in list_models()] == ["1", "2"]
    assert first.md5 == md5(models_dir / "vgg6" / layout.MODEL_H5)


def test_alias_moves_and_only_the_holder_shows_it(project: Path, models_dir: Path) -> None:
    first, second = (add(models_dir / name) for name in ("vgg6", "bayesian_vgg6"))
    assert find_alias("gotorb", CHAMPION) is None
    set_alias(first, "champion")
    assert find_alias("gotorb", CHAMPION) == first
    set_alias(second, "champion")
    assert find_alias("gotorb", CHAMPION) == second
    assert [row["aliases"] for row in list_models()] == ["", "champion"]
    assert find_alias("gotorb", "challenger") is None
    assert find_alias("nobody", CHAMPION) is None


def test_registered_model_gives_the_same_scores(project: Path, models_dir: Path, data_dir: Path) -> None:
    set_alias(add(models_dir / "vgg6"), "champion")
    stamps = open_dataset(data_dir).read_stamps(range(20), LAYERS)
    expected = classifier.predict(models_dir / "vgg6", stamps)
    for uri in ("models:/gotorb@champion", "models:/gotorb/1"):
        model, registered = load_registered(uri)
        np.testing.assert_array_equal(classifier.predict(model, stamps), expected)
        assert registered.tags["layers"] == ",".join(LAYERS)


@pytest.mark.parametrize("uri", ["models:/nobody@champion", "models:/gotorb@nobody", "models:/gotorb/99"])
def test_unknown_model_is_told_in_one_line(project: Path, models_dir: Path, uri: str) -> None:
    add(models_dir / "vgg6")
    with pytest.raises(ModelError, match=f"no registered model '{uri}' .*`gotorb models` lists") as caught:
        load_registered(uri)
    assert "\n" not in str(caught.value)


def test_model_without_its_files_is_told_in_one_line(project: Path, models_dir: Path) -> None:
    add(models_dir / "vgg6")
    shutil.rmtree(project / layout.MLRUNS_DIR / "artifacts")
    with pytest.raises(ModelError, match="no registered model 'models:/gotorb/1'"):
        load_registered("models:/gotorb/1")


def test_run_without_a_model_is_refused(project: Path) -> None:
    with track_stage("label", make_params()) as run:
        pass
    with pytest.raises(TrackingError, match=f"run {run.run_id} holds no model"):
        register("gotorb", run.run_id, "md5", {})


def test_empty_registry_lists_nothing(project: Path) -> None:
    assert list_models() == []


def test_registry_names_are_told_from_paths() -> None:
    assert is_registry_uri("models:/gotorb@champion")
    assert not is_registry_uri(Path("models/vgg6"))
