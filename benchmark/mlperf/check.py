"""`check`: check logs for compliance.

The rules are those of mlperf-logging, and our own rules on the order of events and on resumed and
failed runs.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

from mlperf_logging.compliance_checker import mlp_compliance

from benchmark.command_line import BenchmarkError
from benchmark.finding import FAIL, PASS
from benchmark.mlperf.find_logs import CONTINUED_PATTERN, find_logs
from benchmark.mlperf.log_order import order_complaints
from benchmark.mlperf.run_log import CONTINUED_KEY, RunLog
from benchmark.run.output_directory import FIRST_LOG

USAGE = "hpc"
RULESET = "3.0.0"
"""Select the rules of MLPerf HPC v3.0 in mlperf-logging."""
TARGET_COMPLAINT = "Failed checks for eval_accuracy"
"""Beginning of the error message of mlperf-logging if no evaluation reached 0.8."""


@dataclass(frozen=True, kw_only=True)
class Compliance:
    """The errors of one log. A log without errors complies."""

    path: Path
    division: str
    """"no" if the log does not name its division."""
    complaints: tuple[str, ...]
    lacks_only_target: bool = False
    """Whether the only error is that the run did not reach lDDT-Ca 0.8."""

    @property
    def passed(self) -> bool:
        """Whether there is no error."""
        return not self.complaints


def add_parser(subparsers) -> None:
    """Declare the command line of `check`."""
    parser = subparsers.add_parser(
        "check",
        help="check MLPerf logs for compliance",
        description=f"Check logs with mlperf-logging (--usage {USAGE} --ruleset {RULESET}). Also "
        "refuse resumed and failed runs, and logs whose events cannot have occurred in this order "
        "in one run. The exit code is 0 if every log complies, else 1.",
    )
    parser.add_argument(
        "logs",
        nargs="+",
        type=Path,
        metavar="LOG_OR_RUN_DIR",
        help="log file of a run, or its output directory: mlperf.log and the continued logs",
    )
    parser.add_argument(
        "--below-target",
        action="store_true",
        help="accept a run that stopped below lDDT-Ca 0.8 if it has no other error; for short "
        "test runs, never for a result",
    )


def run(args: argparse.Namespace) -> int:
    """Check every log, print a line for each, and return 0 if all comply, else 1."""
    logs = [log for path in args.logs for log in logs_of(path)]
    results = [check_log(path, below_target=args.below_target) for path in logs]
    for result in results:
        state = PASS if result.passed else FAIL
        print(f"{state} {result.path} ({result.division} division)")
        for complaint in result.complaints:
            print("    " + complaint.replace("\n", "\n    "))
        if result.lacks_only_target:
            print("    No other error: --below-target accepts it, but not as a result")
    return 0 if all(result.passed for result in results) else 1


def logs_of(path: Path) -> list[Path]:
    """Return the logs of a run directory in order of time, or the file itself."""
    if not path.is_dir():
        return [path]
    # The pattern also matches names without a number, which are copies that a user made.
    logs = find_logs(path, FIRST_LOG)
    logs += [
        log for log in find_logs(path, CONTINUED_PATTERN) if log.stem.rpartition("_")[2].isdecimal()
    ]
    if not logs:
        raise BenchmarkError(
            f"{path} has no {FIRST_LOG}; expected the output directory of a run, or a log"
        )
    return logs


def check_log(path: Path, *, below_target: bool = False) -> Compliance:
    """Check one log file. Raises BenchmarkError if it is not a file or cannot be read."""
    try:
        if not path.is_file():
            raise BenchmarkError(
                f"{path} is not a file; expected the log of a run, such as OUTPUT_DIR/mlperf.log"
            )
        log = RunLog.read(path)
    except OSError as error:
        raise BenchmarkError(
            f"{path} cannot be read: {error.strerror or error}; fix this and check again"
        ) from error
    official = _official_complaints(path)
    own = [*log.damage, *order_complaints(log.events)]
    strict = official + own + _own_complaints(log, below_target=False)
    lenient = [text for text in official if not text.startswith(TARGET_COMPLAINT)]
    lenient += own + _own_complaints(log, below_target=True)
    complaints = lenient if below_target else strict
    division = log.first("submission_division")
    return Compliance(
        path=path,
        division="no" if division is None else str(division.value),
        complaints=tuple(complaints),
        lacks_only_target=bool(complaints) and not lenient,
    )


def _official_complaints(path: Path) -> list[str]:
    """Return the errors of the checker of mlperf-logging, without its warnings."""
    # An earlier failure may have left entries in this module-level list.
    mlp_compliance.enqueued_configs.clear()
    checker = mlp_compliance.make_checker(USAGE, RULESET, quiet=True, werror=False)
    logger = logging.getLogger()
    # The messages of the checker are returned, not logged.
    was_disabled, logger.disabled = logger.disabled, True
    try:
        valid, *_ = mlp_compliance.main(str(path), f"{USAGE}_{RULESET}/common.yaml", checker)
    except Exception as error:  # The checker fails in many ways on incomplete events.
        return [f"mlperf-logging's checker cannot read the log: {type(error).__name__}: {error}"]
    finally:
        logger.disabled = was_disabled
    complaints = [*checker.overwritable.values(), *checker.not_overwritable]
    if not valid and not complaints:
        complaints = ["mlperf-logging refuses the log without an error message"]
    return complaints


def _own_complaints(log: RunLog, *, below_target: bool) -> list[str]:
    complaints = []
    if log.first(CONTINUED_KEY) is not None:
        complaints.append(
            "the log is of a resumed run, which is not a result; start again in a new directory"
        )
    # Without run_start, the missing event is the error, and mlperf-logging reports it.
    if log.first("run_start") is not None:
        statuses = [event.detail("status") for event in log.select("run_stop")]
        allowed = ("success", "aborted") if below_target else ("success",)
        complaints += [
            f"run_stop has status {status!r}; expected 'success'"
            for status in statuses
            if status not in allowed
        ]
    return complaints
