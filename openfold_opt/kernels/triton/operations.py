"""Table of the fused operations and their limits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from openfold_opt.kernels.interface import KernelShapes
from openfold_opt.kernels.triton import launching, layer_norm
from openfold_opt.kernels.triton.attention import attention
from openfold_opt.kernels.triton.dropout_masks import dropout_masks
from openfold_opt.kernels.triton.dropout_residual import dropout_residual
from openfold_opt.kernels.triton.global_attention import global_attention
from openfold_opt.kernels.triton.invariant_point_attention import invariant_point_attention
from openfold_opt.kernels.triton.outer_product_mean import outer_product_mean
from openfold_opt.kernels.triton.projected_norm import projected_norm
from openfold_opt.kernels.triton.self_attention import self_attention
from openfold_opt.kernels.triton.transition import transition
from openfold_opt.kernels.triton.triangle_edges import triangle_edges
from openfold_opt.kernels.triton.triangle_update import triangle_update
from openfold_opt.kernels.triton.tuning import shared_memory
from openfold_opt.kernels.triton.weight_update import weight_update

OPERATIONS: dict[str, Callable] = {
    "layer_norm": layer_norm.layer_norm,
    "projected_norm": projected_norm,
    "self_attention": self_attention,
    "global_attention": global_attention,
    "triangle_edges": triangle_edges,
    "triangle_update": triangle_update,
    "outer_product_mean": outer_product_mean.outer_product_mean,
    "transition": transition.transition,
    "dropout_residual": dropout_residual,
    "invariant_point_attention": invariant_point_attention.invariant_point_attention,
    "dropout_masks": dropout_masks,
    "weight_update": weight_update,
}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Limit on the width of an operation."""

    supports: Callable[[int, torch.device | str, torch.dtype], str | None]
    """(width, device, dtype) -> why the width is not supported, or None."""
    width: str
    """Field of KernelShapes with the width."""
    kernels: str
    """Name of its kernels in tuning/shared_memory.py."""


_NORM = Limit(supports=layer_norm.supports, width="max_norm_channels", kernels="layer_norm")
LIMITS: dict[str, Limit] = {
    "layer_norm": _NORM,
    "projected_norm": _NORM,
    "triangle_edges": _NORM,
    "triangle_update": _NORM,
    "self_attention": Limit(
        supports=attention.supports, width="max_head_size", kernels="attention"
    ),
    "transition": Limit(
        supports=transition.supports, width="max_transition_channels", kernels="transition"
    ),
    "outer_product_mean": Limit(
        supports=outer_product_mean.supports,
        width="max_outer_product_channels",
        kernels="outer_product_mean",
    ),
    "invariant_point_attention": Limit(
        supports=invariant_point_attention.supports,
        width="max_pair_channels",
        kernels="invariant_point_attention",
    ),
}
"""Operations with a limited width."""


def unsupported_reason(
    operation: str, shapes: KernelShapes, device: torch.device | str, precision: str
) -> str | None:
    """Return why an operation cannot be fused for these shapes on this device; None if it can.

    precision: of the run (train/precision.py), on which the shared memory of a kernel depends.
    """
    reason = launching.unsupported_reason(device)
    if reason is not None:
        return reason
    limit = LIMITS.get(operation)
    width = 0 if limit is None else getattr(shapes, limit.width)
    if limit is not None:
        reason = limit.supports(width, device, torch.float32)
    if reason is not None or torch.device(device).type != "cuda":
        return reason
    kernels = operation if limit is None else limit.kernels
    return shared_memory.unsupported_reason(kernels, width, precision, _capability(device))


def _capability(device: torch.device | str) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor
