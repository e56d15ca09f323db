"""Gated attention compared with its formula, head by head, in float64."""

import math

import pytest
import torch

from openfold_opt.kernels.reference.attention import attention

MASK_INF = 1e9


def formula(projected, num_heads, mask, bias):
    q, k, v, gate = projected.chunk(4, dim=-1)
    batch, groups, num_q, width = q.shape
    c = width // num_heads
    output = torch.zeros_like(q)
    for b in range(batch):
        for g in range(groups):
            for h in range(num_heads):
                part = slice(h * c, (h + 1) * c)
                logits = q[b, g, :, part] @ k[b, g, :, part].T / math.sqrt(c)
                logits = logits + (mask[b, g] - 1.0) * MASK_INF
                if bias is not None:
                    logits = logits + bias[b, h]
                weights = logits.softmax(-1)
                output[b, g, :, part] = weights @ v[b, g, :, part]
    return output * gate.sigmoid()


def inputs(*, with_bias, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch, groups, num, heads, c = 2, 3, 7, 3, 5
    projected = torch.randn(
        batch, groups, num, 4 * heads * c, generator=generator, dtype=torch.float64
    )
    bias = torch.randn(batch, heads, num, num, generator=generator, dtype=torch.float64)
    mask = (torch.rand(batch, groups, num, generator=generator) > 0.3).double()
    mask[0, 1] = 0.0
    return projected, heads, mask, bias if with_bias else None


@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_match_the_formula(with_bias):
    projected, heads, mask, bias = inputs(with_bias=with_bias)
    leaves = [x.requires_grad_() for x in (projected, bias) if x is not None]
    found = attention(projected, num_heads=heads, mask=mask, mask_inf=MASK_INF, bias=bias)
    expected = formula(projected, heads, mask, bias)
    torch.testing.assert_close(found, expected)
    weight = torch.linspace(-1.0, 2.0, found.numel(), dtype=torch.float64).view(found.shape)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), leaves),
        torch.autograd.grad((expected * weight).sum(), leaves),
    ):
        torch.testing.assert_close(a, b)


def test_a_fully_masked_group_attends_and_is_not_nan():
    projected, heads, mask, _ = inputs(with_bias=False)
    projected = projected.float()
    found = attention(projected, num_heads=heads, mask=mask.float(), mask_inf=MASK_INF)
    _, _, v, gate = projected.chunk(4, dim=-1)
    # Added to -1e9 in float32, the logits are lost, so that all keys have the same weight.
    torch.testing.assert_close(found[0, 1], v[0, 1].mean(0) * gate[0, 1].sigmoid())
