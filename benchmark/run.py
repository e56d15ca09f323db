"""`run`: one timed run of a preset. The command line says which and where, the preset says how."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.agreement import announce, listen
from benchmark.errors import BenchmarkError
from benchmark.launch import Submitter, read_submitter
from benchmark.mlperf_log import MLPerfObserver
from benchmark.output_directory import OutputDirectory
from benchmark.page_cache import clear_page_cache
from benchmark.presets import build_preset, preset_names
from benchmark.record import RunRecord
from benchmark.rules import preset_division
from benchmark.summary import SummaryObserver
from openfold_opt.loader.attempts import LoaderError
from openfold_opt.parallel.launch import LaunchInfo, read_launch_info
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.shard_format import INDEX_FILE_NAME
from openfold_opt.train.block import NonFiniteError
from openfold_opt.train.config import RunConfig, config_hash
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.loop import SUCCESS, SetupError, Trainer
from openfold_opt.train.observer import CompositeObserver, ConsoleObserver, RunObserver
from openfold_opt.train.setup import RunPaths, resolve_device

SEED_RANGE = 2**31
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A command line whose parts were found to be usable."""

    preset: str
    config: RunConfig
    data_dir: Path
    output_dir: Path
    init_checkpoint: Path | None
    seed: int | None
    submitter: Submitter


def add_parser(subparsers) -> None:
    """Declare the command line of `run`."""
    parser = subparsers.add_parser(
        "run",
        help="one timed run",
        description="Train a preset on converted data until lDDT-Ca reaches the target, and write the MLPerf log. "
        "An output directory left by a run that died is continued. Exit code: 0 target reached, 1 not reached or "
        "failed, 2 the run could not start.",
    )
    parser.add_argument("--preset", required=True, metavar="P", help=f"one of: {', '.join(preset_names())}")
    parser.add_argument("--data-dir", required=True, type=Path, metavar="D", help="made by `python -m data_prep convert`")
    parser.add_argument("--output-dir", required=True, type=Path, metavar="O", help="for logs and checkpoints")
    parser.add_argument("--init-checkpoint", type=Path, metavar="F", help="weights to start from (default: random)")
    parser.add_argument("--seed", type=int, metavar="S", help="default: drawn from the clock")


def run(args: argparse.Namespace) -> int:
    """The run, alike on every rank; returns the exit code."""
    try:
        launch = read_launch_info()
        request = check_request(args)
        resolve_device(request.config.device, local_rank=launch.local_rank)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    with termination_as_exception():
        try:
            if launch.rank == 0:
                return _first_rank(request, launch)
            timeout_seconds = request.config.parallel.timeout_seconds
            decision = listen(launch, lambda found: _clear(request, launch, found), timeout_seconds=timeout_seconds)
            if "refused" in decision:
                raise BenchmarkError(f"rank {launch.rank}: the first rank refused the run: {decision['refused']}")
            return _train(request, launch, seed=decision["seed"], observer=None)
        except Terminated:
            print("benchmark run: stopped by SIGTERM; the same command resumes from the newest checkpoint", file=sys.stderr)
            return TERMINATED_EXIT_CODE


def _clear(request: RunRequest, launch: LaunchInfo, decision: dict[str, Any]) -> bool:
    """Answer of a rank: whether its node's page cache was cleared, by the first rank of each node."""
    if "refused" in decision or launch.local_rank != 0:
        return True
    return clear_page_cache(data_files(request.data_dir))


def data_files(data_dir: Path) -> list[Path]:
    """The files of a data set, out of its index."""
    return [data_dir / INDEX_FILE_NAME, *(data_dir / shard.name for shard in ShardIndex.load(data_dir).shards)]


def check_request(args: argparse.Namespace) -> RunRequest:
    """Find out what can be found out before anything is written; BenchmarkError or ValueError says what is wrong."""
    config = build_preset(args.preset)
    if args.init_checkpoint is not None and not args.init_checkpoint.is_file():
        raise BenchmarkError(f"initial checkpoint {args.init_checkpoint} is not a file; correct --init-checkpoint")
    if args.seed is not None and not 0 <= args.seed < SEED_RANGE:
        raise BenchmarkError(f"seed {args.seed} is out of range; expected 0 to {SEED_RANGE - 1}")
    return RunRequest(
        preset=args.preset,
        config=config,
        data_dir=args.data_dir,
        output_dir=args.output_dir,
        init_checkpoint=args.init_checkpoint,
        seed=args.seed,
        submitter=read_submitter(),
    )


def _first_rank(request: RunRequest, launch: LaunchInfo) -> int:
    timeout_seconds = request.config.parallel.timeout_seconds
    try:
        directory = open_output_directory(request)
        # only now: a mistaken second start must not cool down the run that holds the directory
        cache_cleared = clear_page_cache(data_files(request.data_dir))
    except (BenchmarkError, ValueError, OSError) as error:
        announce(launch, {"refused": str(error)}, timeout_seconds=timeout_seconds)
        raise BenchmarkError(str(error)) from error
    try:
        answers = announce(launch, {"seed": directory.seed}, timeout_seconds=timeout_seconds)
        division = preset_division(request.config)
        log = MLPerfObserver(
            directory.log_path,
            submitter=request.submitter,
            division=division,
            cache_cleared=cache_cleared and all(answers),
            num_resumptions=directory.num_resumptions,
        )
        record = RunRecord(directory, preset=request.preset, division=division)
        summary = SummaryObserver(
            directory.path, target_lddt_ca=request.config.evaluation.target_lddt_ca, continued=directory.continued
        )
        console = ConsoleObserver(log_every_steps=request.config.log_every_steps)
        print(f"run: preset {request.preset} ({division} division), log {directory.log_path}", flush=True)
        observer = CompositeObserver(log, record, summary, console)
        try:
            return _train(request, launch, seed=directory.seed, observer=observer)
        finally:
            log.close()
    finally:
        directory.close()


def open_output_directory(request: RunRequest) -> OutputDirectory:
    """Take the output directory; the data set is known by the checksum of its index alone."""
    checkpoint = request.init_checkpoint
    identity = {
        "preset": request.preset,
        "config_hash": config_hash(request.config),
        "data_checksum": ShardIndex.load(request.data_dir).checksum,
        "init_checkpoint": None if checkpoint is None else str(checkpoint.resolve()),
    }
    clock_seed = time.time_ns() % SEED_RANGE
    return OutputDirectory(request.output_dir, identity=identity, seed=request.seed, new_seed=clock_seed)


def _train(request: RunRequest, launch: LaunchInfo, *, seed: int, observer: RunObserver | None) -> int:
    trainer = Trainer(
        request.config,
        data=ShardDataSource(request.data_dir, request.config),
        paths=RunPaths(output_dir=request.output_dir, init_checkpoint=request.init_checkpoint),
        seed=seed,
        observer=observer,
        launch=launch,
    )
    try:
        summary = trainer.run()
    except SetupError as error:
        raise BenchmarkError(str(error)) from error
    except (NonFiniteError, LoaderError, OSError) as error:
        print(f"benchmark run: stopped: {error}", file=sys.stderr)
        return 1
    return 0 if summary.status == SUCCESS else 1


class Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def termination_as_exception() -> Iterator[None]:
    """Lets SIGTERM end the run as an error does: the log is closed, workers end. Only the main thread can ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_terminated(number: int, frame: object) -> None:
    raise Terminated
