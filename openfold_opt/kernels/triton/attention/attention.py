"""Gated attention: launch functions, autograd function, and the public function."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.kernels.triton.attention.backward import (
    bias_gradient_kernel,
    input_gradient_kernel,
)
from openfold_opt.kernels.triton.attention.forward import forward_kernel
from openfold_opt.kernels.triton.launching import (
    MIN_DOT_SIZE,
    Options,
    divide_up,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
)
from openfold_opt.kernels.triton.partial_sums import sum_partials

BIAS_PROGRAMS = 512
"""Programs of the bias gradient, as far as there are groups: each sums a part of them."""


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Sizes of a call, and the blocks of its kernels."""

    batch: int
    groups: int
    n: int
    c: int
    num_heads: int
    dtype: torch.dtype

    @classmethod
    def of(cls, projected: Tensor, num_heads: int) -> "_Sizes":
        batch, groups, n, width = projected.shape
        c = width // (4 * num_heads)
        return cls(batch=batch, groups=groups, n=n, c=c, num_heads=num_heads, dtype=projected.dtype)

    @property
    def heads(self) -> int:
        """Heads of a tile: two narrow ones fill the channels of the smallest matrix product."""
        return 2 if 2 * self.c <= MIN_DOT_SIZE and self.num_heads % 2 == 0 else 1

    @property
    def block_c(self) -> int:
        """Channels of a tile."""
        return max(MIN_DOT_SIZE, next_power_of_2(self.heads * self.c))

    def block(self, limit: int) -> int:
        """Return the elements of a block: at most `limit`, or 64 if only this divides n."""
        size = max(MIN_DOT_SIZE, min(limit, next_power_of_2(self.n)))
        return 64 if size > 64 and self.n % size and self.n % 64 == 0 else size

    def constants(self, blocks: "_Blocks") -> Options:
        """Return the compile-time constants of a kernel from the largest sizes of its tiles."""
        block_q, block_k = self.block(blocks.rows // self.heads), self.block(blocks.keys)
        return {
            "C": self.c,
            "BLOCK_C": self.block_c,
            "HEADS": self.heads,
            "BLOCK_Q": block_q,
            "BLOCK_K": block_k,
            "EVEN": self.n % block_q == self.n % block_k == 0
            and self.heads * self.c == self.block_c,
            "PRECISION": dot_precision(self.dtype),
            "num_warps": blocks.num_warps,
        }

    def grid(self, blocks: int) -> tuple[int, int, int]:
        """Return the grid of a kernel with programs for each group."""
        return blocks, self.num_heads // self.heads, self.batch * self.groups


def _parts(projected: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split projected [batch, groups, N, 4 * num_heads * c] into views: q, k, v and gate.

    The last dim is contiguous.
    """
    return projected.chunk(4, dim=-1)


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """Largest sizes of the tiles of a kernel, such that they fit into registers."""

    rows: int
    keys: int
    num_warps: int


def _blocks(sizes: _Sizes, *, num_warps: int) -> _Blocks:
    """Return the blocks of the forward pass and of the gradient of the bias."""
    if sizes.dtype == torch.float32:
        # Float32 needs twice the bytes of bfloat16, and IEEE products need many registers.
        limit = 32 if sizes.block_c <= 64 else 16
        return _Blocks(rows=limit, keys=limit, num_warps=4)
    if sizes.block_c <= 64:
        return _Blocks(rows=128, keys=64, num_warps=num_warps)
    return _Blocks(rows=64, keys=32, num_warps=4)


def _input_gradient_constants(sizes: _Sizes) -> Options:
    """Return the constants of input_gradient_kernel.

    The gradients of all queries of a range are in registers, so a range has few blocks of them.
    With more than one range, the gradients of keys and values are partial sums.
    """
    if sizes.dtype == torch.float32:
        blocks, most_tiles = _blocks(sizes, num_warps=4), min(4, 128 // sizes.block_c)
    elif sizes.heads * sizes.n <= 128 and sizes.block_c <= 32:
        blocks, most_tiles = _Blocks(rows=64, keys=64, num_warps=4), 2
    elif sizes.block_c <= 64:
        blocks, most_tiles = _Blocks(rows=128, keys=64, num_warps=8), min(4, 96 // sizes.block_c)
    else:
        blocks, most_tiles = _Blocks(rows=64, keys=32, num_warps=8), 1
    constants = sizes.constants(blocks)
    num_blocks = divide_up(sizes.n, constants["BLOCK_Q"])
    tiles = divide_up(num_blocks, divide_up(num_blocks, most_tiles))
    even = constants["EVEN"] and num_blocks % tiles == 0
    # Without stages: what is loaded ahead would need the registers of the gradients.
    return constants | {"TILES": tiles, "EVEN": even, "num_stages": 1}


@fused_op
def attention_forward(
    projected: Tensor, mask: Tensor, bias: Tensor | None, num_heads: int, mask_inf: float
) -> tuple[Tensor, Tensor]:
    """Compute the gated output and the softmax statistics.

    Returns:
        out [batch, groups, N, num_heads * c]; statistics [2, batch, groups, num_heads, N] float32:
        maximum of the logits, times log2(e), and sum of exp2(logits * log2(e) - maximum).
    """
    sizes = _Sizes.of(projected, num_heads)
    batch, groups, n = projected.shape[:3]
    q, k, v, gate = _parts(projected)
    out = torch.empty(q.shape, dtype=projected.dtype, device=projected.device)
    statistics = torch.empty(
        2, batch, groups, num_heads, n, dtype=torch.float32, device=projected.device
    )
    strides = projected.stride()[:3]
    constants = sizes.constants(_blocks(sizes, num_warps=4))
    # Without a bias, the mask fills its argument and is not read there.
    launch(
        forward_kernel,
        sizes.grid(divide_up(n, constants["BLOCK_Q"])),
        *(q, k, v, gate, mask, mask if bias is None else bias, out, *statistics),
        *(groups, num_heads, n, n, *strides, *strides, 1.0 / math.sqrt(sizes.c), mask_inf),
        **constants,
        HAS_BIAS=bias is not None,
    )
    return out, statistics


@fused_op
def attention_input_gradient(
    dout: Tensor,
    projected: Tensor,
    mask: Tensor,
    bias: Tensor | None,
    out: Tensor,
    statistics: Tensor,
    num_heads: int,
    mask_inf: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradient of `projected`.

    Returns:
        The gradient, contiguous, in the dtype of `projected`; and what attention_bias_gradient
        needs, empty without a bias: the gradient of the output before the gate, divided by the sum
        of the exponentials, as `out`; and delta, divided likewise, [batch, groups, num_heads, N]
        float32.
    """
    sizes = _Sizes.of(projected, num_heads)
    batch, groups, n = projected.shape[:3]
    constants = _input_gradient_constants(sizes)
    ranges = divide_up(n, constants["TILES"] * constants["BLOCK_Q"])
    gradient = torch.empty(projected.shape, dtype=projected.dtype, device=projected.device)
    (q, k, v, gate), (dq, dk, dv, dgate) = _parts(projected), _parts(gradient)
    partial = gradient.new_empty(0)
    dk_strides = 0, gradient.stride(2)
    if ranges > 1:
        partial = torch.empty(
            ranges, batch, groups, n, 2 * q.shape[-1], dtype=torch.float32, device=gradient.device
        )
        dk, dv = partial.chunk(2, dim=-1)
        dk_strides = partial.stride(0), partial.stride(3)
    do = gradient.new_empty(0) if bias is None else torch.empty_like(out)
    delta = torch.empty_like(statistics[0])
    strides = projected.stride()[:3]
    launch(
        input_gradient_kernel,
        sizes.grid(ranges),
        *(q, k, v, gate, mask, mask if bias is None else bias, *statistics, out, dout),
        *(dq, dgate, dk, dv, do, delta, groups, num_heads, n, n, *strides, *dk_strides),
        *(1.0 / math.sqrt(sizes.c), mask_inf),
        **constants,
        HAS_BIAS=bias is not None,
    )
    if ranges > 1:
        gradient.narrow(-1, q.shape[-1], 2 * q.shape[-1]).copy_(partial.sum(0))
    return gradient, do, delta


@fused_op
def attention_bias_gradient(
    projected: Tensor,
    mask: Tensor,
    bias: Tensor,
    statistics: Tensor,
    do: Tensor,
    delta: Tensor,
    num_heads: int,
    mask_inf: float,
) -> Tensor:
    """Return partial sums [splits, batch, num_heads, N, N] float32 of the bias gradient."""
    sizes = _Sizes.of(projected, num_heads)
    batch, groups, n = projected.shape[:3]
    constants = sizes.constants(_blocks(sizes, num_warps=8))
    tiles = divide_up(n, constants["BLOCK_Q"]) * divide_up(n, constants["BLOCK_K"])
    programs = tiles * (num_heads // sizes.heads) * batch
    splits = min(groups, max(1, BIAS_PROGRAMS // programs))
    dbias = torch.empty(
        splits, batch, num_heads, n, n, dtype=torch.float32, device=projected.device
    )
    q, k, v, _ = _parts(projected)
    strides = projected.stride()[:3]
    launch(
        bias_gradient_kernel,
        (tiles, num_heads // sizes.heads, batch * splits),
        *(q, k, v, mask, bias, statistics[0], do, delta, dbias),
        *(batch, groups, num_heads, n, n, *strides, *strides),
        *(1.0 / math.sqrt(sizes.c), mask_inf),
        **constants,
    )
    return dbias


def attention_gradients(
    dout: Tensor,
    saved: tuple[Tensor, ...],
    constants: tuple[int, float],
    needs_dbias: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of `projected` and of the bias, None without one or if not needed.

    saved: projected, mask, bias, out and statistics of attention_forward; constants: num_heads and
    mask_inf.
    """
    projected, mask, bias, out, statistics = saved
    gradient, do, delta = attention_input_gradient(
        dout.contiguous(), projected, mask, bias, out, statistics, *constants
    )
    if bias is None or not needs_dbias:
        return gradient, None
    partial = attention_bias_gradient(projected, mask, bias, statistics, do, delta, *constants)
    return gradient, sum_partials(partial, bias.dtype)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, projected, mask, bias, num_heads, mask_inf):
        out, statistics = attention_forward(projected, mask, bias, num_heads, mask_inf)
        ctx.save_for_backward(projected, mask, bias, out, statistics)
        ctx.constants = (num_heads, mask_inf)
        return out

    @staticmethod
    def backward(ctx, dout):
        needs_dbias = ctx.needs_input_grad[2]
        gradient, dbias = attention_gradients(dout, ctx.saved_tensors, ctx.constants, needs_dbias)
        return gradient, None, dbias, None, None


def attention(
    projected: Tensor, *, num_heads: int, mask: Tensor, mask_inf: float, bias: Tensor | None = None
) -> Tensor:
    """Compute kernels.reference.attention; its docstring has the shapes.

    Materializes no tensor [..., N, N] except the bias and its gradient.
    """
    if projected.stride(-1) != 1:
        projected = projected.contiguous()
    return _Attention.apply(
        projected,
        mask.contiguous(),
        None if bias is None else bias.contiguous(),
        num_heads,
        mask_inf,
    )
