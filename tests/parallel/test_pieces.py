"""Pieces of spread and of whole dims fit each other, and lead back to what was cut."""

import dataclasses

import pytest
import torch

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.collectives import scatter
from openfold_opt.parallel.pieces import cut_batch, cut_spread, cut_whole, join_spread, join_whole, piece_lengths

LENGTHS = range(1, 41)


def ranks(size: int, num_pieces: int) -> list[AxisGroup]:
    axis = dataclasses.replace(AxisGroup.imagined("dap", size=size), num_pieces=num_pieces)
    return [dataclasses.replace(axis, rank=rank) for rank in range(size)]


@pytest.mark.parametrize("num_pieces", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_a_piece_of_the_whole_is_spread_as_the_ranks_pieces(size, num_pieces):
    axes = ranks(size, num_pieces)
    for length in LENGTHS:
        x = torch.arange(1, length + 1)
        whole = cut_whole(x, axes[0], dim=0)
        assert [len(piece) for piece in whole] == piece_lengths(length, axes[0])
        assert torch.equal(join_whole(whole, axes[0], dim=0), x)
        for axis in axes:
            shard = scatter(x, axis, dim=0)
            spread = cut_spread(shard, axis, dim=0)
            assert torch.equal(join_spread(spread, dim=0), shard)
            assert len(spread) == len(whole)
            for mine, piece in zip(spread, whole):
                assert torch.equal(mine, scatter(piece, axis, dim=0))


@pytest.mark.parametrize("num_pieces", [1, 2, 3])
def test_groups_of_a_batch(num_pieces):
    axis = ranks(4, num_pieces)[1]
    for length in range(1, 8):
        x = torch.randn(length, 5)
        groups = cut_batch(x, axis)
        assert torch.equal(join_spread(groups, dim=0), x)
        # two templates or more are two groups at least
        assert min(length, num_pieces, 2) <= len(groups) <= num_pieces
        assert len({group.untyped_storage().data_ptr() for group in groups}) == 1, "no copies"
        assert all(part is x for part in cut_batch(x, axis.uncut())) and all(part is x for part in cut_batch(x, AxisGroup.single("dap")))


def test_gradients_lead_back():
    axis = dataclasses.replace(AxisGroup.imagined("dap", size=4), num_pieces=2)
    x = torch.randn(2, 13, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 13, 3, dtype=torch.float64)
    pieces = [piece * 2.0 for piece in cut_whole(x, axis, dim=1)]
    (join_whole(pieces, axis, dim=1) * weight).sum().backward()
    assert torch.equal(x.grad, 2.0 * weight)


def test_an_axis_of_one_cuts_nothing():
    axis, x = AxisGroup.single("dap"), torch.ones(3, 5)
    assert cut_spread(x, axis, dim=0)[0] is x and cut_whole(x, axis, dim=0)[0] is x
    assert join_spread([x], dim=0) is x and join_whole([x], axis, dim=0) is x
