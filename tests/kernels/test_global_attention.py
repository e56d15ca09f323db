"""Global attention compared with Algorithm 19, head by head."""

import math

import torch

from openfold_opt.kernels.reference.global_attention import global_attention


def test_matches_the_formula_and_is_finite_for_a_masked_group():
    generator = torch.Generator().manual_seed(1)
    batch, groups, num, heads, c = 2, 3, 7, 2, 5
    q = torch.randn(batch, groups, heads * c, generator=generator, dtype=torch.float64)
    k, v = (
        torch.randn(batch, groups, num, c, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    gate = torch.randn(batch, groups, num, heads * c, generator=generator, dtype=torch.float64)
    mask = (torch.rand(batch, groups, num, generator=generator) > 0.4).double()
    mask[1, 2] = 0.0
    found = global_attention(
        q, torch.cat([k, v, gate], dim=-1), num_heads=heads, mask=mask, mask_inf=1e9
    )
    for h in range(heads):
        part = slice(h * c, (h + 1) * c)
        logits = torch.einsum("bgc,bgnc->bgn", q[..., part], k) / math.sqrt(c) + (mask - 1.0) * 1e9
        expected = (
            torch.einsum("bgn,bgnc->bgc", logits.softmax(-1), v)[:, :, None]
            * gate[..., part].sigmoid()
        )
        torch.testing.assert_close(found[..., part], expected)
    assert torch.isfinite(found).all()
