"""Synthetic features with the names, shapes and dtypes of real ones.

They are for warm-up, measurements and tests.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from openfold_opt.loader.config import DataConfig
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.protein.features import FEATURES

_STEP_ANGSTROM = 2.2
"""Standard deviation of each coordinate between neighbors: 3.8 angstrom (2.2 * sqrt(3)) in all."""


def synthetic_batch(
    data: DataConfig, *, batch_size: int, num_passes: int, seed: int = 0
) -> dict[str, Tensor]:
    """Return all features of a batch with the shapes of training on `data`, on the CPU."""
    sizes = training_sizes(data) | {"num_passes": num_passes}
    samples = [synthetic_sample(sizes, seed=seed + number) for number in range(batch_size)]
    return {name: torch.cat([sample[name] for sample in samples]) for name in FEATURES}


def meta_batch(data: DataConfig, *, batch_size: int, num_passes: int) -> FeatureBatch:
    """Return a batch of the same shapes and dtypes on PyTorch's device "meta"."""
    sizes = training_sizes(data) | {"num_passes": num_passes, "batch": batch_size}

    def feature(name: str) -> Tensor:
        spec = FEATURES[name]
        dims = spec.leading_dims(batched=True) + spec.shape
        shape = [sizes[dim] if isinstance(dim, str) else dim for dim in dims]
        return torch.empty(shape, dtype=getattr(torch, spec.dtype.name), device="meta")

    return FeatureBatch.from_features({name: feature(name) for name in FEATURES})


def training_sizes(data: DataConfig) -> dict[str, int]:
    """Return the sizes of the feature dims in training, except batch and num_passes."""
    return {
        "N_res": data.crop_size,
        "N_clust": data.max_msa_clusters,
        "N_extra": data.max_extra_msa,
        "N_templ": data.max_templates,
    }


def synthetic_sample(sizes: Mapping[str, int], *, seed: int) -> dict[str, Tensor]:
    """Return all features of a batch of one. The coordinates follow a random walk.

    sizes: N_res, N_clust, N_extra, N_templ, num_passes.
    """
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(size=(sizes["N_res"], 3)) * _STEP_ANGSTROM, axis=0)
    features = {}
    for name, spec in FEATURES.items():
        dims = spec.leading_dims(batched=False) + spec.shape
        shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims)
        features[name] = torch.from_numpy(
            _synthetic_feature(name, shape, rng, walk).astype(spec.dtype)
        )[None]
    return features


def _synthetic_feature(
    name: str, shape: tuple[int, ...], rng: np.random.Generator, walk: np.ndarray
) -> np.ndarray:
    simple = {
        "seq_length": np.asarray(len(walk)),
        "resolution": np.asarray(1.5),
        "residue_index": np.arange(len(walk)),
    }
    if name in simple:
        return simple[name]
    if name in ("aatype", "true_msa", "extra_msa", "template_aatype"):
        return rng.integers(0, 20, size=shape)
    if name.startswith("residx_atom"):
        return rng.integers(0, 14, size=shape)
    if name.endswith("frames") or name == "backbone_rigid_tensor":
        frames = np.broadcast_to(np.eye(4), shape).copy()
        frames[..., :3, 3] = walk.reshape((len(walk),) + (1,) * (len(shape) - 3) + (3,))
        return frames
    if name.endswith("positions") or name in ("pseudo_beta", "template_pseudo_beta"):
        leading = (len(walk),) + (1,) * (len(shape) - 2) + (3,)
        center = walk.reshape(leading) if not name.startswith("template") else 0.0
        return center + rng.normal(size=shape)
    if name.endswith("sin_cos"):
        angles = rng.uniform(-np.pi, np.pi, size=shape[:-1])
        return np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    if name == "bert_mask":
        return rng.random(size=shape) < 0.3
    if name.endswith(("mask", "exists")) or name == "use_clamped_fape":
        return np.ones(shape)
    return rng.random(size=shape)
