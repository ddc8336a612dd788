"""A registered model loads in every way and serves raw stamps with the scores of classifier.predict."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests

from gotorb import classifier, models
from gotorb.core import layout
from gotorb.tracking.contents import md5
from gotorb.tracking.mlflow_model import COLUMNS, NEEDED
from gotorb.tracking.registry import Registered, load_service, register
from gotorb.tracking.runs import track_stage
from gotorb.tracking.store import tracking_uri
from tests.shared import point_to
from tests.unit.tracking.server import Process, free_port
from tests.unit.tracking.tiny import LAYERS, make_params

SIZE, N = 21, 5
FOREIGN = ("sklearn", "astropy", "hickle", "dvc", "matplotlib", "psycopg2", "pympc")
ALONE = """
import sys
import os
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
sys.path = [place for place in sys.path if not os.path.isdir(os.path.join(place, "gotorb"))]  # editable by .pth
for name in {foreign}: sys.modules[name] = None  # as where they are not installed
import mlflow, numpy as np
model = mlflow.pyfunc.load_model({path!r})
import gotorb
assert gotorb.__file__.startswith({path!r}), gotorb.__file__
print(model.predict(np.ones((2, {size}, {size}, 4), "float32"), params={{"n_samples": 3}}).to_json())
"""


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, fresh_store: Path) -> Iterator[tuple[Registered, Path]]:
    """A real network with dropout and a first layer of ours, registered, and the folder of its file."""
    import keras
    import keras_tuner  # registers a layer with Keras, which must not be pickled next to the model

    from gotorb.training.model_files import write_model
    from gotorb.training.networks import build_network

    root = tmp_path_factory.mktemp("flavor")
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, root)
        assert keras_tuner and keras.saving.get_custom_objects()
        keras.utils.set_random_seed(1)
        shape = (SIZE, SIZE, len(LAYERS))
        network = build_network(models.bayesian_vgg6, shape, layers=LAYERS, dropout=0.1, normalise="noise")
        path = write_model(root / layout.MODEL_H5, network)
        with track_stage("train", make_params()) as run:
            run.log_model(path, tags={"network": "bayesian_vgg6"})
        yield register("gotorb", run.run_id, md5(path), {"layers": ",".join(LAYERS)}), path


@pytest.fixture(scope="module")
def stamps() -> np.ndarray:
    """Stamps in survey units: a sky of noise and a bright star."""
    rng = np.random.default_rng(2)
    return rng.normal(0, 300, (N, SIZE, SIZE, len(LAYERS))).astype(np.float32)


@pytest.fixture(scope="module")
def expected(registered: tuple[Registered, Path], stamps: np.ndarray) -> np.ndarray:
    return classifier.predict(registered[1], stamps)


def test_keras_form_gives_the_same_scores(
    registered: tuple[Registered, Path], stamps: np.ndarray, expected: np.ndarray
) -> None:
    network = mlflow.tensorflow.load_model(registered[0].uri)
    np.testing.assert_array_equal(classifier.predict(network, stamps), expected)


def test_service_gives_scores_and_a_posterior(
    registered: tuple[Registered, Path], stamps: np.ndarray, expected: np.ndarray
) -> None:
    service = mlflow.pyfunc.load_model(registered[0].uri)
    rows = service.predict(stamps)
    assert tuple(rows.columns) == COLUMNS
    np.testing.assert_allclose(rows["score"].astype(float), expected, atol=1e-6)
    samples = classifier.dropout_pred(registered[1], stamps, nsamples=20, seed=0)
    np.testing.assert_allclose(rows["mean"].astype(float), samples.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(rows["std"].astype(float), samples.std(axis=1), atol=1e-6)
    assert rows["confidence"].between(0, 1).all()
    assert rows["probability"].isna().all()  # this version has no calibration
    assert rows["call"].tolist() == ["real" if mean >= 0.5 else "bogus" for mean in rows["mean"]]


def test_samples_and_seed_are_the_callers_choice(registered: tuple[Registered, Path], stamps: np.ndarray) -> None:
    service = load_service(registered[0].uri)

    def means(**params: int) -> np.ndarray:
        return service.predict(stamps, params=params)["mean"].to_numpy()

    assert np.array_equal(means(n_samples=4, seed=7), means(n_samples=4, seed=7))
    assert not np.array_equal(means(n_samples=4, seed=7), means(n_samples=4, seed=8))
    assert not np.array_equal(means(n_samples=4, seed=7), means(n_samples=5, seed=7))
    assert means(n_samples=0).tolist() == [None] * N


def test_signature_example_and_requirements_are_there(registered: tuple[Registered, Path]) -> None:
    info = mlflow.models.get_model_info(registered[0].uri)
    (stamps,) = info.signature.inputs.inputs
    assert (stamps.type, stamps.shape) == (np.dtype("float32"), (-1, SIZE, SIZE, len(LAYERS)))
    assert info.signature.outputs.input_names() == list(COLUMNS)
    assert {param.name for param in info.signature.params.params} == {"n_samples", "seed"}
    folder = Path(mlflow.artifacts.download_artifacts(registered[0].uri))
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert np.shape(example["inputs"]) == (2, SIZE, SIZE, len(LAYERS))
    assert info.saved_input_example_info is not None
    loaded = mlflow.pyfunc.load_model(registered[0].uri)
    shown = mlflow.models.Model.load(str(folder)).load_input_example(str(folder))
    assert np.shape(shown["stamps"]) == (2, SIZE, SIZE, len(LAYERS))
    assert len(loaded.predict(shown)) == 2
    needed = {line.split("==")[0] for line in (folder / "requirements.txt").read_text().split()}
    assert {*NEEDED} == needed


@pytest.mark.long("a true process imports all that a model in service needs")
def test_model_needs_no_checkout_and_nothing_it_does_not_name(
    registered: tuple[Registered, Path], tmp_path: Path
) -> None:
    """In a process that finds the package in the model's folder alone, without what the model does not require."""
    folder = mlflow.artifacts.download_artifacts(registered[0].uri, dst_path=str(tmp_path / "model"))
    code = ALONE.format(foreign=FOREIGN, path=folder, size=SIZE)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) == set(COLUMNS)


@pytest.mark.slow
def test_server_answers_raw_stamps_with_the_same_scores(
    registered: tuple[Registered, Path], stamps: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", registered[0].uri]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = Process(command, f"{address}/ping", tmp_path / "serve.log", MLFLOW_TRACKING_URI=tracking_uri())
    try:
        server.start()
        body = {"inputs": stamps.astype(float).tolist(), "params": {"n_samples": 4, "seed": 7}}
        answer = requests.post(f"{address}/invocations", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        rows = answer.json()["predictions"]
        np.testing.assert_allclose([row["score"] for row in rows], expected, atol=1e-6)
        direct = load_service(registered[0].uri).predict(stamps, params={"n_samples": 4, "seed": 7})
        np.testing.assert_allclose([row["mean"] for row in rows], direct["mean"].astype(float), atol=1e-6)
        wrong = requests.post(f"{address}/invocations", json={"inputs": [[1, 2]]}, timeout=60)
        assert wrong.status_code == 400
    finally:
        server.kill()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pickles_in_model_files_are_not_read(tmp_path: Path, fresh_store: Path) -> None:
    """A model of mlflow's own kind that holds an object as a pickle."""

    class Evil(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input

    mlflow.pyfunc.save_model(tmp_path / "evil", python_model=Evil(), pip_requirements=[])
    with pytest.raises(mlflow.exceptions.MlflowException, match="MLFLOW_ALLOW_PICKLE_DESERIALIZATION"):
        mlflow.pyfunc.load_model(str(tmp_path / "evil"))
