"""Process groups of a run, built once at the start."""

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
    """Distribution of the work over the ranks."""

    category: ClassVar[str] = "implementation"

    dap_size: int = 1
    """Number of ranks that share one sample (Dynamic Axial Parallelism)."""
    overlap: bool = True
    """Overlap collectives with computation; False disables it, for measurements."""
    dap_chunks: int = 2
    """Number of chunks, or of groups of templates, into which the work of a DAP group is split. The
    transfer of one chunk overlaps with work on the next; 1 disables chunking."""
    dap_min_chunk_bytes: int = 10**6
    """Fewest bytes that a rank sends in the transfer of a chunk. A tensor has fewer chunks if they
    would be smaller; 0 always makes dap_chunks chunks."""
    num_evaluation_ranks: int = 0
    """Number of ranks, the last ones, that only evaluate while the others train. With 0, all ranks
    train and pause training to evaluate."""
    evaluation_groups: int = 1
    """Number of groups of evaluation ranks; snapshots are assigned to the groups round-robin."""
    evaluation_queue: int = 4
    """Maximum number of snapshots in the queue or under evaluation; beyond it, training waits."""
    evaluation_dap_min_length: int | None = None
    """Minimum number of residues of a chain that the ranks of a DAP or evaluation group evaluate
    together; None evaluates every chain on one rank."""
    backend: str | None = None
    """torch.distributed backend; None selects nccl for GPUs and gloo for CPUs."""
    gradient_bucket_bytes: int = 64 * 2**20
    """Size of a gradient bucket. A bucket is all-reduced when the backward pass has filled it."""
    timeout_seconds: int = 1800
    """Time without progress of a rank, in a collective or elsewhere, after which the run ends."""
    heartbeat_seconds: float = 20.0
    """Time without a heartbeat after which a rank is lost and the run ends; 0 disables it."""

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
            or self.dap_min_chunk_bytes < 0
            or self.heartbeat_seconds < 0
        ):
            raise ValueError(f"expected positive sizes, queue length and timeouts; found {self}")
        if self.num_evaluation_ranks % self.evaluation_groups:
            raise ValueError(
                f"cannot split {self.num_evaluation_ranks} evaluation ranks into "
                f"{self.evaluation_groups} groups of equal size; change num_evaluation_ranks or "
                "evaluation_groups"
            )


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """Connection between training and evaluation ranks.

    It consists of the first training rank and the first rank of each evaluation group.
    """

    process_group: dist.ProcessGroup | None
    """Always gloo: weights are sent through host memory, overlapping with training. None on ranks
    that are not part of it."""
    evaluators: tuple[int, ...]
    """World rank of the first rank of each evaluation group."""


@dataclass(frozen=True, kw_only=True)
class ParallelContext:
    """All process axes of a run, seen from this process."""

    launch: LaunchInfo
    role: str
    """TRAIN or EVALUATE."""
    world: AxisGroup
    """All ranks."""
    training_ranks: AxisGroup
    """The ranks that work on the same weights at the same time: all training ranks, or on an
    evaluation rank its evaluation group."""
    data: AxisGroup
    """Training ranks with different samples."""
    dap: AxisGroup
    """Training ranks that share a sample; on an evaluation rank its group, for long chains."""
    bridge: Bridge | None = None
    """None if the training ranks evaluate."""
    evaluation_group: int = 0
    """Index of the evaluation group of this rank."""
    store: dist.Store | None = None
    """Key-value store for messages outside collectives; None for a single process."""

    @classmethod
    def alone(cls) -> ParallelContext:
        """Return the context of a single process."""
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
        """Destroy the process groups; a second call does nothing."""
        if self.world.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def build_parallel_context(
    config: ParallelConfig,
    launch: LaunchInfo,
    *,
    device: torch.device,
    store: dist.Store | None = None,
) -> ParallelContext:
    """Connect to the other ranks and build the ("data", "dap") mesh of the training ranks.

    Consecutive ranks form a DAP group. All ranks must call this function.

    Args:
        config: the split of the ranks.
        launch: rank and world size of this process.
        device: the device of this rank.
        store: a store to which all ranks are connected already; None opens it.

    Raises:
        ValueError: the number of ranks does not fit the configuration.
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
        # With a device id, NCCL connects now and uses this GPU. Otherwise it would connect at the
        # first collective and guess the GPU.
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
    mesh = _training_mesh(config, num_training, backend, device)
    if context.role == TRAIN:
        context = replace(
            context, data=_axis(mesh, "data"), dap=_for_dap(_axis(mesh, "dap"), config)
        )
    return _with_evaluation_ranks(context, config, num_training, backend)


def count_training_ranks(config: ParallelConfig, num_ranks: int) -> int:
    """Return how many of num_ranks ranks train.

    Raises:
        ValueError: the number of ranks does not fit the configuration; says how many to start.
    """
    num_training = num_ranks - config.num_evaluation_ranks
    if num_training < 1 or num_training % config.dap_size:
        minimum = config.dap_size + config.num_evaluation_ranks
        raise ValueError(
            f"found {num_ranks} ranks; dap_size={config.dap_size} and "
            f"num_evaluation_ranks={config.num_evaluation_ranks} require a multiple of "
            f"{config.dap_size} training ranks and {config.num_evaluation_ranks} evaluation ranks: "
            f"start {minimum}, for instance by torchrun --nproc-per-node {minimum}"
        )
    return num_training


def _training_axis(launch: LaunchInfo, num_training: int, timeout: timedelta) -> AxisGroup:
    """Return the axis of all training ranks; an evaluation rank gets a single axis.

    All ranks of the world must call this function.
    """
    group = dist.group.WORLD
    if num_training != launch.world_size:
        group = dist.new_group(list(range(num_training)), timeout=timeout)
    if launch.rank >= num_training or num_training == 1:
        return AxisGroup.single("training")
    return AxisGroup(name="training", rank=launch.rank, size=num_training, process_group=group)


def _training_mesh(
    config: ParallelConfig, num_training: int, backend: str, device: torch.device
) -> DeviceMesh:
    """Build the ("data", "dap") mesh. All ranks of the world must call this function."""
    dap_options = _dap_options(backend, timedelta(seconds=config.timeout_seconds))
    return DeviceMesh(
        device.type,
        torch.arange(num_training).view(-1, config.dap_size),
        mesh_dim_names=("data", "dap"),
        backend_override=None if dap_options is None else ((None, None), (None, dap_options)),
    )


def _dap_options(backend: str, timeout: timedelta) -> dist.ProcessGroupNCCL.Options | None:
    """Return the options of a DAP group: None unless the backend is NCCL.

    Collectives of a DAP group run concurrently with computation that fills the GPU. On a
    high-priority stream they get the next free multiprocessors, so that work that depends on them
    starts earlier.
    """
    if backend != "nccl":
        return None
    options = dist.ProcessGroupNCCL.Options(is_high_priority_stream=True)
    # DeviceMesh reads the timeout from the options if there are any.
    options._timeout = timeout
    return options


def _with_evaluation_ranks(
    context: ParallelContext, config: ParallelConfig, num_training: int, backend: str
) -> ParallelContext:
    """Add the bridge, and on an evaluation rank its evaluation group.

    All ranks of the world must call this function.
    """
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
            # The ranks of the group share long chains like a DAP group.
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
    bridge_group = dist.new_group([0, *firsts], backend="gloo", timeout=timeout)
    is_on_bridge = rank == 0 or rank in firsts
    return replace(
        context,
        bridge=Bridge(process_group=bridge_group if is_on_bridge else None, evaluators=firsts),
    )


def counted_axis(config: ParallelConfig, *, size: int) -> AxisGroup:
    """Return the DAP axis of a run without its processes, for tensors on device "meta"."""
    axis = AxisGroup.single("dap") if size == 1 else AxisGroup.fake("dap", size=size)
    return _for_dap(axis, config)


def _for_dap(axis: AxisGroup, config: ParallelConfig) -> AxisGroup:
    return replace(
        axis,
        overlaps=config.overlap,
        num_chunks=config.dap_chunks,
        min_chunk_bytes=config.dap_min_chunk_bytes,
    )


def _axis(mesh: DeviceMesh, name: str) -> AxisGroup:
    size = mesh.size(mesh.mesh_dim_names.index(name))
    if size == 1:
        return AxisGroup.single(name)
    return AxisGroup(
        name=name, rank=mesh.get_local_rank(name), size=size, process_group=mesh.get_group(name)
    )
