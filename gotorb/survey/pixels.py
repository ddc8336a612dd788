"""Pixels of stamps: gaps filled, the sky level taken off, the middle kept."""

from pathlib import Path

import numpy as np

from gotorb.errors import DataError

LARGEST = 1e30
"""No detector counts so high: a pixel from here on is a gap. ZTF masks some with float32's end, -3.4e38."""


def fill_missing(stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put 0, the sky level of a sky-subtracted image, where there are no data.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers) with NaN, infinity or a number beyond `LARGEST` for no data.

    Returns
    -------
    stamps : ndarray
        The same without these.
    missing_fraction : ndarray
        (n,) largest fraction of missing pixels over the layers.
    """
    if not stamps.size or (stamps.min() > -LARGEST and stamps.max() < LARGEST):  # NaN is neither
        return stamps, np.zeros(len(stamps))
    missing = ~_has_data(stamps)
    return np.where(missing, np.float32(0), stamps), missing.mean(axis=(1, 2)).max(axis=-1, initial=0)


def prepare_stamps(raw: np.ndarray, background: str) -> tuple[np.ndarray, np.ndarray]:
    """Take the background off and fill pixels without data.

    Parameters
    ----------
    raw : ndarray
        (n, size, size, n_layers); NaN where there are no data.
    background : {"median", "none"}
        Background subtracted from each layer of each stamp.

    Returns
    -------
    stamps : ndarray
        The same, float32, finite.
    missing_fraction : ndarray
        (n,) largest fraction of missing pixels over the layers.
    """
    raw = np.asarray(raw, np.float32)
    if background == "median":
        with np.errstate(invalid="ignore", over="ignore"):  # numbers of a damaged packet
            raw = raw - layer_medians(raw)
    return fill_missing(raw)


def crop_stamps(stamps: np.ndarray, size: int) -> np.ndarray:
    """Keep the central pixels of stamps.

    Parameters
    ----------
    stamps : ndarray
        (n, side, side, n_layers).
    size : int
        Side to keep, pixels.

    Returns
    -------
    ndarray
        (n, size, size, n_layers), a view.

    Examples
    --------
    >>> crop_stamps(np.arange(25.0).reshape(1, 5, 5, 1), 3)[0, :, :, 0]
    array([[ 6.,  7.,  8.],
           [11., 12., 13.],
           [16., 17., 18.]])
    """
    start = (stamps.shape[1] - size) // 2
    return stamps[:, start : start + size, start : start + size]


def check_middle(side: int, size: int, *, model: str, where: Path | str) -> None:
    """Refuse stamps that have no middle of the size that a model takes.

    Parameters
    ----------
    side, size : int
        Sides of the stamps and of the model's, pixels.
    model : str
    where : path
        Source of the stamps; like `model`, for the message.

    Raises
    ------
    DataError
        If they are smaller than the model's, or odd where the model's are even, or the other way round.
    """
    if side >= size and (side - size) % 2 == 0:
        return
    reason = "too few" if side < size else f"whose middle {size} would lie half a pixel off"
    raise DataError(
        f"model {model} takes stamps of {size} pixels, {where} has {side}, {reason}; use a model trained on stamps "
        f"of at most {side} pixels, an {'odd' if side % 2 else 'even'} number"
    )


def kept_size(side: int, wanted: int | None, where: Path | str) -> int:
    """Side of the stamps after the crop that params asks for.

    Parameters
    ----------
    side : int
        Of the stamps, pixels.
    wanted : int or None
        None for the whole stamp.
    where : path
        Source of the stamps, for the message.

    Returns
    -------
    int

    Raises
    ------
    DataError
        If the crop would be larger than the stamp, or off its middle.
    """
    size = wanted or side
    if size > side or (side - size) % 2:
        raise DataError(
            f"label.archive.size is {size}, stamps of {where} have {side} pixels; "
            f"give null or a smaller {'odd' if side % 2 else 'even'} number"
        )
    return size


def _has_data(pixels: np.ndarray) -> np.ndarray:
    """True for pixels with a number that a detector can give."""
    return (pixels < LARGEST) & (pixels > -LARGEST)


def layer_medians(raw: np.ndarray) -> np.ndarray:
    """Median of each layer's pixels with data.

    Parameters
    ----------
    raw : ndarray
        (n, size, size, n_layers); NaN, infinity or a number beyond `LARGEST` for no data.

    Returns
    -------
    ndarray
        (n, 1, 1, n_layers); 0 where a layer has no data.
    """
    values = np.array(raw.reshape(len(raw), -1, raw.shape[-1]).transpose(0, 2, 1), order="C")  # a copy: it is sorted
    with np.errstate(over="ignore", invalid="ignore"):
        whole = _has_data(values.sum(axis=-1))
    medians = np.zeros(whole.shape, np.float32)
    medians[whole] = _middle(values[whole] if not whole.all() else values.reshape(-1, values.shape[-1]))
    for place in zip(*np.nonzero(~whole), strict=True):
        held = values[place][_has_data(values[place])]
        medians[place] = np.median(held) if held.size else 0
    return medians[:, None, None, :]


def _middle(values: np.ndarray) -> np.ndarray:
    """Median over the last axis by one partition in place, several times as fast as np.median."""
    half, odd = divmod(values.shape[-1], 2)
    values.partition(half if odd else (half - 1, half), axis=-1)
    return values[..., half] if odd else values[..., half - 1 : half + 1].mean(axis=-1)
