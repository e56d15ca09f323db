"""How a fused operation is compared with its plain version: results and every gradient."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Operation = Callable[..., Tensor | tuple[Tensor, ...]]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Standard normal numbers on the device that kernels are tested on."""
    generator = torch.Generator().manual_seed(hash((shape, seed)) % 2**31)
    return (torch.randn(*shape, generator=generator) * scale).to(DEVICE)


def random_mask(*shape: int, seed: int = 0, share: float = 0.7) -> Tensor:
    """Ones and zeros; the first of the leading dims is zero throughout, so there are rows that are masked as a whole."""
    mask = (random(*shape, seed=seed + 1000).abs() < 1.0364 * share / 0.7).float()
    mask.view(-1, shape[-1])[0] = 0.0
    return mask


def evaluate(
    operation: Operation, leaves: Sequence[Tensor], cotangent_seed: int = 7
) -> list[Tensor]:
    """Results of operation(*leaves), then the gradient of each leaf for random weights of the results."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    results = operation(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    weights = [
        random(*result.shape, seed=cotangent_seed + i).to(result.dtype)
        for i, result in enumerate(results)
    ]
    gradients = torch.autograd.grad(results, leaves, weights)
    return [x.detach() for x in (*results, *gradients)]


def assert_same(
    fused: Operation, plain: Operation, leaves: Sequence[Tensor], *, tolerance: float = 2e-5
) -> None:
    """In float32, each result and each gradient agrees to `tolerance` of its largest element."""
    found, expected = evaluate(fused, leaves), evaluate(plain, leaves)
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape and a.dtype == b.dtype, (
            number,
            a.shape,
            b.shape,
            a.dtype,
            b.dtype,
        )
        error, scale = (a - b).abs().max().item(), max(b.abs().max().item(), 0.05)
        assert error <= tolerance * scale, (
            f"result or gradient {number}: error {error:.2e} of {scale:.2e}"
        )


def assert_bfloat16_rule(
    fused: Operation,
    plain: Operation,
    leaves: Sequence[Tensor],
    is_low: Sequence[bool],
    *,
    slack: float = 2.0,
) -> None:
    """With bfloat16 inputs the fused version errs at most twice as much as plain PyTorch, both against float32.

    is_low: which of the leaves are bfloat16 in training; the others (weights of a normalization, say) stay float32. The error is the
    root mean square over all elements; a rounding of the result itself is always allowed.
    """
    rounded = [leaf.bfloat16() if low else leaf for leaf, low in zip(leaves, is_low, strict=True)]
    truth = evaluate(plain, [leaf.float() for leaf in rounded])
    ours, theirs = evaluate(fused, rounded), evaluate(plain, rounded)
    for number, (a, b, t) in enumerate(zip(ours, theirs, truth, strict=True)):
        error, plain_error, size = (
            (x.float() - y).square().mean().sqrt().item()
            for x, y in ((a, t), (b, t), (t, torch.zeros_like(t)))
        )
        assert error <= slack * plain_error + 2.0**-9 * size + 1e-6, (
            f"result or gradient {number}: {error:.2e}, plain {plain_error:.2e}"
        )
