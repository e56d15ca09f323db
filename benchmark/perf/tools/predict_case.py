"""Inputs of `perf predict`: features of a chain and weights of a model, as files for the probes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmark.parity.golden_directory import weight_from_name
from benchmark.perf.subprocesses.predict_probe import model_sizes
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.published_weights.openfold_names import openfold_name
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.synthetic_features import synthetic_sample

WARM_UP_LENGTH = 16
"""Residues of the chain that a process predicts before the measured one."""


@dataclass(frozen=True, kw_only=True)
class CaseSizes:
    """Sizes of the model and of the alignment; the widths are AlphaFold2's."""

    blocks: int
    extra_blocks: int
    templates: int
    clusters: int
    extra_msa: int


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """Files of torch.save with the same weights: parameter name -> tensor."""

    ours: Path
    """With our names, which are those of the MLCommons reference."""
    openfold: Path


def write_weights(sizes: CaseSizes, folder: Path) -> WeightFiles:
    """Write pseudorandom weights, each seeded with its name. No layer is zero."""
    config = model_sizes(blocks=sizes.blocks, extra_blocks=sizes.extra_blocks)
    with torch.device("meta"):
        shapes = {
            name: value.shape for name, value in AlphaFold(config, seed=None).state_dict().items()
        }
    weights = {
        name: torch.from_numpy(weight_from_name(name, tuple(shape)))
        for name, shape in shapes.items()
    }
    files = WeightFiles(ours=folder / "weights.pt", openfold=folder / "weights_openfold.pt")
    torch.save(weights, files.ours)
    torch.save({openfold_name(name): value for name, value in weights.items()}, files.openfold)
    return files


def write_features(length: int, sizes: CaseSizes, file: Path) -> None:
    """Write random features of a chain: one pass, without dims of batch and passes."""
    sample = synthetic_sample(
        {
            "N_res": length,
            "N_clust": sizes.clusters,
            "N_extra": sizes.extra_msa,
            "N_templ": sizes.templates,
            "num_passes": 1,
        },
        seed=length,
    )
    np.savez(file, **{name: _without_dims(name, value) for name, value in sample.items()})


def _without_dims(name: str, value: Tensor) -> np.ndarray:
    return (value[0, 0] if FEATURES[name].per_pass else value[0]).numpy()
