"""Build a run from its configuration: device, model, training step, evaluator and weights."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from openfold_opt.kernels.cpu.library import unsupported_reason as cpu_unsupported_reason
from openfold_opt.kernels.interface import KernelSet
from openfold_opt.kernels.select import build_kernel_set, resolve_auto
from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.compiled_parts import CompiledParts, check_compiled_parts
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.published_weights.run_directory import CHECKPOINT_FOLDER
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import broadcast_object, check_same_everywhere, gather_objects
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore, FoundCheckpoint
from openfold_opt.train.checkpoint.run_state import Progress, RunIdentity, restore_run, share_state
from openfold_opt.train.config import RunConfig
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.initial_weights import INIT_WEIGHTS, initialize
from openfold_opt.train.memory_plan import plan_recomputation
from openfold_opt.train.precision import low_precision_names
from openfold_opt.train.step import StepConfig, TrainStep


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """Files and folders of a run."""

    output_dir: Path
    """Its folder `checkpoints` gets the checkpoints; a run resumes from those already there."""
    init_checkpoint: Path | None = None
    """File of weights, or output directory of another run; None: start from random weights."""
    init_weights: str = INIT_WEIGHTS[0]
    """Weights to take from the checkpoint of a run: one of INIT_WEIGHTS."""

    @property
    def checkpoint_dir(self) -> Path:
        return self.output_dir / CHECKPOINT_FOLDER


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """Origin of the weights of a run."""

    progress: Progress
    init_checkpoint_sha256: str | None
    resumed_from: Path | None


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """Everything that training needs except the data."""

    train_step: TrainStep
    evaluator: Evaluator
    store: CheckpointStore
    identity: RunIdentity
    progress: Progress
    stream_state: StreamState | None
    """Part of this rank's sample stream that earlier steps used; None: `progress` determines it."""
    init_checkpoint_sha256: str | None
    resumed_from: Path | None
    num_recomputed_blocks: int
    """Of the ExecutionPlan of training."""


def resolve_device(name: str, *, local_rank: int) -> torch.device:
    """Return the device for "cpu", "cuda" (this rank's GPU) or "auto".

    Raises ValueError if a GPU is requested and PyTorch finds none.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and num_gpus == 0):
        return torch.device("cpu")
    if num_gpus == 0:
        raise ValueError(
            "this preset needs a GPU and PyTorch sees none; run it on a machine with one, or "
            "choose a preset for CPUs (demo, own_data, real_smoke)"
        )
    # With srun, a task may see only its own GPU, which then has the index 0.
    return torch.device("cuda", local_rank % num_gpus)


def describe_device(device: torch.device) -> str:
    """Return the name of the device for logs."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory of this process so far.

    On a GPU: the memory that PyTorch reserved, which includes the pools of CUDA graphs. On a CPU:
    the resident set.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    # Linux reports ru_maxrss in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def derive_seed(seed: int, purpose: str) -> int:
    """Return an independent seed for one purpose, 0 <= result < 2**31, from the seed of a run.

    It is the first 31 bits of the SHA-256 of both.
    """
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def build_model(config: RunConfig, *, seed: int, device: torch.device) -> AlphaFold:
    """Return the model in training mode, with random weights that depend only on the seed."""
    return AlphaFold(config.model, seed=derive_seed(seed, "model")).to(device).train()


def _build_kernels(config: RunConfig, device: torch.device) -> KernelSet:
    shapes = replace(config.model.kernel_shapes(), dap_size=config.parallel.dap_size)
    return build_kernel_set(config.kernels, device, shapes, precision=config.precision)


def build_plans(
    config: RunConfig, context: ParallelContext, device: torch.device
) -> tuple[ExecutionPlan, ExecutionPlan]:
    """Return the execution plans of training and of evaluation.

    Evaluation has no backward pass, and by default one rank evaluates a chain. It compiles no
    parts, because chains have many lengths and compiled code is for one length.
    """
    kernels = _build_kernels(config, device)
    check_compiled_parts(config.compiled_parts, resolve_auto(config.kernels, device), device)
    evaluation = ExecutionPlan(kernels=kernels, dap=AxisGroup.single("dap"))
    train = replace(
        evaluation,
        dap=context.dap,
        num_recomputed_blocks=_agree_on_recomputation(config, context, device),
        compiled_parts=CompiledParts(config.compiled_parts),
    )
    return train, evaluation


def check_plan(config: RunConfig, device: torch.device) -> None:
    """Raise ValueError if this rank cannot train with the kernels and sizes of a configuration.

    Compiles no kernel. The memory of recompute="auto" is planned as if the device were as empty as
    it is now.
    """
    _build_kernels(config, device)
    check_compiled_parts(config.compiled_parts, resolve_auto(config.kernels, device), device)
    plan_recomputation(config, device)


def build_evaluation_plan(config: RunConfig, device: torch.device) -> ExecutionPlan:
    """Return the plan with which one rank evaluates a chain."""
    kernels = _build_kernels(config, device)
    return ExecutionPlan(kernels=kernels, dap=AxisGroup.single("dap"))


def agree_on_kernels(
    config: RunConfig,
    context: ParallelContext,
    device: torch.device,
    *,
    warn: Callable[[str], None],
) -> RunConfig:
    """Return the configuration with the same kernels on all ranks.

    On CPUs, "auto" means the CPU kernels. If any rank cannot use them, all ranks use the reference
    kernels instead, and `warn` gets a line with the reason.
    """
    if device.type != "cpu" or config.kernels == resolve_auto(config.kernels, device):
        return config
    reasons = gather_objects(cpu_unsupported_reason(), context.training_ranks)
    unsupported = [
        f"rank {rank} cannot use the CPU kernels: {reason}"
        for rank, reason in enumerate(reasons)
        if reason is not None
    ]
    if unsupported:
        warn(f"all ranks use the reference kernels, which are slower: {unsupported[0]}")
    kernels = resolve_auto(config.kernels, device, has_cpu_kernels=not unsupported)
    return replace(config, kernels=kernels)


def _agree_on_recomputation(
    config: RunConfig, context: ParallelContext, device: torch.device
) -> int:
    """Return the largest number of recomputed blocks that any training rank needs.

    Raises ValueError on every rank if a step does not fit on one of them.
    """
    if config.recompute != "auto":
        return plan_recomputation(config, device)
    try:
        number_or_error: int | str = plan_recomputation(config, device)
    except ValueError as error:
        number_or_error = str(error)
    results = gather_objects(number_or_error, context.training_ranks)
    errors = [result for result in results if isinstance(result, str)]
    if errors:
        raise ValueError(errors[0])
    return max(result for result in results if isinstance(result, int))


def build_train_step(
    config: RunConfig, model: AlphaFold, *, plan: ExecutionPlan, context: ParallelContext, seed: int
) -> TrainStep:
    """Return the training step of a run. Dropout has its own seed, derived from `seed`."""
    step_config = StepConfig(
        optimizer=config.optimizer,
        weight_average=config.weight_average,
        accumulation=config.accumulation,
        gradient_bucket_bytes=config.parallel.gradient_bucket_bytes,
        overlap=config.parallel.overlap,
    )
    dropout_seed = derive_seed(seed, "dropout") if config.use_dropout else None
    return TrainStep(
        model,
        loss=plan.compiled("losses", AlphaFoldLoss(config.loss).__call__),
        plan=plan,
        config=step_config,
        context=context,
        dropout_seed=dropout_seed,
        low_precision=low_precision_names(model, config.precision),
        without_gradient=names_without_gradient(model, config.loss),
    )


def names_without_gradient(model: AlphaFold, loss: LossConfig) -> tuple[str, ...]:
    """Return the names of the parameters that the loss does not depend on.

    These are the parameters of the heads whose loss term, of the same name, has weight zero.
    """
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
    newest: FoundCheckpoint | None,
    note: Callable[[str], None] = lambda line: None,
) -> PreparedRun:
    """Build the model, then resume, load initial weights, or keep the random ones.

    newest: the checkpoint to resume from, on the first rank; None: a new run. note: receives a line
    about the origin of the initial weights. The other ranks receive the state of the first one, and
    all ranks check that they have the same weights.
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
                train_step, newest, config=config, paths=paths, identity=identity, note=note
            )
        except ValueError as error:
            # The other ranks wait for the result, so they get the error and raise it, too.
            loaded = error
    loaded = broadcast_object(loaded, context.training_ranks)
    if isinstance(loaded, ValueError):
        raise loaded
    assert loaded is not None
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
    """Return PreparedRun.stream_state: None if all streams were used in order.

    Raises ValueError if streams were not used in order and this run has another number of streams
    or of micro-batches per step than the checkpoint.
    """
    if progress.is_in_order:
        return None
    states = progress.stream_states
    if (len(states), progress.accumulation) != (data.size, config.accumulation):
        raise ValueError(
            f"the checkpoint has {len(states)} sample streams with {progress.accumulation} "
            "micro-batches per step, used out of order or with skipped samples; this run has "
            f"{data.size} and {config.accumulation}. Resume with the numbers of the checkpoint, or "
            "start a new run in another output directory"
        )
    return states[data.rank]


def _load_weights(
    train_step: TrainStep,
    newest: FoundCheckpoint | None,
    *,
    config: RunConfig,
    paths: RunPaths,
    identity: RunIdentity,
    note: Callable[[str], None],
) -> LoadedWeights:
    """Load the newest checkpoint of this run, else the initial weights, else keep the random ones.

    Only the first rank calls this.
    """
    if newest is not None:
        progress = restore_run(train_step, newest.snapshot, identity, path=newest.path)
        return LoadedWeights(
            progress=progress,
            init_checkpoint_sha256=newest.snapshot.facts["init_checkpoint_sha256"],
            resumed_from=newest.path,
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
            "this preset starts from the checkpoint with the SHA-256 "
            f"{config.init_checkpoint_sha256}; pass its file with --init-checkpoint"
        )
    if config.requires_init_checkpoint:
        raise ValueError(
            "this preset fine-tunes trained weights; pass a file of weights or the output "
            "directory of a run with --init-checkpoint, or train from random weights with "
            "--set requires_init_checkpoint=false"
        )
    return LoadedWeights(progress=Progress(), init_checkpoint_sha256=None, resumed_from=None)


def run_identity(
    config: RunConfig,
    context: ParallelContext,
    *,
    config_hash: str,
    seed: int,
    data_checksum: str | None,
) -> RunIdentity:
    """Return the values that a resumed run must share with the interrupted one.

    config: of the phase, with the accumulation of this run. config_hash: of the whole run.
    """
    return RunIdentity(
        seed=seed,
        config_hash=config_hash,
        global_batch_size=context.data.size * config.local_batch_size * config.accumulation,
        data_checksum=data_checksum,
    )
