"""Unit quaternions [..., 4] as (w, x, y, z) and rotation matrices [..., 3, 3]."""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_to_matrix(q: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of unit quaternions q [..., 4]."""
    w, x, y, z = q.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    xy, xz, yz = x * y, x * z, y * z
    wx, wy, wz = w * x, w * y, w * z
    ww = w * w
    entries = (
        ww + xx - yy - zz, 2 * (xy - wz), 2 * (xz + wy),
        2 * (xy + wz), ww - xx + yy - zz, 2 * (yz - wx),
        2 * (xz - wy), 2 * (yz + wx), ww - xx - yy + zz,
    )  # fmt: skip
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions [..., 4] with w >= 0 of rotation matrices [..., 3, 3].

    Each component's square follows from the diagonal; the largest is taken as pivot, so nothing small is divided by.
    """
    m = rotation.flatten(-2).unbind(-1)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = m
    # row i: the quaternion times four times its i-th component
    candidates = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], dim=-1),
            torch.stack([zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx], dim=-1),
            torch.stack([xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy], dim=-1),
            torch.stack([yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz], dim=-1),
        ],
        dim=-2,
    )
    pivot = candidates.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    index = pivot[..., None, None].expand(*pivot.shape, 1, 4)
    q = candidates.gather(-2, index).squeeze(-2)
    q = q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def quaternion_multiply(p: Tensor, q: Tensor) -> Tensor:
    """Hamilton product p q, [..., 4]: the rotation q followed by p."""
    pw, px, py, pz = p.unbind(-1)
    qw, qx, qy, qz = q.unbind(-1)
    product = (
        pw * qw - px * qx - py * qy - pz * qz,
        pw * qx + px * qw + py * qz - pz * qy,
        pw * qy - px * qz + py * qw + pz * qx,
        pw * qz + px * qy - py * qx + pz * qw,
    )
    return torch.stack(product, dim=-1)


def quaternion_multiply_by_vector(q: Tensor, v: Tensor) -> Tensor:
    """Hamilton product of q [..., 4] and the pure quaternion (0, v), v [..., 3]: [..., 4]."""
    w, x, y, z = q.unbind(-1)
    a, b, c = v.unbind(-1)
    product = (
        -x * a - y * b - z * c,
        w * a + y * c - z * b,
        w * b - x * c + z * a,
        w * c + x * b - y * a,
    )
    return torch.stack(product, dim=-1)
