"""Bytes and floating-point operations of PyTorch code on meta tensors, and how often something is launched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from benchmark.perf.kernel_flops import FLOPS
from benchmark.perf.needs_triton import import_with_triton
from openfold_opt.parallel.async_collective import AsyncCollective, SharedResult
from openfold_opt.parallel.chunks import PendingChunks
from openfold_opt.train.graphs.graph_memory import FUSED_NAMESPACE, launches_nothing


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Sums over launches."""

    bytes: int = 0
    """Read and written, every launch by itself: each operand once, however often the kernel comes back to it (caches)."""
    flops: int = 0
    """Of matrix products."""
    launches: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            bytes=self.bytes + other.bytes,
            flops=self.flops + other.flops,
            launches=self.launches + other.launches,
        )


class Counter(TorchDispatchMode):
    """Counts what runs while it is open. Views, allocations and fused operators themselves cost nothing; their launches do."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self._launches = import_with_triton("openfold_opt.kernels.triton.launch").launches_on_meta(
            self._count_launch
        )

    def __enter__(self) -> Counter:
        self._launches.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._launches.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == FUSED_NAMESPACE:
            formula = FLOPS.get(func._schema.name.rpartition("::")[2])
            self.counts += Counts(flops=formula(*args) if formula is not None else 0)
        elif not launches_nothing(func):
            formula = flop_registry.get(func.overloadpacket)
            flops = formula(*args, **(kwargs or {}), out_val=result) if formula is not None else 0
            self.counts += Counts(bytes=_bytes_of((args, kwargs, result)), flops=flops, launches=1)
        return result

    def _count_launch(
        self, kernel: Any, grid: tuple[int, ...], args: tuple, options: dict[str, Any]
    ) -> None:
        self.counts += Counts(bytes=_bytes_of(args), launches=1)


def _bytes_of(tree: Any) -> int:
    return sum(_size_bytes(leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _size_bytes(x: Tensor) -> int:
    """What of a tensor lies in memory: dims of stride 0 are shared."""
    count = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        count *= size if stride else 1
    return count * x.element_size()


def count_each(run: Callable[[], Any], modules: Iterable[nn.Module]) -> list[tuple[Counts, Counts]]:
    """Forward and backward counts of each module, by itself, with the inputs that it gets in `run`."""
    modules = list(modules)
    seen: dict[nn.Module, tuple[tuple, dict]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda module, args, kwargs: seen.setdefault(module, (args, kwargs)) and None,
            with_kwargs=True,
        )
        for module in modules
    ]
    run()
    for handle in handles:
        handle.remove()
    return [_count_one(module, *seen[module]) for module in modules]


def _count_one(module: nn.Module, args: tuple, kwargs: dict) -> tuple[Counts, Counts]:
    args, kwargs = tree_map(_as_leaf, (args, kwargs))
    # gradients left by what ran before would be added to
    module.zero_grad(set_to_none=True)
    with Counter() as forward:
        result = module(*args, **kwargs)
        result = list(result) if isinstance(result, Iterator) else result
    outputs = [x for x in tree_leaves(_fields(result)) if isinstance(x, Tensor) and x.requires_grad]
    with Counter() as backward:
        torch.autograd.backward(outputs, [torch.empty_like(x) for x in outputs])
    return forward.counts, backward.counts


def _as_leaf(x: Any) -> Any:
    if isinstance(x, AsyncCollective):
        # on one rank it has arrived already
        return AsyncCollective(_as_leaf(x.wait()), None, what="a counted input")
    if isinstance(x, SharedResult):
        return SharedResult(AsyncCollective(_as_leaf(x()), None, what="a counted input"))
    if isinstance(x, PendingChunks):
        return tuple(_as_leaf(chunk) for chunk in x)
    return x.detach().requires_grad_() if isinstance(x, Tensor) and x.requires_grad else x


def _fields(result: Any) -> Any:
    """A dataclass as the dict of its fields, for tree_leaves."""
    return vars(result) if hasattr(result, "__dataclass_fields__") else result
