"""`run`: one timed run of a preset."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import (
    BenchmarkError,
    add_data_dir_option,
    add_distillation_option,
)
from benchmark.mlperf.log import MLPerfObserver
from benchmark.mlperf.rules import division_of_run
from benchmark.mlperf.submitter import Submitter, read_submitter
from benchmark.presets import build_preset, fit_preset, preset_label, preset_names
from benchmark.run.failure import FULL_DISK_NUMBERS, describe_failure
from benchmark.run.handshake import Decision, broadcast_decision, receive_decision
from benchmark.run.next_steps import NextStepsObserver
from benchmark.run.output_directory import OutputDirectory, describe_restart
from benchmark.run.page_cache import clear_page_cache, data_files
from benchmark.run.run_clock import RunClock
from benchmark.run.run_record import RunRecord
from benchmark.run.settings import add_set_option, apply_settings
from benchmark.run.signals import Terminated, stopping_by_signal
from benchmark.run.summary import SummaryObserver
from openfold_opt.loader.retry_policy import LoaderError
from openfold_opt.parallel.heartbeat import LOST_RANK_EXIT_CODE, LostRankError
from openfold_opt.parallel.launch import LaunchInfo, read_launch_info
from openfold_opt.train.build_run import RunPaths, resolve_device
from openfold_opt.train.config import RunConfig, config_hash
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.distillation_set import check_distillation, data_checksum
from openfold_opt.train.errors import NonFiniteError, SetupError
from openfold_opt.train.global_batch import check_global_batch
from openfold_opt.train.initial_weights import INIT_WEIGHTS
from openfold_opt.train.observer import CompositeObserver, ConsoleObserver, RunObserver
from openfold_opt.train.preemption import PreemptedError, StopRequest
from openfold_opt.train.run_facts import source_digests
from openfold_opt.train.trainer import Trainer
from openfold_opt.train.training_loop import SUCCESS

SEED_RANGE = 2**31
PREEMPTED_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: a temporary failure."""


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


def add_parser(subparsers) -> None:
    """Declare the command line of `run`."""
    parser = subparsers.add_parser(
        "run",
        help="one timed run",
        description="Train a preset on converted data until lDDT-Ca reaches the target, and write "
        "the MLPerf log. An unfinished run in the output directory is continued. "
        "Ctrl-C, SIGTERM and SIGUSR1 (preemption) stop a run after its next step with a "
        "checkpoint. Exit code: 0 target reached, 1 target not reached or failed, 2 the run could "
        f"not start, {PREEMPTED_EXIT_CODE} stopped with a checkpoint, {LOST_RANK_EXIT_CODE} "
        "another rank was lost; after the last two the same command continues the run.",
    )
    names = ", ".join(preset_names())
    parser.add_argument(
        "--preset",
        required=True,
        metavar="P",
        help=f"path of a file that ends with .py, or one of: {names}",
    )
    add_set_option(parser)
    add_data_dir_option(parser)
    add_distillation_option(parser)
    parser.add_argument(
        "--output-dir",
        required=True,
        type=Path,
        metavar="O",
        help="directory for logs and checkpoints",
    )
    parser.add_argument(
        "--init-checkpoint",
        type=Path,
        metavar="F",
        help="weights to start from: the output directory of a run, or a file of MLCommons, "
        "AlphaFold, OpenFold or safetensors (default: random)",
    )
    parser.add_argument(
        "--init-weights",
        choices=INIT_WEIGHTS,
        default=INIT_WEIGHTS[0],
        help="which weights of a run's checkpoint: the running average, or the trained ones "
        f"(default: {INIT_WEIGHTS[0]})",
    )
    parser.add_argument(
        "--seed", type=int, metavar="S", help="seed of the run (default: from the clock)"
    )


def run(args: argparse.Namespace) -> int:
    """Execute the run; called on every rank. Return the exit code."""
    try:
        launch = read_launch_info()
        request = check_request(args)
        fitted = check_global_batch(request.config, launch.world_size)
        _refuse_other_accumulation(request, fitted)
        resolve_device(request.config.device, local_rank=launch.local_rank)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    stop_request = StopRequest()
    with stopping_by_signal(stop_request):
        try:
            if launch.rank == 0:
                return _run_rank_0(request, launch, stop_request)
            timeout_seconds = request.config.parallel.timeout_seconds
            decision = receive_decision(
                launch,
                lambda decision: _clear_cache_of_node(request, launch, decision),
                timeout_seconds=timeout_seconds,
            )
            if decision.refusal is not None:
                raise BenchmarkError(
                    f"rank {launch.rank}: the first rank refused the run: {decision.refusal}"
                )
            return _train(
                request, launch, seed=decision.seed, observer=None, stop_request=stop_request
            )
        except Terminated as end:
            print(
                f"benchmark run: stopped by a signal; {describe_restart(request.output_dir)}",
                file=sys.stderr,
            )
            return end.exit_code


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


def _clear_cache_of_node(request: RunRequest, launch: LaunchInfo, decision: Decision) -> bool:
    """Clear the page cache if this is the first rank of a node. Return False if that fails."""
    if decision.refusal is not None or launch.local_rank != 0:
        return True
    try:
        return clear_page_cache(_all_data_files(request))
    except (ValueError, OSError):
        # The data cannot be read on this rank. The trainer detects this before the clock starts and
        # ends all ranks with the reason.
        return False


def _all_data_files(request: RunRequest) -> list[Path]:
    """Return the files of the data set and of the distillation set."""
    files = data_files(request.data_dir)
    return (
        files if request.distillation_dir is None else files + data_files(request.distillation_dir)
    )


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
    )


def _run_rank_0(request: RunRequest, launch: LaunchInfo, stop_request: StopRequest) -> int:
    timeout_seconds = request.config.parallel.timeout_seconds
    try:
        directory = open_output_directory(request)
        cache_cleared = _clear_cache_of_rank_0(directory, request)
    except (BenchmarkError, ValueError, OSError) as error:
        message = str(error) + _advice(error)
        broadcast_decision(launch, Decision(refusal=message), timeout_seconds=timeout_seconds)
        raise BenchmarkError(message) from error
    clock = RunClock()
    division = division_of_run(request.config, request.settings)
    record = RunRecord(
        directory, preset=request.preset, settings=request.settings, division=division, clock=clock
    )
    try:
        answers = broadcast_decision(
            launch, Decision(seed=directory.seed), timeout_seconds=timeout_seconds
        )
        log = MLPerfObserver(
            directory.log_path,
            submitter=request.submitter,
            division=division,
            cache_cleared=cache_cleared and all(answers),
            num_resumptions=directory.num_resumptions,
            clock=clock,
            settings=request.settings,
        )
        summary = SummaryObserver(
            directory.path,
            target_lddt_ca=request.config.evaluation.target_lddt_ca,
            continued=directory.continued,
        )
        console = ConsoleObserver(log_every_steps=request.config.log_every_steps)
        changed = f", set {' '.join(request.settings)}" if request.settings else ""
        print(
            f"run: preset {request.preset}{changed} ({division} division), "
            f"log {directory.log_path}",
            flush=True,
        )
        if request.distillation_dir is not None:
            probability = request.config.selection.distillation_probability
            print(f"distillation set {request.distillation_dir}: {probability:.0%} of the samples")
        next_steps = NextStepsObserver(directory.path, directory.log_path)
        observer = CompositeObserver(log, record, summary, console, next_steps)
        try:
            return _train(
                request, launch, seed=directory.seed, observer=observer, stop_request=stop_request
            )
        finally:
            log.close()
    except BaseException as error:
        # Record errors outside of the trainer, which reports its own failures to the observers.
        # RunRecord ignores a second error. CompositeObserver handles a failure of RunRecord itself.
        CompositeObserver(record).run_failed(error)
        if not isinstance(error, OSError):
            raise
        return _report_stop(error)
    finally:
        directory.close()


def _clear_cache_of_rank_0(directory: OutputDirectory, request: RunRequest) -> bool:
    """Clear the page cache of this node, and record an error in run.json.

    The directory is already locked, so a second start by accident cannot clear the cache of the
    run that uses it.
    """
    try:
        return clear_page_cache(_all_data_files(request))
    except BaseException as error:
        directory.mark_failed(describe_failure(error, step=None))
        directory.close()
        raise


def open_output_directory(request: RunRequest) -> OutputDirectory:
    """Lock the output directory. Data sets are identified by the checksums of their indexes."""
    checkpoint = request.init_checkpoint
    identity = {
        "preset": request.preset,
        "config_hash": config_hash(request.config),
        "data_checksum": data_checksum(request.data_dir, request.distillation_dir),
        "init_checkpoint": None if checkpoint is None else str(checkpoint.resolve()),
        "init_weights": request.init_weights,
    }
    clock_seed = time.time_ns() % SEED_RANGE
    return OutputDirectory(
        request.output_dir,
        identity=identity,
        seed=request.seed,
        new_seed=clock_seed,
        command=continuing_command(request),
    )


def continuing_command(request: RunRequest) -> str:
    """Return the command line that continues a run, from any working directory."""
    words = ["python", "-m", "benchmark", "run", "--preset", request.preset]
    words += [word for setting in request.settings for word in ("--set", setting)]
    words += ["--data-dir", str(request.data_dir.resolve())]
    if request.distillation_dir is not None:
        words += ["--distillation-data-dir", str(request.distillation_dir.resolve())]
    words += ["--output-dir", str(request.output_dir.resolve())]
    if request.init_checkpoint is not None:
        words += ["--init-checkpoint", str(request.init_checkpoint.resolve())]
        words += ["--init-weights", request.init_weights]
    return shlex.join(words)


def _data_source(request: RunRequest) -> ShardDataSource:
    if request.distillation_dir is None:
        return ShardDataSource(request.data_dir)
    return ShardDataSource(request.data_dir, request.distillation_dir)


def _train(
    request: RunRequest,
    launch: LaunchInfo,
    *,
    seed: int,
    observer: RunObserver | None,
    stop_request: StopRequest,
) -> int:
    trainer = Trainer(
        request.config,
        data=_data_source(request),
        paths=RunPaths(
            output_dir=request.output_dir,
            init_checkpoint=request.init_checkpoint,
            init_weights=request.init_weights,
        ),
        seed=seed,
        observer=observer,
        launch=launch,
        stop_request=stop_request,
        facts={"the preset": request.preset} | source_digests("benchmark"),
    )
    try:
        summary = trainer.run()
    except SetupError as error:
        raise BenchmarkError(str(error)) from error
    except PreemptedError as error:
        print(f"benchmark run: {error}", file=sys.stderr)
        return PREEMPTED_EXIT_CODE
    except LostRankError as error:
        print(
            f"benchmark run: {error}; {describe_restart(request.output_dir)}",
            file=sys.stderr,
        )
        return LOST_RANK_EXIT_CODE
    except (NonFiniteError, LoaderError, OSError) as error:
        return _report_stop(error)
    # A rank that only evaluates has no summary.
    return 0 if summary is None or summary.status == SUCCESS else 1


def _report_stop(error: Exception) -> int:
    """Print why the run ended. Return the exit code."""
    print(f"benchmark run: stopped: {error}{_advice(error)}", file=sys.stderr)
    return 1


def _advice(error: Exception) -> str:
    """Return advice on an error of the operating system, or an empty text."""
    is_full = isinstance(error, OSError) and error.errno in FULL_DISK_NUMBERS
    return "; free some space, then start the same command again" if is_full else ""
