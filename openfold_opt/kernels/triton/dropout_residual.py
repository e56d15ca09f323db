"""residual + update * sigmoid(gate) * mask in one pass over memory instead of up to five.

The mask is the scaled dropout mask. Each tensor has its own strides: a transposed update is not
copied, and a mask that rows share has strides of 0. Gradients:

    d(residual) = dy,   d(update) = dy * sigmoid(gate) * mask,
    d(gate) = dy * mask * update * sigmoid(gate) * (1 - sigmoid(gate)).

The backward pass also sums d(update) over the rows: the gradient of the bias of the projection that
computed the update (projected_residual.py).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launching import (
    divide_up,
    fused_op,
    launch,
    next_power_of_2,
    row_offsets,
)

ELEMENTS_PER_PROGRAM = 4096
"""Elements of each tensor in a block of rows."""


@triton.jit
def _forward_kernel(
    residual_ptr,  # [size_0, size_1, size_2, c] with strides for the first three dims
    update_ptr,  # as residual
    gate_ptr,  # as residual
    mask_ptr,  # as residual, with a stride for c
    out_ptr,  # out: strides of residual
    num_rows,
    size_1,
    size_2,
    residual_stride_0,
    residual_stride_1,
    residual_stride_2,
    update_stride_0,
    update_stride_1,
    update_stride_2,
    gate_stride_0,
    gate_stride_1,
    gate_stride_2,
    mask_stride_0,
    mask_stride_1,
    mask_stride_2,
    mask_stride_c,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_C)[None, :]
    inside = (rows < num_rows)[:, None] & (columns < C)
    update_rows = row_offsets(
        rows, size_1, size_2, update_stride_0, update_stride_1, update_stride_2
    )
    update = tl.load(update_ptr + update_rows[:, None] + columns, mask=inside, other=0.0).to(
        tl.float32
    )
    if HAS_GATE:
        gate_rows = row_offsets(rows, size_1, size_2, gate_stride_0, gate_stride_1, gate_stride_2)
        update *= tl.sigmoid(
            tl.load(gate_ptr + gate_rows[:, None] + columns, mask=inside, other=0.0).to(tl.float32)
        )
    if HAS_MASK:
        mask_rows = row_offsets(rows, size_1, size_2, mask_stride_0, mask_stride_1, mask_stride_2)
        update *= tl.load(
            mask_ptr + mask_rows[:, None] + columns * mask_stride_c, mask=inside, other=0.0
        ).to(tl.float32)
    residual_rows = row_offsets(
        rows, size_1, size_2, residual_stride_0, residual_stride_1, residual_stride_2
    )
    residual = tl.load(residual_ptr + residual_rows[:, None] + columns, mask=inside, other=0.0).to(
        tl.float32
    )
    tl.store(
        out_ptr + residual_rows[:, None] + columns,
        (residual + update).to(out_ptr.dtype.element_ty),
        mask=inside,
    )


@triton.jit
def _backward_kernel(
    dout_ptr,  # as residual in _forward_kernel
    update_ptr,  # as in _forward_kernel; read if HAS_GATE
    gate_ptr,
    mask_ptr,
    dupdate_ptr,  # out: strides of update
    dgate_ptr,  # out: [rows, c] contiguous, written if HAS_GATE
    partial_ptr,  # out: [programs, c] float32, sums of dupdate; written if HAS_SUMS
    num_rows,
    size_1,
    size_2,
    dout_stride_0,
    dout_stride_1,
    dout_stride_2,
    update_stride_0,
    update_stride_1,
    update_stride_2,
    gate_stride_0,
    gate_stride_1,
    gate_stride_2,
    mask_stride_0,
    mask_stride_1,
    mask_stride_2,
    mask_stride_c,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_SUMS: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_C)[None, :]
    inside = (rows < num_rows)[:, None] & (columns < C)
    dout_rows = row_offsets(rows, size_1, size_2, dout_stride_0, dout_stride_1, dout_stride_2)
    dupdate = tl.load(dout_ptr + dout_rows[:, None] + columns, mask=inside, other=0.0).to(
        tl.float32
    )
    if HAS_MASK:
        mask_rows = row_offsets(rows, size_1, size_2, mask_stride_0, mask_stride_1, mask_stride_2)
        dupdate *= tl.load(
            mask_ptr + mask_rows[:, None] + columns * mask_stride_c, mask=inside, other=0.0
        ).to(tl.float32)
    update_rows = row_offsets(
        rows, size_1, size_2, update_stride_0, update_stride_1, update_stride_2
    )
    if HAS_GATE:
        gate_rows = row_offsets(rows, size_1, size_2, gate_stride_0, gate_stride_1, gate_stride_2)
        sigmoid_gate = tl.sigmoid(
            tl.load(gate_ptr + gate_rows[:, None] + columns, mask=inside, other=0.0).to(tl.float32)
        )
        update = tl.load(update_ptr + update_rows[:, None] + columns, mask=inside, other=0.0).to(
            tl.float32
        )
        dgate = dupdate * update * sigmoid_gate * (1.0 - sigmoid_gate)
        tl.store(
            dgate_ptr + rows.to(tl.int64)[:, None] * C + columns,
            dgate.to(dgate_ptr.dtype.element_ty),
            mask=inside,
        )
        dupdate *= sigmoid_gate
    tl.store(
        dupdate_ptr + update_rows[:, None] + columns,
        dupdate.to(dupdate_ptr.dtype.element_ty),
        mask=inside,
    )
    if HAS_SUMS:
        channels = tl.arange(0, BLOCK_C)
        sums = partial_ptr + tl.program_id(0).to(tl.int64) * C + channels
        tl.store(sums, tl.sum(dupdate, axis=0), mask=channels < C)


def _constants(shape: torch.Size, gate: Tensor | None, mask: Tensor | None) -> dict[str, int]:
    block_c = next_power_of_2(shape[-1])
    block_rows = max(1, ELEMENTS_PER_PROGRAM // block_c)
    return {
        "C": shape[-1],
        "BLOCK_C": block_c,
        "BLOCK_ROWS": block_rows,
        "HAS_GATE": gate is not None,
        "HAS_MASK": mask is not None,
    }


def leading_strides(tensor: Tensor | None) -> tuple[int, int, int]:
    """Return the strides of the three leading dims; zeros for None."""
    return (0, 0, 0) if tensor is None else tensor.stride()[:3]


def _layout(
    shape: torch.Size, tensors: tuple[Tensor | None, ...], mask: Tensor | None
) -> tuple[int, ...]:
    """Return number of rows, sizes and strides in the order of the kernel arguments."""
    rows = shape[0] * shape[1] * shape[2]
    strides = [stride for tensor in tensors for stride in leading_strides(tensor)]
    return (
        rows,
        *shape[1:3],
        *strides,
        *((0, 0, 0, 0) if mask is None else mask.expand(shape).stride()),
    )


@fused_op
def dropout_residual_forward(
    residual: Tensor, update: Tensor, mask: Tensor | None, gate: Tensor | None
) -> Tensor:
    """Return out [size_0, size_1, size_2, c] in dtype and memory layout of residual."""
    out = torch.empty_like(residual)
    if out.stride() != residual.stride():
        # residual has gaps, for example as part of a larger tensor; out does not.
        residual = residual.contiguous()
        out = torch.empty_like(residual)
    constants = _constants(residual.shape, gate, mask)
    layout = _layout(residual.shape, (residual, update, gate), mask)
    # Fills the arguments of a missing gate or mask, which the kernel does not read.
    nothing = update.new_empty(0)
    tensors = (
        residual,
        update,
        nothing if gate is None else gate,
        nothing if mask is None else mask,
        out,
    )
    launch(
        _forward_kernel,
        (divide_up(layout[0], constants["BLOCK_ROWS"]),),
        *tensors,
        *layout,
        **constants,
        num_warps=4,
    )
    return out


@fused_op
def dropout_residual_backward(
    dout: Tensor, update: Tensor, mask: Tensor | None, gate: Tensor | None, has_sums: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients.

    Returns:
        The gradient of update, in its dtype and layout; that of gate (empty without a gate);
        partial sums [programs, c] float32 of that of update (empty unless has_sums).
    """
    dupdate = torch.empty_like(update)
    dgate = torch.empty(
        update.shape if gate is not None else 0, dtype=update.dtype, device=update.device
    )
    constants = _constants(update.shape, gate, mask)
    layout = _layout(update.shape, (dout, update, gate), mask)
    programs = divide_up(layout[0], constants["BLOCK_ROWS"])
    partial = torch.empty(
        (programs, update.shape[-1]) if has_sums else 0, dtype=torch.float32, device=update.device
    )
    # Without a gate, the kernel does not read the update.
    nothing = update.new_empty(0)
    tensors = (
        dout,
        nothing if gate is None else update,
        nothing if gate is None else gate,
        nothing if mask is None else mask,
        dupdate,
        dgate,
        partial,
    )
    launch(
        _backward_kernel,
        (programs,),
        *tensors,
        *layout,
        **constants,
        HAS_SUMS=has_sums,
        num_warps=4,
    )
    return dupdate, dgate, partial


class _DropoutResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, residual, update, mask, gate):
        ctx.save_for_backward(update if gate is not None else None, mask, gate)
        # Without a gate, the backward pass needs only the layout of update.
        ctx.dtype, ctx.shape = update.dtype, update.shape
        ctx.strides = torch.empty_like(update, device="meta").stride()
        return dropout_residual_forward(residual, update, mask, gate)

    @staticmethod
    def backward(ctx, dout):
        update, mask, gate = ctx.saved_tensors
        if mask is None and gate is None:
            return dout, dout.to(ctx.dtype), None, None
        if gate is None:
            update = torch.empty_strided(
                ctx.shape, ctx.strides, dtype=ctx.dtype, device=dout.device
            )
        dupdate, dgate, _ = dropout_residual_backward(dense(dout), update, mask, gate, False)
        return dout, dupdate, None, None if gate is None else dgate


def dropout_residual(
    residual: Tensor, update: Tensor, mask: Tensor | None, gate: Tensor | None = None
) -> Tensor:
    """Compute kernels.reference.dropout_residual; its docstring has the shapes.

    Makes one launch in each pass, and none in the backward pass without gate and mask.
    """
    shape = residual.shape
    mask = None if mask is None else mask.expand(shape)
    return _DropoutResidual.apply(
        *(three_leading_dims(x) for x in (residual, update, mask, gate))
    ).view(shape)


def three_leading_dims(x: Tensor | None) -> Tensor | None:
    """Return x as [size_0, size_1, size_2, c], if possible a view, with contiguous channels."""
    if x is None:
        return None
    return dense(x.flatten(0, x.dim() - 4) if x.dim() > 4 else x[(None,) * (4 - x.dim())])


def dense(x: Tensor) -> Tensor:
    """Return x with channels that are contiguous or have stride 0."""
    return x if x.stride(-1) <= 1 else x.contiguous()
