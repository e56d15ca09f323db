"""`python -m openfold_opt.predict INPUT --weights W --out DIR`: parse the command line and run."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from openfold_opt.parallel.process_exit import run_program
from openfold_opt.predict.option_parser import USAGE_EXIT_CODE, build_parser
from openfold_opt.predict.options import OptionError, read_options

SCRIPT = "openfold-predict"
"""Name of the installed program."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit code of the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of chains may have characters that the locale cannot encode.
            stream.reconfigure(errors="backslashreplace")
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    prog = SCRIPT if name == SCRIPT else "python -m openfold_opt.predict"
    parser = build_parser(prog)
    try:
        options = read_options(parser.parse_args(argv))
    except OptionError as error:
        print(f"{prog}: error: {error}; see {prog} --help", file=sys.stderr)
        return USAGE_EXIT_CODE
    # Imported here because --help and a wrong option do not need torch.
    from openfold_opt.predict.command import run_command
    from openfold_opt.predict.command_parts import PARTS

    return run_command(options, prog=prog, parts=PARTS)


def program() -> NoReturn:
    """Run the command line of this process and end the process with its exit code."""
    run_program(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    program()
