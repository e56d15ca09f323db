"""Count bytes, floating-point operations and kernel launches of PyTorch code on meta tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from benchmark.perf.tools.can_run import import_with_triton
from benchmark.perf.tools.module_times import stages_of
from openfold_opt.kernels.operations import FLOPS
from openfold_opt.model.linear import joined_linears
from openfold_opt.parallel.async_collective import SharedResult
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
            self.counts += Counts(flops=flops_of(func, args, kwargs, result))
        elif not launches_nothing(func):
            flops = flops_of(func, args, kwargs, result)
            self.counts += Counts(bytes=bytes_of((args, kwargs, result)), flops=flops, launches=1)
        return result

    def _count_launch(
        self, kernel: Any, grid: tuple[int, ...], args: tuple, options: dict[str, object]
    ) -> None:
        self.counts += Counts(bytes=bytes_of(args), launches=1)


def flops_of(func: OpOverload, args: tuple, kwargs: dict | None, result: object) -> int:
    """Return the floating-point operations of the matrix products of an operator.

    args, kwargs, result: of its call.
    """
    if func.namespace == FUSED_NAMESPACE:
        formula = FLOPS.get(func._schema.name.rpartition("::")[2])
        return 0 if formula is None else formula(*args)
    formula = flop_registry.get(func.overloadpacket)
    return 0 if formula is None else formula(*args, **(kwargs or {}), out_val=result)


def bytes_of(tree: Any) -> int:
    """Return the bytes of all tensors in nested tuples, lists and dicts."""
    return sum(_size_bytes(leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _size_bytes(x: Tensor) -> int:
    """Return the bytes of a tensor in memory; a dim of stride 0 counts once."""
    count = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        count *= size if stride else 1
    return count * x.element_size()


def count_each(run: Callable[[], Any], modules: Iterable[nn.Module]) -> list[ModuleCounts]:
    """Return the counts of each module, on the inputs that it gets in `run`, on one device.

    A block may call the stages of a module instead of its forward (model/axial_schedule.py). An
    argument of forward has the same name in the stages, and forward calls all of them.
    """
    modules = list(modules)
    inputs: dict[nn.Module, dict[str, Any]] = {module: {} for module in modules}
    for module, arguments in inputs.items():
        for stage in stages_of(module):
            setattr(module, stage, _recorded(getattr(module, stage), arguments))
    run()
    for module in modules:
        for stage in stages_of(module):
            delattr(module, stage)
    return [_count_one(module, inputs[module]) for module in modules]


def _recorded(stage: Callable[..., Any], arguments: dict[str, Any]) -> Callable[..., Any]:
    """Return the stage; its first call adds its arguments by name to `arguments`."""
    signature = inspect.signature(stage)

    def run(*args: Any, **kwargs: Any) -> Any:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            arguments.setdefault(name, value)
        return stage(*args, **kwargs)

    return run


def _count_one(module: nn.Module, arguments: dict[str, Any]) -> ModuleCounts:
    names = inspect.signature(module.forward).parameters
    inputs = tree_map(_as_leaf, {name: arguments[name] for name in names if name in arguments})
    # Existing gradients would be accumulated into, which counts extra operations.
    for parameter in [*module.parameters(), *_joined_parameters(module)]:
        parameter.grad = None
    with Counter() as forward:
        result = module(**inputs)
    outputs = [x for x in tree_leaves(_fields(result)) if isinstance(x, Tensor) and x.requires_grad]
    with Counter() as backward:
        torch.autograd.backward(outputs, [torch.empty_like(x) for x in outputs])
    return ModuleCounts(forward=forward.counts, backward=backward.counts)


def _joined_parameters(module: nn.Module) -> Iterable[Tensor]:
    weights = (joined.weights for joined in joined_linears(module))
    return (x for pair in weights for x in pair if x is not None)


def _as_leaf(x: Any) -> Any:
    if isinstance(x, SharedResult):
        leaf = _as_leaf(x())
        return lambda: leaf
    return x.detach().requires_grad_() if isinstance(x, Tensor) and x.requires_grad else x


def _fields(result: Any) -> Any:
    """Convert a dataclass to the dict of its fields, for tree_leaves."""
    return vars(result) if hasattr(result, "__dataclass_fields__") else result
