"""Labels are handled as in training and scores are finite, in every path; imported models do what trained ones do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gotorb import classifier
from gotorb.classifier.scores import load_scorer, score_peers, score_source
from gotorb.core import layout
from gotorb.core.params import ArchiveParams
from gotorb.dataset.split import labelled_rows
from gotorb.dataset.store import open_dataset, read_table
from gotorb.errors import DataError, ModelError, NotFinite
from gotorb.evaluation.external_classifiers import compare_with_external
from tests.model.blobs import make_blobs
from tests.model.conftest import STAYS_GRAPH, Trained
from tests.shared import read_here

ODD = {
    "soft": np.where(np.arange(60) % 2, 0.95, 0.05),
    "text": np.where(np.arange(60) % 2, "real", "bogus"),
    "two": np.where(np.arange(60) == 7, 2, np.arange(60) % 2),
    "gap": np.where(np.arange(60) == 7, np.nan, np.arange(60) % 2),
    "infinite": np.where(np.arange(60) == 7, np.inf, np.arange(60) % 2),
}  # fmt: skip
"""Labels that training refuses."""


def relabel(data_dir: Path, labels: np.ndarray) -> Path:
    table = pd.read_csv(layout.labels_path(data_dir), dtype={"id": str})
    table[layout.SPLIT_COLUMN] = np.array(layout.SPLITS)[np.arange(len(table)) // 2 % 3]
    table.assign(label=labels).to_csv(layout.labels_path(data_dir), index=False)
    return data_dir


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return relabel(make_blobs(tmp_path / "odd", n=60), ODD[request.param])


def test_odd_labels_are_refused_everywhere(odd: Path, trained: Trained) -> None:
    model, meta = trained.model, trained.meta
    calls: list[Callable[[], Any]] = [
        lambda: classifier.train(odd, epochs=1, name="odd"),
        lambda: classifier.benchmark(model, odd, meta=meta, out_dir=odd / "b", n_samples=2),
        lambda: classifier.evaluate(model, meta | {"split": {part: [] for part in layout.SPLITS}}, odd, out_dir=odd),
        lambda: classifier.find_label_errors(odd),
        lambda: classifier.compare(str(trained.run_dir), str(trained.run_dir), data_dir=odd),
        lambda: labelled_rows(read_table(odd), "test"),
        lambda: open_dataset(odd).labels,
    ]
    for call in calls:
        with pytest.raises(DataError, match="label"):
            call()


@pytest.mark.usefixtures("no_drawing")
def test_numbers_as_text_are_labels(trained: Trained, tmp_path: Path) -> None:
    data = relabel(make_blobs(tmp_path / "data", n=60), np.where(np.arange(60) % 2, "1.0", "0"))
    found = classifier.benchmark(trained.model, data, meta=trained.meta, out_dir=tmp_path / "b", n_samples=2)
    assert (found.metrics["n_real"], found.metrics["n_bogus"]) == (30, 30)


@pytest.fixture
def broken(trained: Trained, tmp_path: Path) -> Path:
    """A model whose last weights are NaN."""
    from gotorb.training.model_files import load_training, write_training

    model, meta = load_training(trained.run_dir)
    last = model.layers[-1]
    last.set_weights([np.full_like(weight, np.nan) for weight in last.get_weights()])
    folder = tmp_path / "broken"
    folder.mkdir()
    write_training(folder, model, dict(meta or {}))
    return folder


def test_scores_that_are_not_finite_are_an_error_in_every_path(broken: Path, trained: Trained, tmp_path: Path) -> None:
    from gotorb.tracking.mlflow_model import Service

    data, model = open_dataset(trained.data_dir), classifier.load(broken).model
    stamps = data.read_stamps([3, 4], trained.meta["layers"])
    calls: list[Callable[[], Any]] = [
        lambda: classifier.predict(broken, stamps),
        lambda: classifier.dropout_pred(broken, stamps, 3),
        lambda: classifier.score_rows(broken, None, data, [3, 4]),
        lambda: classifier.evaluate(broken, None, trained.data_dir, out_dir=tmp_path / "e"),
        lambda: classifier.benchmark(broken, trained.data_dir, out_dir=tmp_path / "b"),
        lambda: score_source(load_scorer(str(broken)), trained.data_dir, tmp_path / "s.csv", archive=ArchiveParams()),
        lambda: Service(model).predict(stamps),
    ]
    for call in calls:
        with pytest.raises(NotFinite) as caught:
            call()
        assert caught.value.rows[:2] == [0, 1]
    assert not (tmp_path / "s.csv").exists()


def test_the_rows_of_a_source_are_named(broken: Path, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match=r"broken/sha256.*row-00000"):
        score_source(load_scorer(str(broken)), trained.data_dir, tmp_path / "s.csv", archive=ArchiveParams())


def test_one_bad_row_is_found(trained: Trained) -> None:
    from gotorb.stamps.batches import check_scores

    with pytest.raises(NotFinite) as caught:
        check_scores(np.array([[0.1, 0.2], [0.1, np.inf], [0.3, 0.2]]), name="m")
    assert caught.value.rows == [1]
    assert check_scores(np.empty((0, 3)), name="m").shape == (0, 3)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of Keras 2 with a Lambda, registered and in a folder."""
    import zipfile

    from gotorb import models
    from gotorb.training import importing

    folder = tmp_path_factory.mktemp("imported")
    with zipfile.ZipFile(Path(__file__).parents[1] / "unit" / "training" / "keras2.zip") as pack:
        pack.extract("lam_l2.h5", folder)
    layers = ("science", "template", "difference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "read_apart", read_here)
        return models.import_model(folder / "lam_l2.h5", name="theirs", layers=layers, out_dir=folder, registry=False)


@pytest.mark.usefixtures("no_drawing", "eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_imported_models_score_compare_evaluate_and_fine_tune(imported: Path, tmp_path: Path) -> None:
    data = make_blobs(tmp_path / "data", n=120, size=20)
    relabel(data, read_table(data)["label"].to_numpy())
    n = score_source(load_scorer(str(imported)), data, tmp_path / "s.csv", archive=ArchiveParams(), n_samples=2)
    assert n == 120
    evaluation = classifier.evaluate(imported, data_dir=data, out_dir=tmp_path / "e", n_samples=2, n_bootstrap=20)
    assert len(evaluation.predictions) == 80
    layers = ("science", "template", "difference")
    model, meta = classifier.train(data, init_from=imported, layers=layers, epochs=2, freeze=1, name="tuned")
    assert meta["parent"]["name"] == "theirs"
    first = [layer.get_weights()[0] for layer in (classifier.load(imported).model.layers[2], model.layers[2])]
    np.testing.assert_array_equal(*first)
    rows = read_table(data).set_index("id").join(score_peers([str(imported), str(data / "tuned")], data))
    table = compare_with_external(rows, rows["peer_tuned"])
    assert table["theirs"]["n_real"] == 60
    assert table["tuned"]["ours_minus_theirs"] == 0
    found = classifier.compare(str(imported), str(data / "tuned"), data_dir=data, n_bootstrap=20)
    assert found["n_rows"] == 40


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
@pytest.mark.parametrize("kind", ["vgg6", "measured"])
def test_a_finished_model_is_not_replaced_by_another(kind: str, tmp_path: Path) -> None:
    data, other = make_blobs(tmp_path / "data", n=120, size=24), make_blobs(tmp_path / "other", n=140, size=24)
    options = {
        "model": kind,
        "layers": ("science", "difference"),
        "name": "one",
        "out_dir": tmp_path,
        "epochs": 1,
        "n_trees": 20,
    }
    small = {"model_kwargs": {"block1": 2, "block2": 2, "dense": 4}} if kind == "vgg6" else {}
    classifier.train(data, **options, **small)
    before = (tmp_path / "one" / "model.h5").read_bytes()
    with pytest.raises(ModelError, match=r"trained in another way \(.*seed"):
        classifier.train(data, **options | {"seed": 9}, **small)
    with pytest.raises(ModelError, match="data set"):
        classifier.train(other, **options, **small)
    classifier.train(data, **options, **small)
    assert (tmp_path / "one" / "model.h5").read_bytes() == before
