"""Gated attention from rows before their normalization: the launch, and which calls it supports."""

import math

import torch
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.triton.attention.normalized_forward import normalized_forward_kernel
from openfold_opt.kernels.triton.launching import (
    MIN_DOT_SIZE,
    Options,
    divide_up,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
)

MAX_LENGTH = 256
"""Largest number of elements of a group: a program has all of them."""
MAX_CHANNELS = 256
"""Largest number of channels before the projections."""
MAX_HEAD_SIZE = 32
"""Largest number of channels of a head."""
DTYPES = (torch.bfloat16, torch.float16)
"""Dtypes of x and weights: the tiles of float32 need twice the registers."""
_CHUNK = 64
"""Input channels of a product: more need too many registers."""


def is_supported(x: Tensor, projection: LinearWeights, num_heads: int) -> bool:
    """Return whether the launch supports a call.

    Others take separate launches for the normalization, the projection and the attention.

    x: [batch, groups, N, c]; projection: as for kernels.reference.self_attention.
    """
    weight, bias = projection
    n, c = x.shape[2:]
    return (
        x.dtype == weight.dtype
        and x.dtype in DTYPES
        and bias is not None
        and n <= MAX_LENGTH
        and c <= MAX_CHANNELS
        and len(weight) <= 4 * num_heads * MAX_HEAD_SIZE
        # Offsets within a group are 32-bit.
        and n * x.stride(2) < 2**31
    )


def _constants(x: Tensor, num_heads: int, width: int) -> Options:
    n, c_in = x.shape[2:]
    c = width // num_heads
    block_q = max(MIN_DOT_SIZE, min(128, next_power_of_2(n)))
    block_k, block_in, block_c = (
        max(MIN_DOT_SIZE, min(limit, next_power_of_2(size)))
        for limit, size in ((64, n), (_CHUNK, c_in), (MAX_HEAD_SIZE, c))
    )
    return {
        "C_IN": c_in,
        "BLOCK_IN": block_in,
        "CHUNKS": divide_up(c_in, block_in),
        "C": c,
        "BLOCK_C": block_c,
        "BLOCK_Q": block_q,
        "BLOCK_K": block_k,
        "QUERY_TILES": divide_up(n, block_q),
        "TILES": divide_up(n, block_k),
        "EVEN": n % block_q == c_in % block_in == 0 and c == block_c,
        "PRECISION": dot_precision(x.dtype),
        "num_warps": 8 if block_q == 128 else 4,
        # Without stages: what is loaded ahead would need registers.
        "num_stages": 1,
    }


@fused_op
def normalized_attention_forward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    attention_bias: Tensor | None,
    num_heads: int,
    mask_inf: float,
    eps: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize, project and attend.

    x: [batch, groups, N, c] with any strides; gamma, beta: [c]; weight, bias: of the joint
    projection, of which only the gates have a bias; mask: [batch, groups, N]; attention_bias:
    [batch, num_heads, N, N].

    Returns:
        The gated output [batch, groups, N, num_heads * c_head]; what the backward pass needs, empty
        unless `save`: the projection of normalized x [batch, groups, N, 4 * num_heads * c_head],
        and the softmax statistics as attention_forward returns them.
    """
    x = x if x.stride(-1) == 1 else x.contiguous()
    batch, groups, n, _ = x.shape
    width = len(weight) // 4
    out = torch.empty(batch, groups, n, width, dtype=x.dtype, device=x.device)
    shape = (batch, groups, n, 4 * width) if save else (0,)
    projected = torch.empty(shape, dtype=x.dtype, device=x.device)
    shape = (2, batch, groups, num_heads, n) if save else (2, 0)
    statistics = torch.empty(shape, dtype=torch.float32, device=x.device)
    # Without a bias, the mask fills its argument and is not read there.
    launch(
        normalized_forward_kernel,
        (num_heads, batch * groups),
        *(x, gamma, beta, weight.contiguous(), bias[3 * width :], mask),
        *(mask if attention_bias is None else attention_bias, out, projected, *statistics),
        *(groups, num_heads, n, *x.stride()[:3]),
        *(eps, math.sqrt(num_heads / width), mask_inf),
        **_constants(x, num_heads, width),
        HAS_BIAS=attention_bias is not None,
        SAVE=save,
    )
    return out, projected, statistics
