"""Pieces of spread and of whole dims fit each other, and lead back to what was cut."""

import dataclasses

import pytest
import torch

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.chunks import (
    chunk_batch,
    chunk_lengths,
    chunk_replicated,
    chunk_sharded,
    join_replicated,
    join_sharded,
)
from openfold_opt.parallel.collectives import scatter

LENGTHS = range(1, 41)


def ranks(size: int, num_chunks: int) -> list[AxisGroup]:
    axis = dataclasses.replace(AxisGroup.fake("dap", size=size), num_chunks=num_chunks)
    return [dataclasses.replace(axis, rank=rank) for rank in range(size)]


@pytest.mark.parametrize("num_chunks", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_a_piece_of_the_whole_is_spread_as_the_ranks_pieces(size, num_chunks):
    axes = ranks(size, num_chunks)
    for length in LENGTHS:
        x = torch.arange(1, length + 1)
        whole = chunk_replicated(x, axes[0], dim=0)
        assert [len(chunk) for chunk in whole] == chunk_lengths(length, axes[0])
        assert torch.equal(join_replicated(whole, axes[0], dim=0), x)
        for axis in axes:
            shard = scatter(x, axis, dim=0)
            spread = chunk_sharded(shard, axis, dim=0)
            assert torch.equal(join_sharded(spread, dim=0), shard)
            assert len(spread) == len(whole)
            for mine, chunk in zip(spread, whole):
                assert torch.equal(mine, scatter(chunk, axis, dim=0))


@pytest.mark.parametrize("num_chunks", [1, 2, 3])
def test_groups_of_a_batch(num_chunks):
    axis = ranks(4, num_chunks)[1]
    for length in range(1, 8):
        x = torch.randn(length, 5)
        groups = chunk_batch(x, axis)
        assert torch.equal(join_sharded(groups, dim=0), x)
        # two templates or more are two groups at least
        assert min(length, num_chunks, 2) <= len(groups) <= num_chunks
        assert len({group.untyped_storage().data_ptr() for group in groups}) == 1, "no copies"
        assert all(part is x for part in chunk_batch(x, axis.without_chunks())) and all(
            part is x for part in chunk_batch(x, AxisGroup.single("dap"))
        )


def test_gradients_lead_back():
    axis = dataclasses.replace(AxisGroup.fake("dap", size=4), num_chunks=2)
    x = torch.randn(2, 13, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 13, 3, dtype=torch.float64)
    chunks = [chunk * 2.0 for chunk in chunk_replicated(x, axis, dim=1)]
    (join_replicated(chunks, axis, dim=1) * weight).sum().backward()
    assert torch.equal(x.grad, 2.0 * weight)


def test_an_axis_of_one_cuts_nothing():
    axis, x = AxisGroup.single("dap"), torch.ones(3, 5)
    assert chunk_sharded(x, axis, dim=0)[0] is x and chunk_replicated(x, axis, dim=0)[0] is x
    assert join_sharded([x], dim=0) is x and join_replicated([x], axis, dim=0) is x
