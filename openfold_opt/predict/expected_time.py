"""Expected time of a prediction from its counted work. Nothing is measured: an estimate.

A step takes the time of its matrix products or of its memory traffic, whichever is longer, but at
least the time to launch its operators. Communication is added, as if nothing overlapped with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openfold_opt.kernels.chips import Chip
from openfold_opt.model.config import ModelConfig
from openfold_opt.predict.device_memory import Device
from openfold_opt.predict.forward_trace import PhaseStep, StepTrace, StepWork
from openfold_opt.predict.traced_prediction import NUM_TRACED_TEMPLATES, ChainSizes

LAUNCH_SECONDS = 4e-6
"""Time of the host for each operator."""
FUSED_SHARE = 0.4
"""Rate of matrix products inside fused operators, relative to that of large ones in libraries."""
LINK_BYTES_PER_SECOND: Mapping[str, float] = {
    "a100-40": 300e9,
    "a100-80": 300e9,
    "h100": 450e9,
    "h200": 450e9,
    "b200": 900e9,
}
"""NVLink bandwidth in one direction (NVIDIA's data sheets). Other GPUs: PCIe 4.0 with 16 lanes."""
PCIE_BYTES_PER_SECOND = 32e9
LINK_SHARE = 0.8
"""Fraction of the bandwidth of a link that collectives reach."""


@dataclass(frozen=True, kw_only=True)
class ExpectedTime:
    """Expected time of all passes on one rank."""

    seconds: float
    communication_seconds: float
    """Part of it for collectives."""
    flops: float
    """Operations of all matrix products of the rank."""

    @property
    def communication_share(self) -> float:
        """Fraction of the time for collectives."""
        return self.communication_seconds / self.seconds


def expected_time(
    steps: Mapping[PhaseStep, StepTrace],
    config: ModelConfig,
    sizes: ChainSizes,
    device: Device,
    dtype: str,
) -> ExpectedTime | None:
    """Return the expected time of all passes; None without rates of the device in kernels/chips.py.

    steps: work of one pass with one block of each stack, and of the heads.
    """
    if device.chip is None:
        return None
    total = ExpectedTime(seconds=0.0, communication_seconds=0.0, flops=0.0)
    for key, trace in steps.items():
        repeats = _repeats(key, config, sizes)
        flops = trace.work.flops + trace.work.fused_flops
        own, sent = _seconds(trace.work, device.chip, dtype)
        total = ExpectedTime(
            seconds=total.seconds + repeats * (own + sent),
            communication_seconds=total.communication_seconds + repeats * sent,
            flops=total.flops + repeats * flops,
        )
    return total


def count_operators(
    steps: Mapping[PhaseStep, StepTrace], config: ModelConfig, sizes: ChainSizes
) -> int:
    """Return the number of operators of a pass; arguments as expected_time."""
    total = sum(
        _repeats(key, config, sizes) * trace.work.num_operators
        for key, trace in steps.items()
        if key.phase != "heads"
    )
    return round(total / sizes.num_passes)


def _repeats(key: PhaseStep, config: ModelConfig, sizes: ChainSizes) -> float:
    """Return how often the traced work of a step is repeated in all passes."""
    blocks = {
        "extra MSA stack": config.extra_msa_stack.num_blocks,
        "Evoformer": config.evoformer_stack.num_blocks,
        "structure module": config.structure_module.num_blocks,
    }
    if key.phase == "heads":
        return 1.0
    if key.phase == "embedding" and key.step == "pair_bias":
        # The first bias of each stack is computed before its first row attention.
        return sizes.num_passes * (blocks["extra MSA stack"] + blocks["Evoformer"]) / 2
    if key.phase == "templates":
        templates = sizes.num_templates / min(sizes.num_templates, NUM_TRACED_TEMPLATES)
        is_once = key.step in ("template_pairs", "template_attention")
        return (
            sizes.num_passes * templates * (1 if is_once else config.template_pair_stack.num_blocks)
        )
    return sizes.num_passes * blocks.get(key.phase, 1)


def _seconds(work: StepWork, chip: Chip, dtype: str) -> tuple[float, float]:
    """Return the seconds of the operators and of the collectives of a step."""
    rates = chip.sustained
    matmul_rate = rates.matmul_flops_per_second
    if dtype == "fp32":
        matmul_rate *= chip.peak.fp32 / chip.peak.bf16
    products = (work.flops + work.fused_flops / FUSED_SHARE) / matmul_rate
    link = LINK_BYTES_PER_SECOND.get(chip.name, PCIE_BYTES_PER_SECOND)
    return (
        max(
            products,
            work.num_bytes / rates.bytes_per_second,
            work.num_operators * LAUNCH_SECONDS,
        ),
        work.sent_bytes / (LINK_SHARE * link),
    )
