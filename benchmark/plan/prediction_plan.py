"""Plans of predictions on a system: seconds and memory by length and number of GPUs.

Memory and work are those of the memory plan (openfold_opt.predict.memory_plan), which counts the
forward that predicts. Times are estimates from rates of the GPU, until a record calibrates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.plan.prediction_fit import TimeFit
from benchmark.plan.systems import System
from openfold_opt.model.config import ModelConfig
from openfold_opt.predict.device_memory import device_of_chip
from openfold_opt.predict.expected_time import (
    LINK_BYTES_PER_SECOND,
    LINK_SHARE,
    PCIE_BYTES_PER_SECOND,
)
from openfold_opt.predict.memory_plan import plan_memory
from openfold_opt.predict.plan_record import MemoryPlan
from openfold_opt.train.precision import Precision


@dataclass(frozen=True, kw_only=True)
class ChainSettings:
    """What is the same for all lengths."""

    msa_rows: int = 512
    extra_rows: int = 5120
    num_templates: int = 4
    num_passes: int = 4
    dtype: Precision = "bf16"

    def __post_init__(self) -> None:
        minima = {"msa_rows": self.num_templates + 1, "extra_rows": 1, "num_passes": 1}
        for name, minimum in {**minima, "num_templates": 0}.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {minimum}")


@dataclass(frozen=True, kw_only=True)
class PlannedPrediction:
    """The prediction of one chain by one model on some GPUs of a system."""

    num_residues: int
    num_gpus: int
    seconds: float | None
    """Estimate; None if the chain does not fit, as its work is not counted."""
    communication_seconds: float
    """Part of it for collectives."""
    is_calibrated: bool
    """Whether the seconds come from measured predictions."""
    peak_bytes: int
    """On each GPU."""
    usable_bytes: int
    pair_bytes: int
    host_bytes: int
    flops: float
    """Matrix work of each GPU; 0 if the chain does not fit."""
    refusal: str
    """Why the chain does not fit; empty if it does."""
    crosses_nodes: bool

    @property
    def missing_bytes(self) -> int:
        """Memory that each GPU lacks; 0 if the chain fits."""
        return max(self.peak_bytes - self.usable_bytes, 0)


def plan_prediction(
    num_residues: int,
    *,
    num_gpus: int,
    system: System,
    config: ModelConfig,
    settings: ChainSettings,
    calibration: TimeFit | None = None,
) -> PlannedPrediction:
    """Plan the prediction of a chain.

    Args:
        num_residues: length of the chain, at least num_gpus.
        num_gpus: GPUs that share the chain.
        system: where it runs.
        config: sizes of the model.
        settings: sizes of the features, and the precision.
        calibration: measured seconds of the same model on one GPU of the system.
    """
    plan = _memory_plan(num_residues, num_gpus, system, config, settings)
    assert plan.expected is not None, "a system has a GPU of kernels/chips.py"
    crosses = num_gpus > system.gpus_per_node
    sent = plan.expected.communication_seconds * _link_ratio(system, crosses_nodes=crosses)
    own = plan.expected.seconds - plan.expected.communication_seconds
    if calibration is not None and plan.fits:
        alone = _memory_plan(num_residues, 1, system, config, settings).expected
        assert alone is not None
        # The share of the work of each GPU is counted; the time of all of it is measured. A chain
        # that does not fit one GPU has no count of all of it.
        whole = alone.seconds or num_gpus * own
        own *= calibration.seconds(num_residues) / whole
    return PlannedPrediction(
        num_residues=num_residues,
        num_gpus=num_gpus,
        seconds=own + sent if plan.fits else None,
        communication_seconds=sent,
        is_calibrated=calibration is not None,
        peak_bytes=plan.peak_bytes,
        usable_bytes=plan.usable_bytes,
        pair_bytes=plan.pair_bytes,
        host_bytes=plan.host_bytes,
        flops=plan.expected.flops,
        refusal="" if plan.fits else plan.refusal(),
        crosses_nodes=crosses,
    )


def plan_lengths(
    lengths: Sequence[int],
    gpus: Sequence[int],
    *,
    system: System,
    config: ModelConfig,
    settings: ChainSettings,
    calibration: TimeFit | None = None,
) -> list[PlannedPrediction]:
    """Plan every length on every number of GPUs, except on more GPUs than it has residues."""
    return [
        plan_prediction(
            length,
            num_gpus=number,
            system=system,
            config=config,
            settings=settings,
            calibration=calibration,
        )
        for length in lengths
        for number in gpus
        if number <= length
    ]


def _memory_plan(
    num_residues: int,
    num_gpus: int,
    system: System,
    config: ModelConfig,
    settings: ChainSettings,
) -> MemoryPlan:
    return plan_memory(
        config=config,
        num_residues=num_residues,
        max_msa_clusters=settings.msa_rows,
        max_extra_msa=settings.extra_rows,
        num_templates=settings.num_templates,
        num_passes=settings.num_passes,
        dtype=settings.dtype,
        device=device_of_chip(system.chip),
        dap_size=num_gpus,
    )


def _link_ratio(system: System, *, crosses_nodes: bool) -> float:
    """Return the time of a collective over the links of a system relative to the memory plan."""
    link = system.between_nodes if crosses_nodes else system.within_node
    assumed = LINK_SHARE * LINK_BYTES_PER_SECOND.get(system.gpu, PCIE_BYTES_PER_SECOND)
    return assumed / link.bytes_per_second
