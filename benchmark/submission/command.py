"""`submit`: assemble and check a submission from the logs of ten runs."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark.code_revision import uncommitted_files
from benchmark.command_line import BenchmarkError, describe_error
from benchmark.finding import FAIL, NOTE, Finding
from benchmark.machine import CHECKOUT
from benchmark.submission.checkers import Checkers
from benchmark.submission.code import resolve_commit
from benchmark.submission.consistency import REQUIRED_RUNS, check_runs
from benchmark.submission.description import check_description, read_description
from benchmark.submission.layout import BENCHMARK, Package, assembled
from benchmark.submission.provenance import check_provenance
from benchmark.submission.submitted_run import SubmittedRun, find_runs


def add_parser(subparsers) -> None:
    """Declare the command line of `submit`."""
    parser = subparsers.add_parser(
        "submit",
        help="assemble and check a submission",
        description=(
            f"Assemble the logs of {REQUIRED_RUNS} runs, the system description and the code "
            "that ran in OUT/<submitter>, in the layout of MLCommons, and check them with "
            "mlperf-logging's checkers and our own. The directory is kept for inspection even "
            "if a check fails. The exit code is 0 if all requirements of the division are met, "
            "1 if not, 2 if nothing could be assembled."
        ),
    )
    parser.add_argument(
        "logs",
        nargs="+",
        type=Path,
        metavar="LOG",
        help="log of a run, its output directory, or a directory of output directories",
    )
    parser.add_argument(
        "--system",
        required=True,
        type=Path,
        metavar="SYSTEM.json",
        help="system description made by `describe-system`; its name becomes the system's folder",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="OUT",
        help="directory of the submission; other systems in it are kept",
    )
    parser.add_argument(
        "--throughput",
        action="store_true",
        help="the runs are concurrent instances of a throughput result (results/<system>/weak)",
    )
    parser.add_argument(
        "--include",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="further files for the system's folder, such as its Slurm configuration",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace earlier runs of the same system",
    )


def run(args: argparse.Namespace) -> int:
    """Assemble, check, print a line for every finding, and return the exit code."""
    try:
        return _submit(args)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchmarkError(
            "the submission cannot be written, or a log cannot be read: "
            f"{describe_error(error)}; correct --out or the logs"
        ) from error


def _submit(args: argparse.Namespace) -> int:
    description = read_description(args.system)
    for file in args.include:
        if not file.is_file():
            raise BenchmarkError(
                f"{file} is not a file; --include takes files for the system's folder"
            )
    runs = find_runs(args.logs)
    scaling = "weak" if args.throughput else "strong"
    package = Package(
        description=description,
        system=args.system.stem,
        scaling=scaling,
        runs=runs,
        commit=_commit_of(runs),
        extra_files=args.include,
    )
    outputs = args.out / f"{package.submitter}.checks" / f"{package.system}.{scaling}"
    findings = []
    with assembled(package, args.out, checkout=CHECKOUT, replace=args.replace) as folder:
        shutil.rmtree(outputs, ignore_errors=True)
        for finding in _check(package, folder, outputs=outputs):
            print("\n".join(finding.lines()), flush=True)
            findings.append(finding)
    failed = [finding.subject for finding in findings if finding.state == FAIL]
    result = (
        f"failed in {', '.join(dict.fromkeys(failed))}"
        if failed
        else "all requirements of the division are met"
    )
    lines = [
        f"submission: {args.out / package.submitter} ({description['division']} division)",
        f"result: {result}",
    ]
    report = "\n".join([*(line for finding in findings for line in finding.lines()), *lines]) + "\n"
    (outputs / "report.txt").write_text(report, encoding="utf-8")
    print("\n".join([*lines, f"output of the checkers: {outputs}"]))
    return 1 if failed else 0


def _check(package: Package, folder: Path, *, outputs: Path) -> Iterator[Finding]:
    yield from (
        finding for finding in check_description(package.description) if finding.state == NOTE
    )
    yield from check_runs(package.runs, description=package.description, scaling=package.scaling)
    yield from check_provenance(package.runs, commit=package.commit, checkout=CHECKOUT)
    if not any(run.commit for run in package.runs) and uncommitted_files(CHECKOUT):
        text = f"{CHECKOUT} has uncommitted changes; {package.commit} is packed without them"
        yield Finding(state=NOTE, subject="code", text=text)
    if package.scaling == "weak" and not any(folder.glob(f"results/*/strong/{BENCHMARK}")):
        text = "the rules accept a throughput result only together with a time to train"
        remedy = "first submit ten single runs to the same directory"
        yield Finding(state=FAIL, subject="throughput", text=text, remedy=remedy)
    with tempfile.TemporaryDirectory() as work:
        yield from Checkers(package, folder, work=Path(work), outputs=outputs).findings()


def _commit_of(runs: Sequence[SubmittedRun]) -> str:
    """Return the commit that the first run recorded, or the commit of the checkout."""
    recorded = [run.commit for run in runs if run.commit]
    return resolve_commit(CHECKOUT, recorded[0] if recorded else "HEAD")
