"""A registered version whose files name code: nothing of it runs, and a changed network is refused."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from gotorb import classifier, cli, models
from gotorb.core import layout
from gotorb.errors import ModelError
from gotorb.tracking.contents import md5
from gotorb.tracking.promotion import promote, promote_best
from gotorb.tracking.registry import Registered, load_registered, load_service, load_version, register, set_alias
from gotorb.tracking.runs import track_stage
from gotorb.tracking.store import open_store
from tests.unit.tracking.tiny import LAYERS, SIZE, make_model, make_params, write_model

EVIL = "evil_module_of_a_registered_version"
CODE = "from pathlib import Path\nPath({mark!r}).write_text('ran')\ndef load_model(*a, **k): raise SystemExit(3)\n"


def make_hostile(folder: Path, mark: Path) -> None:
    """Let a model's description name a module of its own, in every place that MLflow imports from."""
    code = folder / "code"
    shutil.rmtree(code)
    code.mkdir()
    for name in (EVIL, "gotorb", "sitecustomize"):
        (code / f"{name}.py").write_text(CODE.format(mark=str(mark)))
    (folder / "data" / "keras_module.txt").write_text(EVIL)
    (folder / "data" / "save_format.txt").write_text("h5")
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["flavors"]["tensorflow"] |= {"keras_module": EVIL, "code": "code"}
    described["flavors"]["keras"] = {"keras_module": EVIL, "data": "data", "code": "code", "save_format": "h5"}
    described["flavors"]["python_function"] |= {"loader_module": EVIL, "code": "code"}
    described["metadata"] = {"mlflow_version": f"{EVIL}"}
    (folder / "MLmodel").write_text(yaml.safe_dump(described))


@pytest.fixture
def hostile(project: Path, models_dir: Path, tmp_path: Path) -> Iterator[tuple[Registered, Path]]:
    """A version with the right network and hostile files around it, and the file that its code would write."""
    path, mark = models_dir / "vgg6" / layout.MODEL_H5, tmp_path / "ran"
    with track_stage("train", make_params()) as run:
        run.log_model(path, tags={"network": "vgg6"})
    version = register("gotorb", run.run_id, md5(path), {"layers": ",".join(LAYERS), "threshold": "0.5"})
    set_alias(version, "champion")
    make_hostile(folder_of(project), mark)
    before = (list(sys.path), set(sys.modules))
    yield version, mark
    assert not mark.exists()
    assert EVIL not in sys.modules and sys.path == before[0]


def folder_of(project: Path) -> Path:
    (described,) = (project / "mlruns").rglob("MLmodel")
    return described.parent


def stamps(n: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (n, SIZE, SIZE, len(LAYERS))).astype(np.float32)


def test_network_loads_and_scores(hostile: tuple[Registered, Path], models_dir: Path) -> None:
    network, version = load_registered("models:/gotorb@champion")
    assert version.md5 == md5(models_dir / "vgg6" / layout.MODEL_H5)
    expected = classifier.predict(models_dir / "vgg6", stamps())
    np.testing.assert_array_equal(classifier.predict(network, stamps()), expected)
    np.testing.assert_array_equal(classifier.predict(models.find_model(version.uri).model, stamps()), expected)


def test_service_answers(hostile: tuple[Registered, Path]) -> None:
    answer = load_service("models:/gotorb@champion").predict(stamps())
    assert answer["call"].isin(["real", "bogus"]).all()


def test_command_scores(hostile: tuple[Registered, Path], data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    assert cli.main(["score", "models:/gotorb@champion", str(data_dir), "--out-path", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 121


def test_promotion_and_champion_check(hostile: tuple[Registered, Path], data_dir: Path, models_dir: Path) -> None:
    from gotorb.evaluation.promotion_checks import Limits

    limits = Limits(max_ece=1)
    assert not promote(hostile[0].uri, "production", reason="", data_dir=data_dir, limits=limits).failed
    assert promote_best(models_dir, data_dir, make_params("bayesian_vgg6"))["champion"] is False


def test_file_that_is_not_the_registered_one_is_refused(
    hostile: tuple[Registered, Path], project: Path, data_dir: Path, tmp_path: Path
) -> None:
    write_model(tmp_path, "vgg6", data_dir, side=3)
    shutil.copyfile(tmp_path / "vgg6" / layout.MODEL_H5, folder_of(project) / "data" / layout.MODEL_H5)
    for load in (load_registered, load_service, models.find_model):
        with pytest.raises(ModelError, match=hostile[0].md5):
            load("models:/gotorb@champion")


def test_version_without_an_md5_is_refused(hostile: tuple[Registered, Path]) -> None:
    client = open_store()
    client.delete_model_version_tag("gotorb", hostile[0].version, "gotorb.model_md5")
    with pytest.raises(ModelError, match="no md5"):
        load_registered("models:/gotorb@champion")


@pytest.mark.parametrize("damage", ["lambda", "wide"])
def test_registered_file_that_holds_code_or_huge_layers_is_refused(project: Path, tmp_path: Path, damage: str) -> None:
    """Its md5 is the registered one, so it was registered on purpose."""
    import h5py

    from gotorb.training.model_files import write_model as write_h5

    path = write_h5(tmp_path / layout.MODEL_H5, make_model())
    with h5py.File(path, "r+") as file:
        config = str(file.attrs["model_config"])
        inserted = '"class_name": "Lambda"' if damage == "lambda" else '"units": 100000000'
        changed = (
            config.replace('"class_name": "Flatten"', inserted)
            if damage == "lambda"
            else config.replace('"units": 1', inserted)
        )
        assert changed != config
        file.attrs["model_config"] = changed
    with track_stage("train", make_params()) as run:
        run.log_model(path, tags={"network": "odd"})
    version = register("odd", run.run_id, md5(path), {"layers": ",".join(LAYERS)})
    with pytest.raises(ModelError, match="can be loaded"):
        load_registered(version.uri)
    assert load_version(version.uri) == version
