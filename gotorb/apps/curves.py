"""Curves of pages as the paths of an SVG."""

import numpy as np

from gotorb.evaluation.posterior import posterior_density

WIDTH, HEIGHT = 150, 46
GRID = np.linspace(0, 1, 76)


def posterior_path(samples: np.ndarray) -> str:
    """Outline of one posterior's density, its peak at the top, to be filled."""
    density = posterior_density(samples, GRID)
    return outline(density / density.max())


def outline(heights: np.ndarray) -> str:
    """Closed path over equal steps of [0, 1], heights 0 to 1.

    >>> outline(np.array([0.0, 1.0]))
    'M0 46L0 46L150 2L150 46Z'
    """
    x = np.linspace(0, WIDTH, len(heights))
    y = HEIGHT - (HEIGHT - 2) * heights
    points = "".join(f"L{a:.4g} {b:.3g}" for a, b in zip(x, y, strict=True))
    return f"M0 {HEIGHT}{points}L{WIDTH} {HEIGHT}Z"


def ticks(samples: np.ndarray) -> str:
    """A short line for each sample."""
    return "".join(f"M{x:.4g} {HEIGHT}v-5" for x in np.unique(np.round(samples * WIDTH, 1)))
