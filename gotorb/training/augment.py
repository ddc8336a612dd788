"""Flips and quarter turns: the eight orientations in which a stamp is as likely to have been seen."""

import numpy as np

N_ORIENTATIONS = 8


def turn_stamps(stamps: np.ndarray, orientations: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Turn each stamp to one of its eight orientations.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).
    orientations : ndarray of int
        (n,) 0 to 7: quarter turns = orientation % 4, mirrored when orientation >= 4.
    out : ndarray, optional
        Where the copy goes; new memory when left out.

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
    turned = np.empty_like(stamps) if out is None else out
    for orientation in np.unique(orientations):
        rows = orientations == orientation
        part = np.rot90(stamps[rows], int(orientation) % 4, axes=(1, 2))
        turned[rows] = part[:, :, ::-1] if orientation >= 4 else part
    return turned


def draw_orientations(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n orientations, each of the eight equally likely."""
    return rng.integers(0, N_ORIENTATIONS, n)
