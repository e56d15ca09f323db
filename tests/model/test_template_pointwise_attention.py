"""Updates of samples with and without templates."""

import torch

from openfold_opt.model.linear import initialize_parameters
from openfold_opt.model.template_pointwise_attention import (
    TemplatePointwiseAttention,
    TemplatePointwiseAttentionConfig,
)


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
