"""One broker and one small model for all tests of streams."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from tests.unit.streams.kafka import Broker, make_model


@pytest.fixture(scope="package")
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.close()


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "small.onnx")
