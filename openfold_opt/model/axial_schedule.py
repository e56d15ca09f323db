"""Order of the work within a block under dynamic axial parallelism: chunks, starts and waits.

A tensor is sharded over its *rows* (the first of the two dims, suffix _row) or over its *columns*
(suffix _col). The layout changes before an operation that runs along the sharded dim. Between
blocks, the MSA is sharded over rows and the pair representation over columns: its change to rows
overlaps with the work on the MSA, and the change of the MSA back to rows overlaps with the work on
the pairs. Within a block, every other step needs the result of the step before it. Such a step is
divided into chunks (parallel/chunks.py): one chunk is transferred while another is computed. The
bytes of a shard determine the number of chunks, so that no small chunks are transferred. Along
a dim that is whole on every rank ("replicated"), a chunk has one slice for each rank, the same part
of that rank's shard. docs/dap.md has the table of the steps.

The modules compute on tensors without knowing whether they are whole, sharded or chunks. This file
calls their stages in order. A function that returns an iterator starts its collectives when it is
called, and waits for them and computes a chunk when that chunk is requested. On one device there is
one chunk, and every collective returns its input; attention then gets its input not normalized, so
that its kernel can normalize it. In a DAP group, the normalization and the projection of the
normalized rows overlap with the transfer of the bias, so they remain operations of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Protocol

from torch import Tensor

from openfold_opt.model.msa_column_attention import ColumnAttention
from openfold_opt.model.msa_row_attention import MSARowAttentionWithPairBias
from openfold_opt.model.outer_product_mean import OuterProductMean
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.stack import BlockDropout, MSAMasks, PairMasks
from openfold_opt.model.transition import MSATransition, PairTransition
from openfold_opt.model.triangle_attention import (
    TriangleAttentionEndingNode,
    TriangleAttentionStartingNode,
)
from openfold_opt.model.triangle_multiplication import (
    TriangleMultiplication,
    TriangleMultiplicationIncoming,
    TriangleMultiplicationOutgoing,
)
from openfold_opt.parallel.async_collective import AsyncCollective, SharedResult
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.chunks import (
    chunk_lengths,
    chunk_replicated,
    chunk_sharded,
    join_replicated,
    join_sharded,
)
from openfold_opt.parallel.collectives import start_col_to_row, start_gather, start_row_to_col

start_to_col = partial(start_row_to_col, row_dim=1, col_dim=2)
start_to_row = partial(start_col_to_row, row_dim=1, col_dim=2)


class MSAAttentions(Protocol):
    """The modules of a block that attend within the MSA."""

    msa_att_row: MSARowAttentionWithPairBias
    msa_att_col: ColumnAttention


class PairUpdates(Protocol):
    """The modules of a block that update pairs, of residues or of templates."""

    tri_mul_out: TriangleMultiplicationOutgoing
    tri_mul_in: TriangleMultiplicationIncoming
    tri_att_start: TriangleAttentionStartingNode
    tri_att_end: TriangleAttentionEndingNode
    pair_transition: PairTransition


class BlockCore(PairUpdates, Protocol):
    """The modules of a block after the attention within the MSA."""

    msa_transition: MSATransition
    outer_product_mean: OuterProductMean


def attend_within_msa(
    block: MSAAttentions,
    m_row: Tensor,
    z_col: Tensor,
    masks: MSAMasks,
    *,
    dropout: BlockDropout,
    plan: ExecutionPlan,
) -> tuple[Tensor, Callable[[], Tensor]]:
    """Run lines 2-3 of Algorithm 6 and start to change the pairs to rows.

    Args:
        block: the two attention modules.
        m_row: [batch, N_seq/dap, N_res, c_m]
        z_col: [batch, N_res, N_res/dap, c_z]
        masks: masks of the MSA.
        dropout: dropout masks of this block.
        plan: kernels and DAP axis.

    Returns:
        m_col: [batch, N_seq, N_res/dap, c_m], and a function that waits for z_row: [batch,
        N_res/dap, N_res, c_z].
    """
    plan = plan.with_chunks_of(m_row.nbytes)
    axis, num_res, row = plan.dap, z_col.shape[1], block.msa_att_row
    z_col, own_bias = row.pair_bias(z_col, plan)
    bias = SharedResult(start_gather(own_bias, axis, dim=3, length=num_res, what="pair bias"))
    z_row = start_to_row(z_col, axis, num_cols=num_res, what="pairs to rows")
    if axis.size == 1:
        m_row = row.update(m_row, masks.row, bias(), plan, dropout=dropout.msa_row)
        return block.msa_att_col.update(m_row, masks.col_transposed, plan), z_row.wait
    chunks = zip(*(chunk_sharded(x, axis, dim=1) for x in (*row.normalize(m_row, plan), masks.row)))
    m = (
        row.attend(chunk, x, mask, bias, plan, dropout=dropout.msa_row) for chunk, x, mask in chunks
    )
    m = chunks_to_col(m, axis, num_rows=chunk_lengths(masks.num_seq, axis), what="MSA to columns")
    return _attend_within_columns(block.msa_att_col, m, masks.col_transposed, plan), z_row.wait


def _attend_within_columns(
    module: ColumnAttention, m: Iterable[Tensor], mask: Tensor, plan: ExecutionPlan
) -> Tensor:
    """Normalize chunks of rows one by one, join them and attend: [batch, N_seq, N_res/dap, c_m]."""
    # normalize() transposes, so the rows are dim 2 of its result.
    chunks, normalized = zip(*(module.normalize(chunk, plan) for chunk in m))
    m_col = join_replicated(chunks, plan.dap, dim=1)
    return module.attend(m_col, join_replicated(normalized, plan.dap, dim=2), mask, plan)


def update_msa_and_pairs(
    core: BlockCore,
    m_col: Tensor,
    z_row: Callable[[], Tensor],
    masks: tuple[MSAMasks, PairMasks],
    *,
    dropout: BlockDropout,
    plan: ExecutionPlan,
) -> tuple[Tensor, Tensor]:
    """Run lines 4-10 of Algorithm 6.

    Args:
        core: the modules.
        m_col: [batch, N_seq, N_res/dap, c_m]
        z_row: from attend_within_msa.
        masks: masks of the MSA and of the pairs.
        dropout: dropout masks of this block.
        plan: kernels and DAP axis.

    Returns:
        m_row: [batch, N_seq/dap, N_res, c_m], z_col: [batch, N_res, N_res/dap, c_z]
    """
    msa_masks, pair_masks = masks
    num_res, outer = pair_masks.row.shape[2], core.outer_product_mean
    # A rank sends its part of a side to each of the others, as if its shard were the whole side.
    side_bytes = m_col.nbytes // m_col.shape[-1] * outer.c_hidden * plan.dap.size
    outer_plan = plan.with_chunks_of(side_bytes)
    m_col = core.msa_transition(m_col, plan)
    # The sides of the outer product are needed next, the MSA at the end of the block.
    m_col, a, b = _start_sides(outer, m_col, msa_masks.col, outer_plan, num_res=num_res)
    m_row = start_to_row(m_col, plan.dap, num_cols=num_res, what="MSA to rows")
    z = _multiply_sides(outer, z_row(), (a, b), msa_masks.norm, outer_plan)
    z_col = _update_pairs(core, z, pair_masks, dropout, plan.with_chunks_of(z.nbytes))
    return m_row.wait(), z_col


def _start_sides(
    module: OuterProductMean, m_col: Tensor, mask: Tensor, plan: ExecutionPlan, *, num_res: int
) -> tuple[Tensor, Tensor, list[AsyncCollective]]:
    """Compute side a, and start to gather side b in chunks of columns of the MSA.

    Returns:
        m_col for further use, a: [batch, N_seq, N_res/dap, c_hidden], and the chunks of b: [batch,
        N_seq, N_res, c_hidden] along the residues, in flight.
    """
    axis, projection, kept, sides_a, sides_b = plan.dap, module.projection(), [], [], []
    chunks = (chunk_sharded(x, axis, dim=2) for x in (m_col, mask))
    for chunk, chunk_mask, length in zip(*chunks, chunk_lengths(num_res, axis)):
        chunk, a, b = module.project(chunk, chunk_mask, projection, plan)
        kept.append(chunk)
        sides_a.append(a)
        sides_b.append(start_gather(b, axis, dim=2, length=length, what="outer product side"))
    # Joining several chunks again would cost more than the addition of gradients that it saves.
    m_col = kept[0] if len(kept) == 1 else m_col
    return m_col, join_sharded(sides_a, dim=2), sides_b


def _multiply_sides(
    module: OuterProductMean,
    z_row: Tensor,
    sides: tuple[Tensor, list[AsyncCollective]],
    norm: Tensor,
    plan: ExecutionPlan,
) -> Tensor:
    """Update z_row [batch, N_res/dap, N_res, c_z] column by column, as the chunks of b arrive."""
    a, collectives = sides
    chunks = (chunk_replicated(x, plan.dap, dim=2) for x in (z_row, norm))
    updated = [
        module.update(chunk, (a, b.wait()), chunk_norm, plan)
        for b, chunk, chunk_norm in zip(collectives, *chunks)
    ]
    return join_replicated(updated, plan.dap, dim=2)


def _update_pairs(
    core: PairUpdates, z_row: Tensor, masks: PairMasks, dropout: BlockDropout, plan: ExecutionPlan
) -> Tensor:
    """Run lines 6-10: [batch, N_res/dap, N_res, c_z] -> [batch, N_res, N_res/dap, c_z]."""
    axis, num_res = plan.dap, z_row.shape[2]
    z = multiply(
        core.tri_mul_out, chunk_sharded(z_row, axis, dim=1), masks.row, dropout.outgoing, plan
    )
    # multiply() returns chunks of columns, which have all rows; attend_starting() chunks of rows.
    z = chunks_to_col(z, axis, num_rows=repeat(num_res), what="pairs to columns")
    z = multiply(core.tri_mul_in, z, masks.col, dropout.incoming, plan)
    z = chunks_to_row(z, axis, num_cols=repeat(num_res), what="pairs to rows")
    z = attend_starting(core.tri_att_start, z, masks.row, dropout.starting, plan)
    z = chunks_to_col(z, axis, num_rows=chunk_lengths(num_res, axis), what="pairs to columns")
    z = attend_ending(core.tri_att_end, z, masks.col_transposed, dropout.ending, plan)
    return core.pair_transition(join_replicated(z, axis, dim=1), plan)


def multiply(
    module: TriangleMultiplication,
    z: Iterable[Tensor],
    mask: Tensor,
    dropout: Tensor | None,
    plan: ExecutionPlan,
) -> Iterator[Tensor]:
    """Run a triangle multiplication. The call starts to gather the edges.

    Outgoing: the update of z_ij is a sum over k of a_ik b_jk. Rows are sharded, so a is local, and
    b of all rows j is gathered. Incoming: it is a sum of a_ki b_kj. Columns are sharded, so b is
    local, and a of all columns i is gathered. The gathered edges arrive in chunks, one for each
    chunk of the result.

    Args:
        module: the triangle multiplication.
        z: chunks of [batch, N_res/dap, N_res, c_z] along the rows (outgoing) or of [batch, N_res,
            N_res/dap, c_z] along the columns (incoming).
        mask: mask of all chunks, the shape of z without c_z.
        dropout: dropout mask of the update, from BlockDropout.
        plan: kernels and DAP axis.

    Returns:
        The updated pair representation in chunks along the other dim.
    """
    axis, projection, is_outgoing = plan.dap, module.projection(), module.is_outgoing
    if axis.size == 1 and plan.kernels.triangle_multiplication is not None:
        return (module(whole, mask, dropout, plan) for whole in z)
    sharded, other, what = (1, 2, "outgoing edges") if is_outgoing else (2, 1, "incoming edges")
    chunks, kept, gathered, gates = [], [], [], []
    lengths = chunk_lengths(mask.shape[other], axis)
    for chunk, chunk_mask, length in zip(z, chunk_sharded(mask, axis, dim=sharded), lengths):
        # a and b have their channels first, so their residue dims are one further right.
        chunk, a, b, gate = module.edges(chunk, chunk_mask, projection, plan)
        keep, send = (a, b) if is_outgoing else (b, a)
        chunks.append(chunk)
        kept.append(keep)
        gathered.append(start_gather(send, axis, dim=sharded + 1, length=length, what=what))
        gates.append(gate)
    own = join_sharded(kept, dim=sharded + 1)
    parts = (
        chunk_replicated(join_sharded(x, dim=sharded), axis, dim=other) for x in (chunks, gates)
    )
    # All rows share one dropout mask, so it can be chunked along the columns only.
    dropouts = (
        chunk_replicated(dropout, axis, dim=other)
        if is_outgoing and dropout is not None
        else repeat(dropout)
    )

    def update(
        chunk: Tensor, received: Tensor, gate: Tensor, chunk_dropout: Tensor | None
    ) -> Tensor:
        a, b = (own, received) if is_outgoing else (received, own)
        return module.update(chunk, (a, b, gate), chunk_dropout, plan)

    return (
        update(chunk, collective.wait(), gate, chunk_dropout)
        for collective, chunk, gate, chunk_dropout in zip(gathered, *parts, dropouts)
    )


def attend_starting(
    module: TriangleAttentionStartingNode,
    z: Iterable[Tensor],
    mask: Tensor,
    dropout: Tensor | None,
    plan: ExecutionPlan,
) -> Iterator[Tensor]:
    """Run the triangle attention around starting nodes. The call starts to gather the bias.

    Args:
        module: the triangle attention.
        z: chunks of [batch, N_res/dap, N_res, c_z] along the rows.
        mask: [batch, N_res/dap, N_res]
        dropout: dropout mask of the update, from BlockDropout.
        plan: kernels and DAP axis.

    Returns:
        The updated chunks.
    """
    if plan.dap.size == 1:
        return (module.update(whole, mask, dropout, plan) for whole in z)
    chunks, normalized, biases = zip(*(module.normalize(chunk, plan) for chunk in z))
    bias = _start_bias(join_sharded(biases, dim=1), plan)
    return (
        module.attend(chunk, x, chunk_mask, bias, plan, dropout=dropout)
        for chunk, x, chunk_mask in zip(chunks, normalized, chunk_sharded(mask, plan.dap, dim=1))
    )


def attend_ending(
    module: TriangleAttentionEndingNode,
    z: Iterable[Tensor],
    mask: Tensor,
    dropout: Tensor | None,
    plan: ExecutionPlan,
) -> Iterator[Tensor]:
    """Run the triangle attention around ending nodes. The call starts to gather the bias.

    Args:
        module: the triangle attention.
        z: chunks of [batch, N_res, N_res/dap, c_z] along the rows.
        mask: [batch, N_res/dap, N_res], of the transposed pairs.
        dropout: dropout mask of the update, from BlockDropout.
        plan: kernels and DAP axis.

    Returns:
        The updated chunks. The attention of all chunks runs when the first one is requested.
    """
    axis = plan.dap
    if axis.size == 1:
        return (module.update(whole, mask, dropout, plan) for whole in z)
    chunks, normalized, biases = zip(*(module.normalize(chunk, plan) for chunk in z))
    # normalize() transposes, so the rows are dim 2 of its results.
    x, z_col = join_replicated(normalized, axis, dim=2), join_replicated(chunks, axis, dim=1)
    bias = _start_bias(join_replicated(biases, axis, dim=2), plan)

    def updated_chunks() -> Iterator[Tensor]:
        updated = module.attend(z_col, x, mask, bias, plan, dropout=dropout)
        yield from chunk_replicated(updated, axis, dim=1)

    return updated_chunks()


def _start_bias(bias: Tensor, plan: ExecutionPlan) -> SharedResult:
    """Start to gather the bias of all rows.

    [batch, N_res/dap, N_res, num_heads] -> [batch, num_heads, N_res, N_res]
    """
    bias = bias.movedim(-1, 1)
    return SharedResult(
        start_gather(bias, plan.dap, dim=2, length=bias.shape[3], what="triangle bias")
    )


def chunks_to_col(
    chunks: Iterable[Tensor], axis: AxisGroup, *, num_rows: Iterable[int], what: str
) -> Iterator[Tensor]:
    """Start row_to_col of each chunk [batch, num_rows/dap, num_cols, ..] before the next one.

    Args:
        chunks: computed one at a time.
        axis: the axis of the shards.
        num_rows: number of rows of each chunk, over all ranks and without padding.
        what: name of the tensor in traces.

    Returns:
        The received chunks. Each one is waited for when it is requested.
    """
    collectives = [
        start_to_col(chunk, axis, num_rows=length, what=what)
        for chunk, length in zip(chunks, num_rows)
    ]
    return (collective.wait() for collective in collectives)


def chunks_to_row(
    chunks: Iterable[Tensor], axis: AxisGroup, *, num_cols: Iterable[int], what: str
) -> Iterator[Tensor]:
    """Start col_to_row of each chunk [batch, num_rows, num_cols/dap, ..] before the next one.

    num_cols: number of columns of each chunk, over all ranks and without padding.
    """
    collectives = [
        start_to_row(chunk, axis, num_cols=length, what=what)
        for chunk, length in zip(chunks, num_cols)
    ]
    return (collective.wait() for collective in collectives)
