"""Zero padding of features to the sizes of a batch."""

from collections.abc import Mapping

import numpy as np

from openfold_opt.protein.features import FEATURES


def pad_features(features: Mapping[str, np.ndarray], *, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Pads every feature at the end of its symbolic dims and brings it to the table's dtype.

    Args:
        features: name -> array of one sample, without pass dim; names of openfold_opt.protein.features.
        sizes: target size of N_res, N_clust, N_extra and N_templ.

    Returns:
        name -> padded array.

    Raises:
        ValueError: a feature is larger than the size to pad to.
    """
    return {name: _pad(name, np.asarray(array), sizes) for name, array in features.items()}


def _pad(name: str, array: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    spec = FEATURES[name]
    target = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
    if len(target) != array.ndim or any(have > want for have, want in zip(array.shape, target)):
        raise ValueError(f"feature {name}: found shape {list(array.shape)}, expected at most {list(target)} to pad to")
    padded = np.full(target, spec.pad_value, spec.dtype)
    padded[tuple(slice(have) for have in array.shape)] = array
    return padded
