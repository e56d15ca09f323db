"""Embedders compared with equivalent formulations."""

import torch
import torch.nn.functional as F

from openfold_opt.model.input_embedder import InputEmbedder, InputEmbedderConfig
from openfold_opt.model.linear import initialize_parameters
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.recycling_embedder import one_hot_distances
from openfold_opt.model.template_pointwise_attention import (
    TemplatePointwiseAttention,
    TemplatePointwiseAttentionConfig,
)


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


def test_a_distance_is_in_one_bin_or_none():
    positions = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [4.0, 0, 0], [100.0, 0, 0]])
    bins = one_hot_distances(positions, positions, min_bin=2.0, max_bin=6.0, num_bins=3, inf=1e8)
    assert bins.shape == (4, 4, 3)
    assert bins[0, 1].tolist() == [0, 0, 0]
    assert bins[1, 2].tolist() == [1, 0, 0]
    assert bins[0, 2].tolist() == [0, 0, 0], "a distance on an edge is in no bin"
    assert bins[3, 0].tolist() == [0, 0, 1]


def test_a_sample_without_templates_has_a_zero_template_update():
    module = TemplatePointwiseAttention(
        TemplatePointwiseAttentionConfig(c_hidden=3, num_heads=2), c_t=4, c_z=5
    )
    initialize_parameters(module, seed=0)
    torch.nn.init.normal_(module.mha.linear_o.weight)
    t, z = torch.randn(3, 2, 6, 6, 4), torch.randn(3, 6, 6, 5)
    update = module(t, z, torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    assert update[2].abs().max() == 0
    assert update[0].abs().max() > 0
    other = t.clone()
    other[1, 1] = 3.0
    changed = module(other, z, torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(changed[1], update[1])
