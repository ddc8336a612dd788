"""Answers of the scoring service: what it says of each stamp, of any kind of numbers, and of what it cannot score."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import requests
import uvicorn

from gotorb.evaluation.calibration import expit, logit
from gotorb.tracking.mlflow_model import COLUMNS, Operating, Service, make_app
from tests.unit.tracking.server import free_port
from tests.unit.tracking.test_recording import wait_for
from tests.unit.tracking.tiny import LAYERS, SIZE, make_model

SHAPE = (SIZE, SIZE, len(LAYERS))
OPERATING = Operating(threshold=0.6, temperature=2.0, offset=-0.1)
N = 6


def make_stamps(n: int = N) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 40, (n, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def service() -> Service:
    return Service(make_model(), OPERATING)


@pytest.fixture(scope="module")
def bayesian() -> Service:
    import keras

    plain = make_model()
    inputs = keras.Input(SHAPE)
    dropped = keras.layers.Dropout(0.3)(inputs)
    return Service(keras.Model(inputs, plain(dropped)), OPERATING)


@pytest.fixture(scope="module")
def ask(service: Service) -> Iterator[Any]:
    """Post a body to MLflow's server of the service, which runs in a thread."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(make_app(service), host="127.0.0.1", port=port, log_level="error"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)

    def post(body: Any) -> Any:
        text = body if isinstance(body, str) else json.dumps(body)
        kind = {"content-type": "application/json"}
        return requests.post(f"http://127.0.0.1:{port}/invocations", data=text, headers=kind, timeout=60)

    yield post
    server.should_exit = True
    thread.join()


def test_answer_of_a_model_without_a_posterior(service: Service) -> None:
    rows = service.predict(make_stamps())
    score = rows["score"].to_numpy(float)
    assert tuple(rows.columns) == COLUMNS
    np.testing.assert_allclose(rows["probability"].astype(float), expit(logit(score) / 2 - 0.1))
    assert rows[["mean", "std", "confidence"]].isna().all(axis=None)
    assert (rows["threshold"] == 0.6).all()
    assert rows["call"].tolist() == ["real" if one >= 0.6 else "bogus" for one in score]
    assert set(rows["call"]) == {"real", "bogus"}


def test_answer_of_a_model_with_a_posterior(bayesian: Service) -> None:
    rows = bayesian.predict(make_stamps())
    assert rows["std"].gt(0).all() and rows["confidence"].between(0, 1).all()
    mean = rows["mean"].to_numpy(float)
    np.testing.assert_allclose(rows["probability"].astype(float), expit(logit(mean) / 2 - 0.1))
    assert rows["call"].tolist() == ["real" if one >= 0.6 else "bogus" for one in mean]


@pytest.mark.parametrize("kind", [">f4", "<f8", ">f8", "f2", "i2", ">i4", "i8", "u2", "?"])
def test_numbers_of_any_kind_are_converted(service: Service, kind: str) -> None:
    stamps = np.abs(np.rint(make_stamps())).astype(kind)
    expected = service.predict(stamps.astype(np.float32))
    assert service.predict(stamps).equals(expected)
    assert service.predict({"stamps": stamps}).equals(expected)
    assert service.predict(stamps.tolist()).equals(expected)


def test_stamp_that_is_not_finite_costs_that_stamp(service: Service) -> None:
    stamps = make_stamps()
    expected = service.predict(stamps)
    stamps[1, 0, 0, 0], stamps[4, 2, 2, 1] = np.nan, np.inf
    rows = service.predict(stamps)
    for row in range(N):
        answer = rows.iloc[row].tolist()
        assert answer == ([None] * len(COLUMNS) if row in (1, 4) else expected.iloc[row].tolist())


def test_no_stamps_are_no_rows(service: Service) -> None:
    assert len(service.predict(make_stamps(0))) == 0


@pytest.mark.parametrize("n_bad", [0, 1, N])
def test_server_answers_with_json_that_has_no_nan(ask: Any, n_bad: int) -> None:
    stamps = make_stamps()
    stamps[:n_bad] = np.nan
    answer = ask({"inputs": stamps.tolist()})
    assert answer.status_code == 200

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no json")

    rows = json.loads(answer.text, parse_constant=refuse)["predictions"]
    assert [row["call"] is None for row in rows] == [i < n_bad for i in range(N)]
    assert all(list(row) == list(COLUMNS) for row in rows)


WRONG = {
    "no stamps": {"inputs": [[1, 2]]},
    "one stamp without its axis": {"inputs": np.zeros(SHAPE).tolist()},
    "another size": {"inputs": np.zeros((2, SIZE + 1, SIZE + 1, len(LAYERS))).tolist()},
    "another number of layers": {"inputs": np.zeros((2, SIZE, SIZE, 2)).tolist()},
    "unequal rows": {"inputs": [[1, 2], [3]]},
    "words": {"inputs": np.full((1, *SHAPE), "a").tolist()},
    "a number": {"inputs": 3},
    "nothing": {"inputs": None},
    "an empty list": {"inputs": []},
    "a table": {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
    "another key": {"stamps": [1]},
    "a list": [1, 2],
    "no json": "{",
    "too many samples": {"inputs": np.zeros((1, *SHAPE)).tolist(), "params": {"n_samples": 10**9}},
    "samples below none": {"inputs": np.zeros((1, *SHAPE)).tolist(), "params": {"n_samples": -1}},
    "a word for a seed": {"inputs": np.zeros((1, *SHAPE)).tolist(), "params": {"seed": "x"}},
    "an unknown parameter": {"inputs": np.zeros((1, *SHAPE)).tolist(), "params": {"fast": 1}},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_request_is_one_short_line(ask: Any, name: str) -> None:
    answer = ask(WRONG[name])
    assert answer.status_code == 400
    assert len(answer.text.splitlines()) == 1 and len(answer.text) < 400
    assert "Traceback" not in answer.text and list(answer.json()) == ["error"]


def test_wrong_shape_names_both_shapes(ask: Any) -> None:
    told = ask({"inputs": np.zeros((2, 5, 5, 4)).tolist()}).json()["error"]
    assert "(2, 5, 5, 4)" in told and f"{SIZE}, {SIZE}, {len(LAYERS)}" in told


def test_model_of_mlflow_converts_and_knows_threshold_and_calibration(project: Path, models_dir: Path) -> None:
    """The way around gotorb: MLflow's own loader in any program."""
    import mlflow

    from gotorb.tracking.runs import track_stage
    from gotorb.tracking.store import open_store
    from tests.unit.tracking.tiny import make_params

    with track_stage("train", make_params()) as run:
        tags = {"network": "vgg6", "threshold": "0.25", "temperature": "2.0", "offset": "0.5"}
        run.log_model(models_dir / "vgg6" / "model.h5", tags=tags)
    (output,) = open_store().get_run(run.run_id).outputs.model_outputs
    loaded = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    rows = loaded.predict(make_stamps().astype(">f8"), params={"n_samples": 0})
    assert (rows["threshold"] == 0.25).all()
    np.testing.assert_allclose(rows["probability"].astype(float), expit(logit(rows["score"].astype(float)) / 2 + 0.5))
