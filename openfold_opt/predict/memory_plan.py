"""Memory plan of a prediction: how it is divided so that it fits, and its peak by phase.

A plan comes from the forward itself, which runs on device meta with small blocks and with the
chosen ones (forward_trace.py). It needs no weights and no GPU, and never an out-of-memory error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from openfold_opt.kernels.interface import KernelConfig, KernelSet
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.config import ModelConfig
from openfold_opt.predict.block_sizes import (
    MIB,
    choose_rows,
    first_rows,
    halve_rows,
    useful_bytes,
)
from openfold_opt.predict.device_memory import Device, device_of
from openfold_opt.predict.expected_time import count_operators, expected_time
from openfold_opt.predict.forward_trace import ForwardTrace
from openfold_opt.predict.graphs import graph_bytes
from openfold_opt.predict.plan_record import GIB, MAX_GPUS, MemoryPlan
from openfold_opt.predict.traced_prediction import (
    ChainSizes,
    Division,
    meta_kernels,
    trace_prediction,
    traced_model,
)
from openfold_opt.train.precision import Precision

_PROCESS_BYTES = {"cpu": GIB // 2, "cuda": 3 * GIB}
"""Host memory of a process without weights and features."""
_HEAP_BYTES = {"cpu": 40 * MIB, "cuda": 0}
"""Freed blocks that the C library cannot return to the operating system, because blocks in use lie
behind them. Measured on a CPU: docs/predict_memory.md."""
_MAX_TRIALS = 6
_CHANNEL_GROUPS = (2, 4, 8)
"""Numbers of groups of channels, from the fastest to the one that needs least memory."""


def plan_memory(
    *,
    config: ModelConfig,
    num_residues: int,
    max_msa_clusters: int,
    max_extra_msa: int,
    num_templates: int,
    num_passes: int,
    dtype: Precision,
    device: torch.device | str | Device,
    dap_size: int = 1,
    uses_graphs: bool = False,
) -> MemoryPlan:
    """Plan the prediction of a chain. Results are cached.

    Args:
        config: sizes of the model.
        num_residues: length of the chain.
        max_msa_clusters: rows of the MSA representation, those of the templates included.
        max_extra_msa: rows of the extra MSA.
        num_templates: number of templates.
        num_passes: recycling iterations and the last pass.
        dtype: "fp32" or "bf16".
        device: of the model, or the name of a GPU of kernels/chips.py, or "cpu", or a Device.
        dap_size: number of ranks that share the chain.
        uses_graphs: count the memory of CUDA graphs; num_residues is the end of a range of lengths.
    """
    templates = num_templates if config.has_templates else 0
    sizes = ChainSizes(
        num_residues=num_residues,
        msa_rows=max(max_msa_clusters, templates + 1),
        extra_rows=max_extra_msa,
        num_templates=templates,
        num_passes=num_passes,
    )
    plan = _plan(config, sizes, dtype, device_of(device), dap_size)
    if not uses_graphs:
        return plan
    size = graph_bytes(
        config,
        sizes,
        pair_bytes=plan.pair_bytes,
        forward_bytes=plan.forward_bytes,
        num_operators=plan.num_operators,
    )
    return replace(plan, graph_bytes=size)


def describe_plan(
    lengths: Sequence[int],
    *,
    config: ModelConfig,
    device: str,
    dtype: Precision,
    dap_size: int = 1,
    max_msa_clusters: int = 512,
    max_extra_msa: int = 1024,
    num_templates: int = 0,
    num_passes: int = 4,
) -> tuple[list[str], bool]:
    """Return lines about the plans of chains of some lengths, and whether all fit (--plan-only).

    Arguments as plan_memory; it needs no weights and no GPU.
    """
    lines, all_fit = [], True
    for length in lengths:
        if dap_size > length:
            lines.append(
                f"does not fit: {length} residues cannot be shared between {dap_size} ranks; use "
                f"--dap {length} at most"
            )
            all_fit = False
            continue
        plan = plan_memory(
            config=config,
            num_residues=length,
            max_msa_clusters=max_msa_clusters,
            max_extra_msa=max_extra_msa,
            num_templates=num_templates,
            num_passes=num_passes,
            dtype=dtype,
            device=device,
            dap_size=dap_size,
        )
        lines += plan.describe() if plan.fits else [f"does not fit: {plan.refusal()}"]
        all_fit = all_fit and plan.fits
    return lines, all_fit


@lru_cache(maxsize=256)
def _plan(
    config: ModelConfig, sizes: ChainSizes, dtype: Precision, device: Device, dap_size: int
) -> MemoryPlan:
    return _planner(config, dtype, device).plan(sizes, dap_size)


@lru_cache(maxsize=8)
def _planner(config: ModelConfig, dtype: Precision, device: Device) -> _Planner:
    model = traced_model(config, dtype)
    kernels = KernelConfig.all("cpu" if device.is_cpu else "triton")
    return _Planner(
        config=config,
        dtype=dtype,
        device=device,
        model=model,
        kernels=meta_kernels(kernels, model),
        weight_bytes=_weight_bytes(model, config),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Planner:
    """Plans for one model on one kind of device."""

    config: ModelConfig
    dtype: Precision
    device: Device
    model: AlphaFold
    kernels: KernelSet
    weight_bytes: int

    def plan(self, sizes: ChainSizes, dap_size: int) -> MemoryPlan:
        """Return the plan of the first division that fits; else of the one that needs least."""
        limit = self._limit(sizes, dap_size)
        for division in self._divisions(sizes, dap_size):
            small = self._trace(sizes, division)
            if small.largest <= limit:
                division, trace = self._with_large_blocks(sizes, division, small)
                return self._result(sizes, division, trace)
        return self._result(sizes, division, small)

    def _fewest_gpus(self, sizes: ChainSizes) -> int:
        """Return the smallest number of GPUs that suffices; more than MAX_GPUS if none does."""
        # The memory of a rank falls with the number of ranks. Few GPUs are the common case.
        enough = 1
        while not self._fits_in_small_blocks(sizes, enough):
            if enough >= MAX_GPUS:
                return MAX_GPUS + 1
            enough *= 2
        too_few = enough // 2
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self._fits_in_small_blocks(sizes, middle):
                enough = middle
            else:
                too_few = middle
        return enough

    def _fits_in_small_blocks(self, sizes: ChainSizes, dap_size: int) -> bool:
        """Return whether the division that needs least memory fits."""
        *_, division = self._divisions(sizes, dap_size)
        return self._trace(sizes, division).largest <= self._limit(sizes, dap_size)

    def _limit(self, sizes: ChainSizes, dap_size: int) -> int:
        """Return the memory of a rank for the forward."""
        if self.device.is_cpu:
            usable = self.device.usable_bytes // dap_size
            return usable - self.weight_bytes - sizes.feature_bytes() - _HEAP_BYTES["cpu"]
        return self.device.usable_bytes - self.weight_bytes

    def _divisions(self, sizes: ChainSizes, dap_size: int) -> Iterator[Division]:
        """Yield divisions in small blocks, from the fastest to the one that needs least memory."""
        rows = first_rows(sizes.num_residues, _element_bytes(self.dtype), self.device.type)
        # The first pass has no pairs when the templates are processed.
        can_offload = not self.device.is_cpu and sizes.num_templates > 0 and sizes.num_passes > 1
        for offload in (False, True) if can_offload else (False,):
            for groups in _CHANNEL_GROUPS if dap_size > 1 else _CHANNEL_GROUPS[:1]:
                yield Division(
                    block_rows=rows,
                    channel_groups=groups,
                    offload_pairs=offload,
                    dap_size=dap_size,
                )

    def _with_large_blocks(
        self, sizes: ChainSizes, division: Division, small: ForwardTrace
    ) -> tuple[Division, ForwardTrace]:
        """Return the division with blocks of a useful size that fit, and its trace."""
        dap_size, rows = division.dap_size, dict(division.block_rows)
        limit = self._limit(sizes, dap_size)
        twice = {step: 2 * count for step, count in rows.items()}
        large = self._trace(sizes, replace(division, block_rows=twice))
        chosen = choose_rows(
            (rows, small),
            (twice, large),
            block_bytes=useful_bytes(
                self.device.type, pair_bytes=self._pair_bytes(sizes), dap_size=dap_size
            ),
            limit_bytes=limit,
        )
        for _ in range(_MAX_TRIALS):
            larger = replace(division, block_rows=chosen)
            trace = self._trace(sizes, larger, counts_work=self.device.chip is not None)
            if trace.largest <= limit:
                return larger, trace
            chosen = halve_rows(chosen, trace, limit_bytes=limit)
        return division, small

    def _pair_bytes(self, sizes: ChainSizes) -> int:
        """Return the bytes of the whole pair representation."""
        return sizes.num_residues**2 * self.config.c_z * _element_bytes(self.dtype)

    def _trace(
        self, sizes: ChainSizes, division: Division, *, counts_work: bool = False
    ) -> ForwardTrace:
        return trace_prediction(
            self.model,
            sizes,
            self.kernels,
            division,
            # On a CPU, the features are in the memory of the device.
            features_on="meta" if self.device.is_cpu else "cpu",
            counts_work=counts_work,
        )

    def _result(self, sizes: ChainSizes, division: Division, trace: ForwardTrace) -> MemoryPlan:
        features, dap_size = sizes.feature_bytes(), division.dap_size
        pair_bytes = self._pair_bytes(sizes)
        # The command keeps float32 weights on the host.
        rank_bytes = features + 2 * self.weight_bytes + _PROCESS_BYTES[self.device.type]
        if self.device.is_cpu:
            rank_bytes += trace.largest + _HEAP_BYTES["cpu"]
        plan = MemoryPlan(
            sizes=sizes,
            device=self.device,
            dtype=self.dtype,
            division=division,
            forward_bytes=trace.largest,
            heap_bytes=_HEAP_BYTES[self.device.type],
            weight_bytes=self.weight_bytes,
            feature_bytes=features,
            host_bytes=dap_size * rank_bytes + (pair_bytes if division.offload_pairs else 0),
            num_operators=count_operators(trace.steps, self.config, sizes),
            pair_bytes=pair_bytes,
            phases={key: step.peak_bytes for key, step in trace.steps.items()},
            expected=expected_time(trace.steps, self.config, sizes, self.device, self.dtype),
            fewest_gpus=None,
        )
        if plan.fits or self.device.is_cpu:
            return plan
        return replace(plan, fewest_gpus=self._fewest_gpus(sizes))


def _weight_bytes(model: AlphaFold, config: ModelConfig) -> int:
    """Return the bytes of the weights of the whole model; `model` has one block of each stack."""
    stacks = [
        (model.extra_msa_stack.blocks, config.extra_msa_stack.num_blocks),
        (model.evoformer_stack.blocks, config.evoformer_stack.num_blocks),
    ]
    if config.has_templates:
        stacks.append((model.template_pair_stack.blocks, config.template_pair_stack.num_blocks))
    total = sum(parameter.nbytes for parameter in model.parameters())
    for blocks, num_blocks in stacks:
        total += (num_blocks - 1) * sum(parameter.nbytes for parameter in blocks.parameters())
    return total


def _element_bytes(dtype: Precision) -> int:
    return 2 if dtype == "bf16" else 4
