"""Attention of a residual stream: the operation residual_attention against those it replaces.

On a GPU the ratio tells whether KernelConfig.fused_attention should be True.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from benchmark.perf.tools.kernel_times import CaseTimes, time_case
from openfold_opt.kernels.arguments import Kernel, TensorMaker, least_bytes
from openfold_opt.kernels.interface import KernelSet, LinearWeights, NormWeights
from openfold_opt.kernels.reference.self_attention import (
    ResidualAttentionShapes,
    SelfAttentionShapes,
)


def time_residual_attention(
    fused: Kernel,
    kernels: KernelSet,
    shapes: SelfAttentionShapes,
    *,
    where: str,
    make: TensorMaker,
    repeats: int,
) -> CaseTimes:
    """Time residual_attention ("ours") and the operations of a set that it replaces ("separate").

    shapes, where: of self_attention in the model. A triangle attention projects its bias from its
        input.
    """
    fields = vars(shapes)
    if "triangle" in where:
        fields = fields | {"has_bias": False, "has_own_bias": True}
    arguments = ResidualAttentionShapes(**fields).arguments(make)
    sides = {"ours": fused, "separate": separate_attention(kernels)}
    return time_case(
        {name: partial(arguments.call(side), *arguments.leaves) for name, side in sides.items()},
        arguments.leaves,
        operation="residual_attention",
        where=where,
        # The result has the size of the input.
        least_bytes=least_bytes(arguments, arguments.leaves[:1]),
        repeats=repeats,
    )


def separate_attention(kernels: KernelSet) -> Kernel:
    """Return a function with the signature of residual_attention that calls what it replaces."""

    def separate(
        x: Tensor,
        norm: NormWeights,
        projection: LinearWeights,
        output: LinearWeights,
        *,
        bias: Tensor | None,
        bias_projection: LinearWeights | None,
        **options: object,
    ) -> Tensor:
        if bias_projection is None:
            x, normalized = kernels.residual_norm(x, norm)
        else:
            x, normalized, projected = kernels.projected_norm(x, norm, bias_projection)
            bias = projected.movedim(-1, 1)
        get_bias = None if bias is None else lambda: bias
        return kernels.self_attention(
            normalized, projection, output, bias=get_bias, residual=x, **options
        )

    return separate
