"""MemoryPlan: how a prediction is divided, its peak by phase, and the text that describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from openfold_opt.kernels.interface import KernelSet
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.device_memory import Device
from openfold_opt.predict.expected_time import ExpectedTime
from openfold_opt.predict.forward_trace import Phase, PhaseStep
from openfold_opt.predict.schedule.plan import PredictionPlan
from openfold_opt.predict.traced_prediction import ChainSizes, Division
from openfold_opt.train.precision import Precision

GIB = 2**30
MAX_GPUS = 64
"""Largest number of GPUs that a plan proposes."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How a prediction is divided, and its memory on each rank."""

    sizes: ChainSizes
    device: Device
    dtype: Precision
    division: Division
    forward_bytes: int
    """Peak of the tensors that the forward creates on the device."""
    heap_bytes: int
    """On a CPU: freed memory that the C library cannot return to the operating system."""
    weight_bytes: int
    """Weights on the device."""
    feature_bytes: int
    """Features of all passes, which stay on the host."""
    host_bytes: int
    """Host memory of all ranks."""
    num_operators: int
    """Operators of a pass that a GPU runs; 0 if they were not counted, as on a CPU."""
    graph_bytes: int = 0
    """Memory of CUDA graphs on the device in addition to the forward; 0: the chain uses none."""
    pair_bytes: int
    """Bytes of the whole pair representation, U."""
    phases: Mapping[PhaseStep, int]
    """Peak of the forward by phase and step."""
    expected: ExpectedTime | None
    """None on a CPU, and if the chip is unknown."""
    fewest_gpus: int | None
    """If the chain does not fit: the smallest number of GPUs on which it does, and more than
    MAX_GPUS if there is none."""

    @property
    def peak_bytes(self) -> int:
        """Peak on the device of a rank: weights, tensors, graphs; on a CPU, features and heap."""
        features = self.feature_bytes if self.device.is_cpu else 0
        return self.resident_bytes + self.weight_bytes + self.graph_bytes + features

    @property
    def resident_bytes(self) -> int:
        """Expected growth of the memory in use during the forward."""
        return self.forward_bytes + self.heap_bytes

    @property
    def has_graphs(self) -> bool:
        """Whether the chain uses CUDA graphs."""
        return self.graph_bytes > 0

    @property
    def usable_bytes(self) -> int:
        """Memory of the device for a rank."""
        shared = self.division.dap_size if self.device.is_cpu else 1
        return self.device.usable_bytes // shared

    @property
    def fits(self) -> bool:
        """Whether device and host have enough memory."""
        return self.peak_bytes <= self.usable_bytes and self.fits_host

    @property
    def fits_host(self) -> bool:
        """Whether the host has enough memory; true if its memory is unknown."""
        return self.device.host_bytes is None or self.host_bytes <= self.device.host_bytes

    @property
    def seconds(self) -> float | None:
        """Expected time of the forward; None if unknown."""
        return None if self.expected is None else self.expected.seconds

    @property
    def largest(self) -> PhaseStep:
        """The step with the peak."""
        return max(self.phases, key=lambda key: self.phases[key])

    def prediction_plan(self, *, kernels: KernelSet, dap: AxisGroup) -> PredictionPlan:
        """Return the options of the forward."""
        if dap.size != self.division.dap_size:
            raise ValueError(
                f"the memory plan is for {self.division.dap_size} ranks, found {dap.size}; "
                "make the plan with the dap_size of the run"
            )
        return PredictionPlan(
            kernels=kernels,
            dap=dap,
            block_rows=self.division.block_rows,
            channel_groups=self.division.channel_groups,
            offload_pairs=self.division.offload_pairs,
        )

    def as_json(self) -> dict[str, object]:
        """Return the entry of the record of a chain."""
        return {
            "fits": self.fits,
            "device": self.device.name,
            "dtype": self.dtype,
            "sizes": asdict(self.sizes),
            "peak_bytes": self.peak_bytes,
            "peak_pair_tensors": round(self.peak_bytes / self.pair_bytes, 3),
            "usable_bytes": self.usable_bytes,
            "weight_bytes": self.weight_bytes,
            "host_bytes": self.host_bytes,
            "graph_bytes": self.graph_bytes,
            "largest_step": str(self.largest),
            "division": asdict(self.division),
            "estimated_seconds": self.seconds,
        }

    def describe(self) -> list[str]:
        """Return lines with the peak, its parts and the expected time."""
        return list(self._lines())

    def summary(self) -> list[str]:
        """Return lines with the peak and the expected time."""
        lines = self.describe()
        return [*lines[:2], lines[-1]]

    def refusal(self) -> str:
        """Say why the chain does not fit, and how many GPUs would do."""
        if not self.fits_host:
            return (
                f"{self.sizes.num_residues:,} residues need {_gib(self.host_bytes)} of host "
                f"memory, and {_gib(self.device.host_bytes or 0)} are available; use a machine "
                "with more memory, fewer recycling iterations or fewer rows of the MSA"
            )
        reason = (
            f"{self.sizes.num_residues:,} residues need at least {_gib(self.peak_bytes)} on each "
            f"of {self.division.dap_size} x {self.device.name} in {self.dtype}, and "
            f"{_gib(self.usable_bytes)} may be used"
        )
        if self.device.is_cpu or self.fewest_gpus is None:
            return f"{reason}; use a machine with more memory or a shorter chain"
        if self.fewest_gpus > MAX_GPUS:
            return f"{reason}; {MAX_GPUS} GPUs are not enough either: predict parts of the chain"
        return (
            f"{reason}; it fits on {self.fewest_gpus} GPUs (torchrun --nproc-per-node "
            f"{self.fewest_gpus})"
        )

    def _lines(self) -> Iterator[str]:
        sizes, division, u = self.sizes, self.division, self.pair_bytes
        gpus = f"{division.dap_size} x {self.device.name}"
        yield (
            f"{sizes.num_residues:,} residues, {sizes.msa_rows:,} MSA rows, {sizes.extra_rows:,} "
            f"extra rows, {sizes.num_templates} templates, {sizes.num_passes} passes, "
            f"{self.dtype}, {gpus}: {'fits' if self.fits else 'does not fit'}"
        )
        yield (
            f"peak {_gib(self.peak_bytes)} of {_gib(self.usable_bytes)} on each, "
            f"{self.peak_bytes / u:.2f} U (U = {_gib(u)}, the pair representation); "
            f"weights {_gib(self.weight_bytes)}; host {_gib(self.host_bytes)}"
        )
        if self.has_graphs:
            yield f"CUDA graphs for up to {sizes.num_residues:,} residues: {_gib(self.graph_bytes)}"
        yield f"largest: {self.largest}"
        peaks: dict[Phase, int] = {}
        for key, size in self.phases.items():
            peaks[key.phase] = max(size, peaks.get(key.phase, 0))
        parts = (f"{name} {size / u:.2f} U" for name, size in peaks.items())
        yield f"peak by phase: {', '.join(parts)}"
        rows = (f"{step} {count:,}" for step, count in sorted(division.block_rows.items()))
        groups = f"; {division.channel_groups} groups of channels" if division.dap_size > 1 else ""
        offload = "; pairs on the host during templates" if division.offload_pairs else ""
        yield f"rows per block: {', '.join(rows)}{groups}{offload}"
        yield f"expected time: {self._time()}"

    def _time(self) -> str:
        if self.expected is None:
            processor = "a CPU" if self.device.is_cpu else self.device.name
            return (
                f"unknown, because the rates of {processor} are not known; after the first chain, "
                "the progress shows the time left"
            )
        share = f", {self.expected.communication_share:.0%} of it communication"
        return (
            f"{_seconds(self.expected.seconds)} (an estimate, not a measurement)"
            f"{share if self.division.dap_size > 1 else ''}"
        )


def _seconds(seconds: float) -> str:
    """Return a time as text; below 10 s with two digits."""
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _gib(size: int) -> str:
    """Return a size as text; below a tenth of a GiB in MiB."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size * 1024 / GIB:,.1f} MiB"
