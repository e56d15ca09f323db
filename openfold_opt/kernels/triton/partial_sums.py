"""Sums over the partial sums of a gradient, cast to the dtype of the parameter, in one launch.

Each program adds the parts of some elements in a fixed order.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launching import divide_up, fused_op, launch, next_power_of_2

ELEMENTS_PER_BLOCK = 4096
"""Largest number of elements that a program reads at a time."""
PROGRAMS = 128
"""Programs of a launch, if there are enough elements: about one for each multiprocessor."""
MIN_BLOCK_ELEMENTS = 8
"""Neighboring elements of a program, 32 bytes: the least that a GPU reads from memory."""


@triton.jit
def _sum_kernel(
    partial_ptr,  # [parts, elements] contiguous
    out_ptr,  # out: [elements]
    num_parts,
    num_elements,
    BLOCK_PARTS: tl.constexpr,
    BLOCK_ELEMENTS: tl.constexpr,
):
    elements = tl.program_id(0) * BLOCK_ELEMENTS + tl.arange(0, BLOCK_ELEMENTS)
    is_element = elements < num_elements
    total = tl.zeros([BLOCK_PARTS, BLOCK_ELEMENTS], dtype=tl.float32)
    for first in range(0, num_parts, BLOCK_PARTS):
        parts = first + tl.arange(0, BLOCK_PARTS)
        offsets = parts.to(tl.int64)[:, None] * num_elements + elements[None, :]
        inside = (parts < num_parts)[:, None] & is_element[None, :]
        total += tl.load(partial_ptr + offsets, mask=inside, other=0.0)
    result = tl.sum(total, axis=0)
    tl.store(out_ptr + elements, result.to(out_ptr.dtype.element_ty), mask=is_element)


def sum_partials(partial: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the sum over the first dim of partial [parts, ...], contiguous, in a dtype.

    The sum is computed in float32.
    """
    # Autograd takes over a gradient only if nothing else refers to the tensor, as the machinery of
    # operators may do. A view is a new tensor.
    return partial_sums_forward(partial, dtype).detach()


def sum_parts(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the sum of tensors in a dtype; a single tensor is not copied if it has the dtype."""
    return parts[0].to(dtype) if len(parts) == 1 else sum_partials(torch.stack(parts), dtype)


def join_parts(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return the tensors next to each other; a single tensor is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


@fused_op
def partial_sums_forward(partial: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the result of sum_partials."""
    num_parts, *shape = partial.shape
    num_elements = partial[0].numel()
    out = torch.empty(shape, dtype=dtype, device=partial.device)
    # The largest power of two for which a launch has at least PROGRAMS programs.
    block_elements = 1 << max(num_elements // PROGRAMS, 1).bit_length() - 1
    block_elements = max(MIN_BLOCK_ELEMENTS, min(256, block_elements))
    block_parts = min(ELEMENTS_PER_BLOCK // block_elements, next_power_of_2(num_parts))
    launch(
        _sum_kernel,
        (divide_up(num_elements, block_elements),),
        partial,
        out,
        num_parts,
        num_elements,
        BLOCK_PARTS=block_parts,
        BLOCK_ELEMENTS=block_elements,
        num_warps=4,
    )
    return out
