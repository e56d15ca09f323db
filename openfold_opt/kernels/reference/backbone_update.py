"""Composition of the backbone frames of the structure module with the predicted updates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker


def backbone_update(
    update: Tensor, quaternion: Tensor, rotation: Tensor, translation: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compose frames with updates (Algorithm 20, lines 10 and 20; Algorithm 23, lines 2-5).

    All tensors are float32. No gradient flows through quaternion and rotation of the frames.

    Args:
        update: [..., 6]: b, c, d of the quaternion 1 + bi + cj + dk, and a translation.
        quaternion: [..., 4], unit quaternions (w, x, y, z) of the frames.
        rotation: [..., 3, 3], their matrices.
        translation: [..., 3]

    Returns:
        Quaternions [..., 4], rotation matrices [..., 3, 3] without gradient and translations
        [..., 3] of the new frames.
    """
    quaternion, rotation = quaternion.detach(), rotation.detach()
    translation = (rotation * update[..., None, 3:]).sum(-1) + translation
    quaternion = quaternion + _multiply_by_vector(quaternion, update[..., :3])
    quaternion = quaternion / torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)
    return quaternion, _rotation_matrix(quaternion.detach()), translation


def _multiply_by_vector(q: Tensor, v: Tensor) -> Tensor:
    """Return the Hamilton product of q [..., 4] and (0, v), where v is [..., 3]: [..., 4]."""
    w, x, y, z = q.unbind(-1)
    a, b, c = v.unbind(-1)
    product = (
        -x * a - y * b - z * c,
        w * a + y * c - z * b,
        w * b - x * c + z * a,
        w * c + x * b - y * a,
    )
    return torch.stack(product, dim=-1)


def _rotation_matrix(q: Tensor) -> Tensor:
    """Return the same as geometry.quaternion, which kernels do not import, with fewer operators.

    q: [..., 4], unit quaternions.
    """
    w, v = q[..., :1], q[..., 1:]
    (ww,), (xx, yy, zz) = (w * w).unbind(-1), (v * v).unbind(-1)
    products = v * v.roll(-1, dims=-1)  # xy, yz, zx
    scaled = (w * v).roll(1, dims=-1)  # wz, wx, wy
    differences = (2 * (products - scaled)).unbind(-1)
    sums = (2 * (products + scaled)).unbind(-1)
    plus, minus = ww + xx, ww - xx
    entries = (
        *(plus - yy - zz, differences[0], sums[2]),
        *(sums[0], minus + yy - zz, differences[1]),
        *(differences[2], sums[1], minus - yy + zz),
    )
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


@dataclass(frozen=True, kw_only=True)
class BackboneUpdateShapes:
    """Shapes of the arguments of backbone_update."""

    batch: int
    num_res: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes. The results are those with a gradient."""
        leading = (self.batch, self.num_res)
        update, quaternion, translation = (
            make.leaf(*leading, size, dtype=torch.float32) for size in (6, 4, 3)
        )
        quaternion = torch.nn.functional.normalize(quaternion.detach(), dim=-1)
        rotation = _rotation_matrix(quaternion)

        def call(kernel: Kernel) -> Kernel:
            return lambda update, translation: kernel(update, quaternion, rotation, translation)[
                ::2
            ]

        return Arguments(leaves=(update, translation), others=(quaternion, rotation), call=call)
