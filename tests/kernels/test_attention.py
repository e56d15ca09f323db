"""Gated attention against its formula, head by head, in float64."""

import math

import pytest
import torch

from openfold_opt.kernels.reference.attention import attention

MASK_INF = 1e9


def formula(q, k, v, num_heads, mask, bias, gate):
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
    return output if gate is None else output * gate.sigmoid()


def inputs(*, with_bias, with_gate, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch, groups, num, heads, c = 2, 3, 7, 3, 5
    q, k, v, gate = (
        torch.randn(batch, groups, num, heads * c, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    bias = torch.randn(batch, heads, num, num, generator=generator, dtype=torch.float64)
    mask = (torch.rand(batch, groups, num, generator=generator) > 0.3).double()
    mask[0, 1] = 0.0
    return q, k, v, heads, mask, bias if with_bias else None, gate if with_gate else None


@pytest.mark.parametrize(("with_bias", "with_gate"), [(True, True), (False, True), (True, False), (False, False)])
def test_values_and_gradients_follow_the_formula(with_bias, with_gate):
    q, k, v, heads, mask, bias, gate = inputs(with_bias=with_bias, with_gate=with_gate)
    leaves = [x.requires_grad_() for x in (q, k, v, bias, gate) if x is not None]
    found = attention(q, k, v, num_heads=heads, mask=mask, mask_inf=MASK_INF, bias=bias, gate=gate)
    expected = formula(q, k, v, heads, mask, bias, gate)
    torch.testing.assert_close(found, expected)
    weight = torch.linspace(-1.0, 2.0, found.numel(), dtype=torch.float64).view(found.shape)
    for a, b in zip(torch.autograd.grad((found * weight).sum(), leaves), torch.autograd.grad((expected * weight).sum(), leaves)):
        torch.testing.assert_close(a, b)


def test_a_fully_masked_group_attends_and_is_not_nan():
    q, k, v, heads, mask, _, _ = inputs(with_bias=False, with_gate=False)
    found = attention(q.float(), k.float(), v.float(), num_heads=heads, mask=mask.float(), mask_inf=MASK_INF)
    # float32 cannot hold a logit beside -1e9, so all keys count alike
    torch.testing.assert_close(found[0, 1], v.float()[0, 1].mean(0).expand_as(found[0, 1]))


def test_strided_inputs_give_the_same():
    q, k, v, heads, mask, bias, gate = inputs(with_bias=True, with_gate=True)
    joined = torch.cat([q, k, v, gate], dim=-1)
    views = joined.split(q.shape[-1], dim=-1)
    keywords = {"num_heads": heads, "mask": mask, "mask_inf": MASK_INF, "bias": bias}
    found = attention(views[0], views[1], views[2], gate=views[3], **keywords)
    torch.testing.assert_close(found, attention(q, k, v, gate=gate, **keywords))


def test_bfloat16_is_close_to_float32():
    q, k, v, heads, mask, bias, gate = (
        x.float() if isinstance(x, torch.Tensor) else x for x in inputs(with_bias=True, with_gate=True)
    )
    keywords = {"num_heads": heads, "mask": mask, "mask_inf": MASK_INF, "bias": bias}
    exact = attention(q, k, v, gate=gate, **keywords)
    low = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), gate=gate.bfloat16(), **keywords)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).norm() / exact.norm() < 2e-2
