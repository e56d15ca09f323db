"""Relative positions in the pair representation."""

import torch
import torch.nn.functional as F

from openfold_opt.model.input_embedder import InputEmbedder, InputEmbedderConfig
from openfold_opt.model.linear import initialize_parameters
from openfold_opt.model.plan import ExecutionPlan


def test_relative_positions_are_one_hot_and_clipped():
    embedder = InputEmbedder(InputEmbedderConfig(max_relative_position=3), c_m=4, c_z=5)
    initialize_parameters(embedder, seed=0)
    residue_index = torch.tensor([[0, 1, 2, 9, 10, 11]])
    _, z = embedder(
        torch.zeros(1, 6, 22), residue_index, torch.zeros(1, 2, 6, 49), ExecutionPlan.reference()
    )
    offsets = (residue_index[0][:, None] - residue_index[0][None]).clamp(-3, 3) + 3
    expected = embedder.linear_relpos(F.one_hot(offsets, 7).float())
    expected = expected + embedder.linear_tf_z_i.bias + embedder.linear_tf_z_j.bias
    torch.testing.assert_close(z[0], expected)
