"""All process groups of a run, built once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.launch import LaunchInfo


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the ranks share the work."""

    closed_division: ClassVar[str] = "implementation"

    dap_size: int = 1
    """Ranks that share one sample (Dynamic Axial Parallelism)."""
    backend: str | None = None
    """torch.distributed backend; None takes nccl for GPUs and gloo for CPUs."""
    gradient_bucket_bytes: int = field(default=64 * 2**20)
    """Gradients are summed over ranks in pieces of this size, so that their transfers overlap."""
    timeout_seconds: int = 1800
    """A collective that a rank does not join for so long ends the run."""

    def __post_init__(self) -> None:
        if self.dap_size < 1 or self.gradient_bucket_bytes < 4 or self.timeout_seconds < 1:
            raise ValueError(f"sizes and timeout must be positive: {self}")


@dataclass(frozen=True, kw_only=True)
class ParallelContext:
    """This process's place on every axis."""

    launch: LaunchInfo
    role: str
    """"train"; ranks that only evaluate are a later door."""
    world: AxisGroup
    data: AxisGroup
    """Ranks that see different samples; gradients are averaged over it."""
    dap: AxisGroup
    """Ranks that share a sample."""
    owns_process_group: bool = False

    @classmethod
    def alone(cls) -> ParallelContext:
        """The context of a single process."""
        single = AxisGroup.single
        return cls(
            launch=LaunchInfo(), role="train", world=single("world"), data=single("data"), dap=single("dap")
        )

    def close(self) -> None:
        """Leave the process group that build_parallel_context joined; a second call does nothing."""
        if self.owns_process_group and dist.is_initialized():
            dist.destroy_process_group()


def build_parallel_context(config: ParallelConfig, launch: LaunchInfo, *, device: torch.device) -> ParallelContext:
    """Join the other ranks and build the ("data", "dap") mesh; dap neighbours are neighbouring ranks.

    Raises ValueError if the number of ranks is not divisible by dap_size.
    """
    if launch.world_size % config.dap_size:
        raise ValueError(
            f"{launch.world_size} ranks cannot be split into groups of dap_size={config.dap_size}; "
            "start a multiple of it"
        )
    if launch.world_size == 1:
        return ParallelContext.alone()
    backend = config.backend or ("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend,
        init_method=f"tcp://{launch.master_address}:{launch.master_port}",
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=timedelta(seconds=config.timeout_seconds),
    )
    mesh = init_device_mesh(
        device.type, (launch.world_size // config.dap_size, config.dap_size), mesh_dim_names=("data", "dap")
    )
    return ParallelContext(
        launch=launch,
        role="train",
        world=AxisGroup(
            name="world", rank=launch.rank, size=launch.world_size, process_group=dist.group.WORLD
        ),
        data=_axis(mesh, "data"),
        dap=_axis(mesh, "dap"),
        owns_process_group=True,
    )


def _axis(mesh, name: str) -> AxisGroup:
    size = mesh.size(mesh.mesh_dim_names.index(name))
    if size == 1:
        return AxisGroup.single(name)
    return AxisGroup(name=name, rank=mesh.get_local_rank(name), size=size, process_group=mesh.get_group(name))
