"""Composition of the backbone frames with their updates. One launch in each pass.

Formulas, with q = (w, x, y, z) and the predicted vector v:

    s = q + q (0, v),   new q = s / |s|,   new t = R u + t,

    ds = (dq - q' (q' . dq)) / |s| with q' the new q,   dv = the vector part of conj(q) ds,
    du = R^T dt.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launching import divide_up, fused_op, launch

BLOCK_ROWS = 32
"""Residues of a program."""


@triton.jit
def _load_vector(start, inside):
    """Load three neighboring numbers of each row."""
    return (
        tl.load(start, mask=inside, other=0.0),
        tl.load(start + 1, mask=inside, other=0.0),
        tl.load(start + 2, mask=inside, other=0.0),
    )


@triton.jit
def _store_vector(start, x, y, z, inside):
    tl.store(start, x, mask=inside)
    tl.store(start + 1, y, mask=inside)
    tl.store(start + 2, z, mask=inside)


@triton.jit
def _updated_quaternion(update, quaternion, inside):
    """Return the old quaternion, the new one, and the norm by which it was divided.

    update, quaternion: addresses of the rows.
    """
    a, b, c = _load_vector(update, inside)
    w = tl.load(quaternion, mask=inside, other=1.0)
    x, y, z = _load_vector(quaternion + 1, inside)
    new_w = w - x * a - y * b - z * c
    new_x = x + w * a + y * c - z * b
    new_y = y + w * b - x * c + z * a
    new_z = z + w * c + x * b - y * a
    norm = tl.sqrt(new_w * new_w + new_x * new_x + new_y * new_y + new_z * new_z)
    return w, x, y, z, new_w / norm, new_x / norm, new_y / norm, new_z / norm, norm


@triton.jit
def _forward_kernel(
    update_ptr,  # [rows, 6]
    quaternion_ptr,  # [rows, 4]
    rotation_ptr,  # [rows, 3, 3]
    translation_ptr,  # [rows, 3]
    new_quaternion_ptr,  # out: [rows, 4]
    new_rotation_ptr,  # out: [rows, 3, 3]
    new_translation_ptr,  # out: [rows, 3]
    num_rows,
    BLOCK_ROWS: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = rows < num_rows
    update, quaternion = update_ptr + 6 * rows, quaternion_ptr + 4 * rows
    _, _, _, _, w, x, y, z, _ = _updated_quaternion(update, quaternion, inside)
    new_quaternion = new_quaternion_ptr + 4 * rows
    tl.store(new_quaternion, w, mask=inside)
    _store_vector(new_quaternion + 1, x, y, z, inside)
    xx, yy, zz, ww = x * x, y * y, z * z, w * w
    new_rotation = new_rotation_ptr + 9 * rows
    _store_vector(new_rotation, ww + xx - yy - zz, 2 * (x * y - w * z), 2 * (x * z + w * y), inside)
    _store_vector(
        new_rotation + 3, 2 * (x * y + w * z), ww - xx + yy - zz, 2 * (y * z - w * x), inside
    )
    _store_vector(
        new_rotation + 6, 2 * (x * z - w * y), 2 * (y * z + w * x), ww - xx - yy + zz, inside
    )
    shift_x, shift_y, shift_z = _load_vector(update + 3, inside)
    for i in tl.static_range(3):
        r_x, r_y, r_z = _load_vector(rotation_ptr + 9 * rows + 3 * i, inside)
        old = tl.load(translation_ptr + 3 * rows + i, mask=inside, other=0.0)
        shift = r_x * shift_x + r_y * shift_y + r_z * shift_z
        tl.store(new_translation_ptr + 3 * rows + i, shift + old, mask=inside)


@triton.jit
def _backward_kernel(
    dquaternion_ptr,  # [rows, 4]
    dtranslation_ptr,  # [rows, 3]
    update_ptr,  # as in _forward_kernel
    quaternion_ptr,
    rotation_ptr,
    dupdate_ptr,  # out: [rows, 6]
    num_rows,
    BLOCK_ROWS: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = rows < num_rows
    update, quaternion = update_ptr + 6 * rows, quaternion_ptr + 4 * rows
    w, x, y, z, new_w, new_x, new_y, new_z, norm = _updated_quaternion(update, quaternion, inside)
    dw = tl.load(dquaternion_ptr + 4 * rows, mask=inside, other=0.0)
    dx, dy, dz = _load_vector(dquaternion_ptr + 4 * rows + 1, inside)
    along = dw * new_w + dx * new_x + dy * new_y + dz * new_z
    dw, dx = (dw - along * new_w) / norm, (dx - along * new_x) / norm
    dy, dz = (dy - along * new_y) / norm, (dz - along * new_z) / norm
    dupdate = dupdate_ptr + 6 * rows
    _store_vector(
        dupdate,
        w * dx - x * dw + z * dy - y * dz,
        w * dy - y * dw - z * dx + x * dz,
        w * dz - z * dw + y * dx - x * dy,
        inside,
    )
    dt_x, dt_y, dt_z = _load_vector(dtranslation_ptr + 3 * rows, inside)
    row_x = _load_vector(rotation_ptr + 9 * rows, inside)
    row_y = _load_vector(rotation_ptr + 9 * rows + 3, inside)
    row_z = _load_vector(rotation_ptr + 9 * rows + 6, inside)
    _store_vector(
        dupdate + 3,
        row_x[0] * dt_x + row_y[0] * dt_y + row_z[0] * dt_z,
        row_x[1] * dt_x + row_y[1] * dt_y + row_z[1] * dt_z,
        row_x[2] * dt_x + row_y[2] * dt_y + row_z[2] * dt_z,
        inside,
    )


@fused_op
def backbone_update_forward(
    update: Tensor, quaternion: Tensor, rotation: Tensor, translation: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return new quaternion, rotation and translation of contiguous arguments."""
    results = (
        torch.empty_like(quaternion),
        torch.empty_like(rotation),
        torch.empty_like(translation),
    )
    num_rows = quaternion.numel() // 4
    launch(
        _forward_kernel,
        (divide_up(num_rows, BLOCK_ROWS),),
        *(update, quaternion, rotation, translation, *results, num_rows),
        BLOCK_ROWS=BLOCK_ROWS,
        num_warps=1,
    )
    return results


@fused_op
def backbone_update_backward(
    dquaternion: Tensor, dtranslation: Tensor, update: Tensor, quaternion: Tensor, rotation: Tensor
) -> Tensor:
    """Return the gradient of update; all arguments are contiguous."""
    dupdate = torch.empty_like(update)
    num_rows = quaternion.numel() // 4
    launch(
        _backward_kernel,
        (divide_up(num_rows, BLOCK_ROWS),),
        *(dquaternion, dtranslation, update, quaternion, rotation, dupdate, num_rows),
        BLOCK_ROWS=BLOCK_ROWS,
        num_warps=1,
    )
    return dupdate


class _BackboneUpdate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, update, quaternion, rotation, translation):
        results = backbone_update_forward(update, quaternion, rotation, translation)
        ctx.save_for_backward(update, quaternion, rotation)
        ctx.mark_non_differentiable(results[1])
        return results

    @staticmethod
    def backward(ctx, dquaternion, _, dtranslation):
        dupdate = backbone_update_backward(
            dquaternion.contiguous(), dtranslation.contiguous(), *ctx.saved_tensors
        )
        return dupdate, None, None, dtranslation


def backbone_update(
    update: Tensor, quaternion: Tensor, rotation: Tensor, translation: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute kernels.reference.backbone_update; its docstring has the shapes."""
    frames = quaternion.detach(), rotation.detach(), translation
    return _BackboneUpdate.apply(update.contiguous(), *(x.contiguous() for x in frames))
