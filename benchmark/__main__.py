"""`python -m benchmark COMMAND ...`: dispatch to one module per command.

Each module has add_parser(subparsers) and run(args) -> int.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from benchmark.command_line import (
    USAGE_EXIT_CODE,
    BenchmarkError,
    BriefParser,
    describe_error,
)
from data_prep.streams import (
    discard_output,
    escape_unencodable_characters,
    has_lost_reader,
    program_name,
)
from openfold_opt.parallel.process_exit import run_program

# Name of a command -> its module, and the line that --help shows for it.
COMMANDS = {
    "run": ("benchmark.run.command", "one timed run"),
    "status": ("benchmark.run.status", "progress of a run, or why it stopped"),
    "preflight": (
        "benchmark.preflight.command",
        "check data, checkpoint, disk, nodes and GPUs before a run",
    ),
    "phases": (
        "benchmark.run.phase_table",
        "phases of a preset, and whether ranks fit them",
    ),
    "score": ("benchmark.score", "compare predicted structures with true structures"),
    "check": ("benchmark.mlperf.check", "check MLPerf logs for compliance"),
    "summarize": ("benchmark.results.command", "tables and plots from MLPerf logs"),
    "results": ("benchmark.results.records_command", "archive runs, and list the archived results"),
    "rules": ("benchmark.mlperf.rules", "compare a preset with the closed division"),
    "parity": (
        "benchmark.parity.command",
        "compare model, losses and optimizer with a golden directory",
    ),
    "perf": ("benchmark.perf.command", "measure parts of the code against a named baseline"),
    "plan": ("benchmark.plan.command", "time, memory and cost before a job is queued"),
    "export": ("benchmark.run.export", "write a checkpoint as one file with torch.save"),
    "predict-validation": (
        "benchmark.run.predict_validation",
        "predict a validation chain of a run: structure, picture and report",
    ),
    "describe-system": (
        "benchmark.submission.describe",
        "write the system description of a submission",
    ),
    "submit": ("benchmark.submission.command", "assemble and check a submission"),
    "controls": (
        "benchmark.run.controls",
        "score the model of a finished run on shuffled inputs",
    ),
}


def main(argv: Sequence[str]) -> int:
    """Run one command and return the exit code of the process."""
    escape_unencodable_characters()
    parser = BriefParser(
        prog=program_name(script="openfold-bench", module="benchmark"),
        description="The MLPerf HPC OpenFold benchmark.",
        epilog="COMMAND --help describes a command.",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = argv[0] if argv and argv[0] in COMMANDS else None
    for name, (module_name, summary) in COMMANDS.items():
        if name == chosen:
            # Import only the chosen command, so that `check` does not load torch.
            importlib.import_module(module_name).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    args = parser.parse_args(argv)
    command = importlib.import_module(COMMANDS[args.command][0])
    try:
        code = command.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Not an error if the reader of the output has ended, as in `... | head`.
        if not has_lost_reader():
            raise
        return discard_output()
    except BenchmarkError as error:
        print(f"benchmark {args.command}: {error}", file=sys.stderr)
        return USAGE_EXIT_CODE
    except OSError as error:
        # An error that names its file is one of the disk or of an option, not of the program.
        if error.filename is None:
            raise
        print(f"benchmark {args.command}: {describe_error(error)}", file=sys.stderr)
        return USAGE_EXIT_CODE


def program() -> NoReturn:
    """Run the command line of this process and end the process with its exit code."""
    run_program(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    program()
