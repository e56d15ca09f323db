"""Bins of distances."""

import torch

from openfold_opt.model.recycling_embedder import one_hot_distances


def test_a_distance_is_in_one_bin_or_none():
    positions = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [4.0, 0, 0], [100.0, 0, 0]])
    bins = one_hot_distances(positions, positions, min_bin=2.0, max_bin=6.0, num_bins=3, inf=1e8)
    assert bins.shape == (4, 4, 3)
    assert bins[0, 1].tolist() == [0, 0, 0]
    assert bins[1, 2].tolist() == [1, 0, 0]
    assert bins[0, 2].tolist() == [0, 0, 0], "a distance on an edge is in no bin"
    assert bins[3, 0].tolist() == [0, 0, 1]
