"""Trace of a prediction on PyTorch's device "meta": memory and work of every step.

The forward itself runs, on tensors that have shapes but no elements. So the counts are those of the
code that predicts, for every length, GPU and number of ranks, in a second and without a GPU.

Blocks of the same size allocate the same, so that only the first blocks of a step run. The work of
the others is the same for each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

from openfold_opt.kernels.operations import FLOPS
from openfold_opt.kernels.workspace import FUSED_NAMESPACE, AllocationCounter, tensors_in
from openfold_opt.predict.meta_results import MetaResults
from openfold_opt.predict.schedule.plan import PredictionPlan, Step

Phase = str
"""Part of a pass, as in PHASES."""
PHASES: dict[Step, Phase] = {
    "embed_msa": "embedding",
    "embed_pairs": "embedding",
    "template_pairs": "templates",
    "template_attention": "templates",
    "extra_row": "extra MSA stack",
    "msa_row": "Evoformer",
    "point_attention": "structure module",
    "pair_heads": "heads",
}
"""Steps that start a phase. All other steps are part of the phase that was started last."""

_aten = torch.ops.aten
_HOST_READ = _aten._local_scalar_dense.default
_COPY = _aten._to_copy.default
_ALLOCATIONS = (_aten.empty, _aten.empty_like, _aten.new_empty, _aten.empty_strided)


@dataclass(kw_only=True)
class StepWork:
    """Work of the operators of a step on one rank."""

    flops: float = 0.0
    """Operations of the matrix products of libraries."""
    fused_flops: float = 0.0
    """Operations of the matrix products inside fused operators."""
    num_bytes: float = 0.0
    """Bytes of inputs and results of all operators, each read or written once."""
    num_operators: float = 0.0
    sent_bytes: float = 0.0
    """Bytes that the rank sends to other ranks."""

    def add(self, other: StepWork, factor: float = 1.0) -> None:
        """Add a multiple of other work."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + factor * getattr(other, name))


@dataclass(frozen=True, kw_only=True)
class PhaseStep:
    """A step in a phase."""

    phase: Phase
    step: Step | None
    """None: between the steps."""

    def __str__(self) -> str:
        return f"{self.phase}, {self.step or 'between the steps'}"


@dataclass(kw_only=True)
class StepTrace:
    """What was counted in a step."""

    peak_bytes: int = 0
    """Largest sum of the bytes of all tensors on the device during the step."""
    workspace_bytes: int = 0
    """Largest part of it that was allocated since the step began."""
    work: StepWork = field(default_factory=StepWork)
    length: int = 0
    """Number of rows that the step divides into blocks."""


class ForwardTrace(AllocationCounter):
    """Dispatch mode that counts memory and work of a forward by phase and step.

    On device meta, the host reads 1 wherever it reads a value, and copies to the host have no
    memory of their own. On device "cpu" real tensors are counted in the same way.
    """

    def __init__(self, device: str, *, counts_work: bool = False) -> None:
        """Start before the first step.

        Args:
            device: type of the device whose tensors are counted: "meta" or "cpu".
            counts_work: whether to count the work, too.
        """
        super().__init__()
        self.steps: dict[PhaseStep, StepTrace] = {}
        self.max_blocks: int | None = None
        """Number of blocks that run at the start of each step; None: all. On one rank two blocks
        show all memory: a result of the previous block is freed when the next one is ready. On
        several ranks it takes three, as the collective of the block after the next is in flight."""
        self.largest_storage = 0
        """Bytes of the largest storage on the device."""
        self._device, self._counts_work = device, counts_work
        self._phase = "embedding"
        self._scale, self._depth = 1.0, 0
        self._at_entry = 0
        self._results = MetaResults()
        self.leave()

    def enter(self, step: Step, *, length: int, num_rows: int) -> None:
        """Attribute what follows to a step with `length` rows, of which `num_rows` run."""
        self._phase = PHASES.get(step, self._phase)
        self._scale = length / max(num_rows, 1)
        self._set(step)
        self._now.length = max(self._now.length, length)

    def leave(self) -> None:
        """Attribute what follows to the phase, but to no step."""
        self._scale = 1.0
        self._set(None)

    def _set(self, step: Step | None) -> None:
        self._now = self.steps.setdefault(PhaseStep(phase=self._phase, step=step), StepTrace())
        self._at_entry = self._current
        self._update_peaks()

    def _update_peaks(self) -> None:
        now = self._now
        now.peak_bytes = max(now.peak_bytes, self._current)
        now.workspace_bytes = max(now.workspace_bytes, self._current - self._at_entry)

    def clear_work(self) -> None:
        """Forget the work so far, but not the memory."""
        for trace in self.steps.values():
            trace.work = StepWork()

    def send(self, what: str, kind: str, sent_bytes: int) -> None:
        """Count a collective; a callback of AxisGroup."""
        self._now.work.add(StepWork(sent_bytes=sent_bytes), self._scale)

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs = kwargs or {}
        if func is _HOST_READ and args[0].is_meta:
            return torch.ones((), dtype=args[0].dtype).item()
        if func is _COPY and args[0].is_meta and _is_host(kwargs.get("device")):
            dtype = kwargs.get("dtype") or args[0].dtype
            return torch.zeros((), dtype=dtype).expand(args[0].shape)
        # A fused operator runs its own operators in this mode; its work is counted as a whole.
        self._depth += 1
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self._depth -= 1
        if self._counts_work and self._depth == 0:
            work = _work_of(func, args, kwargs, result)
            if work is not None:
                self._now.work.add(work, self._scale)
        return result

    def _run(self, func: OpOverload, args: tuple, kwargs: dict) -> object:
        return self._results.run(func, args, kwargs)

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage.device.type != self._device:
            return
        super()._add(storage)
        self.largest_storage = max(self.largest_storage, storage.nbytes())
        self._update_peaks()


class TracedBlocks(list[slice]):
    """Blocks of a step, which ends when an iteration over them ends."""

    def __init__(self, blocks: list[slice], trace: ForwardTrace) -> None:
        super().__init__(blocks)
        self._trace = trace

    def __iter__(self) -> Iterator[slice]:
        """Yield the blocks."""
        yield from super().__iter__()
        self._trace.leave()


@dataclass(frozen=True, kw_only=True)
class TracedPlan(PredictionPlan):
    """A plan that tells a trace about its steps."""

    trace: ForwardTrace

    def blocks(self, step: Step, length: int) -> list[slice]:
        """Divide `length` rows into blocks, and return those that run."""
        blocks = super().blocks(step, length)[: self.trace.max_blocks]
        covered = sum(block.stop - block.start for block in blocks)
        self.trace.enter(step, length=length, num_rows=covered)
        return TracedBlocks(blocks, self.trace)


def _is_host(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == "cpu"


def _work_of(func: OpOverload, args: tuple, kwargs: dict, result: object) -> StepWork | None:
    """Return the work of an operator; None for views and allocations, which have none."""
    inputs, results = tensors_in((args, kwargs)), tensors_in(result)
    storages = {x.untyped_storage()._cdata for x in inputs}
    is_view = not func._schema.is_mutable and all(
        x.untyped_storage()._cdata in storages for x in results
    )
    if is_view or func.overloadpacket in _ALLOCATIONS:
        return None
    moved = sum(x.numel() * x.element_size() for x in (*inputs, *results))
    work = StepWork(num_bytes=moved, num_operators=1)
    if func.namespace == FUSED_NAMESPACE:
        fused = FLOPS.get(func._schema.name.rpartition("::")[2])
        work.fused_flops = 0 if fused is None else fused(*args)
    else:
        formula = flop_registry.get(func.overloadpacket)
        work.flops = 0 if formula is None else formula(*args, **kwargs, out_val=result)
    return work
