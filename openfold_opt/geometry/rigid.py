"""Rigid: a rotation and a translation, the frame of a residue or of a group of its atoms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def matrix_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of [..., 3, 3] matrices as plain sums, so that neither TF32 nor bf16 units round it."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(dim=-2)


def matrix_vector(a: Tensor, v: Tensor) -> Tensor:
    """Product of [..., 3, 3] matrices and [..., 3] vectors as plain sums."""
    return (a * v[..., None, :]).sum(dim=-1)


@dataclass(frozen=True, eq=False)
class Rigid:
    """x -> rotation x + translation. Leading dims of the two are alike, or broadcast."""

    rotation: Tensor
    """[..., 3, 3]"""
    translation: Tensor
    """[..., 3], angstrom unless said otherwise"""

    def __post_init__(self) -> None:
        if self.rotation.shape[-2:] != (3, 3) or self.translation.shape[-1:] != (3,):
            raise ValueError(
                f"a Rigid wants rotation [..., 3, 3] and translation [..., 3], found "
                f"{tuple(self.rotation.shape)} and {tuple(self.translation.shape)}"
            )

    @classmethod
    def identity(
        cls, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device | str
    ) -> Rigid:
        """Frames that move nothing, with the given leading dims."""
        rotation = torch.eye(3, dtype=dtype, device=device).expand(*shape, 3, 3)
        return cls(rotation, torch.zeros(*shape, 3, dtype=dtype, device=device))

    @classmethod
    def from_matrix4x4(cls, matrix: Tensor) -> Rigid:
        """From homogeneous matrices [..., 4, 4]."""
        if matrix.shape[-2:] != (4, 4):
            raise ValueError(
                f"expected homogeneous matrices [..., 4, 4], found {tuple(matrix.shape)}"
            )
        return cls(matrix[..., :3, :3], matrix[..., :3, 3])

    @classmethod
    def from_three_points(
        cls, neg_x_axis: Tensor, origin: Tensor, xy_plane: Tensor, *, eps: float = 1e-8
    ) -> Rigid:
        """Algorithm 21 (rigidFrom3Points): x points from neg_x_axis to origin, xy_plane has positive y; all [..., 3].

        eps is added to squared lengths, so that coinciding points give a degenerate frame and no NaN.
        """
        x = _normalize(origin - neg_x_axis, eps)
        toward = xy_plane - origin
        y = _normalize(toward - x * (x * toward).sum(-1, keepdim=True), eps)
        z = torch.linalg.cross(x, y, dim=-1)
        return cls(torch.stack([x, y, z], dim=-1), origin)

    def to_matrix4x4(self) -> Tensor:
        """Homogeneous matrices [..., 4, 4]."""
        upper = torch.cat([self.rotation, self.translation[..., None]], dim=-1)
        zeros = torch.zeros_like(upper[..., :1, :3])
        last = torch.cat([zeros, torch.ones_like(zeros[..., :1])], dim=-1)
        return torch.cat([upper, last], dim=-2)

    def compose(self, other: Rigid) -> Rigid:
        """The transformation that applies other, then self."""
        return Rigid(matrix_multiply(self.rotation, other.rotation), self.apply(other.translation))

    def apply(self, points: Tensor) -> Tensor:
        """From local to global coordinates: points [..., 3]."""
        return matrix_vector(self.rotation, points) + self.translation

    def invert_apply(self, points: Tensor) -> Tensor:
        """From global to local coordinates: points [..., 3]."""
        return matrix_vector(self.rotation.transpose(-1, -2), points - self.translation)

    def unsqueeze(self, dim: int) -> Rigid:
        """A new leading dim; a negative dim counts from the end of the leading dims."""
        return Rigid(
            self.rotation.unsqueeze(dim if dim >= 0 else dim - 2),
            self.translation.unsqueeze(dim if dim >= 0 else dim - 1),
        )

    def __getitem__(self, index) -> Rigid:
        """Index the leading dims."""
        index = index if isinstance(index, tuple) else (index,)
        return Rigid(
            self.rotation[(*index, slice(None), slice(None))],
            self.translation[(*index, slice(None))],
        )


def _normalize(v: Tensor, eps: float) -> Tensor:
    return v / torch.sqrt((v * v).sum(-1, keepdim=True) + eps)
