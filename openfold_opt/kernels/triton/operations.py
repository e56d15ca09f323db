"""All operations that have a fused version, and what each of them can do."""

from collections.abc import Callable
from functools import partial

import torch

from openfold_opt.kernels.interface import KernelShapes
from openfold_opt.kernels.reference.layer_norm import projected_norm
from openfold_opt.kernels.reference.self_attention import self_attention
from openfold_opt.kernels.reference.triangle import triangle_edges, triangle_update
from openfold_opt.kernels.triton import launch, layer_norm
from openfold_opt.kernels.triton.attention import attention
from openfold_opt.kernels.triton.dropout_residual import dropout_residual
from openfold_opt.kernels.triton.global_attention import global_attention
from openfold_opt.kernels.triton.invariant_point_attention import invariant_point_attention
from openfold_opt.kernels.triton.outer_product_mean import outer_product_mean
from openfold_opt.kernels.triton.random_mask import dropout_masks
from openfold_opt.kernels.triton.transition import transition
from openfold_opt.kernels.triton.triangle_gate import triangle_gate
from openfold_opt.kernels.triton.weight_update import weight_update

OPERATIONS: dict[str, Callable] = {
    "layer_norm": layer_norm.layer_norm,
    "projected_norm": partial(projected_norm, layer_norm=layer_norm.layer_norm),
    "self_attention": partial(self_attention, attention=attention.attention),
    "global_attention": global_attention,
    "triangle_edges": partial(triangle_edges, layer_norm=layer_norm.layer_norm, gate=triangle_gate),
    "triangle_update": partial(triangle_update, layer_norm=layer_norm.layer_norm, dropout_residual=dropout_residual),
    "outer_product_mean": outer_product_mean.outer_product_mean,
    "transition": transition.transition,
    "dropout_residual": dropout_residual,
    "invariant_point_attention": invariant_point_attention.invariant_point_attention,
    "dropout_masks": dropout_masks,
    "weight_update": weight_update,
}


def reason_against(operation: str, shapes: KernelShapes, device: torch.device | str) -> str | None:
    """Why an operation cannot be fused for these shapes on this device; None if it can."""
    float32 = torch.float32
    if operation in ("layer_norm", "projected_norm", "triangle_edges", "triangle_update"):
        return layer_norm.supports(shapes.max_norm_channels, device, float32)
    if operation == "self_attention":
        return attention.supports(shapes.max_head_size, device, float32)
    if operation == "transition":
        return transition.supports(shapes.max_transition_channels, device, float32)
    if operation == "outer_product_mean":
        return outer_product_mean.supports(shapes.max_outer_product_channels, device, float32)
    if operation == "invariant_point_attention":
        return invariant_point_attention.supports(shapes.max_pair_channels, device, float32)
    return launch.reason_against(device)
