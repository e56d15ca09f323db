"""From a RunConfig to a run that is ready to start: device, model, step, evaluator, weights."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from openfold_opt.kernels.cpu.library import unsupported_reason as no_library_because
from openfold_opt.kernels.interface import KernelSet
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import broadcast_object, check_same_everywhere, gather_objects
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.checkpoint import CheckpointStore
from openfold_opt.train.config import RunConfig, config_hash
from openfold_opt.train.evaluation import Evaluator
from openfold_opt.train.initial_weights import CHECKPOINT_FOLDER, INIT_WEIGHTS, initialize
from openfold_opt.train.memory_plan import plan_recomputation
from openfold_opt.train.precision import low_precision_names
from openfold_opt.train.run_state import Progress, RunIdentity, restore_run, share_state
from openfold_opt.train.seeds import derive_seed
from openfold_opt.train.step import StepConfig, TrainStep


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """Files and folders of a run."""

    output_dir: Path
    """Checkpoints go to its folder `checkpoints`; what lies there already is resumed from."""
    init_checkpoint: Path | None = None
    """A file of weights, or the output directory of a run; None starts from random weights."""
    init_weights: str = INIT_WEIGHTS[0]
    """Which weights of a run's checkpoint, one of INIT_WEIGHTS."""

    @property
    def checkpoint_dir(self) -> Path:
        return self.output_dir / CHECKPOINT_FOLDER


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """Where the weights of a run come from."""

    progress: Progress
    init_checkpoint_sha256: str | None
    resumed_from: Path | None


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """Everything that training needs, except data."""

    train_step: TrainStep
    evaluator: Evaluator
    store: CheckpointStore
    identity: RunIdentity
    progress: Progress
    stream_state: StreamState | None
    """What the steps so far have used of this rank's stream of samples; None: what they use in order."""
    init_checkpoint_sha256: str | None
    resumed_from: Path | None
    num_recomputed_blocks: int
    """Of the training plan."""


def resolve_device(name: str, *, local_rank: int) -> torch.device:
    """ "cpu", "cuda" (this rank's GPU) or "auto". Raises ValueError if a GPU is asked for and there is none."""
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and num_gpus == 0):
        return torch.device("cpu")
    if num_gpus == 0:
        raise ValueError(
            "this preset needs a GPU and PyTorch sees none; run it on a machine with one, or choose "
            "a preset for CPUs (demo, own_data, real_smoke)"
        )
    # srun may show every task its own GPU only
    return torch.device("cuda", local_rank % num_gpus)


def describe_device(device: torch.device) -> str:
    """Name for logs."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory so far: what PyTorch took of a GPU, where graphs keep theirs between replays, or this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    # Linux counts it in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build_model(config: RunConfig, *, seed: int, device: torch.device) -> AlphaFold:
    """The model with random weights that depend on the seed alone, in training mode."""
    return AlphaFold(config.model, seed=derive_seed(seed, "model")).to(device).train()


def _build_kernels(config: RunConfig, device: torch.device) -> KernelSet:
    shapes = config.model.kernel_shapes()
    return build_kernel_set(config.kernels, device, shapes, precision=config.precision)


def build_plans(
    config: RunConfig, context: ParallelContext, device: torch.device
) -> tuple[ExecutionPlan, ExecutionPlan]:
    """The execution plans of training and of evaluation."""
    kernels = _build_kernels(config, device)
    train = ExecutionPlan(
        kernels=kernels,
        dap=context.dap,
        num_recomputed_blocks=_agree_on_recomputation(config, context, device),
    )
    return train, replace(train, dap=AxisGroup.single("dap"), num_recomputed_blocks=0)


def build_evaluation_plan(config: RunConfig, device: torch.device) -> ExecutionPlan:
    """How one rank evaluates a chain."""
    kernels = _build_kernels(config, device)
    return ExecutionPlan(kernels=kernels, dap=AxisGroup.single("dap"))


def agree_on_kernels(
    config: RunConfig,
    context: ParallelContext,
    device: torch.device,
    *,
    warn: Callable[[str], None],
) -> RunConfig:
    """The same on all ranks: where "auto" would be kernels for a CPU, plain ones if any rank cannot have those, which is told."""
    if device.type != "cpu" or config.kernels == config.kernels.resolved(device):
        return config
    reasons = gather_objects(no_library_because(), context.world)
    lacking = [
        f"rank {rank} cannot have those for a CPU: {reason}"
        for rank, reason in enumerate(reasons)
        if reason is not None
    ]
    if lacking:
        warn(f"kernels: the plain ones, which are slower, on all ranks, as {lacking[0]}")
    return replace(
        config, kernels=config.kernels.instead_of_auto("reference" if lacking else "cpu")
    )


def _agree_on_recomputation(
    config: RunConfig, context: ParallelContext, device: torch.device
) -> int:
    """The most that any rank needs. ValueError on every rank if a step does not fit on one of them."""
    if config.recompute != "auto":
        return plan_recomputation(config, device)
    try:
        found: int | str = plan_recomputation(config, device)
    except ValueError as error:
        found = str(error)
    everyone = gather_objects(found, context.training_ranks)
    complaints = [answer for answer in everyone if isinstance(answer, str)]
    if complaints:
        raise ValueError(complaints[0])
    return max(everyone)


def build_train_step(
    config: RunConfig, model: AlphaFold, *, plan: ExecutionPlan, context: ParallelContext, seed: int
) -> TrainStep:
    """The step of a run; dropout has a seed of its own."""
    step_config = StepConfig(
        optimizer=config.optimizer,
        schedule=config.schedule,
        weight_average=config.weight_average,
        accumulation=config.accumulation,
        gradient_bucket_bytes=config.parallel.gradient_bucket_bytes,
        overlap=config.parallel.overlap,
    )
    dropout_seed = derive_seed(seed, "dropout") if config.use_dropout else None
    return TrainStep(
        model,
        loss=AlphaFoldLoss(config.loss),
        plan=plan,
        config=step_config,
        context=context,
        dropout_seed=dropout_seed,
        low_precision=low_precision_names(model, config.precision),
        without_gradient=names_without_gradient(model, config.loss),
    )


def names_without_gradient(model: AlphaFold, loss: LossConfig) -> tuple[str, ...]:
    """Parameters that the loss does not depend on: those of heads whose term has weight zero."""
    heads = [name for name, _ in model.auxiliary_heads.named_children()]
    unused_heads = [name for name in heads if getattr(loss, name).weight == 0.0]
    unused = tuple(f"auxiliary_heads.{name}." for name in unused_heads)
    return tuple(name for name, _ in model.named_parameters() if name.startswith(unused))


def prepare_run(
    config: RunConfig,
    context: ParallelContext,
    *,
    device: torch.device,
    paths: RunPaths,
    identity: RunIdentity,
    store: CheckpointStore,
    warn: Callable[[str], None],
    note: Callable[[str], None] = lambda line: None,
) -> PreparedRun:
    """Build the model, then resume, load initial weights, or keep the random ones.

    note: takes a line that says where initial weights come from.
    Only the first rank reads checkpoints; the others get its state, and all check that they agree.
    """
    train_plan, evaluation_plan = build_plans(config, context, device)
    model = build_model(config, seed=identity.seed, device=device)
    train_step = build_train_step(
        config, model, plan=train_plan, context=context, seed=identity.seed
    )
    loaded: LoadedWeights | ValueError | None = None
    if context.training_ranks.rank == 0:
        try:
            loaded = _load_weights(
                train_step,
                store,
                config=config,
                paths=paths,
                identity=identity,
                warn=warn,
                note=note,
            )
        except ValueError as error:
            # the others wait for an answer: they get the error, and every rank ends with it
            loaded = error
    loaded = broadcast_object(loaded, context.training_ranks)
    if isinstance(loaded, ValueError):
        raise loaded
    share_state(train_step, context.training_ranks)
    train_step.buffer.refresh_compute_copy()
    check_same_everywhere(train_step.buffer.values, context.training_ranks, what="initial weights")
    return PreparedRun(
        train_step=train_step,
        evaluator=Evaluator(
            model, train_step.weight_average.parameters(), plan=evaluation_plan, dap=context.dap
        ),
        store=store,
        identity=identity,
        progress=loaded.progress,
        stream_state=_stream_state(loaded.progress, config, context.data),
        init_checkpoint_sha256=loaded.init_checkpoint_sha256,
        resumed_from=loaded.resumed_from,
        num_recomputed_blocks=train_plan.num_recomputed_blocks,
    )


def _stream_state(progress: Progress, config: RunConfig, data: AxisGroup) -> StreamState | None:
    """This rank's part. ValueError where the streams of other ranks, or of other micro-batches, are not cut at one place."""
    if progress.is_in_order:
        return None
    states = progress.stream_states
    if (len(states), progress.accumulation) != (data.size, config.accumulation):
        raise ValueError(
            f"the checkpoint is of {len(states)} streams of samples, with {progress.accumulation} micro-batches a step, used out of order or "
            f"with samples left out; this run has {data.size} and {config.accumulation}: resume it as it was, or start anew in another "
            "output directory"
        )
    return states[data.rank]


def _load_weights(train_step, store, *, config, paths, identity, warn, note) -> LoadedWeights:
    """On the first rank: the newest checkpoint of this run, else the initial weights, else the random ones."""
    store.remove_temporaries()
    found = store.load_newest(warn=warn)
    if found is not None:
        snapshot, path = found
        progress = restore_run(train_step, snapshot, identity, path=path)
        return LoadedWeights(
            progress=progress,
            init_checkpoint_sha256=snapshot.facts["init_checkpoint_sha256"],
            resumed_from=path,
        )
    if paths.init_checkpoint is not None:
        sha256 = initialize(
            train_step,
            paths.init_checkpoint,
            which=paths.init_weights,
            expected_sha256=config.init_checkpoint_sha256,
            note=note,
        )
        return LoadedWeights(progress=Progress(), init_checkpoint_sha256=sha256, resumed_from=None)
    if config.init_checkpoint_sha256 is not None:
        raise ValueError(
            f"this preset starts from the checkpoint of SHA-256 {config.init_checkpoint_sha256}; "
            "give its file with --init-checkpoint"
        )
    return LoadedWeights(progress=Progress(), init_checkpoint_sha256=None, resumed_from=None)


def run_identity(
    config: RunConfig, context: ParallelContext, *, seed: int, data_checksum: str | None
) -> RunIdentity:
    """What resuming compares."""
    return RunIdentity(
        seed=seed,
        config_hash=config_hash(config),
        global_batch_size=context.data.size * config.local_batch_size * config.accumulation,
        data_checksum=data_checksum,
    )
