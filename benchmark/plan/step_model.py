"""Seconds of a training step: compute, launches, collectives, all-reduce and slow ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

from benchmark.perf.tools.roofline import EFFICIENCIES, LaunchClass
from benchmark.plan.code_bases import CODE_BASES, CodeBase
from benchmark.plan.step_counts import LaunchGroup, StepCounts
from benchmark.plan.systems import System
from openfold_opt.kernels.chips import Chip

LOOP_LAUNCH_SECONDS = 8.6e-6
"""Time that the host needs to launch an operation of PyTorch in a loop over tensors.

ScaleFold attributes 9.1 % of a step of the MLCommons reference on an A100 to the host (recalled):
0.62 s of 6.76 s. The launches of its optimizer, which no work on the GPU hides, are 71,749.
"""
MODEL_LAUNCH_SECONDS = LOOP_LAUNCH_SECONDS + 5.4e-6
"""The same in the source of a model: views, modules and autograd come in addition.

`perf host` measures both for the MLCommons reference on a CPU. This is the difference in the
fastest of 16 runs; the others have up to 8.3 us.
"""
RAMP_SECONDS = 2e-6
"""Time in which the programs of a launch start, wait for their first reads and write the last.

The roofline counts from the end of one launch to the end of an empty one: launch_seconds of
chips.py. A launch of a few MB takes longer than both together. An assumption.
"""
JITTER = 0.015
"""Standard deviation of a rank's time for a step, as a share of it.

Equal GPUs of a cluster differ in speed by 8 % on average over applications and clusters (Sinha et
al., "Not All GPUs Are Created Equal", SC22, abstract). This is taken as the length of the whiskers
of a box plot, 5.4 standard deviations.
"""
HIDDEN_SHARE = 0.5
"""Share of the compute of a step behind which overlapped transfers can hide. An assumption.

Gradients are complete from about the middle of a step on.
"""
PARTS = (
    "compute",
    "launches",
    "collectives",
    "all-reduce",
    "optimizer",
    "slow ranks",
    "loader",
)
"""Names of the parts of a step, in the order of pictures."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the ranks of a run are used."""

    code: str
    num_gpus: int
    dap: int = 1
    evaluation_ranks: int = 0
    local_batch: int = 1
    accumulation: int = 1
    recomputed_blocks: int = 0
    """Evoformer blocks that are recomputed, in addition to what was traced."""

    @property
    def data_parallel(self) -> int:
        """Samples that are computed at the same time, divided by the local batch."""
        return (self.num_gpus - self.evaluation_ranks) // self.dap

    @property
    def batch(self) -> int:
        """Samples of an optimizer step."""
        return self.data_parallel * self.local_batch * self.accumulation


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of an optimizer step, by part."""

    parts: dict[str, float]
    ideal: float
    """Compute of the whole sample at the peak rates of all GPUs of a DAP group, without loss."""
    flops: float
    """Operations of matrix products of all ranks."""

    @property
    def total(self) -> float:
        """Mean seconds of a step."""
        return sum(self.parts.values())


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What is fitted: measured / modeled compute of a code base."""

    by_code: Mapping[str, float] = field(default_factory=dict)

    def of(self, code: str) -> float:
        """Return the factor of a code base; 1 if none was fitted."""
        return self.by_code.get(code, 1.0)


def predict_step(
    counts: StepCounts,
    system: System,
    layout: Layout,
    factors: Factors = Factors(),
    *,
    mean_iterations: float = 1.5,
    loader_seconds: float = 0.0,
) -> StepTime:
    """Return the seconds of a mean optimizer step.

    counts: for the layout's code base and DAP size. loader_seconds: mean wait for a batch of the
    slowest rank, in a micro-step.
    """
    code = CODE_BASES[layout.code]
    micro = _MicroStep(counts, system, layout, factors)
    parts = micro.parts(mean_iterations)
    parts["loader"] = loader_seconds
    # Only the last micro-step reduces gradients and updates weights.
    parts = {name: layout.accumulation * seconds for name, seconds in parts.items()}
    compute = parts["compute"] + parts["launches"]
    if code.has_gradients_at_once(layout.dap):
        parts["launches"] += code.gradient_launches * LOOP_LAUNCH_SECONDS
    parts["all-reduce"] = _all_reduce_seconds(
        counts.num_parameters, system, layout, compute / layout.accumulation
    )
    parts["optimizer"] = _optimizer_seconds(counts.num_parameters, system.chip, code)
    gradient, iteration = counts.total_flops
    flops = (gradient + mean_iterations * iteration) * layout.batch * layout.dap
    return StepTime(
        parts={name: parts[name] for name in PARTS},
        ideal=micro.ideal(mean_iterations) * layout.accumulation,
        flops=flops,
    )


class _MicroStep:
    """One micro-step of a rank."""

    def __init__(
        self, counts: StepCounts, system: System, layout: Layout, factors: Factors
    ) -> None:
        self._counts, self._system, self._layout = counts, system, layout
        self._factor = factors.of(layout.code)
        self._code = CODE_BASES[layout.code]

    def parts(self, iterations: float) -> dict[str, float]:
        """Return the seconds of each part with a number of recycling iterations."""
        compute, launches = self._compute(iterations)
        collectives = self._collectives(iterations, compute)
        ranks = self._layout.num_gpus - self._layout.evaluation_ranks
        slowest = expected_maximum(ranks) * JITTER * (compute + launches)
        return {
            "compute": compute,
            "launches": launches,
            "collectives": collectives,
            "slow ranks": slowest,
        }

    def ideal(self, iterations: float) -> float:
        """Return the seconds of the compute at the peaks of the data sheet."""
        chip = self._system.chip
        total = 0.0
        for group in self._counts.launches:
            peak = chip.peak.tf32 if group.kind == "cublas_float32" else chip.peak.bf16
            memory = group.bytes / chip.bytes_per_second
            each = max(memory, group.flops / peak) * self._layout.local_batch
            total += each * (group.gradient + iterations * group.iteration)
        return total

    def _calls(self, group: LaunchGroup, iterations: float) -> float:
        recomputed = self._layout.recomputed_blocks * group.block
        return group.gradient + iterations * group.iteration + recomputed

    def _compute(self, iterations: float) -> tuple[float, float]:
        """Return the time of the work of all launches, and what launching adds to it."""
        chip, batch = self._system.chip, self._layout.local_batch
        work = calls = 0.0
        for group in self._counts.launches:
            number = self._calls(group, iterations)
            scale = self._system.calibration.get(group.kind, 1.0)
            work += number * scale * work_seconds(group, chip, batch)
            calls += number
        work *= self._factor
        gaps = self._factor * calls * chip.sustained.launch_seconds
        host = self._host_launches(calls, iterations) * MODEL_LAUNCH_SECONDS
        graphs = self._code.graphs(self._layout.dap)
        if graphs == "all":
            return work, gaps
        share = 0.5 if graphs == "part" else 1.0
        return work, max(gaps, share * host - work)

    def _host_launches(self, traced: float, iterations: float) -> float:
        """Return what the host launches in a pass without graphs, collectives included."""
        own, counts = self._code.host_launches, self._counts
        sent = sum(each.gradient + iterations * each.iteration for each in counts.collectives)
        if own is None:
            return traced + sent
        recomputed = own.recomputation if counts.recomputes else 0
        return own.gradient + iterations * own.iteration + recomputed + sent

    def _collectives(self, iterations: float, compute: float) -> float:
        layout, system = self._layout, self._system
        within = layout.dap <= system.gpus_per_node
        link = system.within_node if within else system.between_nodes
        hidden = exposed = 0.0
        for each in self._counts.collectives:
            calls = each.gradient + iterations * each.iteration
            calls *= 1 + layout.recomputed_blocks / self._counts.num_blocks / 2
            size = each.sent_bytes * layout.local_batch
            seconds = calls * (link.latency_seconds + size / link.bytes_per_second)
            if layout.dap <= self._code.overlaps_up_to_dap and "first row" not in each.what:
                hidden += seconds
            else:
                exposed += seconds
        return exposed + max(0.0, hidden - HIDDEN_SHARE * compute)


def work_seconds(group: LaunchGroup, chip: Chip, local_batch: int = 1) -> float:
    """Return the time of the work of one launch, without launching it."""
    kind = launch_class(group, chip)
    rates, efficiency = chip.sustained, EFFICIENCIES[kind]
    memory = group.bytes * local_batch / (rates.bytes_per_second * efficiency.memory)
    matrix = group.flops * local_batch / (rates.matmul_flops_per_second * efficiency.matrix)
    programs = group.programs or chip.num_sms
    share = min(1.0, programs * local_batch / chip.num_sms)
    return max(memory, matrix) / share + RAMP_SECONDS


def launch_class(group: LaunchGroup, chip: Chip) -> LaunchClass:
    """Return the class of a group on a chip."""
    kind = group.kind
    if kind in ("wgmma", "mma") and (group.programs or chip.num_sms) < chip.num_sms:
        return "few_programs"
    if kind in ("wgmma", "mma") and chip.capability < 90:
        return "mma_sm8x"
    return kind


def expected_maximum(number: int) -> float:
    """Return about the mean of the largest of `number` standard normal values (Blom)."""
    return 0.0 if number < 2 else NormalDist().inv_cdf((number - 0.375) / (number + 0.25))


def _all_reduce_seconds(
    num_parameters: int, system: System, layout: Layout, compute: float
) -> float:
    """Return what the all-reduce of the gradients adds to a step.

    Buckets are reduced during the backward pass, the last one after it; all of them after it if
    all gradients become known at once.
    """
    ranks = layout.num_gpus - layout.evaluation_ranks
    if ranks == 1:
        return 0.0
    code = CODE_BASES[layout.code]
    size = num_parameters * code.gradient_bytes
    nodes = math.ceil(ranks / system.gpus_per_node)
    rate = system.within_node.bytes_per_second
    latency = system.within_node.latency_seconds * min(ranks, system.gpus_per_node)
    if nodes > 1:
        rate = min(rate, system.gpus_per_node * system.between_nodes.bytes_per_second)
        latency += 2 * math.ceil(math.log2(nodes)) * system.between_nodes.latency_seconds
    buckets = max(1, math.ceil(size / code.bucket_bytes))
    each = latency + 2 * (ranks - 1) / ranks * min(size, code.bucket_bytes) / rate
    hidden = 0.0 if code.has_gradients_at_once(layout.dap) else HIDDEN_SHARE * compute
    return each + max(0.0, (buckets - 1) * each - hidden)


def _optimizer_seconds(num_parameters: int, chip: Chip, code: CodeBase) -> float:
    memory = num_parameters * code.optimizer_bytes / chip.sustained.bytes_per_second
    host = code.optimizer_launches * LOOP_LAUNCH_SECONDS
    return max(memory, host)
