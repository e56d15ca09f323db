"""`python -m data_prep <command>`: everything that happens to data before a run."""

from __future__ import annotations

import argparse
import sys

from data_prep import inspect_data, verify
from data_prep.convert import command as convert
from data_prep.convert_mlperf import command as convert_mlperf
from data_prep.download import command as download
from data_prep.errors import DataPrepError
from data_prep.streams import accept_any_letter, drop_output, program_name
from data_prep.synthesize import command as synthesize

_COMMANDS = (synthesize, convert, convert_mlperf, verify, inspect_data, download)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and turn an expected error into one message and exit code 1."""
    accept_any_letter()
    parser = argparse.ArgumentParser(
        prog=program_name(script="openfold-data", module="data_prep"),
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
        return drop_output()
    except (DataPrepError, ValueError, OSError) as error:
        print(f"data_prep {parsed.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"data_prep {parsed.command}: interrupted; the same command resumes", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
