"""Padding of model features to the sizes of a batch."""

from collections.abc import Mapping, Sequence

import numpy as np

from openfold_opt.protein.features import FEATURES


def pad_features(
    features: Mapping[str, np.ndarray], *, sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Pad every feature at the end of its symbolic dims and convert it to the dtype of the table.

    Args:
        features: name -> array of one sample, without pass dim; the names are those of
            openfold_opt.protein.features.
        sizes: target size of N_res, N_clust, N_extra and N_templ.

    Returns:
        name -> padded array.

    Raises:
        ValueError: a feature is larger than its target size.
    """
    return {name: _pad(name, [array], sizes)[0, ...] for name, array in features.items()}


def pad_passes(
    passes: Sequence[Mapping[str, np.ndarray]], *, sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Pad the features of all passes like `pad_features` and stack them.

    Returns:
        name -> padded array [num_passes, ...].

    Raises:
        ValueError: a feature is larger than its target size.
    """
    return {name: _pad(name, [features[name] for features in passes], sizes) for name in passes[0]}


def _pad(name: str, arrays: Sequence[np.ndarray], sizes: Mapping[str, int]) -> np.ndarray:
    spec = FEATURES[name]
    target = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
    padded = np.full((len(arrays), *target), spec.pad_value, spec.dtype)
    for index, array in enumerate(arrays):
        if len(target) != array.ndim or any(
            size > limit for size, limit in zip(array.shape, target)
        ):
            raise ValueError(
                f"feature {name}: found shape {list(array.shape)}, "
                f"expected at most {list(target)} to pad to"
            )
        padded[(index, *map(slice, array.shape))] = array
    return padded
