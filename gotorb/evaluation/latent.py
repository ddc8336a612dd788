"""Maps of latent vectors, in which stamps that are alike for a network lie close together.

References
----------
van der Maaten & Hinton 2008 (JMLR 9, 2579): t-SNE.
"""

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gotorb.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_COMPONENTS = 50
PERPLEXITY = 30.0
FEWEST_VECTORS = 8
"""Fewest stamps of a map."""
MOST_TSNE = 5000
"""Most stamps of a t-SNE; of larger sets this many are landmarks, among which the others are placed."""
N_LANDMARKS = 4
PANELS = {"score": ("viridis", "real/bogus score"), "confidence": ("cividis", "confidence")}


def reduce_vectors(vectors: np.ndarray, *, n_components: int = N_COMPONENTS) -> np.ndarray:
    """Principal components of fixed sign, so that equal input gives equal maps.

    Parameters
    ----------
    vectors : ndarray
        (n, n_features) latent vectors.
    n_components : int
        Largest number of components.

    Returns
    -------
    ndarray
        (n, k) components, k at most `n_components`.

    Examples
    --------
    >>> vectors = np.random.default_rng(1).normal(size=(10, 5))
    >>> reduce_vectors(vectors, n_components=2).shape
    (10, 2)
    """
    from sklearn.decomposition import PCA

    n = min(n_components, *vectors.shape)
    found = PCA(n, svd_solver="full").fit(vectors)
    signs = np.sign(found.components_[np.arange(n), np.abs(found.components_).argmax(axis=1)])
    return found.transform(vectors) * signs


def map_latent(vectors: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Positions of stamps on a map: t-SNE of the first fifty principal components.

    With more than `MOST_TSNE` vectors, a random choice of this many are landmarks of the t-SNE. Each of the others lies
    at the weighted mean of its nearest landmarks.

    Parameters
    ----------
    vectors : ndarray
        (n, n_features) latent vectors.
    seed : int
        Seed of the choice and of the optimisation.

    Returns
    -------
    ndarray
        (n, 2) positions, which do not depend on the number of threads.

    Raises
    ------
    DataError
        If there are fewer than eight vectors.

    Examples
    --------
    >>> vectors = np.random.default_rng(1).normal(size=(12, 5))
    >>> map_latent(vectors).shape
    (12, 2)
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    n = len(vectors)
    if n < FEWEST_VECTORS:
        raise DataError(f"{n} stamps are too few for a latent map; give {FEWEST_VECTORS} or more")
    chosen = np.ones(n, bool)
    if n > MOST_TSNE:
        chosen = np.random.default_rng([seed, n]).permutation(n) < MOST_TSNE
    places = np.zeros((n, 2), np.float32)
    with threadpool_limits(1):  # sums in parallel depend on the number of threads
        reduced = reduce_vectors(vectors)
        perplexity = min(PERPLEXITY, (chosen.sum() - 1) / 3)
        places[chosen] = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(
            reduced[chosen]
        )
        if not chosen.all():
            places[~chosen] = _place_by_landmarks(reduced[~chosen], reduced[chosen], places[chosen])
    return places


def principal_axes(
    vectors: np.ndarray, *, n_components: int = N_COMPONENTS, block: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and principal axes of any number of vectors, such as a memory map, read in blocks.

    Parameters
    ----------
    vectors : ndarray
        (n, n_features) latent vectors.
    n_components : int
        Largest number of axes.
    block : int
        Vectors read at a time.

    Returns
    -------
    mean : ndarray
        (n_features,) mean vector.
    axes : ndarray
        (n_features, k) axes of fixed sign; ``(vectors - mean) @ axes`` are the components.

    Examples
    --------
    >>> mean, axes = principal_axes(np.array([[1.0, 0.0], [3.0, 0.0]]), n_components=1)
    >>> mean.tolist(), np.abs(axes).tolist()
    ([2.0, 0.0], [[1.0], [0.0]])
    """
    n, n_features = vectors.shape
    mean = np.zeros(n_features)
    for start in range(0, n, block):
        mean += vectors[start : start + block].sum(axis=0, dtype=float)
    mean /= n
    covariance = np.zeros((n_features, n_features))
    for start in range(0, n, block):
        centred = vectors[start : start + block].astype(float) - mean
        covariance += centred.T @ centred
    _, found = np.linalg.eigh(covariance)
    axes = found[:, ::-1][:, : min(n_components, n, n_features)]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return mean, axes * signs


def make_maps(components: np.ndarray, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Maps for the explorer: the first two components, and t-SNE. Fewer than eight vectors have no t-SNE.

    Parameters
    ----------
    components : ndarray
        (n, k) components from `reduce_vectors`.
    seed : int
        Seed of the choice and of the optimisation.

    Returns
    -------
    dict of ndarray
        (n, 2) positions: "pca" and "tsne".

    Examples
    --------
    >>> {name: part.shape for name, part in make_maps(np.eye(4)).items()}
    {'pca': (4, 2)}
    """
    maps = {"pca": np.pad(components[:, :2], ((0, 0), (0, max(0, 2 - components.shape[1]))))}
    return maps | ({"tsne": map_latent(components, seed=seed)} if len(components) >= FEWEST_VECTORS else {})


def _place_by_landmarks(vectors: np.ndarray, landmarks: np.ndarray, places: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    distance, nearest = NearestNeighbors(n_neighbors=N_LANDMARKS).fit(landmarks).kneighbors(vectors)
    weights = 1 / np.maximum(distance, 1e-9) ** 2
    return np.einsum("ij,ijk->ik", weights / weights.sum(axis=1, keepdims=True), places[nearest])


def plot_latent(places: np.ndarray, rows: pd.DataFrame, threshold: float | None = None) -> "Figure":
    """Draw a map coloured by class, by score and by confidence, with rings around wrong calls.

    Parameters
    ----------
    places : ndarray
        (n, 2) positions from `map_latent`.
    rows : DataFrame
        (n,) label (1, 0, -1), metalabel, score, and confidence if there is a posterior.
    threshold : float, optional
        Score at or above which a row is called real; default: no rings.

    Returns
    -------
    Figure

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [1, 0], "metalabel": ["mp", "randjunk"], "score": [0.9, 0.2]})
    >>> [axes.get_title() for axes in plot_latent(np.array([[0.0, 0.0], [1.0, 1.0]]), rows, 0.5).axes][:2]
    ['by class (o real, x bogus)', 'by real/bogus score']
    """
    from gotorb.evaluation.figures import COLOURS, new_panels, text_size

    blue, vermilion, green, purple, orange, sky = COLOURS
    pools = {True: cycle((blue, green, sky)), False: cycle((vermilion, orange, purple))}  # one meaning on every page
    known = [name for name in PANELS if name in rows and rows[name].notna().all()]
    figure, (first, *others) = new_panels(1 + len(known), 4.6 * (1 + len(known)), 5.2)
    kinds = rows["metalabel"].where(rows["metalabel"] != "", "unlabelled").to_numpy(str)
    names = sorted(set(kinds), key=lambda name: (-rows["label"].to_numpy()[kinds == name].mean(), name))
    for name in names:
        inside = kinds == name
        real = bool(rows["label"].to_numpy()[inside].mean() > 0.5)
        colour, marker = next(pools[real]), "o" if real else "x"
        first.scatter(*places[inside].T, s=14, color=colour, marker=marker, lw=0.9, label=name, alpha=0.8)
    first.set_title("by class (o real, x bogus)")
    for axes, name in zip(others, known, strict=True):
        colours, title = PANELS[name]
        drawn = axes.scatter(*places.T, s=12, c=rows[name], cmap=colours, vmin=0, vmax=1)
        figure.colorbar(drawn, ax=axes, label=title)
        axes.set_title(f"by {title}")
    labels = rows["label"].to_numpy()
    wrong = np.isin(labels, (0, 1)) & ((rows["score"].to_numpy() >= threshold) != labels) if threshold else labels > 1
    for axes in (first, *others):
        axes.scatter(*places[wrong].T, s=46, facecolors="none", edgecolors="black", lw=0.8, label="wrong call")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=text_size(8))
    for axes in (first, *others):
        axes.set(xticks=[], yticks=[])
    told = f": {int(wrong.sum())} wrong calls (rings)" if threshold else ""
    figure.suptitle(f"Latent map of {len(places)} stamps (t-SNE){told}")
    return figure
