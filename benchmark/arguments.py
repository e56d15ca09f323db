"""The parser of a command line whose errors are one line."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

USAGE_EXIT_CODE = 2
"""Exit code when a command could not do its work because of what it was given."""


class BriefParser(argparse.ArgumentParser):
    """As ArgumentParser, without the usage in front of an error; --help prints it."""

    def error(self, message: str) -> NoReturn:
        """Print the error and where to find help, and end the process with exit code 2."""
        print(f"{self.prog}: error: {message}; see {self.prog} --help", file=sys.stderr)
        self.exit(USAGE_EXIT_CODE)
