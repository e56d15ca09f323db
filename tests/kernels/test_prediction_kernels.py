"""Kernels without gradient compared with the reference: CPU and Triton."""

import pytest
import torch

from openfold_opt.kernels.interface import InvariantPointInputs, LinearWeights, NormWeights
from openfold_opt.kernels.operations import OPERATIONS
from tests.support.bf16_interpreter import fix_bfloat16
from tests.support.kernel_agreement import DEVICE, random, random_mask

if not torch.cuda.is_available():
    fix_bfloat16()

KERNELS = [pytest.param("cpu", marks=pytest.mark.compiler), "triton"]


def kernel_of(name, implementation):
    operation = OPERATIONS[name]
    if implementation == "triton":
        return operation.for_triton()
    if DEVICE != "cpu":
        pytest.skip("CPU kernels are tested on machines without a GPU")
    return operation.for_cpu()


def assert_close(found, expected, tolerance=2e-5):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    scale = max(float(expected.abs().max()), 0.05) if expected.numel() else 1.0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "n_1", "n_2", "c_z", "c", "c_gate"),
    [(2, 3, 5, 4, 7, 4), (1, 1, 1, 3, 1, 0), (1, 70, 3, 8, 8, 8)],
)
def test_triangle_side(kernels, dtype, batch, n_1, n_2, c_z, c, c_gate):
    z, mask = random(batch, n_1, n_2, c_z), random_mask(batch, n_1, n_2)
    norm = NormWeights(random(c_z, seed=1), random(c_z, seed=2), 1e-5)
    width = 2 * c + c_gate
    projection = LinearWeights(
        random(width, c_z, seed=3).to(dtype), random(width, seed=4).to(dtype)
    )

    def run(kernel):
        # A block of rows of a larger tensor.
        edges = torch.zeros(batch, c, n_1 + 2, n_2, dtype=dtype, device=DEVICE)
        out = edges[:, :, 1 : n_1 + 1]
        return kernel(z.to(dtype), norm, projection, mask, out=out), edges

    tolerance = 2e-5 if dtype == torch.float32 else 3e-2
    results = run(kernel_of("triangle_side", kernels)), run(OPERATIONS["triangle_side"].reference)
    for found, expected in zip(*results):
        assert_close(found.float(), expected.float(), tolerance)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "n_1", "n_2", "c_z", "c"), [(2, 3, 5, 4, 7), (1, 1, 1, 3, 2), (1, 70, 3, 8, 8)]
)
def test_triangle_product(kernels, dtype, batch, n_1, n_2, c_z, c):
    product, gate = random(batch, c, n_1, n_2), random(batch, n_1, n_2, c_z, seed=1)
    norm = NormWeights(random(c, seed=2), random(c, seed=3), 1e-5)
    output = LinearWeights(random(c_z, c, seed=4).to(dtype), random(c_z, seed=5).to(dtype))
    whole = random(batch, n_1 + 2, n_2, c_z, seed=6).to(dtype)

    def run(kernel):
        z = whole.clone()
        kernel(z[:, 1 : n_1 + 1], product.to(dtype), gate.to(dtype), norm, output)
        return z

    found = run(kernel_of("triangle_product", kernels))
    expected = run(OPERATIONS["triangle_product"].reference)
    assert torch.equal(found[:, [0, -1]], whole[:, [0, -1]])
    assert_close(found.float(), expected.float(), 2e-5 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize("kernels", KERNELS)
def test_point_attention_of_some_queries(kernels):
    batch, n, heads, rows = 2, 9, 3, slice(2, 6)
    queries = {"q": (heads, 4), "q_points": (heads, 2, 3), "bias": (n, heads), "z": (n, 5)}
    keys = {"k": (heads, 4), "v": (heads, 4), "k_points": (heads, 2, 3), "v_points": (heads, 3, 3)}
    tensors = {
        name: random(batch, n, *shape, seed=i)
        for i, (name, shape) in enumerate((queries | keys).items())
    }
    weights, mask = random(heads, seed=20).abs() + 0.1, random_mask(batch, n)
    some = tensors | {name: tensors[name][:, rows] for name in queries}
    reference = OPERATIONS["invariant_point_attention"].reference
    expected = reference(
        InvariantPointInputs(**tensors, point_weights=weights), mask=mask, mask_inf=1e5
    )
    for kernel in (reference, kernel_of("invariant_point_attention", kernels)):
        found = kernel(
            InvariantPointInputs(**some, point_weights=weights),
            mask=mask,
            mask_inf=1e5,
            query_mask=mask[:, rows],
        )
        for a, b in zip(found, expected):
            assert_close(a, b[:, rows], 5e-5)


@pytest.mark.compiler
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("c_head", [8, 16, 32])
@pytest.mark.parametrize("length", [1, 7, 33, 100])
@pytest.mark.parametrize("has_bias", [True, False])
def test_fused_attention(c_head, length, has_bias, num_threads):
    batch, groups, heads, c = 2, 4, 3, 6
    mask, bias = random_mask(batch, groups, length), random(batch, heads, length, length, seed=5)
    arguments = (
        random(batch, groups, length, c),
        LinearWeights(random(4 * heads * c_head, c, seed=1), random(4 * heads * c_head, seed=2)),
        LinearWeights(random(c, heads * c_head, seed=3), random(c, seed=4)),
    )
    options = {
        "num_heads": heads,
        "mask": mask,
        "mask_inf": 1e9,
        "bias": (lambda: bias) if has_bias else None,
    }
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with torch.no_grad():
            found = kernel_of("self_attention", "cpu")(*arguments, **options)
    finally:
        torch.set_num_threads(before)
    assert_close(found, OPERATIONS["self_attention"].reference(*arguments, **options))


@pytest.mark.compiler
@pytest.mark.parametrize(("n_i", "n_j"), [(3, 5), (1, 1), (17, 70)])
def test_outer_product_mean_without_gradient(n_i, n_j):
    batch, num_sequences, c, c_z = 2, 4, 3, 5
    arguments = (
        random(batch, n_i, n_j, c_z),
        (
            random(batch, num_sequences, n_i, c, seed=1),
            random(batch, num_sequences, n_j, c, seed=2),
        ),
        LinearWeights(random(c_z, c * c, seed=3), random(c_z, seed=4)),
        random(batch, n_i, n_j, 1, seed=5).abs() + 1.0,
    )
    with torch.no_grad():
        found = kernel_of("outer_product_mean", "cpu")(*arguments)
    assert_close(found, OPERATIONS["outer_product_mean"].reference(*arguments))
