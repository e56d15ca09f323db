"""Table of the operations: implementations, limits and floating-point operations of each.

Triton is imported only when a Triton kernel is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from openfold_opt.kernels import flops
from openfold_opt.kernels.arguments import Kernel, LeastBytes, OperationShapes
from openfold_opt.kernels.cpu import invariant_point_attention as cpu_invariant_point_attention
from openfold_opt.kernels.cpu import layer_norm as cpu_layer_norm
from openfold_opt.kernels.cpu import outer_product_mean as cpu_outer_product_mean
from openfold_opt.kernels.cpu import projected_norm as cpu_projected_norm
from openfold_opt.kernels.cpu import residual_norm as cpu_residual_norm
from openfold_opt.kernels.cpu import self_attention as cpu_self_attention
from openfold_opt.kernels.cpu import transition as cpu_transition
from openfold_opt.kernels.cpu import triangle_edges as cpu_triangle_edges
from openfold_opt.kernels.cpu import triangle_product as cpu_triangle_product
from openfold_opt.kernels.cpu import triangle_side as cpu_triangle_side
from openfold_opt.kernels.cpu import triangle_update as cpu_triangle_update
from openfold_opt.kernels.cpu import weight_update as cpu_weight_update
from openfold_opt.kernels.cuequivariance import requirements
from openfold_opt.kernels.interface import Implementation, KernelShapes, Precision
from openfold_opt.kernels.reference.backbone_update import BackboneUpdateShapes, backbone_update
from openfold_opt.kernels.reference.dropout_masks import DropoutMasksShapes, dropout_masks
from openfold_opt.kernels.reference.dropout_residual import DropoutResidualShapes, dropout_residual
from openfold_opt.kernels.reference.global_attention import GlobalAttentionShapes, global_attention
from openfold_opt.kernels.reference.invariant_point_attention import (
    InvariantPointAttentionShapes,
    invariant_point_attention,
)
from openfold_opt.kernels.reference.layer_norm import LayerNormShapes, layer_norm
from openfold_opt.kernels.reference.outer_product_mean import (
    OuterProductMeanShapes,
    outer_product_mean,
)
from openfold_opt.kernels.reference.projected_norm import ProjectedNormShapes, projected_norm
from openfold_opt.kernels.reference.residual_norm import ResidualNormShapes, residual_norm
from openfold_opt.kernels.reference.self_attention import (
    ResidualAttentionShapes,
    SelfAttentionShapes,
    self_attention,
)
from openfold_opt.kernels.reference.transition import TransitionShapes, transition
from openfold_opt.kernels.reference.triangle_edges import TriangleEdgesShapes, triangle_edges
from openfold_opt.kernels.reference.triangle_product import TriangleProductShapes, triangle_product
from openfold_opt.kernels.reference.triangle_side import TriangleSideShapes, triangle_side
from openfold_opt.kernels.reference.triangle_update import TriangleUpdateShapes, triangle_update
from openfold_opt.kernels.reference.weight_update import WeightUpdateShapes, weight_update
from openfold_opt.kernels.triton.tuning import shared_memory
from openfold_opt.kernels.workspace import Workspace, measure_bytes, measure_workspace


@dataclass(frozen=True, kw_only=True)
class WidthLimit:
    """Largest width that the Triton kernels of an operation support."""

    shape: str
    """Field of KernelShapes with the width."""
    largest: int
    description: str
    """Description of the largest width, with {} for the number."""
    kernels: str
    """Name of its kernels in triton/tuning/shared_memory.py."""

    def unsupported_reason(self, width: int) -> str | None:
        """Return why a width is not supported; None if it is."""
        if width <= self.largest:
            return None
        return f"{self.kernels} supports {self.description.format(self.largest)}, found {width}"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A row of the table."""

    name: str
    """Field of KernelSet and KernelConfig, and name of the function in every implementation."""
    shapes: type[OperationShapes]
    """Shapes of its arguments, which also makes arguments; defined next to the reference."""
    reference: Kernel
    cpu: Kernel | None = None
    """None: the operation gains nothing from a CPU kernel, and "cpu" is the reference version."""
    triton: str
    """Module in kernels/triton, imported at the first use."""
    has_gradient: bool = True
    """Whether it has a backward pass."""
    limit: WidthLimit | None = None
    """None: the Triton kernels support every width."""
    flops: Mapping[str, flops.Formula] = field(default_factory=dict)
    """Fused operator -> function of its arguments that counts the operations of its matrix
    products. Operators without matrix products are absent."""

    def for_cpu(self) -> Kernel:
        """Return the implementation "cpu"."""
        return self.reference if self.cpu is None else self.cpu

    def for_triton(self) -> Kernel:
        """Import and return the implementation "triton".

        Raises ImportError without Triton.
        """
        module = importlib.import_module(f"openfold_opt.kernels.triton.{self.triton}")
        return getattr(module, self.name)

    def implementation(self, name: Implementation) -> Kernel:
        """Return an implementation by name.

        Raises ValueError for "auto", which select.resolve_auto replaces for a device, and for
        "cuequivariance", which select.build_kernel_set imports.
        """
        match name:
            case "reference":
                return self.reference
            case "cpu":
                return self.for_cpu()
            case "triton":
                return self.for_triton()
        raise ValueError(
            f"operation {self.name}: found implementation {name!r}, expected reference, cpu or "
            "triton; resolve_auto (kernels/select.py) returns the implementation for a device"
        )

    def workspace(
        self, shapes: OperationShapes, dtype: torch.dtype, *, implementation: Implementation
    ) -> Workspace:
        """Return the bytes that an implementation allocates, beyond arguments and results.

        The implementation runs on device meta, which takes milliseconds and no memory, with a C++
        compiler and a GPU or without them. Results are cached.

        shapes: an instance of self.shapes; dtype: of the activations and the weights of linear
            layers. For example, of the attention of a block of 64 pair rows:

                shapes = SelfAttentionShapes(
                    batch=1, groups=64, length=2000, c=128, num_heads=4, c_head=32, has_bias=True
                )
                attention = OPERATIONS["self_attention"]
                attention.workspace(shapes, torch.bfloat16, implementation="triton").inference
        """
        self._check_shapes(shapes)
        if implementation == "cuequivariance":
            # It has no shapes without a GPU. The memory of Triton is the closest known.
            implementation = "triton"
        return measure_workspace(self.implementation(implementation), shapes, dtype)

    def bytes(self, shapes: OperationShapes, dtype: torch.dtype) -> LeastBytes:
        """Return the bytes of arguments and results, each read or written once.

        shapes, dtype: as for `workspace`. Results are cached.
        """
        self._check_shapes(shapes)
        return measure_bytes(self.reference, shapes, dtype)

    def _check_shapes(self, shapes: OperationShapes) -> None:
        if not isinstance(shapes, self.shapes):
            raise TypeError(
                f"operation {self.name}: found shapes of type {type(shapes).__name__}, expected "
                f"{self.shapes.__name__} of {self.reference.__module__}"
            )

    def supports(
        self,
        shapes: KernelShapes,
        precision: Precision,
        capability: int | None,
        *,
        implementation: Implementation = "triton",
    ) -> str | None:
        """Return why the kernels do not support shapes and chip; None if they do.

        precision: of the run, on which the shared memory of a kernel depends; capability: compute
            capability of the chip, as in chips.py, or None without a chip; implementation: "triton"
            or "cuequivariance".
        """
        if implementation == "cuequivariance":
            return requirements.unsupported_reason(self.name, shapes, precision, capability)
        width = 0 if self.limit is None else getattr(shapes, self.limit.shape)
        reason = None if self.limit is None else self.limit.unsupported_reason(width)
        if reason is not None or capability is None:
            return reason
        kernels = self.name if self.limit is None else self.limit.kernels
        return shared_memory.unsupported_reason(kernels, width, precision, capability)


_NORM_LIMIT = WidthLimit(
    shape="max_norm_channels",
    largest=4096,
    description="rows of at most {} channels",
    kernels="layer_norm",
)

_ROWS = (
    Operation(
        name="layer_norm",
        shapes=LayerNormShapes,
        reference=layer_norm,
        cpu=cpu_layer_norm.layer_norm,
        triton="layer_norm",
        limit=_NORM_LIMIT,
    ),
    Operation(
        name="residual_norm",
        shapes=ResidualNormShapes,
        reference=residual_norm,
        cpu=cpu_residual_norm.residual_norm,
        triton="residual_norm",
        limit=_NORM_LIMIT,
    ),
    Operation(
        name="projected_norm",
        shapes=ProjectedNormShapes,
        reference=projected_norm,
        cpu=cpu_projected_norm.projected_norm,
        triton="projected_norm",
        limit=_NORM_LIMIT,
        flops={**flops.PROJECTED_NORM, **flops.WIDE_PROJECTION},
    ),
    Operation(
        name="self_attention",
        shapes=SelfAttentionShapes,
        reference=self_attention,
        cpu=cpu_self_attention.self_attention,
        triton="self_attention",
        limit=WidthLimit(
            shape="max_head_size",
            largest=128,
            description="heads of at most {} channels",
            kernels="attention",
        ),
        flops={**flops.ATTENTION, **flops.PROJECTED_RESIDUAL, **flops.WIDE_PROJECTION},
    ),
    Operation(
        name="global_attention",
        shapes=GlobalAttentionShapes,
        reference=global_attention,
        triton="global_attention",
        flops=flops.GLOBAL_ATTENTION,
    ),
    Operation(
        name="triangle_edges",
        shapes=TriangleEdgesShapes,
        reference=triangle_edges,
        cpu=cpu_triangle_edges.triangle_edges,
        triton="triangle_edges",
        limit=_NORM_LIMIT,
        flops={**flops.TRIANGLE_EDGES, **flops.WIDE_PROJECTION},
    ),
    Operation(
        name="triangle_update",
        shapes=TriangleUpdateShapes,
        reference=triangle_update,
        cpu=cpu_triangle_update.triangle_update,
        triton="triangle_update",
        limit=_NORM_LIMIT,
        flops=flops.PROJECTED_RESIDUAL,
    ),
    Operation(
        name="triangle_side",
        shapes=TriangleSideShapes,
        reference=triangle_side,
        cpu=cpu_triangle_side.triangle_side,
        triton="triangle_side",
        limit=_NORM_LIMIT,
        has_gradient=False,
    ),
    Operation(
        name="triangle_product",
        shapes=TriangleProductShapes,
        reference=triangle_product,
        cpu=cpu_triangle_product.triangle_product,
        triton="triangle_product",
        limit=_NORM_LIMIT,
        has_gradient=False,
    ),
    Operation(
        name="outer_product_mean",
        shapes=OuterProductMeanShapes,
        reference=outer_product_mean,
        cpu=cpu_outer_product_mean.outer_product_mean,
        triton="outer_product_mean.outer_product_mean",
        limit=WidthLimit(
            shape="max_outer_product_channels",
            largest=64,
            description="at most {} hidden channels",
            kernels="outer_product_mean",
        ),
        flops=flops.OUTER_PRODUCT_MEAN,
    ),
    Operation(
        name="transition",
        shapes=TransitionShapes,
        reference=transition,
        cpu=cpu_transition.transition,
        triton="transition.transition",
        limit=WidthLimit(
            shape="max_transition_channels",
            largest=256,
            description="rows of at most {} channels",
            kernels="transition",
        ),
        flops=flops.TRANSITION,
    ),
    Operation(
        name="dropout_residual",
        shapes=DropoutResidualShapes,
        reference=dropout_residual,
        triton="dropout_residual",
    ),
    Operation(
        name="invariant_point_attention",
        shapes=InvariantPointAttentionShapes,
        reference=invariant_point_attention,
        cpu=cpu_invariant_point_attention.invariant_point_attention,
        triton="invariant_point_attention.invariant_point_attention",
        limit=WidthLimit(
            shape="max_pair_channels",
            largest=256,
            description="at most {} channels of z",
            kernels="invariant_point_attention",
        ),
        flops=flops.INVARIANT_POINT_ATTENTION,
    ),
    Operation(
        name="backbone_update",
        shapes=BackboneUpdateShapes,
        reference=backbone_update,
        triton="backbone_update",
    ),
    Operation(
        name="dropout_masks",
        shapes=DropoutMasksShapes,
        reference=dropout_masks,
        triton="dropout_masks",
        has_gradient=False,
    ),
    Operation(
        name="weight_update",
        shapes=WeightUpdateShapes,
        reference=weight_update,
        cpu=cpu_weight_update.weight_update,
        triton="weight_update",
        has_gradient=False,
    ),
)

OPERATIONS: Mapping[str, Operation] = {row.name: row for row in _ROWS}
"""Name -> operation."""

FLOPS: Mapping[str, flops.Formula] = {
    operator: formula for row in _ROWS for operator, formula in row.flops.items()
}
"""Fused operator of any operation -> function that counts its operations."""


def residual_attention_workspace(shapes: SelfAttentionShapes, dtype: torch.dtype) -> Workspace:
    """Return the workspace of Triton's residual_attention; arguments as for Operation.workspace."""
    module = importlib.import_module("openfold_opt.kernels.triton.residual_attention")
    return measure_workspace(
        module.residual_attention, ResidualAttentionShapes(**vars(shapes)), dtype
    )
