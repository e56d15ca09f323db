"""Options that several measurements have."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from benchmark.perf.tools.mlcommons_reference import Reference
from benchmark.presets import preset_names
from openfold_opt.kernels.interface import IMPLEMENTATIONS

Parser = argparse._ActionsContainer
"""A parser, or a group of its arguments."""


def add_preset(parser: Parser, *, default: str, what: str = "preset for the shapes") -> None:
    """Declare --preset."""
    parser.add_argument(
        "--preset", default=default, choices=preset_names(), help=f"{what} (default: {default})"
    )


def add_data_dir(parser: Parser) -> None:
    """Declare --data-dir."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        required=True,
        metavar="D",
        help="shards made by `python -m data_prep convert`",
    )


def add_kernels(parser: Parser, *, what: str = "implementation of all operations") -> None:
    """Declare --kernels."""
    parser.add_argument(
        "--kernels",
        default="auto",
        choices=IMPLEMENTATIONS,
        help=f"{what} (default: auto, chosen for the device)",
    )


def add_count(parser: Parser, name: str, *, default: int, what: str) -> None:
    """Declare an option that takes an integer."""
    parser.add_argument(
        name, type=int, default=default, metavar="N", help=f"{what} (default: {default})"
    )


def add_threads(parser: Parser) -> None:
    """Declare --threads."""
    add_count(parser, "--threads", default=1, what="PyTorch CPU threads")


def add_reference(parser: Parser, *, what: str) -> None:
    """Declare --reference and --reference-python.

    Args:
        parser: The parser.
        what: Text to append to the help of --reference.
    """
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="CHECKOUT",
        help=f"folder openfold of a checkout of mlcommons/hpc{what}",
    )
    parser.add_argument(
        "--reference-python",
        default=sys.executable,
        metavar="PYTHON",
        help=(
            "interpreter that can import the packages of the MLCommons reference (default: this "
            "one)"
        ),
    )


def checked_reference(args: argparse.Namespace) -> Reference | None:
    """Return the reference that the options of add_reference name; None without --reference.

    Raises:
        BenchmarkError: The checkout or the interpreter cannot be used.
    """
    if args.reference is None:
        return None
    # The reference runs in its own folder and with its own PATH, where the name of an interpreter
    # may be that of another one. A symbolic link is kept, because it may be that of an environment.
    found = shutil.which(args.reference_python)
    python = args.reference_python if found is None else os.path.abspath(found)
    reference = Reference(checkout=args.reference.resolve(), python=python)
    reference.check()
    return reference
