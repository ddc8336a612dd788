"""Models on measured features end to end: trained, stored, scored, sampled, served and refused like networks."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from gotorb import classifier, models
from gotorb.classifier.measured import choose_weight
from gotorb.classifier.scores import Scorer, score_batch, score_source
from gotorb.core import layout
from gotorb.dataset.store import open_dataset, read_table, write_table
from gotorb.errors import ConfigError, ModelError
from gotorb.training.inference import CompiledModel
from gotorb.training.measured import KIND_ATTR, Fusion, Measured, draw_groups
from gotorb.training.model_files import read_model, write_model
from gotorb.training.onnx import read_portable
from tests.model.blobs import make_blobs, small_network
from tests.model.conftest import STAYS_GRAPH, run_eagerly

pytestmark = [pytest.mark.usefixtures("eager"), pytest.mark.filterwarnings(STAYS_GRAPH)]
LAYERS = ("science", "template", "difference")
"""Those of alert packets too, which the same models score."""
OPTIONS: dict[str, Any] = {"epochs": 2, "seed": 3, "n_trees": 60, "layers": LAYERS}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blobs(tmp_path_factory.mktemp("measured") / "data", n=200, size=21)


@pytest.fixture(scope="module")
def folder(small: Path) -> Path:
    """Folder of bayesian_vgg6, measured and a fusion that takes the network next to it."""
    out_dir = small.parent / "models"
    with run_eagerly():
        for name in ("bayesian_vgg6", "measured", "fusion"):
            classifier.train(small, name, out_dir=out_dir, name=name, **OPTIONS)
    return out_dir


@pytest.fixture(scope="module")
def stamps(small: Path) -> np.ndarray:
    return open_dataset(small).read_stamps(range(50), LAYERS)


@pytest.fixture(scope="module", params=["measured", "fusion"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_they_learn_and_record_a_training(folder: Path, kind: str) -> None:
    model, meta = classifier.load(folder / kind)
    assert meta["model"] == kind and meta["layers"] == list(LAYERS)
    assert {"loss", "val_loss", "auc", "val_auc"} <= set(meta["history"])
    assert meta["history"]["val_auc"][-1] > 0.95
    assert model.input_shape == (None, 21, 21, len(LAYERS))
    assert 0 < meta["threshold"] < 1 and meta["parameters"]["n_trees"] == 60
    assert set(meta["suspects"]) <= {*meta["split"]["train"], *meta["split"]["validation"]}


def test_the_network_next_to_a_fusion_is_taken_and_not_trained(folder: Path) -> None:
    model, meta = classifier.load(folder / "fusion")
    assert model.network_file == (folder / "bayesian_vgg6" / layout.MODEL_H5).read_bytes()
    assert meta["network"]["digest"] == classifier.load(folder / "bayesian_vgg6").meta["model_digest"]
    assert "epoch 1" not in (folder / "fusion" / "fusion.log").read_text()


def test_a_fusion_that_trains_its_network_has_the_same_bytes(small: Path, folder: Path, tmp_path: Path) -> None:
    classifier.train(small, "fusion", out_dir=tmp_path, name="fusion", **OPTIONS)
    names = {path.name for path in (tmp_path / "fusion").iterdir()}
    assert names == {".lock", "fusion.log", "meta.hkl", "model.h5", "suspects.csv"}
    assert (tmp_path / "fusion" / "model.h5").read_bytes() == (folder / "fusion" / "model.h5").read_bytes()


def test_a_network_of_another_recipe_or_data_is_not_taken(small: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "bayesian_vgg6", tmp_path / "bayesian_vgg6")
    model, _ = classifier.train(small, "fusion", out_dir=tmp_path, name="fusion", **OPTIONS | {"dropout": 0.3})
    assert model.network_file != (tmp_path / "bayesian_vgg6" / layout.MODEL_H5).read_bytes()


def test_a_network_may_be_named(small: Path, folder: Path, tmp_path: Path) -> None:
    for network in (folder / "bayesian_vgg6", folder / "bayesian_vgg6" / layout.MODEL_H5):
        model, _ = classifier.train(
            small, "fusion", out_dir=tmp_path, name="other", network=network, **OPTIONS | {"epochs": 9}
        )
        assert model.network_file == (folder / "bayesian_vgg6" / layout.MODEL_H5).read_bytes()


def test_networks_that_leak_or_have_no_posterior_are_refused(small: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="measured"):
        classifier.train(small, "fusion", out_dir=tmp_path, name="a", network=folder / "measured", **OPTIONS)
    shutil.copytree(small, tmp_path / "data", ignore=shutil.ignore_patterns("model*"))
    split = np.resize(["test", "validation", "train"], len(read_table(small)))
    write_table(tmp_path / "data", read_table(small).assign(split=split))
    with pytest.raises(ModelError, match="validation and test rows"):
        classifier.train(tmp_path / "data", "fusion", name="b", network=folder / "bayesian_vgg6", **OPTIONS)
    shutil.copy(folder / "bayesian_vgg6" / layout.MODEL_H5, tmp_path / layout.MODEL_H5)
    with pytest.raises(ModelError, match=layout.META_HKL):
        classifier.train(small, "fusion", out_dir=tmp_path, name="c", network=tmp_path / layout.MODEL_H5, **OPTIONS)


@pytest.mark.parametrize("option", [{"init_from": "models/x"}, {"tensorboard": True}, {"network": "models/x"}])
def test_options_of_networks_are_refused_for_trees(small: Path, tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        classifier.train(small, "measured", out_dir=tmp_path, name="x", **OPTIONS | option)


def test_layers_without_a_difference_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="difference"):
        classifier.train(small, "measured", out_dir=tmp_path, name="x", **OPTIONS | {"layers": ["science"]})


def test_scores_do_not_depend_on_the_batch(folder: Path, stamps: np.ndarray) -> None:
    compiled = CompiledModel(classifier.load(folder / "measured").model)
    whole = compiled.score(stamps)
    for size in (1, 7, 32):
        np.testing.assert_array_equal(compiled.score(stamps, batch_size=size), whole)
        np.testing.assert_array_equal(
            compiled.sample(stamps, 5, seed=1, batch_size=size), compiled.sample(stamps, 5, seed=1)
        )


def test_samples_are_a_posterior_around_the_score(folder: Path, kind: str, stamps: np.ndarray) -> None:
    model = classifier.load(folder / kind).model
    samples, plain = classifier.dropout_pred(model, stamps, 40, seed=4), classifier.predict(model, stamps)
    assert samples.shape == (50, 40) and samples.dtype == np.float32
    assert ((samples >= 0) & (samples <= 1)).all()
    np.testing.assert_array_equal(classifier.dropout_pred(model, stamps, 40, seed=4), samples)
    np.testing.assert_allclose(classifier.dropout_pred(model, stamps, 10, seed=4), samples[:, :10], atol=1e-6)
    assert (classifier.dropout_pred(model, stamps, 40, seed=5) != samples).any()
    assert np.abs(samples.mean(axis=1) - plain).max() < 0.25
    assert np.corrcoef(samples.mean(axis=1), plain)[0, 1] > 0.98
    assert samples.std(axis=1).max() > 0.01
    assert classifier.predict(model, stamps[:0]).shape == (0,) and classifier.dropout_pred(
        model, stamps[:0], 3
    ).shape == (0, 3)


def test_a_fusion_lies_between_its_parts(folder: Path, stamps: np.ndarray) -> None:
    from gotorb.training.measured import join_logits, score_logits

    model = classifier.load(folder / "fusion").model
    joined = join_logits(score_logits(model.network.score(stamps)), model.measured.logits(stamps), model.weight)
    np.testing.assert_array_equal(model.calibration(joined), model.score(stamps))


def test_groups_of_trees_use_each_tree_once_before_any_twice() -> None:
    groups = draw_groups(400, 25, seed=1)
    assert groups.shape == (25, 20)
    assert len(np.unique(groups[:20])) == 400
    np.testing.assert_array_equal(draw_groups(400, 7, seed=1), groups[:7])
    assert draw_groups(3, 5, seed=0).shape == (5, 1)


def test_latent_vectors_are_features_in_units_of_their_spread(folder: Path, kind: str, stamps: np.ndarray) -> None:
    vectors = classifier.latentvec_pred(folder / kind, stamps)
    assert vectors.shape[0] == 50 and np.abs(vectors).max() <= 5
    assert np.isfinite(vectors).all() and vectors.std() > 0.3


@pytest.mark.usefixtures("no_drawing")
def test_evaluation_comparison_and_out_of_fold_scores(small: Path, folder: Path, kind: str, tmp_path: Path) -> None:
    from gotorb.core.params import Params

    result = classifier.evaluate(folder / kind, data_dir=small, n_samples=5, out_dir=tmp_path, n_bootstrap=10)
    assert result.metrics["auc"] > 0.95
    assert {"history", "posteriors", "latent", "reliability"} <= set(result.figures)
    assert {"mean", "std"} & set(result.predictions.columns)
    assert result.metrics["robustness"]["real"]["n"] > 0
    divided = shutil.copytree(small, tmp_path / "data", ignore=shutil.ignore_patterns("model*"))
    table = read_table(small)
    test = table["id"].isin(classifier.load(folder / kind).meta["split"]["test"])
    write_table(divided, table.assign(split=np.where(test, "test", "train")))
    compared = classifier.compare(str(folder / kind), str(folder / "bayesian_vgg6"), data_dir=divided, n_bootstrap=10)
    assert compared["n_rows"] == test.sum()
    if kind == "measured":
        params = Params(seed=1, train={"n_trees": 20, "layers": list(LAYERS)}, peers={"n_folds": 2})
        scores = classifier.score_out_of_fold(small, kind, params)
        labels = read_table(small).set_index("id")["label"].loc[scores.index]
        assert scores[labels == 1].mean() - scores[labels == 0].mean() > 0.5


def test_scorers_treat_them_as_any_model(folder: Path, kind: str, stamps: np.ndarray) -> None:
    origin = models.find_model(folder / kind)
    scorer = Scorer(
        model=origin.model, layers=origin.layers, name=origin.name, version=origin.version, threshold=origin.threshold
    )
    assert scorer.samples and scorer.size == 21
    found = score_batch(scorer, stamps, 5, 0)
    assert found.samples is not None and found.samples.shape == (50, 5)


def test_files_are_read_back_exactly(folder: Path, kind: str, tmp_path: Path) -> None:
    model = read_model(folder / kind)
    assert isinstance(model, Measured if kind == "measured" else Fusion)
    again = write_model(tmp_path / "again.h5", model)
    assert again.read_bytes() == (folder / kind / layout.MODEL_H5).read_bytes()


def hostile(folder: Path, kind: str, tmp_path: Path) -> Path:
    return Path(shutil.copy(folder / kind / layout.MODEL_H5, tmp_path / layout.MODEL_H5))


def change_about(file: h5py.File, **changes: Any) -> None:
    file.attrs["about"] = json.dumps(json.loads(file.attrs["about"]) | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 5}, {"size": 10**9}, {"layers": ["difference", "difference"]}, {"layers": ["../x", "difference"]},
        {"fwhm": 0}, {"fwhm": "nan"}, {"names": ["flux.3"]}, {"slope": -1}, {"slope": "nan"}, {"offset": 1e9},
    ],
)  # fmt: skip
def test_hostile_descriptions_are_refused(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    path = hostile(folder, "measured", tmp_path)
    with h5py.File(path, "a") as file:
        change_about(file, **changes)
    with pytest.raises(ModelError, match=str(path)):
        read_model(path)


@pytest.mark.parametrize("value", ["other", b"\x80\x04", 7, np.zeros(3)])
def test_unknown_kinds_are_refused(folder: Path, tmp_path: Path, value: Any) -> None:
    path = hostile(folder, "measured", tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs[KIND_ATTR] = value
    with pytest.raises(ModelError, match=str(path)):
        read_model(path)


def test_the_network_inside_is_read_by_the_safe_reader(folder: Path, tmp_path: Path) -> None:
    import keras

    inside = [keras.layers.Lambda(lambda x: x), keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")]
    evil = keras.Sequential([keras.Input((21, 21, len(LAYERS))), *inside])
    evil.save(tmp_path / "evil.h5")
    nested = folder / "measured" / layout.MODEL_H5
    for content in (b"no network", (tmp_path / "evil.h5").read_bytes(), nested.read_bytes()):
        path = hostile(folder, "fusion", tmp_path)
        with h5py.File(path, "a") as file:
            del file["network"]
            file.create_dataset("network", data=np.frombuffer(content, np.uint8))
        with pytest.raises(ModelError, match="cannot be read"):
            read_model(path)


def test_a_weight_outside_of_0_and_1_is_refused(folder: Path, tmp_path: Path) -> None:
    path = hostile(folder, "fusion", tmp_path)
    with h5py.File(path, "a") as file:
        change_about(file, weight=1.5)
    with pytest.raises(ModelError, match="weight"):
        read_model(path)


def test_saliency_is_that_of_the_network(folder: Path, kind: str, stamps: np.ndarray) -> None:
    from gotorb.training.inference import saliency_maps

    model = classifier.load(folder / kind).model
    if kind == "fusion":
        assert saliency_maps(model, stamps[:3]).shape == (3, 21, 21)
    else:
        with pytest.raises(ModelError, match="saliency"):
            saliency_maps(model, stamps[:3])


def test_a_network_may_start_from_a_fusion(small: Path, folder: Path, tmp_path: Path) -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "n_trees"} | {"epochs": 1, "batch_size": 200}
    _, meta = classifier.train(small, out_dir=tmp_path, name="tuned", init_from=folder / "fusion", **options)
    assert meta["parent"]["name"] == "fusion"
    with pytest.raises(ModelError, match="measured"):
        classifier.train(small, out_dir=tmp_path, name="no", init_from=folder / "measured", **options)


def test_bogus_labels_that_trees_contradict_do_not_calibrate(small: Path, tmp_path: Path) -> None:
    data = shutil.copytree(small, tmp_path / "data", ignore=shutil.ignore_patterns("model*"))
    table = read_table(data)
    table["split"] = np.resize(np.repeat(["train", "validation", "test"], 2), len(table))
    real = np.flatnonzero((table["label"] == 1) & (table["split"] == "validation"))[:2]
    table.loc[real, "label"] = 0
    write_table(data, table)
    _, meta = classifier.train(data, "measured", name="model", **OPTIONS)
    assert set(table["id"].iloc[real]) <= set(meta["suspects"])


def test_weight_moves_only_beyond_the_noise() -> None:
    rng = np.random.default_rng(0)
    labels, images = np.arange(400) % 2, np.repeat(np.arange(40), 10).astype(str)
    sharp, blunt = (labels - 0.5) * 6 + rng.normal(0, 2, 400), (labels - 0.5) * 2 + rng.normal(0, 2, 400)
    assert choose_weight(labels, sharp, blunt, images) > 0.3
    assert choose_weight(labels, sharp, sharp, images) == 0.3
    assert choose_weight(labels, blunt, sharp, images) < 0.3
    assert choose_weight(labels[:20], blunt[:20], blunt[:20] + 0.1, images[:20]) == 0.3


def test_they_score_streams(folder: Path, kind: str, tmp_path: Path) -> None:
    """The same scores as of packets in files; those of a stream's journal come from the same features."""
    pytest.importorskip("confluent_kafka")
    from gotorb.core.params import ArchiveParams, StreamParams
    from gotorb.core.settings import Settings
    from gotorb.streams.consumer import load_model, make_pipeline
    from tests.unit.streams.kafka import message, ztf

    model = load_model(str(folder / kind))
    assert model.digest and model.scorer.size == 21
    values = [ztf(number) for number in range(6)]
    (tmp_path / "packets").mkdir()
    for number, value in enumerate(values):
        (tmp_path / "packets" / f"{number}.avro").write_bytes(value)
    settings = Settings(gotorb_cache_dir=str(tmp_path))
    pipeline = make_pipeline(model.scorer, StreamParams(samples=4), settings, ArchiveParams())
    rows = pipeline.run([message(value, number) for number, value in enumerate(values)]).batch.rows
    out = tmp_path / "scores.csv"
    score_source(model.scorer, tmp_path / "packets", out, archive=ArchiveParams(), n_samples=4)
    table = pd.read_csv(out, dtype={"id": str})
    assert [row.alert_id for row in rows] == table["id"].tolist()
    assert [row.score for row in rows] == pytest.approx(table["score"].tolist(), abs=2e-6)
    assert all(row.std is not None and 0 <= row.std < 0.5 for row in rows)


def test_they_are_exported_with_their_trees(folder: Path, kind: str, stamps: np.ndarray, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    path = classifier.export(folder / kind, tmp_path / "model.onnx")
    read, model = read_portable(path), classifier.load(folder / kind).model
    assert np.ptp(model.score(stamps)) > 0.1
    np.testing.assert_allclose(read.score(stamps), model.score(stamps), atol=1e-5)
    inputs = [end.name for end in onnx.load(path).graph.input]
    assert inputs == (["stamps", "features"] if kind == "fusion" else ["features"])
    assert read.features == (model.measured if kind == "fusion" else model).features
    assert (read.name, read.layers) == (kind, LAYERS)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [("fwhm", 1e9, "PSF"), ("size", 10_000, "pixels"), ("names", ["one"], "features differ"), ("layers", [], "layer")],
)
def test_exported_trees_of_other_features_are_refused(
    folder: Path, tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    network = onnx.load(classifier.export(folder / "measured", tmp_path / "good.onnx"))
    (entry,) = [entry for entry in network.metadata_props if entry.key == "features"]
    entry.value = json.dumps(json.loads(entry.value) | {key: value})
    (tmp_path / "bad.onnx").write_bytes(network.SerializeToString())
    with pytest.raises(ModelError, match=reason):
        read_portable(tmp_path / "bad.onnx")


def test_a_fusion_over_eight_orientations_scores_turned_stamps_alike(
    small: Path, folder: Path, stamps: np.ndarray, tmp_path: Path
) -> None:
    network = folder / "bayesian_vgg6"
    options = OPTIONS | {"network": network, "orientations": 8, "network_weight": 0.45}
    model, _ = classifier.train(small, "fusion", out_dir=tmp_path, name="eight", **options)
    again = read_model(tmp_path / "eight")
    assert isinstance(again, Fusion) and (again.orientations, again.weight) == (8, 0.45)
    turned = np.rot90(stamps, axes=(1, 2))[:, :, ::-1]
    np.testing.assert_allclose(model.score(turned), model.score(stamps), atol=1e-5)
    assert (
        np.abs(read_model(folder / "fusion").score(turned) - read_model(folder / "fusion").score(stamps)).max() > 1e-4
    )
    samples = model.sample(stamps, 20, seed=1)
    np.testing.assert_allclose(model.sample(stamps, 11, seed=1), samples[:, :11], atol=1e-6)
    assert np.corrcoef(samples.mean(axis=1), model.score(stamps))[0, 1] > 0.98
    path = hostile(tmp_path, "eight", tmp_path)
    with h5py.File(path, "a") as file:
        change_about(file, orientations=3)
    with pytest.raises(ModelError, match="3 orientations"):
        read_model(path)


def test_suspects_are_listed_for_the_annotators(small: Path, tmp_path: Path) -> None:
    from gotorb.eyeball.rows import find_given

    data = shutil.copytree(small, tmp_path / "data", ignore=shutil.ignore_patterns("model*"))
    table = read_table(data)
    wrong = table["id"][table["label"] == 1][:3]
    write_table(data, table.assign(label=table["label"].where(~table["id"].isin(wrong), 0)))
    _, meta = classifier.train(data, "measured", name="model", **OPTIONS)
    in_test = np.isin(wrong, meta["split"]["test"])
    assert set(wrong[~in_test]) <= set(meta["suspects"]) and not set(wrong[in_test]) & set(meta["suspects"])
    given = find_given(data / "model" / layout.SUSPECTS_CSV, read_table(data))
    assert list(table["id"].iloc[list(given)]) == list(meta["suspects"])


def test_trees_and_networks_learn_from_undecided_rows(small: Path, tmp_path: Path) -> None:
    data = shutil.copytree(small, tmp_path / "data", ignore=shutil.ignore_patterns("model*"))
    table = read_table(data)
    soft = table.assign(label_probability=table["label"].astype(float), label_weight=1.0, split="train")
    soft["split"] = np.resize(["train"] * 6 + ["validation"] * 2 + ["test"] * 2, len(soft))
    undecided = (soft["split"] == "train") & (np.arange(len(soft)) % 20 > 3)
    write_table(data, soft.assign(label=soft["label"].where(~undecided, -1)))
    for name in ("measured", "bayesian_vgg6"):
        _, with_them = classifier.train(data, name, name=f"{name}-soft", **OPTIONS | {"epochs": 4})
        assert len(with_them["split"]["train"]) == (~undecided & (soft["split"] == "train")).sum()
    write_table(data, read_table(data).drop(columns=["label_probability", "label_weight"]))
    _, without = classifier.train(data, "measured", name="hard", **OPTIONS)
    auc = [classifier.load(data / name).meta["history"]["val_auc"][-1] for name in ("measured-soft", "hard")]
    assert auc[0] >= auc[1] and auc[0] > 0.95 and without["counts"]["unknown"] == undecided.sum()


@pytest.mark.long("nine trainings")
def test_the_first_layer_may_be_chosen_out_of_fold(small: Path, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level("INFO"):
        _, meta = classifier.train(
            small, small_network, out_dir=tmp_path, name="auto", epochs=1, batch_size=200, seed=3, layers=LAYERS,
            normalise="auto",
        )  # fmt: skip
    assert meta["preprocessing"]["normalise"] in ("l2", "clipped", "noise")
    told = [record.message for record in caplog.records if "Brier score" in record.message]
    assert [text.split()[1].rstrip(":") for text in told] == ["l2", "clipped", "noise"]
