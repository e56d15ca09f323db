"""Gated attention: launch functions, autograd function, and the public function."""

import math

import torch
from torch import Tensor

from openfold_opt.kernels.triton.attention.backward import (
    bias_gradient_kernel,
    key_gradient_kernel,
    query_gradient_kernel,
)
from openfold_opt.kernels.triton.attention.forward import forward_kernel
from openfold_opt.kernels.triton.launching import (
    Options,
    divide_up,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
)

MIN_DOT_SIZE = 16
"""Smallest dim of a matrix product on tensor cores. Smaller heads are zero-padded in registers."""
MAX_BIAS_SPLITS = 16
"""Largest number of programs that sum one tile of the bias gradient over the groups."""


def _blocks(num_q: int, num_k: int, c: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the block sizes of all kernels, chosen so that their tiles fit into registers."""
    block_c = max(MIN_DOT_SIZE, next_power_of_2(c))
    limit = 64 if block_c <= 64 else 32
    if dtype == torch.float32:
        # Float32 needs twice the bytes of bfloat16, and IEEE products need many registers.
        limit //= 2
    sizes = {"BLOCK_Q": num_q, "BLOCK_K": num_k}
    return {"C": c, "BLOCK_C": block_c} | {
        name: max(MIN_DOT_SIZE, min(limit, next_power_of_2(n))) for name, n in sizes.items()
    }


def _parts(projected: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split projected [batch, groups, N, 4 * num_heads * c] into views: q, k, v and gate.

    The last dim is contiguous.
    """
    return projected.chunk(4, dim=-1)


def _options(
    projected: Tensor, num_heads: int, mask_inf: float
) -> tuple[tuple[int, int, int, int], tuple[float, float], Options]:
    """Return the arguments that all kernels share.

    Returns:
        (batch, groups, N, c); the last arguments, scale and mask_inf; the compile-time constants.
    """
    batch, groups, n, width = projected.shape
    c = width // (4 * num_heads)
    constants = _blocks(n, n, c, projected.dtype) | {
        "PRECISION": dot_precision(projected.dtype),
        "num_warps": 4,
    }
    return (batch, groups, n, c), (1.0 / math.sqrt(c), mask_inf), constants


@fused_op
def attention_forward(
    projected: Tensor, mask: Tensor, bias: Tensor | None, num_heads: int, mask_inf: float
) -> tuple[Tensor, Tensor]:
    """Compute the gated output and the softmax statistics.

    Returns:
        out [batch, groups, N, num_heads * c]; statistics [2, batch, groups, num_heads, N] float32:
        maximum of the logits, and sum of exp(logits - maximum).
    """
    (batch, groups, n, c), scales, constants = _options(projected, num_heads, mask_inf)
    q, k, v, gate = _parts(projected)
    out = torch.empty(
        batch, groups, n, num_heads * c, dtype=projected.dtype, device=projected.device
    )
    statistics = torch.empty(
        2, batch, groups, num_heads, n, dtype=torch.float32, device=projected.device
    )
    strides = projected.stride()[:3]
    # Without a bias, the mask fills its argument and is not read there.
    launch(
        forward_kernel,
        (divide_up(n, constants["BLOCK_Q"]), num_heads, batch * groups),
        *(q, k, v, gate, mask, mask if bias is None else bias, out, *statistics),
        *(groups, num_heads, n, n, *strides, *strides, *scales),
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
) -> tuple[Tensor, Tensor]:
    """Compute the gradient of `projected`.

    Returns:
        The gradient, contiguous, in the dtype of `projected`; delta [batch, groups, num_heads, N]
        float32, which attention_bias_gradient needs.
    """
    (batch, groups, n, _), scales, constants = _options(projected, num_heads, mask_inf)
    gradient = torch.empty(projected.shape, dtype=projected.dtype, device=projected.device)
    (q, k, v, gate), (dq, dk, dv, dgate) = _parts(projected), _parts(gradient)
    delta = torch.empty(batch, groups, num_heads, n, dtype=torch.float32, device=projected.device)
    inputs = (q, k, v, gate, mask, mask if bias is None else bias, *statistics)
    strides = projected.stride()[:3]
    sizes = (groups, num_heads, n, n, *strides, *strides, *gradient.stride()[:3])
    constants |= {"HAS_BIAS": bias is not None}
    grid = (divide_up(n, constants["BLOCK_Q"]), num_heads, batch * groups)
    launch(
        query_gradient_kernel,
        grid,
        *inputs,
        out,
        dout,
        dq,
        dgate,
        delta,
        *sizes,
        *scales,
        **constants,
    )
    grid = (divide_up(n, constants["BLOCK_K"]), num_heads, batch * groups)
    launch(key_gradient_kernel, grid, *inputs, dout, delta, dk, dv, *sizes, *scales, **constants)
    return gradient, delta


@fused_op
def attention_bias_gradient(
    dout: Tensor,
    projected: Tensor,
    mask: Tensor,
    bias: Tensor,
    statistics: Tensor,
    delta: Tensor,
    num_heads: int,
    mask_inf: float,
) -> Tensor:
    """Return partial sums [splits, batch, num_heads, N, N] float32 of the bias gradient."""
    (batch, groups, n, _), scales, constants = _options(projected, num_heads, mask_inf)
    splits = min(MAX_BIAS_SPLITS, groups)
    dbias = torch.empty(
        splits, batch, num_heads, n, n, dtype=torch.float32, device=projected.device
    )
    strides = projected.stride()[:3]
    tiles = divide_up(n, constants["BLOCK_Q"]) * divide_up(n, constants["BLOCK_K"])
    launch(
        bias_gradient_kernel,
        (tiles, num_heads, batch * splits),
        *(*_parts(projected), mask, bias, *statistics, dout, delta, dbias),
        *(batch, groups, num_heads, n, n, *strides, *strides, *scales),
        **constants,
    )
    return dbias


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, projected, mask, bias, num_heads, mask_inf):
        out, statistics = attention_forward(projected, mask, bias, num_heads, mask_inf)
        ctx.save_for_backward(projected, mask, bias, out, statistics)
        ctx.constants = (num_heads, mask_inf)
        return out

    @staticmethod
    def backward(ctx, dout):
        projected, mask, bias, out, statistics = ctx.saved_tensors
        dout = dout.contiguous()
        gradient, delta = attention_input_gradient(
            dout, projected, mask, bias, out, statistics, *ctx.constants
        )
        dbias = None
        if bias is not None and ctx.needs_input_grad[2]:
            dbias = (
                attention_bias_gradient(
                    dout, projected, mask, bias, statistics, delta, *ctx.constants
                )
                .sum(0)
                .to(bias.dtype)
            )
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
