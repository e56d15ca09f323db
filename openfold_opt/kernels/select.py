"""The choice of an implementation for every operation, made once at the start of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch

from openfold_opt.kernels.interface import KernelSet
from openfold_opt.kernels.reference.attention import attention
from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.reference.global_attention import global_attention
from openfold_opt.kernels.reference.invariant_point_attention import invariant_point_attention
from openfold_opt.kernels.reference.layer_norm import layer_norm
from openfold_opt.kernels.reference.masked_gate import masked_gate
from openfold_opt.kernels.reference.outer_product_mean import outer_product_mean
from openfold_opt.kernels.reference.random_mask import dropout_masks
from openfold_opt.kernels.reference.transition import transition
from openfold_opt.kernels.reference.triangle_multiplication import triangle_multiplication

IMPLEMENTATIONS: dict[str, dict[str, Callable]] = {
    "layer_norm": {"reference": layer_norm},
    "attention": {"reference": attention},
    "global_attention": {"reference": global_attention},
    "triangle_multiplication": {"reference": triangle_multiplication},
    "masked_gate": {"reference": masked_gate},
    "outer_product_mean": {"reference": outer_product_mean},
    "transition": {"reference": transition},
    "dropout_residual": {"reference": dropout_residual},
    "invariant_point_attention": {"reference": invariant_point_attention},
    "dropout_masks": {"reference": dropout_masks},
}
"""operation -> name of an implementation -> function"""


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """Name of the implementation of each operation; the names that exist are in IMPLEMENTATIONS."""

    closed_division: ClassVar[str] = "implementation"

    layer_norm: str = "reference"
    attention: str = "reference"
    global_attention: str = "reference"
    triangle_multiplication: str = "reference"
    masked_gate: str = "reference"
    outer_product_mean: str = "reference"
    transition: str = "reference"
    dropout_residual: str = "reference"
    invariant_point_attention: str = "reference"
    dropout_masks: str = "reference"


def build_kernel_set(config: KernelConfig, device: torch.device | str) -> KernelSet:
    """Picks the implementations that `config` names, for tensors on `device`.

    Raises:
        ValueError: an operation has no implementation of that name; the message lists those that exist.
    """
    chosen = {}
    for operation, name in asdict(config).items():
        available = IMPLEMENTATIONS[operation]
        if name not in available:
            raise ValueError(
                f"kernel {operation}: found implementation {name!r}, expected one of {sorted(available)} "
                f"for device {torch.device(device).type}; change that field of KernelConfig"
            )
        chosen[operation] = available[name]
    return KernelSet(**chosen)
