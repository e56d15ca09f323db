"""Table of the CPU kernels. Operations that gain nothing from one use the reference version."""

from collections.abc import Callable

from openfold_opt.kernels.cpu.invariant_point_attention import invariant_point_attention
from openfold_opt.kernels.cpu.layer_norm import layer_norm, projected_norm
from openfold_opt.kernels.cpu.outer_product_mean import outer_product_mean
from openfold_opt.kernels.cpu.self_attention import self_attention
from openfold_opt.kernels.cpu.transition import transition
from openfold_opt.kernels.cpu.triangle_edges import triangle_edges
from openfold_opt.kernels.cpu.triangle_update import triangle_update
from openfold_opt.kernels.cpu.weight_update import weight_update
from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.reference.global_attention import global_attention
from openfold_opt.kernels.reference.random_mask import dropout_masks

OPERATIONS: dict[str, Callable] = {
    "layer_norm": layer_norm,
    "projected_norm": projected_norm,
    "self_attention": self_attention,
    "global_attention": global_attention,
    "triangle_edges": triangle_edges,
    "triangle_update": triangle_update,
    "outer_product_mean": outer_product_mean,
    "transition": transition,
    "dropout_residual": dropout_residual,
    "invariant_point_attention": invariant_point_attention,
    "dropout_masks": dropout_masks,
    "weight_update": weight_update,
}
