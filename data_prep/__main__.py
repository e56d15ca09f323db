"""`python -m data_prep <command>`: everything that happens to data before a run."""

from __future__ import annotations

import argparse
import io
import os
import sys

from data_prep import inspect_data, verify
from data_prep.convert import command as convert
from data_prep.convert_mlperf import command as convert_mlperf
from data_prep.download import command as download
from data_prep.errors import DataPrepError
from data_prep.synthesize import command as synthesize

EXIT_BROKEN_PIPE = 141
"""As a program that the signal SIGPIPE ends."""
_COMMANDS = (synthesize, convert, convert_mlperf, verify, inspect_data, download)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and turn an expected error into one message and exit code 1."""
    _accept_any_letter()
    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description="Prepare data: raw files to shards, and what goes with it.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        code = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of the output has ended (`... | head`). Python would complain once more when it
        # flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (DataPrepError, ValueError, OSError) as error:
        print(f"data_prep {parsed.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"data_prep {parsed.command}: interrupted; the same command resumes", file=sys.stderr)
        return 130


def _accept_any_letter() -> None:
    """Print what the locale cannot show (a path in a locale of C) as an escape, in place of an
    error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
