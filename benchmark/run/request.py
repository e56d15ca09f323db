"""The checked options of `run`, and what follows from them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.mlperf.submitter import Submitter, read_submitter
from benchmark.presets import build_preset, fit_preset, preset_label
from benchmark.run.completed_phases import completed_phases
from benchmark.run.phase_record import PlannedPhase
from benchmark.run.settings import apply_settings
from benchmark.run.state_file import read_state
from openfold_opt.train.config import RunConfig
from openfold_opt.train.distillation_set import check_distillation
from openfold_opt.train.global_batch import check_global_batch, check_phase_ranks
from openfold_opt.train.phases import find_phase, phases_of

SEED_RANGE = 2**31


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The checked options of a command line."""

    preset: str
    """Name of the preset, or the absolute path of a file outside the package."""
    settings: tuple[str, ...]
    """FIELD=VALUE of each `--set`; `config` already has these values."""
    config: RunConfig
    data_dir: Path
    distillation_dir: Path | None
    """Shards of the distillation set, if there is one."""
    output_dir: Path
    init_checkpoint: Path | None
    init_weights: str
    """One of INIT_WEIGHTS; used only if init_checkpoint is a run."""
    seed: int | None
    """None means the seed of the run that is continued, or a seed from the clock."""
    submitter: Submitter
    phase: str | None
    """Name of the only phase to train; None: all that are not complete."""
    tensorboard: bool = False
    """Whether to write event files for TensorBoard."""


def check_request(args: argparse.Namespace) -> RunRequest:
    """Check the command line before anything is written.

    Raises BenchmarkError or ValueError for a wrong argument.
    """
    config = fit_preset(args.preset, build_preset(args.preset), args.data_dir)
    config = apply_settings(config, args.settings)
    check_distillation(config.selection, args.distillation_data_dir)
    if args.init_checkpoint is not None and not args.init_checkpoint.exists():
        raise BenchmarkError(
            f"initial checkpoint {args.init_checkpoint} is not a file, nor the output directory of "
            "a run; correct --init-checkpoint"
        )
    if args.phase is not None and not config.phases:
        raise BenchmarkError(
            f"--phase {args.phase}: preset {args.preset} has no phases; remove the option"
        )
    if args.seed is not None and not 0 <= args.seed < SEED_RANGE:
        raise BenchmarkError(f"seed {args.seed} is out of range; expected 0 to {SEED_RANGE - 1}")
    return RunRequest(
        preset=preset_label(args.preset),
        settings=tuple(args.settings),
        config=config,
        data_dir=args.data_dir,
        distillation_dir=args.distillation_data_dir,
        output_dir=args.output_dir,
        init_checkpoint=args.init_checkpoint,
        init_weights=args.init_weights,
        seed=args.seed,
        submitter=read_submitter(),
        phase=None if args.phase is None else find_phase(config, args.phase).name,
        tensorboard=args.tensorboard,
    )


def check_ranks(request: RunRequest, num_ranks: int) -> None:
    """Raise ValueError if the ranks do not fit the phases that this process trains."""
    if request.config.phases:
        phases = phases_of(request.config)
        completed = completed_phases(request.output_dir, phases, verify=False)
        remaining = [
            phase
            for phase in phases
            if request.phase in (None, phase.name) and phase.name not in completed
        ]
        check_phase_ranks(remaining, num_ranks)
    else:
        _refuse_other_accumulation(request, check_global_batch(request.config, num_ranks))


def _refuse_other_accumulation(request: RunRequest, fitted: RunConfig) -> None:
    """Raises BenchmarkError if `--set` gives an accumulation that contradicts the global batch.

    fitted: the configuration with the accumulation for the ranks of this run.
    """
    is_set = any(setting.startswith("accumulation=") for setting in request.settings)
    if is_set and fitted.accumulation != request.config.accumulation:
        raise BenchmarkError(
            f"--set accumulation={request.config.accumulation}: it follows from "
            f"global_batch_size={fitted.global_batch_size} and the ranks, and is "
            f"{fitted.accumulation}; set global_batch_size instead"
        )


def is_phase_complete(request: RunRequest, identity: Mapping[str, str | None]) -> bool:
    """Return whether an earlier process of this run has completed the requested phase.

    identity: values that the earlier process must share. If it does not, the answer is False, and
    the run is refused when its output directory is opened.
    """
    state = read_state(request.output_dir) if request.output_dir.is_dir() else None
    if request.phase is None or state is None or dict(state.identity) != dict(identity):
        return False
    if request.seed not in (None, state.seed):
        return False
    phases = phases_of(request.config)
    # Descriptions first: the tensors of a checkpoint are read only if the phase seems complete.
    return all(
        request.phase in completed_phases(request.output_dir, phases, verify=verify)
        for verify in (False, True)
    )


def final_score(config: RunConfig) -> float:
    """Return the lDDT-Ca that a run should reach at its end."""
    last = PlannedPhase.from_json(vars(phases_of(config)[-1].settings))
    return last.final_lddt_ca or config.evaluation.target_lddt_ca


def continuing_command(request: RunRequest) -> str:
    """Return the command line that continues a run, from any working directory."""
    words = ["python", "-m", "benchmark", "run", "--preset", request.preset]
    words += [word for setting in request.settings for word in ("--set", setting)]
    words += ["--data-dir", str(request.data_dir.resolve())]
    if request.distillation_dir is not None:
        words += ["--distillation-data-dir", str(request.distillation_dir.resolve())]
    words += ["--output-dir", str(request.output_dir.resolve())]
    if request.phase is not None:
        words += ["--phase", request.phase]
    if request.init_checkpoint is not None:
        words += ["--init-checkpoint", str(request.init_checkpoint.resolve())]
        words += ["--init-weights", request.init_weights]
    if request.tensorboard:
        words.append("--tensorboard")
    return shlex.join(words)
