"""Count bytes, floating-point operations and kernel launches of PyTorch code on meta tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from benchmark.perf.tools.can_run import import_with_triton
from openfold_opt.kernels.operations import FLOPS
from openfold_opt.parallel.async_collective import AsyncCollective, SharedResult
from openfold_opt.parallel.chunks import PendingChunks
from openfold_opt.train.graphs.graph_memory import FUSED_NAMESPACE, launches_nothing


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Sums over launches."""

    bytes: int = 0
    """Bytes read and written.

    Each launch counts each operand once, as if repeated reads hit a cache.
    """
    flops: int = 0
    """Floating-point operations of matrix products."""
    launches: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            bytes=self.bytes + other.bytes,
            flops=self.flops + other.flops,
            launches=self.launches + other.launches,
        )


@dataclass(frozen=True, kw_only=True)
class ModuleCounts:
    """Counts of a module."""

    forward: Counts
    backward: Counts


class Counter(TorchDispatchMode):
    """Dispatch mode that counts operations while it is active.

    Views and allocations are not counted. A fused operator counts through its kernel launches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        launching = import_with_triton("openfold_opt.kernels.triton.launching")
        self._launches = launching.launches_on_meta(self._count_launch)

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
        self, kernel: Any, grid: tuple[int, ...], args: tuple, options: dict[str, object]
    ) -> None:
        self.counts += Counts(bytes=_bytes_of(args), launches=1)


def _bytes_of(tree: Any) -> int:
    return sum(_size_bytes(leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _size_bytes(x: Tensor) -> int:
    """Return the bytes of a tensor in memory; a dim of stride 0 counts once."""
    count = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        count *= size if stride else 1
    return count * x.element_size()


def count_each(run: Callable[[], Any], modules: Iterable[nn.Module]) -> list[ModuleCounts]:
    """Return the counts of each module, on the inputs that it gets in `run`."""
    modules = list(modules)
    inputs: dict[nn.Module, tuple[tuple, dict]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda module, args, kwargs: inputs.setdefault(module, (args, kwargs)) and None,
            with_kwargs=True,
        )
        for module in modules
    ]
    run()
    for handle in handles:
        handle.remove()
    return [_count_one(module, *inputs[module]) for module in modules]


def _count_one(module: nn.Module, args: tuple, kwargs: dict) -> ModuleCounts:
    args, kwargs = tree_map(_as_leaf, (args, kwargs))
    # Existing gradients would be accumulated into, which counts extra operations.
    module.zero_grad(set_to_none=True)
    with Counter() as forward:
        result = module(*args, **kwargs)
        result = list(result) if isinstance(result, Iterator) else result
    outputs = [x for x in tree_leaves(_fields(result)) if isinstance(x, Tensor) and x.requires_grad]
    with Counter() as backward:
        torch.autograd.backward(outputs, [torch.empty_like(x) for x in outputs])
    return ModuleCounts(forward=forward.counts, backward=backward.counts)


def _as_leaf(x: Any) -> Any:
    if isinstance(x, AsyncCollective):
        # On one rank the result is complete.
        return AsyncCollective(_as_leaf(x.wait()), None, what="a counted input")
    if isinstance(x, SharedResult):
        return SharedResult(AsyncCollective(_as_leaf(x()), None, what="a counted input"))
    if isinstance(x, PendingChunks):
        return tuple(_as_leaf(chunk) for chunk in x)
    return x.detach().requires_grad_() if isinstance(x, Tensor) and x.requires_grad else x


def _fields(result: Any) -> Any:
    """Convert a dataclass to the dict of its fields, for tree_leaves."""
    return vars(result) if hasattr(result, "__dataclass_fields__") else result
