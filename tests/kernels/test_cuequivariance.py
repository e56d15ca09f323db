"""The kernels of cuEquivariance, with a stand-in for the package that computes by its formulas."""

import dataclasses
import importlib
import importlib.machinery
import math
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from benchmark.presets import build_preset
from openfold_opt.kernels import select
from openfold_opt.kernels.cuequivariance import requirements
from openfold_opt.kernels.interface import (
    KernelConfig,
    KernelShapes,
    LinearWeights,
    NormWeights,
    TriangleWeights,
)
from openfold_opt.kernels.operations import OPERATIONS
from openfold_opt.kernels.reference.self_attention import self_attention as reference_attention
from openfold_opt.kernels.reference.triangle_edges import triangle_edges
from openfold_opt.kernels.reference.triangle_update import triangle_update
from openfold_opt.model.evoformer_block import EvoformerStackConfig
from openfold_opt.model.evoformer_stack import EvoformerStack
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from tests.support.kernel_agreement import assert_same, random, random_mask

SHAPES = KernelShapes(biased_head_sizes=(8, 32), triangle_channels=(64, 128))
CUDA = torch.device("cuda")


def triangle_attention(q, k, v, bias, mask=None, scale=None, return_aux=False, *, kv_lengths=None):
    """Compute the formula of its documentation, with the signature of version 0.13."""
    batch, groups, num_heads, n, c = q.shape
    assert k.shape == v.shape == q.shape and not return_aux and kv_lengths is None
    assert bias.shape == (batch, 1, num_heads, n, n) and mask.shape == (batch, groups, 1, 1, n)
    assert mask.dtype == torch.bool and q.dtype == k.dtype == v.dtype
    logits = (1.0 / math.sqrt(c) if scale is None else scale) * q @ k.mT + bias
    return torch.softmax(torch.where(mask, logits, -1e9), dim=-1) @ v


def triangle_multiplicative_update(
    x,
    direction="outgoing",
    mask=None,
    norm_in_weight=None,
    norm_in_bias=None,
    p_in_weight=None,
    p_in_bias=None,
    g_in_weight=None,
    g_in_bias=None,
    norm_out_weight=None,
    norm_out_bias=None,
    p_out_weight=None,
    p_out_bias=None,
    g_out_weight=None,
    g_out_bias=None,
    eps=1e-5,
    precision=None,
):
    """Compute the three steps of its documentation, with the signature of version 0.13."""
    c, hidden = x.shape[-1], p_in_weight.shape[0] // 2
    assert p_in_weight.shape == g_in_weight.shape == (2 * hidden, c) and precision is None
    assert p_out_weight.shape == (c, hidden) and g_out_weight.shape == (c, c)
    assert mask.shape == x.shape[:-1] and x.is_contiguous()
    linear, norm = torch.nn.functional.linear, torch.nn.functional.layer_norm
    normalized = norm(x, (c,), norm_in_weight, norm_in_bias, eps)
    gated = linear(normalized, p_in_weight, p_in_bias) * torch.sigmoid(
        linear(normalized, g_in_weight, g_in_bias)
    )
    a, b = (gated * mask[..., None]).chunk(2, dim=-1)
    equation = {"outgoing": "bikd,bjkd->bijd", "incoming": "bkid,bkjd->bijd"}[direction]
    product = norm(torch.einsum(equation, a, b), (hidden,), norm_out_weight, norm_out_bias, eps)
    gate = torch.sigmoid(linear(normalized, g_out_weight, g_out_bias))
    return linear(product, p_out_weight, p_out_bias) * gate


@pytest.fixture
def package(monkeypatch):
    """Install the stand-in, and import the kernels with it."""
    for name in requirements.PACKAGES:
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    stand_in = sys.modules["cuequivariance_torch"]
    stand_in.triangle_attention = triangle_attention
    stand_in.triangle_multiplicative_update = triangle_multiplicative_update
    yield stand_in
    for name in ("self_attention", "triangle_multiplication"):
        sys.modules.pop(f"openfold_opt.kernels.cuequivariance.{name}", None)


def kernel(name: str):
    return getattr(importlib.import_module(f"openfold_opt.kernels.cuequivariance.{name}"), name)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("has_residual", [True, False])
def test_self_attention(package, has_bias, has_residual):
    batch, groups, n, c, num_heads, c_head = 2, 3, 17, 20, 2, 8
    inner = num_heads * c_head
    # Only the gates have a bias.
    gate_bias = random(4 * inner, seed=2)
    gate_bias[: 3 * inner] = 0.0
    leaves = [
        random(batch, groups, n, c),
        random(4 * inner, c, seed=1, scale=c**-0.5),
        random(c, inner, seed=3, scale=inner**-0.5),
        random(c, seed=4),
        random(batch, num_heads, n, n, seed=5),
        random(batch, groups, n, c, seed=6),
    ]
    mask, dropout = random_mask(batch, groups, n), (random(batch, 1, n, c, seed=7) > 0.0).float()
    if has_bias:
        # Gradients of a group whose keys are all masked are not used; there are none here.
        mask[:, 0, :5] = 1.0

    def call(function):
        def run(x, weight, output, output_bias, bias, residual) -> Tensor:
            options = {"residual": residual, "dropout": dropout} if has_residual else {}
            result = function(
                x,
                LinearWeights(weight, gate_bias),
                LinearWeights(output, output_bias),
                num_heads=num_heads,
                mask=mask,
                mask_inf=1e9,
                bias=(lambda: bias) if has_bias else None,
                **options,
            )
            # Every input has a gradient, also one that is not used.
            return result + 0.0 * (bias.sum() + residual.sum())

        return run

    assert_same(call(kernel("self_attention")), call(reference_attention), leaves)


def test_a_group_whose_keys_are_all_masked_has_equal_weights(package):
    # Next to 1e9, the reference rounds logits to multiples of 64. These are small.
    x, mask = random(1, 2, 5, 8), torch.zeros(1, 2, 5)
    projection = LinearWeights(random(32, 8, scale=0.2), None)
    output = LinearWeights(random(8, 8), None)
    options = {"num_heads": 1, "mask": mask, "mask_inf": 1e9, "bias": lambda: random(1, 1, 5, 5)}
    found = kernel("self_attention")(x, projection, output, **options)
    expected = reference_attention(x, projection, output, **options)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_outgoing", [True, False])
@pytest.mark.parametrize(("c_z", "c_hidden"), [(32, 32), (32, 64)])
@pytest.mark.parametrize("has_dropout", [True, False])
def test_triangle_multiplication(package, is_outgoing, c_z, c_hidden, has_dropout):
    batch, n, width = 2, 7, 4 * c_hidden + c_z
    leaves = [
        random(batch, n, n, c_z),
        *(random(c_z, seed=seed) for seed in (1, 2)),
        random(width, c_z, seed=3, scale=c_z**-0.5),
        random(width, seed=4),
        *(random(c_hidden, seed=seed) for seed in (5, 6)),
        random(c_z, c_hidden, seed=7, scale=c_hidden**-0.5),
        random(c_z, seed=8),
    ]
    mask = random_mask(batch, n, n)
    dropout = (random(batch, 1, n, c_z, seed=9) > 0.0).float() if has_dropout else None

    def ours(z, *parameters):
        weights = weights_of(parameters)
        multiply = kernel("triangle_multiplication")
        return multiply(z, mask, dropout, weights, is_outgoing=is_outgoing)

    def reference(z, *parameters):
        weights = weights_of(parameters)
        z, *edges = triangle_edges(z, weights.norm, weights.projection, mask, c_hidden=c_hidden)
        norm, output = weights.output_norm, weights.output
        return triangle_update(z, tuple(edges), norm, output, dropout, is_outgoing=is_outgoing)

    assert_same(ours, reference, leaves)


def weights_of(parameters) -> TriangleWeights:
    return TriangleWeights(
        norm=NormWeights(*parameters[:2], 1e-5),
        projection=LinearWeights(*parameters[2:4]),
        output_norm=NormWeights(*parameters[4:6], 1e-5),
        output=LinearWeights(*parameters[6:]),
    )


@pytest.fixture
def a_gpu(package, monkeypatch):
    """Let the choice of the kernels find a GPU of compute capability 9.0."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def test_a_block_runs_with_the_choice_for_all_operations(a_gpu):
    kernels = select.build_kernel_set(
        KernelConfig.all("cuequivariance"), CUDA, SHAPES, precision="bf16"
    )
    assert kernels.self_attention is kernel("self_attention")
    assert kernels.triangle_multiplication is kernel("triangle_multiplication")
    assert kernels.transition is OPERATIONS["transition"].for_triton()
    assert kernels.triangle_edges is OPERATIONS["triangle_edges"].for_triton()
    config = EvoformerStackConfig(
        num_blocks=1, c_hidden_msa_attention=8, num_heads_msa=2, c_hidden_outer_product=4
    )
    stack = EvoformerStack(config, c_m=16, c_z=32, c_s=8)
    for seed, parameter in enumerate(stack.parameters()):
        parameter.data = random(*parameter.shape, seed=seed, scale=0.2).cpu()
    m, z = random(1, 3, 5, 16).cpu(), random(1, 5, 5, 32).cpu()
    masks = torch.ones(1, 3, 5), torch.ones(1, 5, 5)
    single = AxisGroup.single("dap")
    reference = select.build_kernel_set(KernelConfig(), "cpu")
    # The other operations need no interpreter.
    ours = dataclasses.replace(
        reference,
        self_attention=kernels.self_attention,
        triangle_multiplication=kernels.triangle_multiplication,
        triangle_edges=None,
        triangle_update=None,
    )
    found, expected = (
        stack(m, z, masks, None, ExecutionPlan(kernels=each, dap=single))
        for each in (ours, reference)
    )
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_sizes_of_the_benchmark_are_supported(a_gpu):
    shapes = build_preset("mlperf_fast").model.kernel_shapes()
    assert shapes.biased_head_sizes == (8, 16, 32) and shapes.triangle_channels == (64, 128)
    for precision in ("bf16", "tf32"):
        config = KernelConfig.all("cuequivariance")
        select.build_kernel_set(config, CUDA, shapes, precision=precision)


def test_work_on_device_meta_is_counted_with_triton():
    config = KernelConfig.all("cuequivariance")
    kernels = select.build_kernel_set(config, "meta")
    assert kernels == select.build_kernel_set(KernelConfig.all("triton"), "meta")
    assert select.uses_triton(config, torch.device("meta"))


@pytest.mark.parametrize(
    ("operation", "changes", "precision", "expected"),
    [
        ("transition", {}, "bf16", "cuEquivariance has only self_attention, triangle_edges"),
        ("self_attention", {}, "fp32", 'use the precision "tf32" or "bf16"'),
        ("self_attention", {"biased_head_sizes": (8, 20)}, "bf16", r"multiple of 8, .* \[20\]"),
        ("self_attention", {"biased_head_sizes": (64,)}, "tf32", r"at most 32 channels.*\[64\]"),
        ("triangle_edges", {"triangle_channels": (48, 64)}, "bf16", r"multiples of 32; .*\[48\]"),
        ("triangle_update", {"dap_size": 8}, "bf16", "found dap_size=8"),
    ],
)
def test_what_is_not_supported(a_gpu, operation, changes, precision, expected):
    shapes = dataclasses.replace(SHAPES, **changes)
    config = KernelConfig(triangle_edges="cuequivariance", triangle_update="cuequivariance")
    config = dataclasses.replace(config, **{operation: "cuequivariance"})
    message = rf'{expected}.*; or set that field of KernelConfig to "triton"'
    with pytest.raises(ValueError, match=message):
        select.build_kernel_set(config, CUDA, shapes, precision=precision)


def test_edges_and_update_are_chosen_together(a_gpu):
    config = KernelConfig(triangle_edges="cuequivariance")
    with pytest.raises(ValueError, match="'triangle_update': 'reference'.* for both or for none"):
        select.build_kernel_set(config, CUDA, SHAPES, precision="bf16")


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    for name in requirements.PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = KernelConfig(self_attention="cuequivariance")
    message = (
        "kernel self_attention: cuEquivariance is not installed: found no package "
        "cuequivariance_torch and no cuequivariance_ops_torch; install the extra `cuequivariance`"
    )
    with pytest.raises(ValueError, match=message):
        select.build_kernel_set(config, "cpu")


def test_without_a_gpu_the_error_says_so(package):
    with pytest.raises(ValueError, match="cuEquivariance needs a CUDA device, found none"):
        select.build_kernel_set(KernelConfig(self_attention="cuequivariance"), "cpu")
