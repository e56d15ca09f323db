"""`run`: one timed run of a preset. The command line says which and where, the preset says how."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmark.agreement import announce, listen
from benchmark.errors import BenchmarkError
from benchmark.launch import read_submitter
from benchmark.mlperf_log import MLPerfObserver
from benchmark.output_directory import OutputDirectory
from benchmark.page_cache import clear_page_cache
from benchmark.presets import build_preset, preset_names
from benchmark.record import RunRecord
from benchmark.rules import preset_division
from benchmark.summary import SummaryObserver
from openfold_opt.loader.workers import LoaderError
from openfold_opt.parallel.launch import LaunchInfo, read_launch_info
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.block import NonFiniteError
from openfold_opt.train.config import RunConfig, config_hash
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.loop import SUCCESS, Trainer
from openfold_opt.train.observer import CompositeObserver, ConsoleObserver, RunObserver
from openfold_opt.train.setup import RunPaths, resolve_device

SEED_RANGE = 2**31


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A command line whose parts were found to be usable."""

    preset: str
    config: RunConfig
    data_dir: Path
    output_dir: Path
    init_checkpoint: Path | None
    seed: int | None


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
        if launch.local_rank == 0:
            cache_cleared = clear_page_cache(request.data_dir)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    if launch.rank == 0:
        return _first_rank(request, launch, cache_cleared=cache_cleared)
    decision = listen(launch, timeout_seconds=request.config.parallel.timeout_seconds)
    if "refused" in decision:
        raise BenchmarkError(f"rank {launch.rank}: the first rank refused the run")
    return _train(request, launch, seed=decision["seed"], observer=None, record=None)


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
    )


def _first_rank(request: RunRequest, launch: LaunchInfo, *, cache_cleared: bool) -> int:
    timeout_seconds = request.config.parallel.timeout_seconds
    try:
        directory = open_output_directory(request)
    except (BenchmarkError, ValueError) as error:
        announce(launch, {"refused": True}, timeout_seconds=timeout_seconds)
        raise BenchmarkError(str(error)) from error
    try:
        announce(launch, {"seed": directory.seed}, timeout_seconds=timeout_seconds)
        division = preset_division(request.config)
        log = MLPerfObserver(
            directory.log_path,
            submitter=read_submitter(),
            division=division,
            cache_cleared=cache_cleared,
            num_resumptions=directory.num_resumptions,
        )
        record = RunRecord(directory, preset=request.preset, division=division)
        summary = SummaryObserver(directory.path, target_lddt_ca=request.config.evaluation.target_lddt_ca)
        console = ConsoleObserver(log_every_steps=request.config.log_every_steps)
        print(f"run: preset {request.preset} ({division} division), log {directory.log_path}", flush=True)
        observer = CompositeObserver(log, record, summary, console)
        try:
            return _train(request, launch, seed=directory.seed, observer=observer, record=record)
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


def _train(
    request: RunRequest, launch: LaunchInfo, *, seed: int, observer: RunObserver | None, record: RunRecord | None
) -> int:
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
    except (NonFiniteError, LoaderError, OSError) as error:
        print(f"benchmark run: stopped: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        if record is None or record.is_training:
            raise  # not the user's: the trace is wanted
        raise BenchmarkError(str(error)) from error
    return 0 if summary.status == SUCCESS else 1
