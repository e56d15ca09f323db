"""`export`: write a checkpoint of a run as one file, in the format of MLCommons' checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmark.command_line import BenchmarkError
from benchmark.replace_file import replacing
from benchmark.run.settings import read_config
from openfold_opt.train.build_run import CHECKPOINT_FOLDER
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore, load_checkpoint
from openfold_opt.train.checkpoint.run_state import mlcommons_form
from openfold_opt.train.errors import CheckpointError
from openfold_opt.train.optim.lr_schedule import learning_rate


def add_parser(subparsers) -> None:
    """Declare the command line of `export`."""
    parser = subparsers.add_parser(
        "export",
        help="write a checkpoint as one file with torch.save",
        description="Write a checkpoint of a run as {iteration, alphafold_state_dict, "
        "optimizer_state_dict, weight_average_state_dict}, which --init-checkpoint and torch.load "
        "read.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="output directory of a run")
    parser.add_argument("file", type=Path, metavar="FILE", help="file to write; must not exist")
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="optimizer step of the checkpoint (default: the newest complete one)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the file. Return the exit code."""
    if args.file.exists():
        raise BenchmarkError(f"{args.file} exists already; name another file")
    if not args.file.parent.is_dir():
        raise BenchmarkError(f"the folder {args.file.parent} does not exist; create it first")
    config = read_config(args.run_dir)
    store = CheckpointStore(args.run_dir / CHECKPOINT_FOLDER, config.checkpoint)
    try:
        found = (
            store.load_newest(warn=print)
            if args.step is None
            else (load_checkpoint(store.path(args.step)), store.path(args.step))
        )
    except CheckpointError as error:
        raise BenchmarkError(str(error)) from error
    if found is None:
        raise BenchmarkError(f"{store.folder} has no checkpoint yet")
    snapshot, path = found
    rate = learning_rate(config.schedule, max(snapshot.step, 1))
    content = mlcommons_form(snapshot, learning_rate=rate, optimizer=config.optimizer)
    try:
        # torch.save gets a file that Python opened: on a full disk, its OSError becomes the context
        # of torch's RuntimeError and says why.
        with replacing(args.file, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise BenchmarkError(
            f"cannot write {args.file}: {str(cause).splitlines()[0]}; no incomplete file was left"
        ) from error
    print(
        f"{path} (step {snapshot.step}) written to {args.file}, {args.file.stat().st_size:,} bytes"
    )
    return 0
