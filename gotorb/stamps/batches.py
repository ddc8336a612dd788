"""Stamps of any source, cut to batches that fit a model, and turned; what has no score is refused."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from gotorb.errors import DataError, ModelError, NotFinite

N_NAMED = 5
"""Rows that a message names."""
N_ORIENTATIONS = 8
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

    Yields
    ------
    ndarray

    Raises
    ------
    ModelError
        If the stamps' shape is not the model's.
    DataError
        If a stamp is not finite.

    Examples
    --------
    >>> stamps = np.zeros((5, 3, 3, 2))
    >>> [len(batch) for batch in cut_batches(stamps, 2, shape=(3, 3, 2), name="vgg6")]
    [2, 2, 1]
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


def check_scores(scores: np.ndarray, *, name: str, ids: Sequence[str] | None = None) -> np.ndarray:
    """Refuse scores that are not finite: as calls they would all be bogus, with full confidence.

    Parameters
    ----------
    scores : ndarray
        (n,) scores, or (n, ...) numbers of n stamps.
    name : str
        Of the model, for messages.
    ids : sequence of str, optional
        Ids of the stamps; their numbers are named when left out.

    Returns
    -------
    ndarray
        The same scores.

    Raises
    ------
    NotFinite
        If one is NaN or infinite.

    Examples
    --------
    >>> check_scores(np.array([0.1, 0.9]), name="vgg6").tolist()
    [0.1, 0.9]
    """
    wrong = np.flatnonzero(~np.isfinite(scores).all(axis=tuple(range(1, scores.ndim))))
    if len(wrong):
        raise not_finite(
            name, len(scores), wrong.tolist(), [str(row if ids is None else ids[row]) for row in wrong.tolist()]
        )
    return scores


def not_finite(name: str, n: int, rows: Sequence[int], shown: Sequence[object]) -> NotFinite:
    """Error for scores that are not finite.

    Parameters
    ----------
    name : str
        Of the model.
    n : int
        Number of stamps that were scored.
    rows : sequence of int
        Numbers of those without a finite score.
    shown : sequence
        Their names in the message.

    Returns
    -------
    NotFinite
        To be raised.
    """
    some = ", ".join(map(str, shown[:N_NAMED])) + (", ..." if len(shown) > N_NAMED else "")
    return NotFinite(
        f"model {name!r} gives NaN or infinity for {len(rows)} of {n} stamps (rows {some}); its weights are damaged or "
        "its training diverged: train again or get the original",
        rows,
    )


def turn_stamps(stamps: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """Turn each stamp to one of its eight orientations.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).
    orientations : ndarray of int
        (n,) 0 to 7: quarter turns = orientation % 4, mirrored when orientation >= 4.

    Returns
    -------
    ndarray
        A copy of the same shape; no pixel value is new.

    Examples
    --------
    >>> stamp = np.arange(4.0).reshape(1, 2, 2, 1)
    >>> turn_stamps(stamp, np.array([4]))[0, :, :, 0].tolist()
    [[1.0, 0.0], [3.0, 2.0]]
    """
    turned = np.empty_like(stamps)
    for orientation in np.unique(orientations):
        rows = orientations == orientation
        part = np.rot90(stamps[rows], int(orientation) % 4, axes=(1, 2))
        turned[rows] = part[:, :, ::-1] if orientation >= 4 else part
    return turned
