"""Chunks of sharded and of replicated dims match and can be joined again."""

import dataclasses

import pytest
import torch

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.chunks import (
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
def test_a_replicated_chunk_scatters_into_the_sharded_chunks_of_the_ranks(size, num_chunks):
    axes = ranks(size, num_chunks)
    for length in LENGTHS:
        x = torch.arange(1, length + 1)
        replicated = chunk_replicated(x, axes[0], dim=0)
        assert [len(chunk) for chunk in replicated] == chunk_lengths(length, axes[0])
        assert torch.equal(join_replicated(replicated, axes[0], dim=0), x)
        for axis in axes:
            shard = scatter(x, axis, dim=0)
            sharded = chunk_sharded(shard, axis, dim=0)
            assert torch.equal(join_sharded(sharded, dim=0), shard)
            assert len(sharded) == len(replicated)
            for shard_chunk, chunk in zip(sharded, replicated):
                assert torch.equal(shard_chunk, scatter(chunk, axis, dim=0))


@pytest.mark.parametrize(
    ("size", "shard_bytes", "min_chunk_bytes", "expected"),
    [
        (8, 2_097_152, 0, 3),  # 1,835,008 bytes are sent.
        (8, 2_097_152, 1_000_000, 1),
        (8, 2_097_152, 917_504, 2),
        (8, 2_097_152, 600_000, 3),
        (8, 2_097_152, 10, 3),
        (2, 2_097_152, 1_000_000, 1),  # Half is sent.
        (2, 4_194_304, 1_000_000, 2),
        (4, 0, 1_000_000, 1),
        (1, 2_097_152, 1_000_000, 1),
    ],
)
def test_no_chunk_sends_fewer_bytes_than_the_minimum(size, shard_bytes, min_chunk_bytes, expected):
    axis = AxisGroup.single("dap") if size == 1 else AxisGroup.fake("dap", size=size)
    axis = dataclasses.replace(axis, num_chunks=3, min_chunk_bytes=min_chunk_bytes)
    assert axis.with_chunks_of(shard_bytes).num_chunks == expected


def test_gradients_flow_through_chunks():
    axis = dataclasses.replace(AxisGroup.fake("dap", size=4), num_chunks=2)
    x = torch.randn(2, 13, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 13, 3, dtype=torch.float64)
    chunks = [chunk * 2.0 for chunk in chunk_replicated(x, axis, dim=1)]
    (join_replicated(chunks, axis, dim=1) * weight).sum().backward()
    assert torch.equal(x.grad, 2.0 * weight)


def test_an_axis_of_size_one_has_a_single_chunk():
    axis, x = AxisGroup.single("dap"), torch.ones(3, 5)
    assert chunk_sharded(x, axis, dim=0)[0] is x and chunk_replicated(x, axis, dim=0)[0] is x
    assert join_sharded([x], dim=0) is x and join_replicated([x], axis, dim=0) is x
