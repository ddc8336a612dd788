"""Maps of latent vectors: stamps that a network finds alike lie close together.

References
----------
van der Maaten & Hinton 2008 (JMLR 9, 2579): t-SNE.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gotorb.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_COMPONENTS = 50
PERPLEXITY = 30.0
FEWEST = 8
"""Fewer stamps make no map."""
PANELS = {"score": ("viridis", "real/bogus score"), "confidence": ("cividis", "confidence")}


def reduce_vectors(vectors: np.ndarray, *, n_components: int = N_COMPONENTS) -> np.ndarray:
    """Principal components of vectors, (n, at most n_components), of fixed sign: the same input gives the same map."""
    from sklearn.decomposition import PCA

    n = min(n_components, *vectors.shape)
    found = PCA(n, svd_solver="full").fit(vectors)
    signs = np.sign(found.components_[np.arange(n), np.abs(found.components_).argmax(axis=1)])
    return found.transform(vectors) * signs


def map_latent(vectors: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Places of stamps on a map: t-SNE of the first fifty principal components.

    Parameters
    ----------
    vectors : ndarray
        (n, n_features) latent vectors.
    seed : int
        Of the optimisation.

    Returns
    -------
    ndarray
        (n, 2); the same bytes for the same input, whatever the number of threads.

    Raises
    ------
    DataError
        If there are fewer than eight.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(vectors) < FEWEST:
        raise DataError(f"{len(vectors)} stamps are too few for a latent map; give {FEWEST} or more")
    with threadpool_limits(1):  # sums in parallel depend on the number of threads
        reduced = reduce_vectors(vectors)
        perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
        return TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(reduced)


def plot_latent(places: np.ndarray, rows: pd.DataFrame) -> "Figure":
    """Draw a map three times: by class, by score and by confidence.

    Parameters
    ----------
    places : ndarray
        (n, 2) from `map_latent`.
    rows : DataFrame
        (n,) label (1, 0, -1), metalabel, score, and confidence where there is a posterior.
    """
    from gotorb.evaluation.figures import new_figure

    known = [name for name in PANELS if name in rows and rows[name].notna().all()]
    figure = new_figure(4.6 * (1 + len(known)), 4.6)
    first, *others = np.atleast_1d(figure.subplots(1, 1 + len(known)))
    kinds = rows["metalabel"].where(rows["metalabel"] != "", "unlabelled").to_numpy(str)
    names = sorted(set(kinds), key=lambda name: (-rows["label"].to_numpy()[kinds == name].mean(), name))
    for number, name in enumerate(names):
        inside = kinds == name
        real = rows["label"].to_numpy()[inside].mean() > 0.5
        colour, marker = f"C{number % 10}", "o" if real else "x"
        first.scatter(*places[inside].T, s=14, color=colour, marker=marker, lw=0.9, label=name, alpha=0.8)
    first.legend(fontsize=8, markerscale=1.3)
    first.set_title("by class (o real, x bogus)")
    for axes, name in zip(others, known, strict=True):
        colours, title = PANELS[name]
        drawn = axes.scatter(*places.T, s=12, c=rows[name], cmap=colours, vmin=0, vmax=1)
        figure.colorbar(drawn, ax=axes, label=title)
        axes.set_title(f"by {title}")
    for axes in (first, *others):
        axes.set(xticks=[], yticks=[])
    figure.suptitle(f"Latent map of {len(places)} stamps (t-SNE)")
    return figure
