"""An interrupted training resumes and ends with the same bytes."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gotorb import classifier
from gotorb.core import layout
from gotorb.errors import ConfigError
from tests.conftest import N_THREADS
from tests.model.blobs import make_blobs, small_network
from tests.model.conftest import STAYS_GRAPH

PLAIN: dict[str, Any] = {
    "epochs": 4, "seed": 4, "name": "model", "schedule": "cosine", "dropout": 0.1, "batch_size": 48, "patience": 3,
}  # fmt: skip
OPTIONS = PLAIN | {"model": small_network}
RUN = f"""
import os, signal, sys
import keras
from gotorb import classifier
from tests.model.blobs import small_network

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, number, logs=None):
        self.number = number
    def on_train_batch_end(self, number, logs=None):
        if (self.number, number) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)

options = {PLAIN!r} | {{"model": small_network, "threads": {N_THREADS}}}
classifier.train(sys.argv[1], out_dir=sys.argv[2], callbacks=[Kill()], **options)
"""


class PowerCut(BaseException):
    """Ends a training without a word, as nothing in the code expects it."""


class Cut(keras.callbacks.Callback):
    """Raises at the first batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.now == self.epoch:
            raise PowerCut


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blobs(tmp_path_factory.mktemp("small") / "data", n=140, size=21)


def test_killed_twice_and_resumed_gives_the_bytes_of_an_uninterrupted_training(
    small: Path, tmp_path: Path, warm_python: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = OPTIONS | {"threads": N_THREADS}
    classifier.train(small, out_dir=whole, **options)
    died = subprocess.run([warm_python, "-c", RUN, small, killed], capture_output=True, timeout=200)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (killed / "model" / layout.STATE_NPZ).exists() and not (killed / "model" / layout.MODEL_H5).exists()
    with pytest.raises(PowerCut):
        classifier.train(small, out_dir=killed, callbacks=[Cut(3)], **options)
    classifier.train(small, out_dir=killed, **options)
    for name in (layout.MODEL_H5, layout.META_HKL):
        assert (killed / "model" / name).read_bytes() == (whole / "model" / name).read_bytes(), name
    assert not (killed / "model" / layout.STATE_NPZ).exists()
    assert "resuming after epoch 3" in (killed / "model" / "model.log").read_text()


def stop_after(last: int) -> Any:
    def on_epoch(epoch: int, _: dict[str, float]) -> None:
        if epoch == last:
            raise KeyboardInterrupt

    return on_epoch


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_ctrl_c_keeps_the_best_weights_and_the_run_can_resume(small: Path, tmp_path: Path) -> None:
    whole, _ = classifier.train(small, out_dir=tmp_path / "whole", **OPTIONS)
    _, meta = classifier.train(small, out_dir=tmp_path, on_epoch=stop_after(2), **OPTIONS)
    assert meta["interrupted"] and len(meta["history"]["val_loss"]) == 2 + 1
    assert classifier.load(tmp_path / "model").meta is not None
    seen: list[int] = []
    model, meta = classifier.train(small, out_dir=tmp_path, on_epoch=lambda epoch, _: seen.append(epoch), **OPTIONS)
    assert seen == [2, 3] and not meta["interrupted"]
    for mine, theirs in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (tmp_path / "model/model.h5").read_bytes() == (tmp_path / "whole/model/model.h5").read_bytes()


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.002}, "learning_rate"),
        ({"optimizer": lambda: keras.optimizers.SGD(0.1)}, "optimizer"),
        ({"normalise": "none", "model": "bayesian_vgg6"}, "model, network, normalise"),
    ],
)
def test_other_settings_under_the_same_name_start_again_and_say_so(
    small: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    brief = OPTIONS | {"epochs": 3}
    classifier.train(small, out_dir=tmp_path, on_epoch=stop_after(1), **brief)
    seen: list[int] = []
    options = brief | changes | {"on_epoch": lambda epoch, _: seen.append(epoch)}
    classifier.train(small, out_dir=tmp_path, **options)
    assert seen[0] == 0
    log = (tmp_path / "model" / "model.log").read_text()
    assert f"of a training with another {named}" in log


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_a_broken_checkpoint_is_not_used(small: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for content in (b"", b"text", b"PK\x03\x04" + bytes(40)):
        (tmp_path / "model" / layout.STATE_NPZ).write_bytes(content)
        _, meta = classifier.train(small, out_dir=tmp_path, **OPTIONS | {"epochs": 1})
        assert len(meta["history"]["loss"]) == 1
    assert (tmp_path / "model" / "model.log").read_text().count("cannot be read") == 3


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_patience_counts_on_after_an_interruption(small: Path, tmp_path: Path) -> None:
    options = OPTIONS | {"learning_rate": 1e-9, "patience": 2, "epochs": 9, "monitor": "val_auc"}
    _, whole = classifier.train(small, out_dir=tmp_path / "whole", **options)
    classifier.train(small, out_dir=tmp_path, on_epoch=stop_after(2), **options)
    _, meta = classifier.train(small, out_dir=tmp_path, **options)
    assert len(whole["history"]["loss"]) < 9
    assert meta["history"] == whole["history"] and meta["best_epoch"] == whole["best_epoch"]


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_an_average_of_the_weights_is_kept_and_resumes(small: Path, tmp_path: Path) -> None:
    options = OPTIONS | {"ema": 0.9, "schedule": "one_cycle", "epochs": 3}
    whole, meta = classifier.train(small, out_dir=tmp_path / "whole", **options)
    classifier.train(small, out_dir=tmp_path, on_epoch=stop_after(1), **options)
    classifier.train(small, out_dir=tmp_path, **options)
    assert (tmp_path / "model/model.h5").read_bytes() == (tmp_path / "whole/model/model.h5").read_bytes()
    plain, without = classifier.train(small, out_dir=tmp_path / "plain", **options | {"ema": None})
    # the weights that are trained are the same but for rounding, as they are put aside and back
    assert meta["history"]["loss"] == pytest.approx(without["history"]["loss"], rel=1e-3)
    assert meta["history"]["val_loss"] != without["history"]["val_loss"]
    assert any((mine != theirs).any() for mine, theirs in zip(whole.get_weights(), plain.get_weights(), strict=True))
    with pytest.raises(ConfigError, match="ema"):
        classifier.train(
            small, out_dir=tmp_path / "other", **options | {"optimizer": lambda: keras.optimizers.SGD(0.1)}
        )
