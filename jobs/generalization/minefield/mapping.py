"""A map of networks in the plane: principal axes of their weights, then t-SNE.

Source: Huang et al. 2020, figure 1; van der Maaten & Hinton 2008, "Visualizing Data using t-SNE".
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor


def weight_rows(states: Sequence[Mapping[str, Tensor]]) -> np.ndarray:
    """The weights of each network without biases: float64 (networks, weights)."""
    return np.stack(
        [
            np.concatenate([each.double().flatten().numpy() for each in state.values() if each.ndim > 1])
            for state in states
        ]
    )


def projected(rows: np.ndarray, components: int, perplexity: float) -> tuple[np.ndarray, float]:
    """The place of each network on the map, float64 (networks, 2), and the share of variance that the axes keep.

    rows: (networks, weights). components: principal axes, fewer where there are fewer networks or weights. perplexity:
    below a third of the networks.
    It begins with the first two principal axes, so that it is the same each time.
    """
    from sklearn.decomposition import PCA  # takes a second to load, which every worker would pay
    from sklearn.manifold import TSNE

    axes = PCA(n_components=min(components, len(rows) - 1, rows.shape[1]), svd_solver="full")
    reduced = axes.fit_transform(rows)
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
    return places.astype(np.float64), float(axes.explained_variance_ratio_.sum())
