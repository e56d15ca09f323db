"""Time implementations of an operation, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmark.perf.tools.limits import all_seconds
from openfold_opt.kernels.arguments import LeastBytes

Call = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True)
class KernelTimes:
    """Seconds of repeated runs."""

    forward: list[float]
    both: list[float]
    """Forward and backward."""

    def __add__(self, other: KernelTimes) -> KernelTimes:
        return KernelTimes(forward=self.forward + other.forward, both=self.both + other.both)


@dataclass(frozen=True, kw_only=True)
class CaseTimes:
    """Times of an operation at one location in the model."""

    operation: str
    where: str
    seconds: dict[str, KernelTimes]
    """Times by implementation: "ours", "plain" (the reference kernel), and others."""
    bytes: LeastBytes
    unavailable: dict[str, str] = field(default_factory=dict)
    """Implementation without times -> error."""

    @property
    def label(self) -> str:
        """Operation and location, for messages."""
        return f"{self.operation} ({self.where})"


def time_case(
    works: Mapping[str, Call],
    leaves: tuple[Tensor, ...],
    *,
    operation: str,
    where: str,
    least_bytes: LeastBytes,
    repeats: int,
) -> CaseTimes:
    """Time each implementation.

    Args:
        works: Implementation -> forward pass, a function without arguments.
        leaves: Inputs of the forward pass that require gradients.
        operation: Name of the operation.
        where: Location in the model.
        least_bytes: Bytes of its arguments and results.
        repeats: Number of timed runs.
    """
    seconds, unavailable = {}, {}
    for name, work in works.items():
        try:
            seconds[name] = _time_work(work, leaves, repeats)
        except Exception as error:
            # An error in one implementation must not lose the times of the others.
            unavailable[name] = (
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
    return CaseTimes(
        operation=operation,
        where=where,
        seconds=seconds,
        unavailable=unavailable,
        bytes=least_bytes,
    )


def _time_work(work: Call, leaves: tuple[Tensor, ...], repeats: int) -> KernelTimes:
    results = work()
    results = results if isinstance(results, tuple) else (results,)
    gradients = [torch.randn_like(x) for x in results]
    del results

    def both() -> None:
        results = work()
        torch.autograd.grad(
            results, leaves, gradients if isinstance(results, tuple) else gradients[0]
        )

    device = leaves[0].device
    with torch.no_grad():
        forward = all_seconds(work, device=device, repeats=repeats)
    return KernelTimes(forward=forward, both=all_seconds(both, device=device, repeats=repeats))
