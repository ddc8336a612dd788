"""Stamps of any source, cut to batches that fit a model; turned, and disturbed far from the source.

What has no score is refused. A disturbance (hot pixel, cosmic ray, bright star, masked area) is no part of the source,
so a detection keeps its label: networks and trees are trained with some, and the evaluation counts the calls that they
change.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from gotorb.core.constants import MAD_TO_SIGMA, SIGMA_TO_FWHM
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

    Examples
    --------
    >>> str(not_finite("vgg6", 100, [3], ["row 3"])).split(";")[0]
    "model 'vgg6' gives NaN or infinity for 1 of 100 stamps (rows row 3)"
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


FAR_FWHM = 3.0
"""Distance from the source, in widths of the PSF, beyond which pixels are changed."""
USUAL_FWHM = 3.1
"""Full width of the PSF in pixels where it is not known."""
FAINTEST, FULL_WELL = 20.0, 10_000.0
"""Faintest and brightest light that is added, in units of the difference's noise."""
TRACK = (3, 16)
"""Length of a cosmic ray's track, pixels."""
STAR_RESIDUAL = 0.03
"""Largest fraction of a star that its subtraction leaves, of either sign."""
MASKED = (0.05, 0.5)
"""Side of a masked area over that of the stamp."""
Rng = np.random.Generator


def disturb_stamps(
    stamps: np.ndarray,
    layers: tuple[str, ...],
    kind: str | None = None,
    *,
    level: float | None = None,
    fwhm: float = USUAL_FWHM,
    rng: Rng,
) -> np.ndarray:
    """Disturb each stamp at a random place beyond three widths of the PSF.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).
    layers : tuple of str
        Names of the layers. Stars and masked areas are in all; hot pixels and cosmic rays not in the template.
    kind : {"hot_pixel", "cosmic_ray", "bright_star", "masked_area"}, optional
        A random one for each stamp when left out.
    level : float, optional
        Brightness in units of the noise of the difference (else of the first layer); up to full well, at random, when
        left out.
    fwhm : float
        Width of the PSF, pixels.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        A copy; pixels nearer than three widths are unchanged.

    Examples
    --------
    >>> stamps = np.random.default_rng(1).normal(size=(2, 21, 21, 1)).astype(np.float32)
    >>> changed = disturb_stamps(stamps, ("difference",), "hot_pixel", level=50, rng=np.random.default_rng(2))
    >>> (changed != stamps).sum(axis=(1, 2, 3)).tolist()
    [1, 1]
    """
    changed, size = stamps.copy(), stamps.shape[1]
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    far = np.hypot(y, x) > min(FAR_FWHM * fwhm, size / 2 - 1)
    places = np.argwhere(far)
    noise = _measure_noise(stamps[..., layers.index("difference") if "difference" in layers else 0])
    for row in range(len(stamps)):
        name = str(rng.choice(KINDS)) if kind is None else kind
        height = np.exp(rng.uniform(np.log(FAINTEST), np.log(FULL_WELL))) if level is None else level
        shape = SHAPES[name](size, places[rng.integers(len(places))], fwhm, rng) * far
        if name == "masked_area":
            changed[row][shape > 0] = 0
        else:
            changed[row] += (noise[row] * height * shape[..., None] * _share(name, layers, rng)).astype(stamps.dtype)
    return changed


def _measure_noise(plane: np.ndarray) -> np.ndarray:
    flat = plane.reshape(len(plane), plane.shape[1] * plane.shape[2])  # there may be no stamp
    return MAD_TO_SIGMA * np.nanmedian(np.abs(flat - np.nanmedian(flat, axis=1, keepdims=True)), axis=1)


def _share(name: str, layers: tuple[str, ...], rng: Rng) -> np.ndarray:
    """Part of the light that each layer gets."""
    if name != "bright_star":
        return np.array([layer != "template" for layer in layers], float)
    residual = rng.uniform(-STAR_RESIDUAL, STAR_RESIDUAL)
    return np.array([{"difference": residual, "ptp": abs(residual)}.get(layer, 1.0) for layer in layers])


def _draw_pixel(size: int, place: np.ndarray, fwhm: float, rng: Rng) -> np.ndarray:
    shape = np.zeros((size, size))
    shape[tuple(place)] = 1
    return shape


def _draw_track(size: int, place: np.ndarray, fwhm: float, rng: Rng) -> np.ndarray:
    """A straight line of pixels of uneven brightness."""
    angle, steps = rng.uniform(0, np.pi), np.arange(rng.integers(*TRACK))
    ends = np.round(place[:, None] + np.outer((np.sin(angle), np.cos(angle)), steps)).astype(int)
    inside = ((ends >= 0) & (ends < size)).all(axis=0)
    shape = np.zeros((size, size))
    shape[tuple(ends[:, inside])] = rng.uniform(0.3, 1, int(inside.sum()))
    return shape


def _draw_star(size: int, place: np.ndarray, fwhm: float, rng: Rng) -> np.ndarray:
    y, x = np.ogrid[:size, :size]
    return np.asarray(np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 2 * (SIGMA_TO_FWHM / fwhm) ** 2))


def _draw_area(size: int, place: np.ndarray, fwhm: float, rng: Rng) -> np.ndarray:
    """A rectangle around the place."""
    half = rng.uniform(*MASKED, 2) * size / 2
    y, x = np.ogrid[:size, :size]
    return ((np.abs(y - place[0]) <= half[0]) & (np.abs(x - place[1]) <= half[1])).astype(float)


SHAPES: dict[str, Callable[[int, np.ndarray, float, Rng], np.ndarray]] = {
    "hot_pixel": _draw_pixel,
    "cosmic_ray": _draw_track,
    "bright_star": _draw_star,
    "masked_area": _draw_area,
}
KINDS = tuple(SHAPES)
