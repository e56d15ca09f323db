"""`run`: one timed run of a preset."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmark.command_line import (
    BenchmarkError,
    add_data_dir_option,
    add_distillation_option,
)
from benchmark.mlperf.log import MLPerfObserver
from benchmark.mlperf.rules import division_of_run
from benchmark.presets import preset_names
from benchmark.run.failure import FULL_DISK_NUMBERS, describe_failure
from benchmark.run.handshake import Decision, broadcast_decision, receive_decision
from benchmark.run.next_steps import NextStepsObserver
from benchmark.run.output_directory import OutputDirectory, describe_restart
from benchmark.run.page_cache import clear_page_cache, data_files
from benchmark.run.request import (
    SEED_RANGE,
    RunRequest,
    check_ranks,
    check_request,
    continuing_command,
    final_score,
    is_phase_complete,
)
from benchmark.run.run_clock import RunClock
from benchmark.run.run_record import RunRecord
from benchmark.run.settings import add_set_option
from benchmark.run.signals import Terminated, stopping_by_signal
from benchmark.run.summary import SummaryObserver
from benchmark.run.tensorboard import TensorBoardObserver, check_tensorboard
from openfold_opt.loader.retry_policy import LoaderError
from openfold_opt.parallel.heartbeat import LOST_RANK_EXIT_CODE, LostRankError
from openfold_opt.parallel.launch import LaunchInfo, read_launch_info
from openfold_opt.train.build_run import RunPaths, resolve_device
from openfold_opt.train.config import config_hash
from openfold_opt.train.console_observer import ConsoleObserver
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.distillation_set import data_checksum
from openfold_opt.train.errors import NonFiniteError, PhaseConditionError, SetupError
from openfold_opt.train.initial_weights import INIT_WEIGHTS
from openfold_opt.train.observer import CompositeObserver, RunObserver
from openfold_opt.train.phase_goal import PHASE_COMPLETE, SUCCESS
from openfold_opt.train.preemption import PreemptedError, StopRequest
from openfold_opt.train.run_facts import source_digests
from openfold_opt.train.trainer import Trainer

PREEMPTED_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: a temporary failure."""


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
    parser.add_argument(
        "--phase",
        metavar="NAME",
        help="of a preset with several phases, train only this one, by its name or number; the "
        "next one may then run on other ranks (default: all phases that are not complete)",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write event files for TensorBoard in the folder tensorboard of the output directory; "
        "needs the extra tensorboard",
    )


def run(args: argparse.Namespace) -> int:
    """Execute the run; called on every rank. Return the exit code."""
    try:
        launch = read_launch_info()
        request = check_request(args)
        check_ranks(request, launch.world_size)
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
            if decision.is_complete:
                return 0
            return _train(
                request, launch, seed=decision.seed, observer=None, stop_request=stop_request
            )
        except Terminated as end:
            print(
                f"benchmark run: stopped by a signal; {describe_restart(request.output_dir)}",
                file=sys.stderr,
            )
            return end.exit_code


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


def _run_rank_0(request: RunRequest, launch: LaunchInfo, stop_request: StopRequest) -> int:
    timeout_seconds = request.config.parallel.timeout_seconds
    try:
        identity = identity_of(request)
        if is_phase_complete(request, identity):
            print(f"run: phase {request.phase} is complete in {request.output_dir}", flush=True)
            broadcast_decision(launch, Decision(is_complete=True), timeout_seconds=timeout_seconds)
            return 0
        if request.tensorboard:
            check_tensorboard()
        directory = open_output_directory(request, identity)
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
        changed = f", set {' '.join(request.settings)}" if request.settings else ""
        print(
            f"run: preset {request.preset}{changed} ({division} division), "
            f"log {directory.log_path}",
            flush=True,
        )
        if request.distillation_dir is not None:
            probability = request.config.selection.distillation_probability
            print(f"distillation set {request.distillation_dir}: {probability:.0%} of the samples")
        observer = CompositeObserver(log, record, *_observers(request, directory))
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


def _observers(request: RunRequest, directory: OutputDirectory) -> list[RunObserver]:
    """Return the observers that follow the log and the record of a run, in their order."""
    observers: list[RunObserver] = [
        SummaryObserver(
            directory.path,
            target_lddt_ca=final_score(request.config),
            continued=directory.continued,
        )
    ]
    if request.tensorboard:
        observers.append(TensorBoardObserver(directory.path, continued=directory.continued))
    observers.append(ConsoleObserver(log_every_steps=request.config.log_every_steps))
    # It lists the files that the others have written.
    observers.append(NextStepsObserver(directory.path, directory.log_path))
    return observers


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


def identity_of(request: RunRequest) -> dict[str, str | None]:
    """Return the values that must not change when the run is resumed.

    Data sets are identified by the checksums of their indexes.
    """
    checkpoint = request.init_checkpoint
    return {
        "preset": request.preset,
        "config_hash": config_hash(request.config),
        "data_checksum": data_checksum(request.data_dir, request.distillation_dir),
        "init_checkpoint": None if checkpoint is None else str(checkpoint.resolve()),
        "init_weights": request.init_weights,
    }


def open_output_directory(
    request: RunRequest, identity: Mapping[str, str | None]
) -> OutputDirectory:
    """Lock the output directory of a run with this identity."""
    clock_seed = time.time_ns() % SEED_RANGE
    return OutputDirectory(
        request.output_dir,
        identity=identity,
        seed=request.seed,
        new_seed=clock_seed,
        command=continuing_command(request),
    )


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
        facts={"the preset": request.preset, "--phase": str(request.phase)}
        | source_digests("benchmark"),
        phase=request.phase,
    )
    try:
        summary = trainer.run()
    except SetupError as error:
        raise BenchmarkError(str(error)) from error
    except PreemptedError:
        # Every rank raises it. The observers of the first rank have printed it.
        return PREEMPTED_EXIT_CODE
    except LostRankError as error:
        print(
            f"benchmark run: {error}; {describe_restart(request.output_dir)}",
            file=sys.stderr,
        )
        return LOST_RANK_EXIT_CODE
    except (NonFiniteError, PhaseConditionError, LoaderError, OSError) as error:
        return _report_stop(error)
    # A rank that only evaluates has no summary.
    return 0 if summary is None or summary.status in (SUCCESS, PHASE_COMPLETE) else 1


def _report_stop(error: Exception) -> int:
    """Print why the run ended. Return the exit code."""
    print(f"benchmark run: stopped: {error}{_advice(error)}", file=sys.stderr)
    return 1


def _advice(error: Exception) -> str:
    """Return advice on an error of the operating system, or an empty text."""
    is_full = isinstance(error, OSError) and error.errno in FULL_DISK_NUMBERS
    return "; free some space, then start the same command again" if is_full else ""
