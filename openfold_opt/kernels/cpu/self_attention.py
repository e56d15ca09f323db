"""Gated self-attention in tiles of a few groups, from the normalized input to the update.

Projections, logits and weights are never materialized as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.fused_attention import FUSED_HEAD_SIZES, fused_attention
from openfold_opt.kernels.cpu.layer_norm import RecomputableNorm
from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.recomputation import recomputable_of
from openfold_opt.kernels.cpu.tiles import (
    Scratch,
    add_product,
    product_into,
    sums_like,
    tile_length,
)
from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.reference.dropout_residual import dropout_residual

_FLOAT32_BYTES = 4

AnyWorkspace = TypeVar("AnyWorkspace", bound="_Workspace")


def self_attention(
    x: Tensor,
    projection: LinearWeights,
    output: LinearWeights,
    *,
    num_heads: int,
    mask: Tensor,
    mask_inf: float,
    bias: Callable[[], Tensor] | None = None,
    residual: Tensor | None = None,
    dropout: Tensor | None = None,
) -> Tensor:
    """Compute kernels.reference.self_attention; its docstring has the shapes.

    Saves only its inputs for the backward pass and recomputes the rest. If x is the result of a
    normalization, it is recomputed too.
    """
    update = _update(
        x, projection, output, num_heads=num_heads, mask=mask, mask_inf=mask_inf, bias=bias
    )
    return update if residual is None else dropout_residual(residual, update, dropout)


def _update(
    x: Tensor,
    projection: LinearWeights,
    output: LinearWeights,
    *,
    num_heads: int,
    mask: Tensor,
    mask_inf: float,
    bias: Callable[[], Tensor] | None,
) -> Tensor:
    """Compute the update."""
    bias_tensor = None if bias is None else bias().expand(len(x), num_heads, x.shape[2], x.shape[2])
    if (
        not torch.is_grad_enabled()
        and len(projection.weight) // (4 * num_heads) in FUSED_HEAD_SIZES
    ):
        masks = (mask, bias_tensor)
        return fused_attention(x, projection, output, masks, num_heads=num_heads, mask_inf=mask_inf)
    return _SelfAttention.apply(x, *projection, *output, mask, bias_tensor, (num_heads, mask_inf))


class _Workspace:
    """Scratch memory for a tile of n groups, with all views of it that the matrix products use.

    The views are created once, as creating one takes as long as filling 8 KiB. The n groups with
    num_heads heads are a batch of n * num_heads matrix products.
    """

    def __init__(self, sizes: tuple[int, int, int, int], scratch: Scratch) -> None:
        """Allocate; sizes are n, N, num_heads and the channels of a head."""
        n, length, num_heads, c = self.sizes = sizes
        self.joined = scratch.take("joined", n * length, 4 * num_heads * c)
        """Projections q, k, v and gate; in the backward pass later their gradients."""
        self.heads = scratch.take("heads", 3, n * num_heads, length, c)
        self.q, self.k, self.v = self.heads
        self.k_t, self.v_t = self.k.mT, self.v.mT
        self.gate = scratch.take("gate", n * length, num_heads * c)
        """Gate after its sigmoid."""
        self.weights = scratch.take("weights", n * num_heads, length, length, dtype=torch.float32)
        self.attended = scratch.take("attended", n * num_heads, length, c)
        """Weighted sums of v; in the backward pass later their gradient."""
        self.gated = scratch.take("gated", n * length, num_heads * c)
        """Gated weighted sums, the input of the output projection."""


class _BackwardWorkspace(_Workspace):
    """Workspace with the gradients of the backward pass."""

    def __init__(self, sizes: tuple[int, int, int, int], scratch: Scratch) -> None:
        super().__init__(sizes, scratch)
        self.d_gated = scratch.take("d_gated", *self.gated.shape)
        self.d_heads = scratch.take("d_heads", *self.heads.shape)
        self.d_q, self.d_k, self.d_v = self.d_heads
        self.d_weights = scratch.take("d_weights", *self.weights.shape)


class _Attention:
    """Computation of a tile in both passes, with all intermediate results in scratch memory."""

    def __init__(
        self,
        x: Tensor,
        projection: tuple[Tensor, Tensor],
        mask: Tensor,
        bias: Tensor | None,
        sizes: tuple[int, float],
    ) -> None:
        num_heads, mask_inf = sizes
        w_in, b_in = projection
        length, c = x.shape[2], len(w_in) // (4 * num_heads)
        self._w_in_t, self._offset = w_in.t(), b_in
        self._mask_offset = (mask_inf * (mask.float() - 1.0)).expand(x.shape[:3]).contiguous()
        self._bias = None if bias is None else bias.float().contiguous()
        self._scale, self._scratch = 1.0 / math.sqrt(c), Scratch(w_in)
        self._length = tile_length(
            length * max(num_heads * length * _FLOAT32_BYTES, len(w_in) * w_in.element_size())
        )
        self._group_sizes, self._workspaces = (length, num_heads, c), {}

    def tiles(self, *tensors: Tensor) -> Iterator[tuple[int, Tensor, tuple[Tensor, ...]]]:
        """Yield tiles: sample, mask offset [n, N], and the rows [n * N, c] of all tensors.

        tensors: [batch, groups, N, c]
        """
        for sample, mask_offset in enumerate(self._mask_offset):
            parts = zip(*(x[sample].split(self._length) for x in tensors))
            for offset, part in zip(mask_offset.split(self._length), parts):
                yield sample, offset, tuple(x.flatten(0, 1).contiguous() for x in part)

    def normalized(self, rows: Tensor, recomputable_norm: RecomputableNorm | None) -> Tensor:
        """Return the input of attend for rows [n * N, c_in], in the dtype of the weights.

        rows: of the input of the normalization if it is recomputed, else of its result.
        """
        if recomputable_norm is not None:
            rows, unnormalized = (
                self._scratch.take("normalized", *rows.shape, dtype=rows.dtype),
                rows,
            )
            recomputable_norm.normalize(unnormalized, rows)
        return rows.to(self._w_in_t.dtype)

    def attend(
        self, x: Tensor, sample: int, mask_offset: Tensor, workspace_type: type[AnyWorkspace]
    ) -> AnyWorkspace:
        """Compute a workspace up to the input of the output projection.

        x: [n * N, c_in] in the dtype of the weights.
        """
        n, (length, num_heads, _) = len(mask_offset), self._group_sizes
        if n not in self._workspaces:
            self._workspaces[n] = workspace_type((n, *self._group_sizes), self._scratch)
        workspace = self._workspaces[n]
        torch.mm(x, self._w_in_t, out=workspace.joined)
        call(
            "split_heads",
            workspace.joined,
            self._offset,
            workspace.heads,
            workspace.gate,
            *workspace.sizes,
        )
        if workspace.q.dtype == workspace.weights.dtype:
            torch.bmm(workspace.q, workspace.k_t, out=workspace.weights)
        else:
            workspace.weights.copy_(torch.bmm(workspace.q, workspace.k_t))
        bias = None if self._bias is None else self._bias[sample]
        call("softmax", workspace.weights, mask_offset, bias, self._scale, n, num_heads, length)
        workspace.low_weights = workspace.weights.to(workspace.v.dtype)
        torch.bmm(workspace.low_weights, workspace.v, out=workspace.attended)
        call("gate_heads", workspace.attended, workspace.gate, workspace.gated, *workspace.sizes)
        return workspace

    def attend_backward(
        self, workspace: _BackwardWorkspace, d_bias: Tensor | None, d_offset: Tensor
    ) -> None:
        """Compute workspace.joined, the gradient of the projections, from workspace.d_gated.

        Adds to d_bias [num_heads, N, N] and d_offset [4 * num_heads * c], both float32.
        """
        n, length, num_heads, _ = workspace.sizes
        call(
            "gate_heads_backward",
            workspace.attended,
            workspace.gate,
            workspace.d_gated,
            workspace.joined,
            *workspace.sizes,
        )
        # workspace.attended now holds its gradient.
        torch.bmm(workspace.low_weights.mT, workspace.attended, out=workspace.d_v)
        d_weights = torch.bmm(workspace.attended, workspace.v_t, out=workspace.d_weights).float()
        call("softmax_backward", d_weights, workspace.weights, d_bias, n, num_heads, length)
        d_logits = d_weights.to(workspace.q.dtype)
        workspace.d_q.baddbmm_(d_logits, workspace.k, beta=0, alpha=self._scale)
        workspace.d_k.baddbmm_(d_logits.mT, workspace.q, beta=0, alpha=self._scale)
        call("merge_heads", workspace.d_heads, workspace.joined, d_offset, *workspace.sizes)


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x, w_in, b_in, w_out, b_out, mask, bias, sizes) -> Tensor:
        ctx.recomputable_norm = recomputable_of(RecomputableNorm, (x,))
        ctx.save_for_backward(
            x if ctx.recomputable_norm is None else None, w_in, b_in, w_out, mask, bias
        )
        ctx.sizes = sizes
        attention = _Attention(x, (w_in, b_in), mask, bias, sizes)
        result, w_out_t = x.new_empty(x.shape, dtype=w_out.dtype), w_out.t()
        for sample, offset, (x_rows, result_rows) in attention.tiles(x, result):
            workspace = attention.attend(x_rows.to(w_in.dtype), sample, offset, _Workspace)
            torch.mm(workspace.gated, w_out_t, out=result_rows)
            call("add_to_rows", result_rows, b_out, *result_rows.shape)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, w_in, b_in, w_out, mask, bias = ctx.saved_tensors
        x = x if ctx.recomputable_norm is None else ctx.recomputable_norm.input
        attention = _Attention(x, (w_in, b_in), mask, bias, ctx.sizes)
        d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        *d_parameters, d_bias = sums_like(
            w_in, b_in, w_out, w_out[:, 0], bias if bias is not None else w_in[:0]
        )
        d_w_in, d_b_in, d_w_out, d_b_out = d_parameters
        for sample, offset, (x_rows, d_x_rows, d_rows) in attention.tiles(x, d_x, d_result):
            x_rows = attention.normalized(x_rows, ctx.recomputable_norm)
            workspace = attention.attend(x_rows, sample, offset, _BackwardWorkspace)
            call("add_column_sums", d_rows, d_b_out, *d_rows.shape)
            add_product(d_w_out, d_rows.t(), workspace.gated)
            torch.mm(d_rows, w_out, out=workspace.d_gated)
            attention.attend_backward(workspace, None if bias is None else d_bias[sample], d_b_in)
            add_product(d_w_in, workspace.joined.t(), x_rows)
            product_into(d_x_rows, workspace.joined, w_in)
        low = (total.to(w_in.dtype) for total in d_parameters)
        return d_x, *low, None, None if bias is None else d_bias.to(bias.dtype), None
