"""`export`: write weights as one file, in the form of MLCommons, AlphaFold, OpenFold or others."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import IO

import torch

from benchmark.command_line import BenchmarkError, describe_error
from benchmark.run.settings import read_config
from openfold_opt.model.published_weights import (
    FORMATS,
    WeightsError,
    read_weights,
    write_weights,
)
from openfold_opt.model.published_weights.safetensors_file import require_safetensors
from openfold_opt.protein.replace_file import replacing
from openfold_opt.train.build_run import CHECKPOINT_FOLDER
from openfold_opt.train.checkpoint.checkpoint_store import (
    CheckpointStore,
    FoundCheckpoint,
    load_checkpoint,
)
from openfold_opt.train.checkpoint.run_state import PhaseProgress, mlcommons_form
from openfold_opt.train.errors import CheckpointError
from openfold_opt.train.initial_weights import INIT_WEIGHTS
from openfold_opt.train.phases import phases_of

RESUMABLE = "mlcommons"
"""The form that also has the state of the optimizer."""


def add_parser(subparsers) -> None:
    """Declare the command line of `export`."""
    parser = subparsers.add_parser(
        "export",
        help="write weights as one file",
        description=f"Write a checkpoint of a run as one file. The format {RESUMABLE} is "
        "{iteration, alphafold_state_dict, optimizer_state_dict, weight_average_state_dict}, which "
        "--init-checkpoint and torch.load read. The other formats have weights only, and are also "
        "written from a file of weights (docs/weights.md).",
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="output directory of a run, or file of weights"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="file to write; must not exist")
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="optimizer step of the checkpoint (default: the newest complete one)",
    )
    parser.add_argument(
        "--format",
        choices=(RESUMABLE, *FORMATS),
        default=RESUMABLE,
        help="mlcommons: with Adam's state; alphafold: an .npz file of AlphaFold's parameters; "
        "openfold: a .pt file with OpenFold's current names; safetensors: with our names and the "
        f"sizes of the model (default: {RESUMABLE})",
    )
    parser.add_argument(
        "--weights",
        choices=INIT_WEIGHTS,
        default=INIT_WEIGHTS[0],
        help="which weights of a checkpoint the formats without Adam's state get (default: "
        f"{INIT_WEIGHTS[0]})",
    )
    parser.add_argument(
        "--model-config",
        type=Path,
        metavar="FILE",
        help="sizes of the model in a file of weights (default: those of AlphaFold2)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the file. Return the exit code."""
    if args.file.exists():
        raise BenchmarkError(f"{args.file} exists already; name another file")
    if not args.file.parent.is_dir():
        raise BenchmarkError(f"the folder {args.file.parent} does not exist; create it first")
    what, write = _resumable(args) if args.format == RESUMABLE else _weights_only(args)
    try:
        # torch.save gets a file that Python opened: on a full disk, its OSError becomes the context
        # of torch's RuntimeError and says why.
        with replacing(args.file) as file:
            write(file)
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise BenchmarkError(
            f"cannot write {args.file}: {describe_error(cause).splitlines()[0]}; no incomplete "
            "file was left"
        ) from error
    print(f"{what} written to {args.file}, {args.file.stat().st_size:,} bytes")
    return 0


def _resumable(args: argparse.Namespace) -> tuple[str, Callable[[IO[bytes]], None]]:
    """Return what is written, and a function that writes it: a checkpoint with Adam's state."""
    config = read_config(args.source)
    store = CheckpointStore(args.source / CHECKPOINT_FOLDER, config.checkpoint)
    try:
        found = (
            store.load_newest(warn=print)
            if args.step is None
            else FoundCheckpoint(
                snapshot=load_checkpoint(store.path(args.step)), path=store.path(args.step)
            )
        )
    except CheckpointError as error:
        raise BenchmarkError(str(error)) from error
    if found is None:
        raise BenchmarkError(f"{store.folder} has no checkpoint yet")
    snapshot, path = found.snapshot, found.path
    progress = PhaseProgress(**snapshot.facts.get("phase", {}))
    phase = phases_of(config)[progress.index]
    rate = phase.learning_rate(progress.steps_before)(max(snapshot.step, progress.steps_before + 1))
    content = mlcommons_form(snapshot, learning_rate=rate, optimizer=config.optimizer)
    return f"{path} (step {snapshot.step})", lambda file: torch.save(content, file)


def _weights_only(args: argparse.Namespace) -> tuple[str, Callable[[IO[bytes]], None]]:
    """Return what is written, and a function that writes it: one set of weights."""
    try:
        if args.format == "safetensors":
            require_safetensors("the format safetensors is requested")
        weights = read_weights(
            args.source,
            model_config=args.model_config,
            checkpoint=None if args.step is None else str(args.step),
            which=args.weights,
        )
    except WeightsError as error:
        raise BenchmarkError(str(error)) from error
    which = f", {weights.which}" if weights.which else ""
    return f"{args.source} ({weights.kind}{which})", lambda file: write_weights(
        file, weights.state, weights.config, form=args.format
    )
