"""`python -m data_prep <command>`: everything that happens to data before a run."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys

from data_prep.errors import DataPrepError

EXIT_BROKEN_PIPE = 141
"""As a program that the signal SIGPIPE ends."""
INTERRUPTED_EXIT_CODE = 130
"""As a program that Ctrl-C ends."""
_COMMANDS = (
    "data_prep.synthesize.command",
    "data_prep.convert.command",
    "data_prep.convert_mlperf.command",
    "data_prep.verify",
    "data_prep.inspect_data",
    "data_prep.download.command",
)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and turn an expected error into one message and exit code 1, Ctrl-C into 130."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("data_prep: interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE


def _run(arguments: list[str] | None) -> int:
    _accept_any_letter()
    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description="Prepare data: raw files to shards, and what goes with it.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _COMMANDS:
        # not at the top of this file: Ctrl-C during an import must not end in a traceback
        importlib.import_module(name).add_parser(subparsers)
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
        return INTERRUPTED_EXIT_CODE


def _accept_any_letter() -> None:
    """Print what the locale cannot show (a path in a locale of C) as an escape, in place of an
    error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
