"""A recorder for tests without a GPU: it records tensor operators, and a replay runs these alone.

As with a CUDA graph, a replay runs no Python of the recorded work, reads the memory that was
recorded on, and overwrites what other graphs left in the shared pool. Operators that need the host
are no error here: on a CPU, one_hot checks its input by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

UNDECLARED_VIEWS = {"aten::_unsafe_view", "aten::lift_fresh"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """An operator that ran."""

    operator: Any
    args: tuple
    kwargs: dict[str, Any]
    results: list[Tensor]
    """New tensors; empty for an operator that writes to its arguments."""

    def run(self) -> None:
        """Run it again, with its results in the same memory."""
        found = tree_leaves(self.operator(*self.args, **self.kwargs))
        for ours, new in zip(self.results, [x for x in found if isinstance(x, Tensor)]):
            ours.copy_(new)


class Tape(TorchDispatchMode):
    """Notes each operator that computes something."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name
        result = func(*args, **(kwargs or {}))
        aliases = [x.alias_info for x in func._schema.returns]
        is_view = name in UNDECLARED_VIEWS or any(x is not None and not x.is_write for x in aliases)
        if is_view:
            return result
        of_arguments = [x.alias_info for x in func._schema.arguments]
        writes = any(x is not None and x.is_write for x in of_arguments)
        results = [] if writes else [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.calls.append(Call(operator=func, args=args, kwargs=kwargs or {}, results=results))
        return result


class OperatorRecorder:
    """Implements Recorder."""

    def __init__(self) -> None:
        self.captures: list[OperatorRecording] = []
        self.num_replays = 0

    def warm_up_run(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> OperatorRecording:
        with Tape() as tape:
            work()
        self.captures.append(OperatorRecording(self, tape.calls))
        return self.captures[-1]

    def spoil_pool(self) -> None:
        """Overwrite what all graphs have allocated, as a graph that shares their memory does."""
        for capture in self.captures:
            for call in capture.calls:
                for x in call.results:
                    if x.is_floating_point():
                        x.fill_(torch.nan)


class OperatorRecording:
    """Implements Recording."""

    def __init__(self, recorder: OperatorRecorder, calls: list[Call]) -> None:
        self._recorder, self.calls = recorder, calls

    @torch.no_grad()
    def replay(self) -> None:
        self._recorder.num_replays += 1
        self._recorder.spoil_pool()
        for call in self.calls:
            call.run()

    def reset(self) -> None:
        self.calls = []
