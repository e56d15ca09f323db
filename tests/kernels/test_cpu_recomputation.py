"""CPU kernels recompute the results of other operations instead of saving them."""

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from tests.support.cpu_comparison import CPU, REFERENCE
from tests.support.kernel_agreement import assert_same, random, random_mask

pytestmark = [pytest.mark.compiler, pytest.mark.usefixtures("tile_bytes", "on_cpu")]


def compare_and_list_saved(call, leaves):
    """Compare with the reference, also under activation checkpointing; return saved shapes."""

    def checkpointed(*leaves):
        return checkpoint(call, CPU, *leaves, use_reentrant=False)

    assert_same(partial(call, CPU), partial(call, REFERENCE), leaves)
    assert_same(checkpointed, partial(call, REFERENCE), leaves)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(x.shape) or x, lambda x: x
    ):
        call(CPU, *(leaf.requires_grad_() for leaf in leaves))
    return saved


@pytest.mark.parametrize("is_outgoing", [True, False])
def test_triangle_update_recomputes_its_edges(is_outgoing):
    batch, n, c_z, c = 2, 5, 4, 6
    mask = random_mask(batch, n, n)
    leaves = [
        random(batch, n, n, c_z),
        random(c_z, seed=1),
        random(c_z, seed=2),
        random(4 * c + c_z, c_z, seed=3),
        random(4 * c + c_z, seed=4),
    ]
    leaves += [random(c, seed=5), random(c, seed=6), random(c_z, c, seed=7), random(c_z, seed=8)]

    def call(operations, z, gamma, beta, weight, bias, *rest):
        z, *edges = operations["triangle_edges"](
            z, NormWeights(gamma, beta, 1e-5), LinearWeights(weight, bias), mask, c_hidden=c
        )
        return operations["triangle_update"](
            z,
            edges,
            NormWeights(*rest[:2], 1e-5),
            LinearWeights(*rest[2:]),
            None,
            is_outgoing=is_outgoing,
        )

    saved = compare_and_list_saved(call, leaves)
    assert (batch, c, n, n) not in saved and (batch, n, n, c_z) in saved


@pytest.mark.parametrize("is_projected", [True, False])
@pytest.mark.parametrize("is_transposed", [True, False])
def test_self_attention_recomputes_its_input(is_projected, is_transposed):
    batch, groups, n, c, heads = 2, 3, 5, 6, 2
    mask = random_mask(batch, groups, n)
    shape = (batch, n, groups, c) if is_transposed else (batch, groups, n, c)
    leaves = [
        random(*shape),
        random(c, seed=1),
        random(c, seed=2),
        random(16, c, seed=4),
        random(16, seed=5),
        random(c, 4, seed=6),
        random(c, seed=7),
    ]
    leaves += [random(heads, c, seed=3)] if is_projected else []

    def call(operations, z, gamma, beta, w_in, b_in, w_out, b_out, w_bias=None):
        z = z.transpose(1, 2) if is_transposed else z
        if w_bias is None:
            x, bias = (
                operations["layer_norm"](z, gamma, beta, eps=1e-5),
                random(batch, heads, n, n, seed=8),
            )
        else:
            _, x, projected = operations["projected_norm"](
                z, NormWeights(gamma, beta, 1e-5), LinearWeights(w_bias, None)
            )
            bias = random(batch, heads, n, n, seed=8) + projected.mean(1).movedim(-1, 1).unsqueeze(
                -2
            )
        weights = LinearWeights(w_in, b_in), LinearWeights(w_out, b_out)
        return operations["self_attention"](
            x, *weights, num_heads=heads, mask=mask, mask_inf=1e9, bias=lambda: bias
        )

    saved = compare_and_list_saved(call, leaves)
    assert sum(shape.numel() == leaves[0].numel() for shape in saved) == 1, (
        "only the input of the normalization should be saved, not its result"
    )


def test_a_normalized_input_that_was_modified_in_place_is_saved():
    mask, weights = torch.ones(1, 3, 4), [random(16, 6), random(16), random(6, 4), random(6)]

    def call(operations, z, gamma, beta):
        x = operations["layer_norm"](z, gamma, beta, eps=1e-5)
        with torch.no_grad():
            x.mul_(2.0)
        return operations["self_attention"](
            x,
            LinearWeights(*weights[:2]),
            LinearWeights(*weights[2:]),
            num_heads=2,
            mask=mask,
            mask_inf=1e9,
        )

    assert_same(
        partial(call, CPU),
        partial(call, REFERENCE),
        [random(1, 3, 4, 6), random(6, seed=1), random(6, seed=2)],
    )
