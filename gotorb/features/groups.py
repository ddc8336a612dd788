"""Groups of features of a block of stamps, each a function that returns columns by name.

A name is ``quantity.plane.place``, where the place is the number of a ring, a radius in pixels at a PSF of
`geometry.REFERENCE_FWHM`, or a level in noise units. Features do not change if a stamp is rotated or mirrored, if the
sky level of a plane changes, or if all planes are multiplied by one number.
"""

from collections.abc import Callable

import numpy as np

from gotorb.features.planes import Planes

Columns = dict[str, np.ndarray]
LEVELS = (2, 4, 8)
COUNT_RADII = (3, 5, 8, 12, 20)
CORRELATION_RADII = (4, 8, 15)
NEAR = 8
"""Radius of pixels near the source."""
CORE = 2.0
LIGHT_RADIUS = 2.5
PEAK_SIGMA = 2.5
LARGEST_FAR = 30.0
"""Noise units at which rings beyond the source are clipped, to limit the effect of bright stars."""
FLOOR = 0.1
SMALL = np.float32(1e-6)


def measure_planes(planes: Planes) -> Columns:
    """Gaps, noise relative to that of the difference, and means and spreads in rings, for each plane.

    Parameters
    ----------
    planes : Planes

    Returns
    -------
    dict of str to ndarray
        (n,) columns.
    """
    found: Columns = {}
    near = planes.geometry.inside(NEAR)
    for name in planes.z:
        known = planes.known(name)
        found[f"gap.{name}"] = 1 - known.mean(axis=1)
        found[f"gap_near.{name}"] = 1 - known[:, :near].mean(axis=1)
        if name != "difference":
            found[f"noise_ratio.{name}"] = np.log10(planes.noise[name] / planes.noise["difference"])
        found |= _measure_rings(name, _limit_far(planes, name), known, planes.geometry.ring_starts)
    return found


def _limit_far(planes: Planes, name: str) -> np.ndarray:
    values = planes.outwards(name).copy()
    far = planes.geometry.inside(NEAR)
    np.clip(values[:, far:], -LARGEST_FAR, LARGEST_FAR, out=values[:, far:])
    return values


def _measure_rings(name: str, values: np.ndarray, known: np.ndarray, edges: np.ndarray) -> Columns:
    found: Columns = {}
    starts, width = edges[:-1], edges[-1]
    count = np.maximum(np.add.reduceat(known[:, :width], starts, axis=1), 1)
    values = values[:, :width]
    mean = np.add.reduceat(values, starts, axis=1) / count
    square = np.add.reduceat(values * values, starts, axis=1) / count
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    low, high = (part.reduceat(values, starts, axis=1) for part in (np.minimum, np.maximum))
    for ring in range(len(starts)):
        found[f"ring_mean.{name}.{ring}"] = np.arcsinh(mean[:, ring])
        if ring:
            found[f"ring_spread.{name}.{ring}"] = np.log(spread[:, ring] + FLOOR)
        if name == "difference" and ring:
            found[f"ring_min.{name}.{ring}"] = np.arcsinh(low[:, ring])
            found[f"ring_max.{name}.{ring}"] = np.arcsinh(high[:, ring])
    return found


def measure_counts(planes: Planes) -> Columns:
    """Positive and negative pixels of the difference within radii.

    Parameters
    ----------
    planes : Planes

    Returns
    -------
    dict of str to ndarray
    """
    found: Columns = {}
    values = planes.outwards("difference")
    centre = np.abs(values[:, : planes.geometry.heart[0]]).max(axis=1)
    for radius in COUNT_RADII:
        part = values[:, : planes.geometry.inside(radius)]
        for level in LEVELS:
            found[f"above.{level}.{radius}"] = np.log1p(np.count_nonzero(part > level, axis=1))
            found[f"below.{level}.{radius}"] = np.log1p(np.count_nonzero(part < -level, axis=1))
        total, absolute = part.sum(axis=1), np.abs(part).sum(axis=1)
        low, high = part.min(axis=1), part.max(axis=1)
        found[f"flux.{radius}"] = np.arcsinh(total / np.float32(np.sqrt(part.shape[1])))
        found[f"negative_sum.{radius}"] = np.arcsinh((total - absolute) / 2)
        found[f"flux_ratio.{radius}"] = total / (absolute + SMALL)
        found[f"min_over_max.{radius}"] = np.clip(low / (np.abs(high) + SMALL), -20, 20)
        found[f"largest_over_centre.{radius}"] = np.log1p(np.maximum(high, -low) / (centre + 1))
    return found


def measure_fit(planes: Planes) -> Columns:
    """Fits of Gaussians of several widths and offsets to each plane.

    Parameters
    ----------
    planes : Planes

    Returns
    -------
    dict of str to ndarray
    """
    geometry = planes.geometry
    unit, widths, shifts = geometry.fit_models
    found: Columns = {}
    for name in planes.z:
        pixels = planes.outwards(name)[:, geometry.fit_pixels]
        mean = pixels.mean(axis=1)
        total = ((pixels - mean[:, None]) ** 2).sum(axis=1)
        projected = (pixels[:, None, :] @ unit)[:, 0]  # one product for each stamp: the same bytes in any batch
        best, rows = projected.argmax(axis=1), np.arange(len(pixels))
        peak = projected[rows, best]
        squares = np.sign(projected) * projected**2 / (total[:, None] + SMALL)
        amplitude = peak / geometry.fit_peaks[best]
        left = np.maximum(total - peak**2, 0) / pixels.shape[1]
        found |= {
            f"fit_r2.{name}": squares[rows, best],
            f"fit_chi2.{name}": np.log(left + FLOOR),
            f"fit_width.{name}": widths[best],
            f"fit_offset.{name}": shifts[best],
            f"fit_amplitude.{name}": np.arcsinh(amplitude),
        }
        by_width = squares.reshape(len(pixels), len(np.unique(widths)), -1).max(axis=2)
        found[f"fit_narrow.{name}"] = by_width[:, 0] - by_width.max(axis=1)
        found[f"fit_wide.{name}"] = by_width[:, -1] - by_width.max(axis=1)
        found[f"fit_background.{name}"] = np.arcsinh(np.median(pixels, axis=1))
    return found


def measure_shape(planes: Planes) -> Columns:
    """Second moments of the positive light of the difference near its centre.

    Parameters
    ----------
    planes : Planes

    Returns
    -------
    dict of str to ndarray
    """
    geometry = planes.geometry
    n = geometry.inside(6.0)
    y, x = (axis.ravel()[geometry.order][:n].astype(np.float32) for axis in geometry.offsets)
    light = np.maximum(planes.outwards("difference")[:, :n] - 1, 0)
    total = light.sum(axis=1) + SMALL
    terms = np.stack([y, x, y * y, x * x, y * x], axis=1)
    my, mx, yy, xx, yx = ((light[:, None, :] @ terms)[:, 0] / total[:, None]).T
    yy, xx, yx = yy - my * my, xx - mx * mx, yx - my * mx
    size = np.maximum(yy + xx, 0)
    return {
        "moment_size": np.sqrt(size),
        "moment_ellipticity": np.hypot(yy - xx, 2 * yx) / (size + FLOOR),
        "moment_offset": np.hypot(my, mx),
    }


def measure_symmetry(planes: Planes) -> Columns:
    """Correlation of the central square with its rotated and mirrored images.

    Parameters
    ----------
    planes : Planes

    Returns
    -------
    dict of str to ndarray
    """
    found: Columns = {}
    plain, turned = planes.geometry.turns
    for name in [name for name in ("difference", "science") if name in planes.z]:
        flat = planes.z[name].reshape(len(planes.sign), -1)
        square = np.take(flat, plain, axis=1)
        square = square - square.mean(axis=1, keepdims=True)
        norm = (square * square).sum(axis=1) + SMALL
        place = np.searchsorted(plain, turned)
        half, quarter, down, across = ((square * np.take(square, at, axis=1)).sum(axis=1) / norm for at in place)
        found |= {
            f"symmetry_half.{name}": half,
            f"symmetry_quarter.{name}": quarter,
            f"symmetry_mirror.{name}": (down + across) / 2,
            f"symmetry_least.{name}": np.minimum(np.minimum(half, quarter), np.minimum(down, across)),
        }
    return found


def measure_correlations(planes: Planes) -> Columns:
    """Correlation of planes with each other within radii.

    Parameters
    ----------
    planes : Planes

    Returns
    -------
    dict of str to ndarray
    """
    found: Columns = {}
    names = list(planes.z)
    pairs = [(one, other) for at, one in enumerate(names) for other in names[at + 1 :]]
    for radius in CORRELATION_RADII:
        n = planes.geometry.inside(radius)
        parts = {}
        for name in names:
            part = planes.outwards(name)[:, :n]
            part = part - part.mean(axis=1, keepdims=True)
            parts[name] = part, (part * part).sum(axis=1)
        for one, other in pairs:
            (a, aa), (b, bb) = parts[one], parts[other]
            found[f"correlation.{one}-{other}.{radius}"] = (a * b).sum(axis=1) / np.sqrt(aa * bb + SMALL)
    return found


def measure_peaks(planes: Planes) -> Columns:
    """Peaks and holes of the smoothed difference, and the brightest neighbour in the science image.

    Parameters
    ----------
    planes : Planes

    Returns
    -------
    dict of str to ndarray
    """
    geometry, n = planes.geometry, len(planes.sign)
    blur, order = geometry.blur, geometry.order
    smooth = blur @ planes.z["difference"] @ blur
    near = order[: geometry.inside(NEAR)]
    found: Columns = {}
    for name, values in (("peaks", smooth), ("holes", -smooth)):
        tops = ((values == _largest_around(values)) & (values > PEAK_SIGMA)).reshape(n, -1)
        found[name] = np.log1p(tops.sum(axis=1))
        found[f"{name}_near"] = np.log1p(tops[:, near].sum(axis=1))
    core = smooth.reshape(n, -1)[:, order[: geometry.inside(CORE)]]
    found["peak_height"] = np.arcsinh(core.max(axis=1))
    found["peak_offset"] = geometry.radius[core.argmax(axis=1)]
    if "science" in planes.z:
        last = geometry.inside(15.0)
        first = min(geometry.inside(6.0), last - 1)
        around = (blur @ planes.z["science"] @ blur).reshape(n, -1)[:, order[first:last]]
        found["neighbour_height"] = np.arcsinh(np.clip(around.max(axis=1), 0, LARGEST_FAR * 10))
        found["neighbour_distance"] = geometry.radius[first:last][around.argmax(axis=1)]
    return {name: np.asarray(values, np.float32) for name, values in found.items()}


def _largest_around(values: np.ndarray) -> np.ndarray:
    """Largest value of each pixel and its eight neighbours."""
    rows = values.copy()
    np.maximum(rows[:, 1:], values[:, :-1], out=rows[:, 1:])
    np.maximum(rows[:, :-1], values[:, 1:], out=rows[:, :-1])
    both = rows.copy()
    np.maximum(both[..., 1:], rows[..., :-1], out=both[..., 1:])
    np.maximum(both[..., :-1], rows[..., 1:], out=both[..., :-1])
    return both


def measure_sharpness(planes: Planes) -> Columns:
    """Central pixel relative to its neighbours, and rows and columns that are bright as a whole.

    Parameters
    ----------
    planes : Planes

    Returns
    -------
    dict of str to ndarray
    """
    found: Columns = {}
    geometry = planes.geometry
    first, last = geometry.heart
    core = geometry.order[: geometry.inside(CORE)]
    y, x = np.unravel_index(core, (geometry.size, geometry.size))
    for name in [name for name in ("difference", "science") if name in planes.z]:
        values, z = planes.outwards(name), planes.z[name]
        around = values[:, first:last].mean(axis=1)
        found[f"sharpness.{name}"] = np.clip(around / (np.abs(values[:, :first].mean(axis=1)) + 1), -5, 5)
        curved = 4 * z[:, y, x] - z[:, y - 1, x] - z[:, y + 1, x] - z[:, y, x - 1] - z[:, y, x + 1]
        found[f"curvature.{name}"] = np.arcsinh(np.abs(curved).max(axis=1))
        lines = np.stack([_middle_of_lines(z), _middle_of_lines(z.transpose(0, 2, 1))])
        found[f"line.{name}"] = np.arcsinh(np.abs(lines).max(axis=(0, 2)))
        central = np.abs(np.arange(geometry.size) - (geometry.size - 1) / 2) <= 2
        found[f"line_near.{name}"] = np.arcsinh(np.abs(lines[..., central]).max(axis=(0, 2)))
    return found


def _middle_of_lines(z: np.ndarray) -> np.ndarray:
    """Median of each row of pixels, (n, size); the lower one of two."""
    return np.sort(z, axis=2)[..., (z.shape[2] - 1) // 2]


def measure_light(planes: Planes) -> Columns:
    """Light near the centre in each plane relative to the others, in the survey's units.

    Parameters
    ----------
    planes : Planes

    Returns
    -------
    dict of str to ndarray
    """
    n = planes.geometry.inside(LIGHT_RADIUS)
    light = {name: planes.outwards(name)[:, :n].sum(axis=1) * planes.noise[name] for name in planes.z}
    scale = planes.noise["difference"] * np.float32(np.sqrt(n))
    found: Columns = {}
    for name, values in light.items():
        if name != "difference":
            found[f"light_ratio.{name}"] = np.arcsinh(2 * light["difference"] / (np.abs(values) + scale))
    if {"science", "template"} <= set(light):
        found["light_old"] = np.arcsinh(2 * light["template"] / (np.abs(light["science"]) + scale))
    for name in ("ptp", "min", "max"):
        if name in planes.z:
            peak = planes.outwards(name)[:, : planes.geometry.inside(CORE)].max(axis=1) * planes.noise[name]
            top = planes.outwards("difference")[:, : planes.geometry.inside(CORE)].max(axis=1)
            found[f"peak_ratio.{name}"] = np.arcsinh(
                2 * peak / (np.abs(top) * planes.noise["difference"] + planes.noise["difference"])
            )
    return found


GROUPS: dict[str, Callable[[Planes], Columns]] = {
    "planes": measure_planes,
    "counts": measure_counts,
    "fit": measure_fit,
    "shape": measure_shape,
    "symmetry": measure_symmetry,
    "correlations": measure_correlations,
    "peaks": measure_peaks,
    "sharpness": measure_sharpness,
    "light": measure_light,
}
"""Groups in the order of their columns."""

QUANTITIES = {
    "gap": ("fraction", "pixels without data"),
    "gap_near": ("fraction", "pixels without data near the source"),
    "noise_ratio": ("dex", "noise over the difference's noise"),
    "ring_mean": ("asinh(sigma)", "mean of a ring of pixels around the source"),
    "ring_spread": ("ln(sigma)", "standard deviation of a ring of pixels"),
    "ring_min": ("asinh(sigma)", "smallest pixel of a ring"),
    "ring_max": ("asinh(sigma)", "largest pixel of a ring"),
    "above": ("ln(1 + pixels)", "pixels of the difference above a level within a radius"),
    "below": ("ln(1 + pixels)", "negative pixels of the difference beyond a level within a radius"),
    "flux": ("asinh(S/N)", "sum of the difference within a radius over its noise"),
    "negative_sum": ("asinh(sigma)", "sum of the negative pixels of the difference within a radius"),
    "flux_ratio": ("fraction", "sum of the difference over the sum of absolute values within a radius"),
    "min_over_max": ("fraction", "smallest over largest pixel of the difference within a radius"),
    "largest_over_centre": ("ln(1 + ratio)", "largest absolute pixel of the difference over the central one"),
    "fit_r2": ("fraction", "variance near the source that the best Gaussian explains"),
    "fit_chi2": ("ln(sigma^2)", "mean square that the best Gaussian leaves"),
    "fit_width": ("pixel at the reference PSF", "full width of the best Gaussian"),
    "fit_offset": ("pixel at the reference PSF", "distance of the best Gaussian from the centre"),
    "fit_amplitude": ("asinh(sigma)", "amplitude of the best Gaussian"),
    "fit_narrow": ("fraction", "R2 of the narrowest Gaussian minus that of the best"),
    "fit_wide": ("fraction", "R2 of the widest Gaussian minus that of the best"),
    "fit_background": ("asinh(sigma)", "median of the pixels of the fit"),
    "moment_size": ("pixel at the reference PSF", "size of the positive light of the difference by second moments"),
    "moment_ellipticity": ("fraction", "elongation of the positive light of the difference"),
    "moment_offset": ("pixel at the reference PSF", "distance of its centroid from the centre"),
    "symmetry_half": ("correlation", "likeness of the central square to itself turned by 180 degrees"),
    "symmetry_quarter": ("correlation", "likeness of the central square to itself turned by 90 degrees"),
    "symmetry_mirror": ("correlation", "likeness of the central square to its mirror images"),
    "symmetry_least": ("correlation", "smallest likeness of the central square to itself turned or mirrored"),
    "correlation": ("correlation", "correlation of two planes within a radius"),
    "peaks": ("ln(1 + count)", "peaks of the smoothed difference"),
    "peaks_near": ("ln(1 + count)", "peaks of the smoothed difference near the source"),
    "holes": ("ln(1 + count)", "holes of the smoothed difference"),
    "holes_near": ("ln(1 + count)", "holes of the smoothed difference near the source"),
    "peak_height": ("asinh(sigma)", "highest smoothed pixel of the difference in the core"),
    "peak_offset": ("pixel at the reference PSF", "distance of that pixel from the centre"),
    "neighbour_height": ("asinh(sigma)", "brightest smoothed pixel of the science image next to the source"),
    "neighbour_distance": ("pixel at the reference PSF", "distance of that pixel from the centre"),
    "sharpness": ("fraction", "mean of the pixels around the central one over the central one"),
    "curvature": ("asinh(sigma)", "largest Laplacian in the core"),
    "line": ("asinh(sigma)", "largest absolute median of a row or column of pixels"),
    "line_near": ("asinh(sigma)", "the same of the rows and columns through the source"),
    "light_ratio": ("asinh(ratio)", "twice the difference's light in the core over this plane's"),
    "light_old": ("asinh(ratio)", "twice the template's light in the core over the science image's"),
    "peak_ratio": ("asinh(ratio)", "twice this plane's peak in the core over the difference's"),
}
"""Unit and meaning of each quantity; the plane and the place follow in a feature's name."""


def describe_feature(name: str) -> tuple[str, str]:
    """Unit and meaning of a feature.

    Parameters
    ----------
    name : str
        ``quantity``, or with plane and place after dots.

    Returns
    -------
    unit, meaning : str

    Examples
    --------
    >>> describe_feature("ring_mean.science.3")
    ('asinh(sigma)', 'mean of a ring of pixels around the source (science, 3)')
    """
    quantity, *more = name.split(".")
    unit, meaning = QUANTITIES[quantity]
    return unit, f"{meaning} ({', '.join(more)})" if more else meaning
