"""Gradient of the projected outer products, dz / norm, and its sum over all pairs, in one pass."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launching import divide_up, fused_op, launch, next_power_of_2

ELEMENTS_PER_BLOCK = 4096
"""Elements of dz in a block of pairs."""
MAX_PARTIAL_SUMS = 512
"""Largest number of programs, each with a partial sum [c_z]."""


@triton.jit
def _scale_kernel(
    dz_ptr,  # [pairs, c_z] contiguous
    norm_ptr,  # [pairs]
    g_ptr,  # out: [pairs, c_z]
    partial_ptr,  # out: [programs, c_z] float32
    num_pairs,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    program, num_programs = tl.program_id(0), tl.num_programs(0)
    columns = tl.arange(0, BLOCK_C)
    in_columns = columns < C
    total = tl.zeros([BLOCK_C], dtype=tl.float32)
    for first in range(program * BLOCK_PAIRS, num_pairs, num_programs * BLOCK_PAIRS):
        pairs = first + tl.arange(0, BLOCK_PAIRS)
        inside = (pairs < num_pairs)[:, None] & in_columns[None, :]
        offsets = pairs.to(tl.int64)[:, None] * C + columns[None, :]
        dz = tl.load(dz_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        norm = tl.load(norm_ptr + pairs, mask=pairs < num_pairs, other=1.0).to(tl.float32)
        g = dz / norm[:, None]
        tl.store(g_ptr + offsets, g.to(g_ptr.dtype.element_ty), mask=inside)
        total += tl.sum(g, axis=0)
    tl.store(partial_ptr + program * C + columns, total, mask=in_columns)


@fused_op
def outer_product_mean_scaled_gradient(
    dz: Tensor, norm: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Divide the gradient by the norm.

    dz: [batch, N_i, N_j, c_z] contiguous; norm: [batch, N_i, N_j, 1] contiguous.

    Returns:
        g = dz / norm in a dtype; partial sums [programs, c_z] float32 of g.
    """
    c = dz.shape[-1]
    num_pairs = norm.numel()
    block_c = next_power_of_2(c)
    block_pairs = max(1, ELEMENTS_PER_BLOCK // block_c)
    programs = max(1, min(MAX_PARTIAL_SUMS, divide_up(num_pairs, block_pairs)))
    g = torch.empty(dz.shape, dtype=dtype, device=dz.device)
    partial = torch.empty(programs, c, dtype=torch.float32, device=dz.device)
    launch(
        _scale_kernel,
        (programs,),
        dz,
        norm,
        g,
        partial,
        num_pairs,
        C=c,
        BLOCK_C=block_c,
        BLOCK_PAIRS=block_pairs,
        num_warps=4,
    )
    return g, partial
