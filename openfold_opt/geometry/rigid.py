"""Rigid transformations: frames of residues and of their rigid groups."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

import torch
from torch import Tensor

Index = int | slice | EllipsisType | Tensor | None


def matrix_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Multiply [..., 3, 3] matrices.

    The products are summed explicitly, because matrix units would round them to TF32 or bf16.
    """
    return (a[..., :, :, None] * b[..., None, :, :]).sum(dim=-2)


def matrix_vector(a: Tensor, v: Tensor) -> Tensor:
    """Multiply [..., 3, 3] matrices and [..., 3] vectors without matrix units."""
    return (a * v[..., None, :]).sum(dim=-1)


@dataclass(frozen=True, eq=False)
class Rigid:
    """The transformation x -> rotation x + translation.

    The leading dims of rotation and translation broadcast.
    """

    rotation: Tensor
    """[..., 3, 3]"""
    translation: Tensor
    """[..., 3], angstrom unless stated otherwise"""

    def __post_init__(self) -> None:
        if self.rotation.shape[-2:] != (3, 3) or self.translation.shape[-1:] != (3,):
            raise ValueError(
                f"found rotation {tuple(self.rotation.shape)} and translation "
                f"{tuple(self.translation.shape)}, expected [..., 3, 3] and [..., 3]"
            )

    @classmethod
    def identity(
        cls, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device | str
    ) -> Rigid:
        """Return identity transformations with the given leading dims."""
        rotation = torch.eye(3, dtype=dtype, device=device).expand(*shape, 3, 3)
        return cls(rotation, torch.zeros(*shape, 3, dtype=dtype, device=device))

    @classmethod
    def from_matrix4x4(cls, matrix: Tensor) -> Rigid:
        """Create frames from homogeneous matrices [..., 4, 4].

        Raises:
            ValueError: The matrix has another shape.
        """
        if matrix.shape[-2:] != (4, 4):
            raise ValueError(
                f"found shape {tuple(matrix.shape)}, expected homogeneous matrices [..., 4, 4]"
            )
        return cls(matrix[..., :3, :3], matrix[..., :3, 3])

    @classmethod
    def from_three_points(
        cls, neg_x_axis: Tensor, origin: Tensor, xy_plane: Tensor, *, eps: float = 1e-8
    ) -> Rigid:
        """Create frames from three points [..., 3] each (Algorithm 21, rigidFrom3Points).

        The x axis points from neg_x_axis to origin, and xy_plane has positive y.

        Args:
            eps: Added to squared lengths, so that coincident points give a degenerate frame and
                no NaN.
        """
        x = _normalize(origin - neg_x_axis, eps)
        in_plane = xy_plane - origin
        y = _normalize(in_plane - x * (x * in_plane).sum(-1, keepdim=True), eps)
        z = torch.linalg.cross(x, y, dim=-1)
        return cls(torch.stack([x, y, z], dim=-1), origin)

    def to_matrix4x4(self) -> Tensor:
        """Return homogeneous matrices [..., 4, 4]."""
        upper = torch.cat([self.rotation, self.translation[..., None]], dim=-1)
        zeros = torch.zeros_like(upper[..., :1, :3])
        last = torch.cat([zeros, torch.ones_like(zeros[..., :1])], dim=-1)
        return torch.cat([upper, last], dim=-2)

    def compose(self, other: Rigid) -> Rigid:
        """Return the transformation that applies other first and then self."""
        return Rigid(matrix_multiply(self.rotation, other.rotation), self.apply(other.translation))

    def apply(self, points: Tensor) -> Tensor:
        """Transform points [..., 3] from local to global coordinates."""
        return matrix_vector(self.rotation, points) + self.translation

    def invert_apply(self, points: Tensor) -> Tensor:
        """Transform points [..., 3] from global to local coordinates."""
        return matrix_vector(self.rotation.transpose(-1, -2), points - self.translation)

    def unsqueeze(self, dim: int) -> Rigid:
        """Insert a leading dim. A negative dim counts from the end of the leading dims."""
        return Rigid(
            self.rotation.unsqueeze(dim if dim >= 0 else dim - 2),
            self.translation.unsqueeze(dim if dim >= 0 else dim - 1),
        )

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Rigid:
        """Index the leading dims."""
        index = index if isinstance(index, tuple) else (index,)
        return Rigid(
            self.rotation[(*index, slice(None), slice(None))],
            self.translation[(*index, slice(None))],
        )


def _normalize(v: Tensor, eps: float) -> Tensor:
    return v / torch.sqrt((v * v).sum(-1, keepdim=True) + eps)
