"""The parser of the command line, its options, and errors that end a command without traceback."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

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
    """Raise BenchmarkError if the folder of an output file does not exist."""
    if path is not None and not path.parent.is_dir():
        raise BenchmarkError(
            f"{option} {path}: the folder {path.parent} does not exist; create it first"
        )
