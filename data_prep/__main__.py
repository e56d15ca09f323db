"""The command line `python -m data_prep <command>`: data preparation before a run."""

from __future__ import annotations

import argparse
import importlib
import sys

from data_prep.errors import DataPrepError, describe_error
from data_prep.streams import discard_output, escape_unencodable_characters, program_name

INTERRUPTED_EXIT_CODE = 130
"""The exit code of a program that Ctrl-C ended."""
_COMMANDS = (
    "data_prep.synthesize.command",
    "data_prep.convert.command",
    "data_prep.convert_mlperf.command",
    "data_prep.distill.command",
    "data_prep.verify",
    "data_prep.inspect_data",
    "data_prep.download.command",
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    An expected error gives one message and exit code 1, Ctrl-C gives exit code 130.
    """
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("data_prep: interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE


def _run(arguments: list[str] | None) -> int:
    escape_unencodable_characters()
    parser = argparse.ArgumentParser(
        prog=program_name(script="openfold-data", module="data_prep"),
        description="Prepare data: convert raw files to shards, download, verify and inspect them.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _COMMANDS:
        # Commands are imported here so that Ctrl-C during an import does not print a traceback.
        importlib.import_module(name).add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        code = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return discard_output()
    except (DataPrepError, ValueError, OSError) as error:
        print(f"data_prep {parsed.command}: {describe_error(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"data_prep {parsed.command}: interrupted; the same command resumes", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
