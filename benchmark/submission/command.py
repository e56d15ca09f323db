"""`submit`: from the logs of ten runs to a checked submission."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmark.code_revision import uncommitted_files
from benchmark.errors import BenchmarkError
from benchmark.machine import CHECKOUT
from benchmark.submission.checkers import Checkers
from benchmark.submission.code import resolve_commit
from benchmark.submission.consistency import REQUIRED_RUNS, judge_logs
from benchmark.submission.description import judge_description, read_description
from benchmark.submission.finding import FAIL, NOTE, Finding
from benchmark.submission.layout import BENCHMARK, Package, assembled
from benchmark.submission.logs import RunLog, find_logs
from benchmark.submission.provenance import judge_provenance


def add_parser(subparsers) -> None:
    """Declare the command line of `submit`."""
    parser = subparsers.add_parser(
        "submit",
        help="assemble and check a submission",
        description=f"Put the logs of {REQUIRED_RUNS} runs, the system description and the code that ran together as MLCommons wants "
        "them, in OUT/<submitter>, and check the whole with mlperf-logging's checkers and our own. The directory is left "
        "there whatever the verdict, so that it can be looked at. The exit code is 0 if nothing that the division demands "
        "falls short, else 1; 2 if nothing could be assembled.",
    )
    parser.add_argument(
        "logs",
        nargs="+",
        type=Path,
        metavar="LOG",
        help="log of a run, its output directory, or a directory of those",
    )
    parser.add_argument(
        "--system",
        required=True,
        type=Path,
        metavar="SYSTEM.json",
        help="made by `describe-system`; its name is the system's folder",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="OUT",
        help="what is there of other systems stays",
    )
    parser.add_argument(
        "--throughput",
        action="store_true",
        help="the runs were instances side by side (results/<system>/weak)",
    )
    parser.add_argument(
        "--include",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="for the system's folder, such as its Slurm configuration",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="put these runs in the place of earlier ones of the same system",
    )


def run(args: argparse.Namespace) -> int:
    """Assemble, check, print a line for every finding, and return the exit code."""
    try:
        return _submit(args)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchmarkError(
            f"the submission cannot be written, or a log not be read: {error}; correct --out, or the logs"
        ) from error


def _submit(args: argparse.Namespace) -> int:
    description = read_description(args.system)
    for file in args.include:
        if not file.is_file():
            raise BenchmarkError(
                f"{file} is not a file; --include takes files for the system's folder"
            )
    logs = find_logs(args.logs)
    scaling = "weak" if args.throughput else "strong"
    package = Package(
        description=description,
        system=args.system.stem,
        scaling=scaling,
        logs=logs,
        commit=_commit_of(logs),
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
    verdict = (
        f"falls short in {', '.join(dict.fromkeys(failed))}"
        if failed
        else "nothing that the division demands falls short"
    )
    lines = [
        f"submission: {args.out / package.submitter} ({description['division']} division)",
        f"verdict: {verdict}",
    ]
    report = "\n".join([*(line for finding in findings for line in finding.lines()), *lines]) + "\n"
    (outputs / "report.txt").write_text(report, encoding="utf-8")
    print("\n".join([*lines, f"what the checkers said: {outputs}"]))
    return 1 if failed else 0


def _check(package: Package, folder: Path, *, outputs: Path) -> Iterator[Finding]:
    yield from (
        finding for finding in judge_description(package.description) if finding.state == NOTE
    )
    yield from judge_logs(package.logs, description=package.description, scaling=package.scaling)
    yield from judge_provenance(package.logs, commit=package.commit, checkout=CHECKOUT)
    if not any(log.commit for log in package.logs) and uncommitted_files(CHECKOUT):
        text = f"{CHECKOUT} has changes that are not committed; packed is {package.commit} without them"
        yield Finding(state=NOTE, subject="code", text=text)
    if package.scaling == "weak" and not any(folder.glob(f"results/*/strong/{BENCHMARK}")):
        text = "the rules take a throughput only together with a time to train"
        remedy = "submit ten runs one after the other into the same directory first"
        yield Finding(state=FAIL, subject="throughput", text=text, remedy=remedy)
    with tempfile.TemporaryDirectory() as work:
        yield from Checkers(package, folder, work=Path(work), outputs=outputs).findings()


def _commit_of(logs: Sequence[RunLog]) -> str:
    """The commit that the first run recorded, else the checkout's own."""
    recorded: list[Any] = [log.commit for log in logs if log.commit]
    return resolve_commit(CHECKOUT, recorded[0] if recorded else "HEAD")
