"""All process groups of a run, built once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.parallel.store import open_store, wait_for_all

TRAIN, EVALUATE = "train", "evaluate"
"""Roles of a rank."""


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the ranks share the work."""

    category: ClassVar[str] = "implementation"

    dap_size: int = 1
    """Ranks that share one sample (Dynamic Axial Parallelism)."""
    overlap: bool = True
    """Collectives run behind the work that does not wait for them; False waits at once, for measurements."""
    dap_chunks: int = 2
    """Pieces, or groups of templates, into which a dap group's work is cut: one travels behind the work on the next. 1 cuts nothing."""
    num_evaluation_ranks: int = 0
    """The last so many ranks only evaluate, while the others train on; 0: all ranks train, and stop training to evaluate."""
    evaluation_groups: int = 1
    """Groups of evaluation ranks that take the snapshots in turn."""
    evaluation_queue: int = 4
    """Snapshots that may wait or be under evaluation; training waits before it makes another."""
    evaluation_dap_min_length: int | None = None
    """Chains of so many residues are evaluated by a dap group together, or by an evaluation group; None: every chain by one rank."""
    backend: str | None = None
    """torch.distributed backend; None takes nccl for GPUs and gloo for CPUs."""
    gradient_bucket_bytes: int = 64 * 2**20
    """Gradients are summed over ranks in pieces of this size, each as soon as the backward pass has filled it."""
    timeout_seconds: int = 1800
    """A rank that makes no progress for so long, in a collective or elsewhere, ends the run."""
    heartbeat_seconds: float = 20.0
    """A rank that was not heard for so long is lost, which ends the run; 0: nobody listens."""

    def __post_init__(self) -> None:
        sizes = (
            self.dap_size,
            self.dap_chunks,
            self.evaluation_groups,
            self.evaluation_queue,
            self.timeout_seconds,
        )
        if (
            min(sizes) < 1
            or self.gradient_bucket_bytes < 4
            or self.num_evaluation_ranks < 0
            or self.heartbeat_seconds < 0
        ):
            raise ValueError(f"sizes, queue and timeouts must be positive: {self}")
        if self.num_evaluation_ranks % self.evaluation_groups:
            raise ValueError(
                f"{self.num_evaluation_ranks} evaluation ranks do not make {self.evaluation_groups} groups of one size; change one of them"
            )


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """Between the ranks that train and those that evaluate: the first training rank and the first rank of each evaluation group."""

    process_group: dist.ProcessGroup | None
    """Of gloo, whatever the others are: weights cross it through the hosts' memory, behind training. None on all other ranks."""
    evaluators: tuple[int, ...]
    """World ranks of the groups' first ranks."""


@dataclass(frozen=True, kw_only=True)
class ParallelContext:
    """This process's place on every axis."""

    launch: LaunchInfo
    role: str
    """TRAIN or EVALUATE"""
    world: AxisGroup
    """All ranks."""
    training_ranks: AxisGroup
    """All ranks of this role that work on the same weights at the same time: the training ranks, or one evaluation group."""
    data: AxisGroup
    """Training ranks that see different samples."""
    dap: AxisGroup
    """Training ranks that share a sample; of an evaluation rank its group, which shares long chains."""
    bridge: Bridge | None = None
    """None where training ranks evaluate."""
    evaluation_group: int = 0
    """Number of this rank's evaluation group."""
    store: dist.Store | None = None
    """Where ranks leave words for each other outside of collectives; None for a process that is alone."""

    @classmethod
    def alone(cls) -> ParallelContext:
        """The context of a single process."""
        single = AxisGroup.single
        return cls(
            launch=LaunchInfo(),
            role=TRAIN,
            world=single("world"),
            training_ranks=single("training"),
            data=single("data"),
            dap=single("dap"),
        )

    def close(self) -> None:
        """Leave the process groups; a second call does nothing."""
        if self.world.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def build_parallel_context(
    config: ParallelConfig,
    launch: LaunchInfo,
    *,
    device: torch.device,
    store: dist.Store | None = None,
) -> ParallelContext:
    """Join the other ranks and build the ("data", "dap") mesh of those that train; dap neighbors are neighboring ranks.

    store: where the ranks have met already; None opens it.

    Raises ValueError if the ranks cannot be split as the configuration says.
    """
    num_training = count_training_ranks(config, launch.world_size)
    if launch.world_size == 1:
        return ParallelContext.alone()
    backend = config.backend or ("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=config.timeout_seconds)
    if store is None:
        store = open_store(launch, timeout=timeout)
        wait_for_all(store, launch, timeout=timeout)
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("groups", store),
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=timeout,
        # NCCL connects now and to this GPU, not at the first collective to a GPU that it guesses.
        device_id=device if device.type == "cuda" else None,
    )
    world = AxisGroup(
        name="world", rank=launch.rank, size=launch.world_size, process_group=dist.group.WORLD
    )
    context = ParallelContext(
        launch=launch,
        role=TRAIN if launch.rank < num_training else EVALUATE,
        world=world,
        training_ranks=_training_axis(launch, num_training, timeout),
        data=AxisGroup.single("data"),
        dap=AxisGroup.single("dap"),
        store=store,
    )
    ranks = torch.arange(num_training).view(-1, config.dap_size)
    dap_options = _dap_options(backend, timeout)
    mesh = DeviceMesh(
        device.type,
        ranks,
        mesh_dim_names=("data", "dap"),
        backend_override=None if dap_options is None else ((None, None), (None, dap_options)),
    )
    if context.role == TRAIN:
        context = replace(
            context, data=_axis(mesh, "data"), dap=_for_dap(_axis(mesh, "dap"), config)
        )
    return _with_evaluation_ranks(context, config, num_training, backend)


def count_training_ranks(config: ParallelConfig, num_ranks: int) -> int:
    """Of so many ranks; ValueError says how many to start if they cannot be split as the configuration says."""
    num_training = num_ranks - config.num_evaluation_ranks
    if num_training < 1 or num_training % config.dap_size:
        least = config.dap_size + config.num_evaluation_ranks
        raise ValueError(
            f"found {num_ranks} ranks; dap_size={config.dap_size} and num_evaluation_ranks={config.num_evaluation_ranks} want a multiple of "
            f"{config.dap_size} to train and {config.num_evaluation_ranks} to evaluate: start {least}, for instance by torchrun --nproc-per-node {least}"
        )
    return num_training


def _training_axis(launch: LaunchInfo, num_training: int, timeout: timedelta) -> AxisGroup:
    """All training ranks, seen from one of them. Every rank of the world calls this."""
    group = dist.group.WORLD
    if num_training != launch.world_size:
        group = dist.new_group(list(range(num_training)), timeout=timeout)
    if launch.rank >= num_training or num_training == 1:
        return AxisGroup.single("training")
    return AxisGroup(name="training", rank=launch.rank, size=num_training, process_group=group)


def _dap_options(backend: str, timeout: timedelta) -> dist.ProcessGroupNCCL.Options | None:
    """Options of a dap group: None for another backend than NCCL.

    Collectives of a dap group run at the same time as computation that fills the GPU. On a stream
    of high priority they get the next free multiprocessors, so the work that waits for them starts
    earlier.
    """
    if backend != "nccl":
        return None
    options = dist.ProcessGroupNCCL.Options(is_high_priority_stream=True)
    # DeviceMesh takes the timeout from here if it gets options.
    options._timeout = timeout
    return options


def _with_evaluation_ranks(
    context: ParallelContext, config: ParallelConfig, num_training: int, backend: str
) -> ParallelContext:
    """The context with its bridge, and on an evaluation rank with its group. Every rank of the world calls this."""
    if config.num_evaluation_ranks == 0:
        return context
    timeout = timedelta(seconds=config.timeout_seconds)
    size = config.num_evaluation_ranks // config.evaluation_groups
    rank = context.launch.rank
    firsts = tuple(range(num_training, context.launch.world_size, size))
    for number, first in enumerate(firsts):
        members = list(range(first, first + size))
        group = None
        if size > 1:
            # The group shares long chains as a dap group does.
            options = _dap_options(backend, timeout)
            group = dist.new_group(members, timeout=timeout, pg_options=options)
        if rank in members:
            training_ranks, dap = (
                AxisGroup(name=name, rank=rank - first, size=size, process_group=group)
                for name in ("training", "dap")
            )
            context = replace(
                context,
                training_ranks=training_ranks,
                dap=_for_dap(dap, config),
                evaluation_group=number,
            )
    over = dist.new_group([0, *firsts], backend="gloo", timeout=timeout)
    is_on_bridge = rank == 0 or rank in firsts
    return replace(
        context, bridge=Bridge(process_group=over if is_on_bridge else None, evaluators=firsts)
    )


def _for_dap(axis: AxisGroup, config: ParallelConfig) -> AxisGroup:
    return replace(axis, overlaps=config.overlap, num_chunks=config.dap_chunks)


def _axis(mesh: DeviceMesh, name: str) -> AxisGroup:
    size = mesh.size(mesh.mesh_dim_names.index(name))
    if size == 1:
        return AxisGroup.single(name)
    return AxisGroup(
        name=name, rank=mesh.get_local_rank(name), size=size, process_group=mesh.get_group(name)
    )
