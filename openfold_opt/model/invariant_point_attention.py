"""Invariant point attention."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openfold_opt.geometry.rigid import Rigid
from openfold_opt.kernels.interface import InvariantPointInputs
from openfold_opt.model.linear import JoinedLinears, Linear
from openfold_opt.model.plan import ExecutionPlan

# softplus of this value is 1, so every head starts with point weight 1.
_SOFTPLUS_INVERSE_OF_ONE = math.log(math.e - 1.0)


class ProjectedResidues(NamedTuple):
    """Scalars [batch, n, num_heads, c] and points [batch, n, num_heads, num_points, 3].

    Points are in the global frame.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_points: Tensor
    k_points: Tensor
    v_points: Tensor

    def with_queries(self, rows: slice) -> ProjectedResidues:
        """Return the same keys and values with the queries of some residues."""
        return self._replace(q=self.q[:, rows], q_points=self.q_points[:, rows])


class InvariantPointAttention(nn.Module):
    """Algorithm 22 (InvariantPointAttention)."""

    def __init__(
        self,
        *,
        c_s: int,
        c_z: int,
        c_hidden: int,
        num_heads: int,
        num_points: tuple[int, int],
        mask_inf: float,
        eps: float,
    ) -> None:
        """Build the projections.

        num_points: number of points per head of queries and keys, and of values.
        """
        super().__init__()
        self.num_heads = num_heads
        self.c_hidden = c_hidden
        self.num_qk_points, self.num_v_points = num_points
        self.mask_inf = mask_inf
        self.eps = eps
        self.head_weights = nn.Parameter(torch.full((num_heads,), _SOFTPLUS_INVERSE_OF_ONE))
        self.linear_q = Linear(c_s, c_hidden * num_heads)
        self.linear_kv = Linear(c_s, 2 * c_hidden * num_heads)
        self.linear_q_points = Linear(c_s, num_heads * self.num_qk_points * 3)
        self.linear_kv_points = Linear(c_s, num_heads * sum(num_points) * 3)
        self._joined = JoinedLinears(
            self.linear_q, self.linear_kv, self.linear_q_points, self.linear_kv_points
        )
        self.linear_b = Linear(c_z, num_heads)
        self.linear_out = Linear(
            num_heads * (c_z + c_hidden + self.num_v_points * 4), c_s, init="final"
        )

    def forward(
        self, s: Tensor, z: Tensor, frames: Rigid, mask: Tensor, plan: ExecutionPlan
    ) -> Tensor:
        """Compute the update of the single representation.

        Args:
            s: [batch, N_res, c_s]
            z: [batch, N_res, N_res, c_z], normalized.
            frames: [batch, N_res], in the length unit of the structure module (10 angstrom).
            mask: [batch, N_res]
            plan: kernels.

        Returns:
            [batch, N_res, c_s]
        """
        return self.attend(self.project(s, frames), z, frames, (None, mask), plan)

    def attend(
        self,
        projected: ProjectedResidues,
        z: Tensor,
        frames: Rigid,
        masks: tuple[Tensor | None, Tensor],
        plan: ExecutionPlan,
    ) -> Tensor:
        """Run lines 4-11 for some of the residues, the queries.

        Args:
            projected: from `project`, with the queries of these residues.
            z: [batch, N_query, N_res, c_z], normalized.
            frames: [batch, N_query], those of the queries.
            masks: of the queries [batch, N_query], None if they are all residues, and of all
                residues [batch, N_res].
            plan: kernels.

        Returns:
            [batch, N_query, c_s]
        """
        inputs = InvariantPointInputs(
            **projected._asdict(),
            bias=self.linear_b(z),
            z=z,
            point_weights=F.softplus(self.head_weights),
        )
        scalars, points, pairs = plan.kernels.invariant_point_attention(
            inputs, mask=masks[1], mask_inf=self.mask_inf, query_mask=masks[0]
        )
        points = frames.unsqueeze(-1).invert_apply(points.flatten(2, 3))
        norms = (points.square().sum(-1) + self.eps).sqrt()
        joined = [
            scalars.flatten(-2),
            points.transpose(-1, -2).flatten(-2),
            norms,
            pairs.flatten(-2),
        ]
        return self.linear_out(torch.cat(joined, dim=-1))

    def project(self, s: Tensor, frames: Rigid) -> ProjectedResidues:
        """Run lines 1-3: project s [batch, N_res, c_s] to scalars and points."""
        sizes = tuple(linear.weight.shape[0] for linear in self._joined.linears)
        q, kv, q_points, kv_points = self._joined.project(s).split(sizes, dim=-1)
        k, v = kv.unflatten(-1, (self.num_heads, -1)).chunk(2, dim=-1)
        # The checkpoint's layout of a point projection is [3, num_heads, num_points].
        points = torch.cat(
            [q_points.unflatten(-1, (3, -1)), kv_points.unflatten(-1, (3, -1))], dim=-1
        )
        points = frames.unsqueeze(-1).apply(points.transpose(-1, -2))
        num_q = self.num_heads * self.num_qk_points
        q_points, kv_points = points.split((num_q, points.shape[-2] - num_q), dim=-2)
        kv_points = kv_points.unflatten(-2, (self.num_heads, -1))
        return ProjectedResidues(
            q=q.unflatten(-1, (self.num_heads, -1)),
            k=k,
            v=v,
            q_points=q_points.unflatten(-2, (self.num_heads, -1)),
            k_points=kv_points[..., : self.num_qk_points, :],
            v_points=kv_points[..., self.num_qk_points :, :],
        )
