"""Triangle multiplications without gradient: in place, in blocks, and sharded over rows.

On one rank, the edges of one side are computed first and kept whole. Then each block of z needs
only its own edges of the other side, and is updated in place: a block of rows for outgoing edges, a
block of columns for incoming edges. So the edges of one side are all that is stored besides z.

On several ranks, z changes before all products are known, so a rank keeps the edges of its rows of
both sides. They are computed for one group of channels at a time, and the products of all groups
but the last are kept instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.model.triangle_multiplication import TriangleMultiplication
from openfold_opt.parallel.async_collective import AsyncCollective
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.collectives import start_gather, start_reduce_scatter
from openfold_opt.predict.schedule.plan import PredictionPlan
from openfold_opt.predict.schedule.sharded_pairs import (
    own_rows,
    pair_mask,
    put_columns,
    take_columns,
)


def multiply(module: TriangleMultiplication, z: Tensor, mask: Tensor, plan: PredictionPlan) -> None:
    """Run Algorithm 11 or 12 in place.

    Args:
        module: the triangle multiplication.
        z: [batch, N_row, N_res, c_z]
        mask: [batch, N_res]
        plan: kernels, blocks and DAP axis.
    """
    if plan.dap.size > 1:
        _multiply_shards(module, z, mask, plan)
    elif module.is_outgoing:
        _multiply_outgoing(module, z, mask, plan)
    else:
        _multiply_incoming(module, z, mask, plan)


def _multiply_outgoing(
    module: TriangleMultiplication, z: Tensor, mask: Tensor, plan: PredictionPlan
) -> None:
    """Keep b_jk of all pairs; block by block of rows i, compute a_ik and update z_ij."""
    b = _edges(module, module.side_projection("b"), z, mask, plan)
    projection = module.side_projection("a", with_gate=True)
    for rows in plan.blocks("triangle_product", z.shape[1]):
        block = z[:, rows]
        a = b.new_empty(len(z), module.c_hidden, *block.shape[1:3])
        gate = module.side(block, pair_mask(mask[:, rows], mask), projection, a, plan)
        module.add_product(block, torch.matmul(a, b.mT), gate, plan)


def _multiply_incoming(
    module: TriangleMultiplication, z: Tensor, mask: Tensor, plan: PredictionPlan
) -> None:
    """Keep a_ki of all pairs; block by block of columns j, compute b_kj and update z_ij."""
    a = _edges(module, module.side_projection("a"), z, mask, plan)
    projection = module.side_projection("b", with_gate=True)
    for cols in plan.blocks("triangle_product", z.shape[2]):
        block = z[:, :, cols].contiguous()
        b = a.new_empty(len(z), module.c_hidden, *block.shape[1:3])
        gate = module.side(block, pair_mask(mask, mask[:, cols]), projection, b, plan)
        module.add_product(block, torch.matmul(a.mT, b), gate, plan)
        z[:, :, cols] = block


def _edges(
    module: TriangleMultiplication,
    projection: LinearWeights,
    z: Tensor,
    mask: Tensor,
    plan: PredictionPlan,
) -> Tensor:
    """Compute edges of all pairs of z: [batch, c, N_row, N_res]."""
    weight = projection.weight
    edges = weight.new_empty(len(z), len(weight) // 2, *z.shape[1:3])
    own_mask = own_rows(mask, plan.dap, dim=1)
    for rows in plan.blocks("triangle_edges", z.shape[1]):
        block_mask = pair_mask(own_mask[:, rows], mask)
        module.side(z[:, rows], block_mask, projection, edges[:, :, rows], plan)
    return edges


def _multiply_shards(
    module: TriangleMultiplication, z: Tensor, mask: Tensor, plan: PredictionPlan
) -> None:
    """Compute the products of one group of channels after the other; update z in the last."""
    axis, groups = plan.dap, _channel_groups(module.c_hidden, plan.channel_groups)
    kept = z.new_empty(
        (len(z), groups[-1].start, *z.shape[1:3]), dtype=module.linear_z.weight.dtype
    )
    products = _outgoing_products if module.is_outgoing else _incoming_products
    for group in groups:
        edges = _edges(module, module.group_projection(group), z, mask, plan)
        for block, product in products(edges, plan):
            if group is not groups[-1]:
                view = _block_of(kept[:, group], block, module, axis)
                view.copy_(product.view(view.shape))
                continue
            earlier = _block_of(kept, block, module, axis).flatten(3)
            product = torch.cat((earlier, product), dim=1)
            if module.is_outgoing:
                columns = take_columns(z, block, axis).contiguous()
                module.add_product(columns, product, module.gate(columns, plan), plan)
                put_columns(z, block, columns, axis)
            else:
                rows = z[:, block]
                module.add_product(rows, product, module.gate(rows, plan), plan)
        # The edges of the next group take the same memory.
        del edges


def _channel_groups(num_channels: int, num_groups: int) -> list[slice]:
    """Divide channels into groups of nearly equal size."""
    num_groups = min(num_groups, num_channels)
    bounds = [num_channels * index // num_groups for index in range(num_groups + 1)]
    return [slice(start, stop) for start, stop in zip(bounds, bounds[1:])]


def _block_of(
    kept: Tensor, block: slice, module: TriangleMultiplication, axis: AxisGroup
) -> Tensor:
    """Return the view of a block of products [batch, c, N_row, N_res].

    Outgoing: a block of columns [batch, c, N_row, size, n]; incoming: rows [batch, c, n, N_res].
    """
    if module.is_outgoing:
        return kept.unflatten(3, (axis.size, -1))[..., block]
    return kept[:, :, block]


def _outgoing_products(edges: Tensor, plan: PredictionPlan) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of columns j and the products over k of a_ik b_jk: [batch, c, N_row, size * n].

    edges: a and b of this rank's rows, concatenated: [batch, 2 * c, N_row, N_res].
    """
    axis, (a, b) = plan.dap, edges.chunk(2, dim=1)

    def start(rows: slice) -> AsyncCollective:
        length = (rows.stop - rows.start) * axis.size
        return start_gather(b[:, :, rows], axis, dim=2, length=length, what="outgoing edges")

    for block, received in _started_ahead(plan.blocks("triangle_product", b.shape[2]), start):
        yield block, torch.matmul(a, received.mT)


def _incoming_products(edges: Tensor, plan: PredictionPlan) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows i and the products over k of a_ki b_kj: [batch, c, n, N_res].

    edges: a and b of this rank's k, concatenated: [batch, 2 * c, N_row, N_res].
    """
    axis, (a, b) = plan.dap, edges.chunk(2, dim=1)

    def start(cols: slice) -> AsyncCollective:
        partial = torch.matmul(take_columns(a, cols, axis, dim=3).mT, b)
        return start_reduce_scatter(partial, axis, dim=2, what="incoming products")

    yield from _started_ahead(plan.blocks("triangle_product", a.shape[2]), start)


def _started_ahead(
    blocks: list[slice], start: Callable[[slice], AsyncCollective]
) -> Iterator[tuple[slice, Tensor]]:
    """Yield each block and its received tensor; the next collective is started before."""
    pending = start(blocks[0])
    for block, following in zip(blocks, [*blocks[1:], None]):
        started = None if following is None else start(following)
        received = pending.wait()
        pending = started
        yield block, received
