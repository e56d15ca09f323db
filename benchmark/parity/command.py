"""`parity`: compare model, losses, gradients and optimizer with golden directories.

A golden directory has golden results (docs/glossary.md) of one model. The command runs on one rank
or on the ranks of a DAP group.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmark.command_line import BenchmarkError
from benchmark.finding import FAIL, PASS
from benchmark.parity.comparison import Comparison
from benchmark.parity.forward import compare_forward, compare_single_pass
from benchmark.parity.golden_directory import (
    GoldenDirectory,
    GoldenDirectoryError,
    load_golden_directory,
)
from benchmark.parity.golden_losses import loss_config
from benchmark.parity.report import format_table
from benchmark.parity.trajectory import compare_resumed_steps, compare_steps
from benchmark.parity.weights_directory import compare_weights_directory, is_weights_directory
from benchmark.replace_file import replace_text
from openfold_opt.kernels.interface import IMPLEMENTATIONS, KernelConfig, KernelSet
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.weights import WeightsError, load_weights
from openfold_opt.parallel.broadcast import gather_objects
from openfold_opt.parallel.context import ParallelConfig, ParallelContext, build_parallel_context
from openfold_opt.parallel.launch import read_launch_info

BEYOND_TOLERANCE_EXIT_CODE = 1


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command line of `parity`."""
    parser = subparsers.add_parser(
        "parity",
        help="compare model, losses and optimizer with a golden directory",
        description="Run the batches of golden directories through model, losses, gradients and "
        "optimizer, and print relative errors, padding excluded. A directory with weights in "
        "published forms is also accepted (docs/weights.md). The exit code is 1 if any error "
        "exceeds its tolerance.",
    )
    parser.add_argument(
        "directories", nargs="+", type=Path, metavar="DIR", help="for example golden/model_tiny"
    )
    parser.add_argument(
        "--kernels",
        choices=IMPLEMENTATIONS,
        default="reference",
        help="implementation of all operations (default: reference); "
        "triton on a CPU needs TRITON_INTERPRET=1 in the environment",
    )
    parser.add_argument(
        "--dap",
        type=int,
        default=1,
        metavar="N",
        help="shard every sample over N ranks; start them with torchrun --nproc-per-node N -m "
        "benchmark parity (default: 1)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of each rank; the tolerances hold for any number (default: 1)",
    )
    parser.add_argument(
        "--only-resumed",
        action="store_true",
        help="compare only the optimizer steps after the stored state (resumable.pt)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write every relative error, with all digits, to this file",
    )


def run(args: argparse.Namespace) -> int:
    """Compare what the model computes here with each directory. Return the exit code."""
    if args.threads < 1:
        raise BenchmarkError(f"--threads {args.threads}: expected 1 or more")
    torch.set_num_threads(args.threads)
    context = _join(args.dap)
    try:
        # Every rank compares, but only the first one prints.
        with (
            contextlib.redirect_stdout(io.StringIO())
            if context.world.rank
            else contextlib.nullcontext()
        ):
            results = {
                str(directory): _compare_and_print(
                    directory, args.kernels, context, only_resumed=args.only_resumed
                )
                for directory in args.directories
            }
            if args.json is not None and context.world.rank == 0:
                _write_record(
                    args.json,
                    {directory: comparisons for directory, (comparisons, _) in results.items()},
                )
        return (
            BEYOND_TOLERANCE_EXIT_CODE
            if any(has_failed for _, has_failed in results.values())
            else 0
        )
    finally:
        context.close()


def _join(dap_size: int) -> ParallelContext:
    """Return the context of one DAP group. Raises BenchmarkError for another number of ranks."""
    try:
        launch = read_launch_info()
        if launch.world_size != dap_size:
            raise BenchmarkError(
                f"--dap {dap_size} needs {dap_size} ranks, found {launch.world_size}; start it by "
                f"torchrun --nproc-per-node {dap_size} -m benchmark parity --dap {dap_size} DIR"
            )
        return build_parallel_context(
            # Also small models are divided into chunks.
            ParallelConfig(dap_size=dap_size, dap_min_chunk_bytes=0),
            launch,
            device=torch.device("cpu"),
        )
    except ValueError as error:
        raise BenchmarkError(str(error)) from error


def _write_record(path: Path, comparisons: Mapping[str, Sequence[Comparison]]) -> None:
    record = {
        directory: [dataclasses.asdict(row) for row in rows]
        for directory, rows in comparisons.items()
    }
    try:
        replace_text(path, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise BenchmarkError(
            f"cannot write --json {path}: {error.strerror}; name a file in a folder that exists"
        ) from error


def _compare_and_print(
    directory: Path, kernels: str, context: ParallelContext, *, only_resumed: bool
) -> tuple[list[Comparison], bool]:
    """Compare one directory.

    Returns the comparisons of this rank, and whether an error on any rank exceeds its tolerance or
    nothing was compared.
    """
    start = time.monotonic()
    ranks = f", sharded over {context.dap.size} ranks" if context.dap.size > 1 else ""
    print(f"== {directory}{ranks}")
    if is_weights_directory(directory) and not only_resumed:
        comparisons = _compare_weights(directory, kernels, context)
    else:
        golden = load_golden_directory(directory)
        comparisons = compare_directory(
            golden, kernels=kernels, context=context, only_resumed=only_resumed
        )
    print(format_table(comparisons))
    num_failed = max(
        gather_objects(sum(not comparison.is_within for comparison in comparisons), context.world)
    )
    result = f"{FAIL}: {num_failed} beyond tolerance" if num_failed else PASS
    print(
        f"{result} ({len(comparisons)} comparisons in {time.monotonic() - start:.1f} s)\n",
        flush=True,
    )
    return comparisons, num_failed > 0 or not comparisons


def _compare_weights(directory: Path, kernels: str, context: ParallelContext) -> list[Comparison]:
    """Compare each file of a weights directory, and print PASS or FAIL for each."""
    plan = ExecutionPlan(kernels=_build_kernels(kernels, ModelConfig()), dap=context.dap)
    results = compare_weights_directory(directory, plan)
    for name, comparisons in results.items():
        is_within = all(comparison.is_within for comparison in comparisons)
        largest = max(comparison.error for comparison in comparisons)
        print(f"{PASS if is_within else FAIL} {name}: largest error {largest:.2e}")
    return [comparison for comparisons in results.values() for comparison in comparisons]


def compare_directory(
    golden: GoldenDirectory, *, kernels: str, context: ParallelContext, only_resumed: bool = False
) -> list[Comparison]:
    """Compare everything that the directory contains, and print what it lacks.

    only_resumed: compare only the steps after its stored state.

    Raises:
        BenchmarkError: The kernels cannot run here.
        GoldenDirectoryError: The directory does not fit the model.
    """
    plan = ExecutionPlan(kernels=_build_kernels(kernels, golden.model_config), dap=context.dap)
    model = AlphaFold(golden.model_config)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"model: {num_parameters:,} parameters in {len(model.state_dict()):,} tensors")
    try:
        load_weights(model, golden.weights, source=str(golden.path))
    except WeightsError as error:
        raise GoldenDirectoryError(str(error)) from error
    if list(golden.weights) != list(model.state_dict()):
        raise GoldenDirectoryError(
            f"the weights of {golden.path} are in another order than the model's"
        )
    losses = loss_config(golden.config)
    if only_resumed:
        return compare_resumed_steps(golden, losses, plan, context)
    comparisons = compare_forward(golden, model, losses, plan)
    if golden.has("outputs_no_recycling.npz"):
        comparisons += compare_single_pass(golden, model, plan)
    if "trajectory" in golden.results:
        comparisons += compare_steps(golden, losses, plan, context)
    _print_skipped(golden)
    return comparisons


def _build_kernels(name: str, config: ModelConfig) -> KernelSet:
    """Return the implementation `name` of all operations.

    Raises BenchmarkError if it cannot run here.
    """
    try:
        return build_kernel_set(KernelConfig.all(name), "cpu", config.kernel_shapes())
    except ValueError as error:
        raise BenchmarkError(
            f"--kernels {name} cannot run here: {error}. `--kernels reference` runs everywhere"
        ) from error


def _print_skipped(golden: GoldenDirectory) -> None:
    files = (
        "outputs.npz",
        "outputs_no_recycling.npz",
        "grads.npz",
        "resumable.pt",
        "params_after.npz",
        "swa_after.npz",
    )
    absent = [name for name in files if not golden.has(name)]
    if "trajectory" not in golden.results:
        absent.append("trajectory in results.json")
    if absent:
        print(f"skipped, because the directory lacks: {', '.join(absent)}")
