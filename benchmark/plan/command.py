"""`python -m benchmark plan QUESTION`: answer one of QUESTIONS."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

from benchmark.command_line import BriefParser

QUESTIONS = {
    "train": "time, memory and cost of a training run on a system",
    "counts": "trace training steps and store their counts, which all plans read",
    "search": "the best split of GPUs over DAP, data and evaluation, or the fewest GPUs for a time",
    "validate": "compare the model with every published result, each left out of its own fit",
    "explain": "where the time of a measured run or step went",
    "systems": "list the systems that ship and where their figures come from, or calibrate one",
    "loader": "simulate how long training waits for its samples, for up to thousands of ranks",
    "predict": "seconds and memory of predictions by length and number of GPUs",
    "slurm": "write a Slurm configuration for a preset on a system",
}
"""Name -> what it answers.

The module benchmark.plan.<name>_command defines

    add_arguments(parser)
    run(args) -> exit code
"""


class _LazyParser(BriefParser):
    """Parser that imports its question only when it is used: `systems` loads no torch."""

    question: str
    is_complete = False

    def parse_known_args(self, args=None, namespace=None):
        """Add the arguments of the question on the first call, then parse."""
        if not self.is_complete:
            self.is_complete = True
            _module(self.question).add_arguments(self)
        return super().parse_known_args(args, namespace)


def _module(question: str) -> ModuleType:
    return importlib.import_module(f"benchmark.plan.{question}_command")


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
    names = "{" + ",".join(QUESTIONS) + "}"
    kinds = parser.add_subparsers(
        dest="question", metavar=names, required=True, parser_class=_LazyParser
    )
    for name, text in QUESTIONS.items():
        kinds.add_parser(name, help=text, description=text).question = name


def run(args: argparse.Namespace) -> int:
    """Answer the question."""
    return _module(args.question).run(args)
