"""Comparison of an operation with its reference version: results and every gradient."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Operation = Callable[..., Tensor | tuple[Tensor, ...]]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Return standard normal numbers on the device that kernels are tested on."""
    generator = torch.Generator().manual_seed(hash((shape, seed)) % 2**31)
    return (torch.randn(*shape, generator=generator) * scale).to(DEVICE)


def random_mask(*shape: int, seed: int = 0, fraction: float = 0.7) -> Tensor:
    """Return ones and zeros; the first row is all zeros, to test rows that are fully masked."""
    mask = (random(*shape, seed=seed + 1000).abs() < 1.0364 * fraction / 0.7).float()
    mask.view(-1, shape[-1])[0] = 0.0
    return mask


def evaluate(
    operation: Operation, leaves: Sequence[Tensor], cotangent_seed: int = 7
) -> list[Tensor]:
    """Return the results of operation(*leaves), and the gradients for random cotangents."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    results = operation(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    cotangents = [
        random(*result.shape, seed=cotangent_seed + i).to(result.dtype)
        for i, result in enumerate(results)
    ]
    gradients = torch.autograd.grad(results, leaves, cotangents)
    return [x.detach() for x in (*results, *gradients)]


def assert_same(
    fused: Operation, reference: Operation, leaves: Sequence[Tensor], *, tolerance: float = 2e-5
) -> None:
    """Check in float32 that results and gradients agree to `tolerance` of the largest element."""
    found, expected = evaluate(fused, leaves), evaluate(reference, leaves)
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape and a.dtype == b.dtype, (
            index,
            a.shape,
            b.shape,
            a.dtype,
            b.dtype,
        )
        error, scale = (a - b).abs().max().item(), max(b.abs().max().item(), 0.05)
        assert error <= tolerance * scale, (
            f"result or gradient {index}: error {error:.2e} of {scale:.2e}"
        )


def assert_bfloat16_rule(
    fused: Operation,
    reference: Operation,
    leaves: Sequence[Tensor],
    is_low: Sequence[bool],
    *,
    slack: float = 2.0,
) -> None:
    """Check that the error in bfloat16 is at most twice that of the reference in bfloat16.

    Both are compared with the reference in float32. The error is the root mean square over all
    elements; one rounding of the result is always allowed.

    is_low: which leaves are bfloat16 in training; the others (weights of a normalization, for
        example) stay float32.
    """
    rounded = [leaf.bfloat16() if low else leaf for leaf, low in zip(leaves, is_low, strict=True)]
    truth = evaluate(reference, [leaf.float() for leaf in rounded])
    ours, theirs = evaluate(fused, rounded), evaluate(reference, rounded)
    for index, (a, b, t) in enumerate(zip(ours, theirs, truth, strict=True)):
        error, reference_error, size = (
            (x.float() - y).square().mean().sqrt().item()
            for x, y in ((a, t), (b, t), (t, torch.zeros_like(t)))
        )
        assert error <= slack * reference_error + 2.0**-9 * size + 1e-6, (
            f"result or gradient {index}: {error:.2e}, reference {reference_error:.2e}"
        )
