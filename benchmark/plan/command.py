"""`python -m benchmark plan QUESTION`: answer one of QUESTIONS."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

from benchmark.command_line import add_lazy_commands

QUESTIONS = {
    "train": "time, memory and cost of a training run on a system",
    "counts": "trace training steps and store their counts, which all plans read",
    "search": "the best split of GPUs over DAP, data and evaluation, or the fewest GPUs for a time",
    "validate": "compare the model with every published result, by leave-one-out fits",
    "explain": "where the time of a measured run or step went",
    "table": "what is expected of this project on 8 to 2,080 GPUs, as in docs/plan.md",
    "systems": "list the systems that ship and where their figures come from, or calibrate one",
    "local": "calibrate on this CPU, predict steps of the demos, then measure them",
    "loader": "simulate how long training waits for its samples, for up to thousands of ranks",
    "predict": "seconds and memory of predictions by length and number of GPUs",
    "slurm": "write a Slurm configuration for a preset on a system",
}
"""Name -> what it answers.

The module benchmark.plan.<name>_command defines

    add_arguments(parser)
    run(args) -> exit code
"""


def _module(question: str) -> ModuleType:
    return importlib.import_module(f"benchmark.plan.{question}_command")


def _declare(question: str, parser: argparse.ArgumentParser) -> None:
    _module(question).add_arguments(parser)


def add_parser(subparsers) -> None:
    """Declare the command line of `plan`."""
    parser = subparsers.add_parser(
        "plan",
        help="time, memory and cost of a run before its job is queued",
        description=(
            "Predict time, memory and cost of training or prediction on a system, in seconds and "
            "without a GPU. `plan validate` compares the model with published results."
        ),
    )
    add_lazy_commands(parser, QUESTIONS, dest="question", declare=_declare)


def run(args: argparse.Namespace) -> int:
    """Answer the question."""
    return _module(args.question).run(args)
