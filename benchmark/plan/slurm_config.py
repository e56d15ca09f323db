"""A Slurm configuration for a preset on a system, as the files of slurm/configs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.mlperf.rules import preset_division
from benchmark.plan.systems import System
from benchmark.plan.time_limit import format_time_limit, time_limit
from openfold_opt.parallel.context import count_training_ranks
from openfold_opt.train.config import RunConfig
from openfold_opt.train.global_batch import check_global_batch

ROOT = Path(__file__).resolve().parents[2]
_SETTINGS = ROOT / "slurm" / "settings.sh"
_CONFIGS = ROOT / "slurm" / "configs"
_REQUIRED_BANDWIDTH_SHARE = 0.4
"""Bandwidth that a job requires before it starts, relative to that of the system."""
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What a file of slurm/configs sets, and what it was planned from."""

    name: str
    nodes: int
    ranks_per_node: int
    preset: str
    division: str
    limit_seconds: float
    """Time limit of the job."""
    gpu_name: str
    gpu_memory_gib: int
    min_all_reduce_gb_s: float
    system: str
    num_training: int
    num_evaluation: int
    dap_size: int
    global_batch_size: int
    accumulation: int
    run_seconds: float
    """Predicted time of a run."""
    num_runs: int
    warnings: tuple[str, ...] = ()

    @property
    def num_gpus(self) -> int:
        """GPUs of the job."""
        return self.nodes * self.ranks_per_node

    def text(self, path: Path) -> str:
        """Return the content of the file at `path`."""
        batch = f"batch {self.global_batch_size}"
        if self.accumulation > 1:
            batch += f", {self.accumulation} micro-batches of a rank"
        evaluation = f"{self.num_evaluation} more" if self.num_evaluation else "the same GPUs"
        runs = f"{self.num_runs} runs" if self.num_runs > 1 else "one run"
        is_ours = path.resolve().parent == _CONFIGS
        settings = '"$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"'
        values = {
            "SYSTEM": self.name,
            "NODES": self.nodes,
            "RANKS_PER_NODE": self.ranks_per_node,
            "PRESET": self.preset,
            **({} if self.division == "closed" else {"DIVISION": self.division}),
            "WALLTIME": format_time_limit(self.limit_seconds),
            "GPUS_PER_NODE": self.ranks_per_node,
            "GPU_NAME": self.gpu_name,
            "GPU_MEMORY_GIB": self.gpu_memory_gib,
            "MIN_ALL_REDUCE_GB_S": f"{self.min_all_reduce_gb_s:g}",
            "PREDICTED_RUN_SECONDS": f"{self.run_seconds:.0f}",
        }
        return "\n".join(
            [
                "# shellcheck shell=bash",
                # A name with a line end must not continue outside the comment.
                f"# Planned for {' '.join(self.system.split())}: {self.num_training} GPUs train "
                f"with {self.dap_size} per sample,",
                f"# {batch}; {evaluation} evaluate.",
                f"# A run is predicted to take {self.run_seconds / 60:.1f} minutes; the limit is "
                f"for {runs}.",
                "# shellcheck source=slurm/settings.sh",
                f". {settings if is_ours else shlex.quote(str(_SETTINGS))}",
                *(f"export {key}={shlex.quote(str(value))}" for key, value in values.items()),
                "",
            ]
        )


def smallest_gpus(config: RunConfig) -> int:
    """Return the GPUs with which a preset needs the accumulation that it states."""
    parallel, concurrent = config.parallel, config.local_batch_size * config.accumulation
    assert config.global_batch_size is not None, "every preset states its global batch"
    groups = max(config.global_batch_size // concurrent, 1)
    return groups * parallel.dap_size + parallel.num_evaluation_ranks


def plan_slurm(
    config: RunConfig,
    *,
    preset: str,
    name: str,
    system: System,
    num_gpus: int,
    run_seconds: float,
    num_runs: int,
) -> SlurmConfig:
    """Plan the job of a preset.

    Args:
        config: the preset, or one of its phases.
        preset: its name.
        name: name of the configuration.
        system: where it runs.
        num_gpus: GPUs of the job, those that evaluate included.
        run_seconds: predicted time of a run.
        num_runs: runs that the job makes, one after another.

    Raises:
        BenchmarkError: The GPUs do not fit the preset or the system.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise BenchmarkError(
            f"the configuration is named {name!r} after its file; expected letters, digits, _ and -"
        )
    if num_runs < 1:
        raise BenchmarkError(f"--runs is {num_runs}; expected at least 1")
    fitted = check_gpus(config, system, num_gpus, preset=preset)
    parallel, nodes = config.parallel, num_gpus // system.gpus_per_node
    link = system.within_node if nodes == 1 else system.between_nodes
    return SlurmConfig(
        name=name,
        nodes=nodes,
        ranks_per_node=system.gpus_per_node,
        preset=preset,
        division=preset_division(config),
        limit_seconds=time_limit(run_seconds, num_runs),
        gpu_name=system.chip.short_name,
        gpu_memory_gib=int(system.chip.memory_bytes / _GIB),
        min_all_reduce_gb_s=round(_REQUIRED_BANDWIDTH_SHARE * link.bytes_per_second / 1e9, 1),
        system=system.name,
        num_training=count_training_ranks(parallel, num_gpus),
        num_evaluation=parallel.num_evaluation_ranks,
        dap_size=parallel.dap_size,
        global_batch_size=fitted.global_batch_size or 0,
        accumulation=fitted.accumulation,
        run_seconds=run_seconds,
        num_runs=num_runs,
        warnings=tuple(_warnings(parallel.dap_size, system)),
    )


def check_gpus(config: RunConfig, system: System, num_gpus: int, *, preset: str) -> RunConfig:
    """Return the configuration with the accumulation that the GPUs need.

    Raises:
        BenchmarkError: The GPUs are no whole nodes of the system, or do not fit the preset.
    """
    per_node = system.gpus_per_node
    if num_gpus < 1 or num_gpus % per_node:
        lower = max(num_gpus // per_node, 1) * per_node
        raise BenchmarkError(
            f"{num_gpus} GPUs are no whole nodes of {system.name}, which have {per_node} each; use "
            f"--gpus {lower} or {lower + per_node}, and a preset whose ranks fit"
        )
    if system.num_gpus is not None and num_gpus > system.num_gpus:
        raise BenchmarkError(
            f"{num_gpus} GPUs are more than the {system.num_gpus} of {system.name}; use fewer"
        )
    try:
        return check_global_batch(config, num_gpus)
    except ValueError as error:
        raise BenchmarkError(f"preset {preset} on {num_gpus} GPUs: {error}") from error


def _warnings(dap_size: int, system: System):
    if system.gpus_per_node % dap_size:
        yield (
            f"the {dap_size} ranks of a sample are not on one node of {system.gpus_per_node} GPUs; "
            "their collectives cross nodes, which are slower"
        )
