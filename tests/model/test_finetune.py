"""A trained model as the start of another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gotorb import classifier
from gotorb.core import layout
from gotorb.core.files import file_digest
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import ConfigError, GotorbError, ModelError
from tests.model.blobs import make_blobs
from tests.model.conftest import STAYS_GRAPH

pytestmark = [pytest.mark.usefixtures("eager"), pytest.mark.filterwarnings(STAYS_GRAPH)]
OPTIONS: dict[str, Any] = {"seed": 6, "name": "model", "layers": ["difference", "ptp"], "batch_size": 100}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blobs(tmp_path_factory.mktemp("small") / "data", n=120, size=21)


@pytest.fixture(scope="module")
def parent(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp("parent")
    classifier.train(small, out_dir=out_dir, epochs=4, **OPTIONS | {"batch_size": 32})
    return out_dir / "model"


def kept(before: Any, after: Any) -> list[str]:
    """Names of the layers whose weights are the same."""
    return [
        layer.name
        for layer in before.layers
        if layer.weights
        and all(
            np.array_equal(old, new)
            for old, new in zip(layer.get_weights(), after.get_layer(layer.name).get_weights(), strict=True)
        )
    ]


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        (None, []),
        (2, ["conv1a", "conv1b"]),
        ("conv", ["conv1a", "conv1b", "conv2a", "conv2b"]),
        (["conv1", "dense"], ["conv1a", "conv1b", "dense"]),
    ],
)
def test_frozen_layers_stay_as_the_parent_had_them(
    small: Path, parent: Path, tmp_path: Path, freeze: Any, expected: list[str]
) -> None:
    model, meta = classifier.train(small, out_dir=tmp_path, epochs=1, init_from=parent, freeze=freeze, **OPTIONS)
    assert kept(classifier.load(parent).model, model) == expected
    assert all(layer.trainable for layer in classifier.load(tmp_path / "model").model.layers)
    assert meta["parent"]["name"] == "model"
    assert meta["parent"]["digest"] == f"sha256:{file_digest(parent / layout.MODEL_H5)}"
    assert str(parent).encode() not in (tmp_path / "model" / layout.META_HKL).read_bytes()


def test_the_parent_is_where_learning_starts(small: Path, parent: Path, tmp_path: Path) -> None:
    _, first = classifier.train(small, out_dir=tmp_path / "a", epochs=1, **OPTIONS)
    _, tuned = classifier.train(
        small, out_dir=tmp_path / "b", epochs=1, init_from=str(parent / layout.MODEL_H5), **OPTIONS
    )
    assert tuned["history"]["loss"][0] < 0.8 * first["history"]["loss"][0]
    assert first["parent"] is None


def test_a_parent_that_has_seen_the_held_out_rows_is_told(
    small: Path, parent: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_dataset(small)
    trained_on = classifier.load(parent).meta["split"]["train"]  # type: ignore[index]
    split = np.where(np.isin(data.ids, trained_on), "test", "train").astype("U10")
    split[np.flatnonzero(split == "train")[:20]] = "validation"
    turned = write_dataset(tmp_path / "turned", data.table.assign(split=split), (block for _, block in data.batches()))
    _, meta = classifier.train(turned, epochs=1, init_from=parent, **OPTIONS)
    assert meta["parent"]["n_held_out_seen"] == len(trained_on)
    assert "scores on these are optimistic" in caplog.text


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"layers": ["difference"]}, ModelError, "takes stamps of 21 pixels in 2 layers, this training has 21 pixels"),
        ({"layers": ["ptp", "difference"]}, ModelError, "was trained on the layers difference, ptp"),
        ({"normalise": "noise"}, ModelError, "was trained with normalise 'l2', this training has 'noise'"),
        ({"model_kwargs": {"block1": 8}}, ModelError, r"layer 'conv1a' .*\(3, 3, 2, 8\).*\(3, 3, 2, 16\)"),
        ({"freeze": 6}, ConfigError, "leaves no layer"),
        ({"freeze": 9}, ConfigError, "has 6 layers with weights"),
        ({"freeze": "attention"}, ConfigError, "no layer of 'bayesian_vgg6' begins with 'attention'"),
        ({"init_from": "nowhere"}, ModelError, r"no nowhere in|no model\.h5"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    small: Path, parent: Path, tmp_path: Path, options: dict[str, Any], kind: type[GotorbError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        classifier.train(small, out_dir=tmp_path, **{"init_from": parent} | OPTIONS | options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_stamps_of_another_size_are_refused(parent: Path, tmp_path: Path) -> None:
    larger = make_blobs(tmp_path / "larger", n=80, size=25)
    with pytest.raises(ModelError, match="takes stamps of 21 pixels in 2 layers, this training has 25 pixels"):
        classifier.train(larger, init_from=parent, **OPTIONS)


def test_the_parent_may_be_a_registered_model(
    small: Path, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gotorb.tracking import registry

    def load_registered(uri: str) -> tuple[Any, registry.Registered]:
        assert uri == "models:/gotorb@champion"
        tags = {"layers": "difference,ptp", registry.MD5_TAG: "0" * 32}
        return classifier.load(parent).model, registry.Registered("gotorb", "7", tags, uri)

    monkeypatch.setattr(registry, "load_registered", load_registered)
    options = OPTIONS | {"init_from": "models:/gotorb@champion", "freeze": 5}
    model, meta = classifier.train(small, out_dir=tmp_path, epochs=1, **options)
    assert kept(classifier.load(parent).model, model)[:5] == ["conv1a", "conv1b", "conv2a", "conv2b", "dense"]
    assert meta["parent"] == {"name": "gotorb", "digest": f"md5:{'0' * 32}", "n_held_out_seen": 0}


def test_network_of_small_stamps_is_the_start_of_one_that_crops_large_ones(parent: Path, tmp_path: Path) -> None:
    large = make_blobs(tmp_path / "large", n=120, size=25)
    options = OPTIONS | {"epochs": 1, "out_dir": tmp_path, "init_from": parent}
    with pytest.raises(ModelError, match="takes stamps of 21 pixels"):
        classifier.train(large, **options)
    model, meta = classifier.train(large, **options, crop=21, freeze="conv")
    assert kept(classifier.load(parent).model, model) == ["conv1a", "conv1b", "conv2a", "conv2b"]
    assert meta["parameters"]["crop"] == 21 and classifier.load(tmp_path / "model").model.input_shape[1] == 25
