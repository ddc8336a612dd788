"""Stamps of any source, cut to batches that fit a model; what has no score is refused."""

from collections.abc import Iterable, Iterator

import numpy as np

from gotorb.errors import DataError, ModelError

Stamps = np.ndarray | Iterable[np.ndarray]


def cut_batches(stamps: Stamps, batch_size: int, *, shape: tuple[int, ...], name: str) -> Iterator[np.ndarray]:
    """Cut any source of stamps to checked float32 batches of at most `batch_size`.

    Parameters
    ----------
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    batch_size : int
        Stamps of a batch.
    shape : tuple of int
        (size, size, n_layers) that the model takes.
    name : str
        Of the model, for messages.

    Raises
    ------
    ModelError
        If the stamps' shape is not the model's.
    DataError
        If a stamp is not finite.
    """
    first = 0
    for block in [stamps] if isinstance(stamps, np.ndarray) else stamps:
        for start in range(0, len(block), batch_size):
            batch = np.asarray(block[start : start + batch_size], np.float32)
            _check_batch(batch, first, shape, name)
            yield batch
            first += len(batch)


def _check_batch(batch: np.ndarray, first: int, shape: tuple[int, ...], name: str) -> None:
    if batch.shape[1:] != shape:
        raise ModelError(
            f"stamps of shape {batch.shape[1:]} (size, size, layers) do not fit model {name!r}, which takes "
            f"{shape}; give the size and the layers that the model was trained on"
        )
    finite = np.isfinite(batch).all(axis=(1, 2, 3))
    if not finite.all():
        raise DataError(
            f"stamp {first + int(np.argmin(finite))} holds NaN or infinity and has no score; "
            "gotorb.survey.pixels.fill_missing fills pixels without data"
        )
