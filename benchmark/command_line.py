"""The parser of the command line, its options, and errors that end a command without traceback."""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from data_prep.errors import describe_error

USAGE_EXIT_CODE = 2
"""Exit code of a command that cannot work with its arguments or inputs."""


class BenchmarkError(Exception):
    """An error that the user can fix. It says what was found, what was expected, and the fix."""


class BriefParser(argparse.ArgumentParser):
    """An ArgumentParser that does not print the usage with an error. `--help` prints it."""

    def error(self, message: str) -> NoReturn:
        """Print the error and how to get help, and end the process with exit code 2."""
        print(f"{self.prog}: error: {message}; see {self.prog} --help", file=sys.stderr)
        self.exit(USAGE_EXIT_CODE)


class LazyParser(BriefParser):
    """Parser whose arguments are declared when it is used.

    Each of several commands imports its own module then, so that one command needs neither the
    import time nor the packages of the others.
    """

    declare: Callable[[argparse.ArgumentParser], None]
    """Declares the arguments; called once, before the first arguments are parsed."""
    is_complete = False

    def parse_known_args(self, args=None, namespace=None):
        """Declare the arguments on the first call, then parse."""
        if not self.is_complete:
            self.is_complete = True
            self.declare(self)
        return super().parse_known_args(args, namespace)


def add_lazy_commands(
    parser: argparse.ArgumentParser,
    commands: Mapping[str, str],
    *,
    dest: str,
    declare: Callable[[str, argparse.ArgumentParser], None],
) -> None:
    """Add required commands whose arguments are declared when one is used.

    Args:
        commands: name -> help.
        dest: attribute of the parsed arguments that has the name.
        declare: declares the arguments of a command by its name.
    """
    names = "{" + ",".join(commands) + "}"
    kinds = parser.add_subparsers(dest=dest, metavar=names, required=True, parser_class=LazyParser)
    for name, text in commands.items():
        command = kinds.add_parser(name, help=text, description=text)
        command.declare = functools.partial(declare, name)


def add_data_dir_option(parser: argparse.ArgumentParser) -> None:
    """Declare the required option `--data-dir`."""
    parser.add_argument(
        "--data-dir",
        required=True,
        type=Path,
        metavar="D",
        help="data set, as `python -m data_prep convert` writes it",
    )


def add_distillation_option(parser: argparse.ArgumentParser) -> None:
    """Declare the option `--distillation-data-dir`."""
    parser.add_argument(
        "--distillation-data-dir",
        type=Path,
        metavar="D",
        help="distillation set, as `python -m data_prep distill` writes it; training samples are "
        "drawn from it with the probability selection.distillation_probability (default: none)",
    )


def check_json_option(path: Path | None) -> None:
    """Raise BenchmarkError if the folder of a file given with `--json` does not exist."""
    check_output_option("--json", path)


def check_output_option(option: str, path: Path | None) -> None:
    """Raise BenchmarkError if an output file cannot be written, before the work for it begins."""
    if path is None:
        return
    try:
        if not path.parent.is_dir():
            raise BenchmarkError(
                f"{option} {path}: the folder {path.parent} does not exist; create it first"
            )
        if path.is_dir():
            raise BenchmarkError(f"{option} {path} is a folder; name a file")
    except OSError as error:
        raise BenchmarkError(f"{option} {describe_error(error)}; name another file") from error
    written = path if path.exists() and not path.is_file() else path.parent
    if not os.access(written, os.W_OK):
        raise BenchmarkError(f"{option} {path}: {written} is not writable; name another file")


def whole_number(at_least: int, at_most: int = 10**9) -> Callable[[str], int]:
    """Return a type of an option: a whole number within bounds."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = at_least - 1
        if not at_least <= value <= at_most:
            raise argparse.ArgumentTypeError(
                f"found {text!r}, expected a whole number from {at_least:,} to {at_most:,}"
            )
        return value

    return parse


def real_number(
    *, at_least: float | None = None, more_than: float | None = None, at_most: float = 1e9
) -> Callable[[str], float]:
    """Return a type of an option: a finite number within bounds. One lower bound is given."""
    low = more_than if at_least is None else at_least
    bounds = f"{'more than' if at_least is None else 'at least'} {low:g} and at most {at_most:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        is_within = (value > low if at_least is None else value >= low) and value <= at_most
        if not is_within:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a number {bounds}")
        return value

    return parse
