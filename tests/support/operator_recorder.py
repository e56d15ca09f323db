"""A Recorder for tests without a GPU: it records tensor operators, and a replay runs only these.

As with a CUDA graph, a replay runs no Python code of the recorded work, uses the memory of the
recording, and overwrites the memory of other graphs in the shared pool. Operators that need the
host are not errors here: on a CPU, one_hot uses one to check its input.
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
    """A recorded operator call."""

    operator: Any
    args: tuple
    kwargs: dict[str, Any]
    results: list[Tensor]
    """New tensors; empty for an operator that writes to its arguments."""

    def run(self) -> None:
        """Repeat the call, with its results in the same memory."""
        outputs = tree_leaves(self.operator(*self.args, **self.kwargs))
        for ours, new in zip(self.results, [x for x in outputs if isinstance(x, Tensor)]):
            ours.copy_(new)


class Tape(TorchDispatchMode):
    """Records each operator that computes something."""

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
        """Overwrite the memory of all graphs, as a graph that shares it would."""
        for capture in self.captures:
            for call in capture.calls:
                for x in call.results:
                    if x.is_floating_point():
                        x.fill_(torch.nan)


class OperatorRecording:
    """Implements Capture."""

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
