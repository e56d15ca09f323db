"""Update of the pair representation from the MSA."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear, concatenate_parameters
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.chunks import (
    PendingChunks,
    chunk_lengths,
    chunk_replicated,
    chunk_sharded,
    join_replicated,
    join_sharded,
)
from openfold_opt.parallel.collectives import start_gather


class OuterProductMean(nn.Module):
    """Algorithm 10 (OuterProductMean)."""

    def __init__(self, c_m: int, c_z: int, *, c_hidden: int) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c_m)
        self.linear_1 = Linear(c_m, c_hidden)
        self.linear_2 = Linear(c_m, c_hidden)
        self.linear_out = Linear(c_hidden * c_hidden, c_z, init="final")

    def start_sides(
        self, m: Tensor, mask: Tensor, plan: ExecutionPlan, *, num_res: int
    ) -> tuple[Tensor, PendingChunks]:
        """Compute both factors of the product (lines 1-2) and start to gather b for all residues.

        Args:
            m: [batch, N_seq, N_res/dap, c_m]
            mask: [batch, N_seq, N_res/dap]
            plan: kernels and DAP axis.
            num_res: N_res.

        Returns:
            a: [batch, N_seq, N_res/dap, c], and the chunks of b: [batch, N_seq, N_res, c] along the
            residues, in flight.
        """
        a_chunks, collectives = [], []
        projection = concatenate_parameters(self.linear_1, self.linear_2)
        chunks = (chunk_sharded(x, plan.dap, dim=2) for x in (m, mask))
        for chunk, chunk_mask, length in zip(*chunks, chunk_lengths(num_res, plan.dap)):
            _, ab = self.layer_norm.normalize_and_project(chunk, projection, plan)
            a, b = (ab * chunk_mask.unsqueeze(-1).to(ab.dtype)).chunk(2, dim=-1)
            a_chunks.append(a)
            collectives.append(
                start_gather(b, plan.dap, dim=2, length=length, what="outer product side")
            )
        return join_sharded(a_chunks, dim=2), PendingChunks(collectives)

    def forward(
        self, z: Tensor, sides: tuple[Tensor, PendingChunks], norm: Tensor, plan: ExecutionPlan
    ) -> Tensor:
        """Add the update from the MSA to z.

        Args:
            z: [batch, N_res/dap, N_res, c_z]
            sides: from start_sides.
            norm: [batch, N_res/dap, N_res, 1] from `outer_product_norm`.
            plan: kernels and DAP axis.

        Returns:
            [batch, N_res/dap, N_res, c_z]
        """
        a, b_chunks = sides
        output = self.linear_out.weights
        chunks = (chunk_replicated(x, plan.dap, dim=2) for x in (z, norm))
        updated = [
            plan.kernels.outer_product_mean(chunk, (a, b), output, chunk_norm)
            for b, chunk, chunk_norm in zip(b_chunks, *chunks)
        ]
        return join_replicated(updated, plan.dap, dim=2)


def outer_product_norm(mask_col: Tensor, mask: Tensor, *, eps: float) -> Tensor:
    """Count the sequences that cover both residues of a pair, plus eps.

    The result is the same for all blocks of a stack.

    Args:
        mask_col: [batch, N_seq, N_res/dap]
        mask: [batch, N_seq, N_res]
        eps: added to the count.

    Returns:
        [batch, N_res/dap, N_res, 1]
    """
    return (torch.matmul(mask_col.transpose(1, 2), mask) + eps).unsqueeze(-1)
