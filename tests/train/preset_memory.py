"""Plan the memory of the presets for full training on GPUs of 80 and 141 GB, without a GPU.

    python -m tests.train.preset_memory

Every phase runs at full width and depth on PyTorch's device "meta": one complete optimizer step,
and forward passes with the loss for several numbers of recomputed blocks. The result is written to
preset_memory.json in this folder, with which a test compares the presets. A phase takes minutes.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from benchmark.presets import build_preset
from openfold_opt.kernels.chips import chip_named
from openfold_opt.kernels.select import resolve_auto
from openfold_opt.train.config import RunConfig
from openfold_opt.train.memory_plan import StepMemory, state_bytes
from openfold_opt.train.phases import phases_of
from tests.support.meta_step import run_meta_step

PRESETS = (
    "initial_training",
    "initial_training_1056",
    "initial_training_2080",
    "initial_training_8gpu",
    "initial_training_64gpu",
    "finetuning",
    "finetuning_ptm",
)
CHIPS = ("h100", "h200")
RECORD = Path(__file__).with_suffix(".json")
CUDA = torch.device("cuda")


def memory_facts(config: RunConfig) -> dict[str, object]:
    """Return what determines the memory of a step on a rank. Other fields have no effect."""
    return {
        "dap_size": config.parallel.dap_size,
        "local_batch_size": config.local_batch_size,
        "precision": config.precision,
        "recompute": config.recompute,
        "cuda_graphs": config.cuda_graphs,
        "clip_per": config.optimizer.clip_per,
        "crop_size": config.data.crop_size,
        "max_msa_clusters": config.data.max_msa_clusters,
        "max_extra_msa": config.data.max_extra_msa,
        "max_templates": config.data.max_templates,
        "has_tm_score": config.model.auxiliary_heads.has_tm_score,
        "has_violation_loss": config.loss.violation.weight > 0.0,
        "reference_kernels": sorted(
            name for name, kind in config.kernels.implementations.items() if kind == "reference"
        ),
        "fused_attention": config.kernels.fused_attention,
    }


def plan(config: RunConfig) -> dict[str, object]:
    """Return bytes, and the number of recomputed blocks on each chip (None: does not fit)."""
    run_meta_step(
        config,
        num_recycling_iterations=config.data.max_recycling_iterations,
        num_recomputed_blocks=1,
    )
    memory = StepMemory(config, resolve_auto(config.kernels, CUDA), has_graphs=config.cuda_graphs)
    chips: dict[str, object] = {}
    for name in CHIPS:
        total = chip_named(name).memory_bytes
        try:
            number = memory.fewest_recomputed_blocks(total, where=name)
        except ValueError as error:
            chips[name] = {"recomputed_blocks": None, "error": str(error)}
            continue
        step = memory.saved(number) + memory.largest_workspace.bytes
        chips[name] = {
            "memory_bytes": total,
            "recomputed_blocks": number,
            "saved_bytes": memory.saved(number),
            "step_bytes": max(step, memory.needed(number)),
        }
    largest = memory.largest_workspace
    return {
        "state_bytes": state_bytes(config),
        "graph_bytes": memory.graphs,
        "workspace_bytes": largest.bytes,
        "workspace_of": f"{largest.implementation} {largest.operation}, {largest.where}",
        "chips": chips,
    }


def main(path: Path) -> None:
    """Plan all presets, and write the record after each new plan."""
    plans: dict[str, dict[str, object]] = {}
    phases: list[dict[str, object]] = []
    for preset in PRESETS:
        for phase in phases_of(build_preset(preset)):
            facts = memory_facts(phase.config)
            key = json.dumps(facts, sort_keys=True)
            if key not in plans:
                plans[key] = plan(phase.config)
            phases.append({"preset": preset, "phase": phase.name, "facts": facts, **plans[key]})
            path.write_text(json.dumps(phases, indent=1) + "\n", encoding="utf-8")
            print(preset, phase.name, json.dumps(plans[key]), flush=True)


if __name__ == "__main__":
    main(RECORD)
