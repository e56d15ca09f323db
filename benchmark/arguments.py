"""An argument parser with one-line errors."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

USAGE_EXIT_CODE = 2
"""Exit code of a command that cannot work with its arguments or inputs."""


class BriefParser(argparse.ArgumentParser):
    """An ArgumentParser that does not print the usage with an error. `--help` prints it."""

    def error(self, message: str) -> NoReturn:
        """Print the error and how to get help, and end the process with exit code 2."""
        print(f"{self.prog}: error: {message}; see {self.prog} --help", file=sys.stderr)
        self.exit(USAGE_EXIT_CODE)
