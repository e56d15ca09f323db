"""Run mlperf-logging's checkers on a copy of a submission, each in a separate process.

In mlperf-logging 4.1.68, only the exit code of the RCP checker (reference convergence points) says
whether the check passed. The package, repository and system description checkers always exit with
0, and the summarizer prints titles without a table. Results are therefore read from the final
messages, and scores from the summarizer's CSV. The package checker and the summarizer write
scaling.json next to the logs, which only the review committee may add, so all checkers run on a
copy.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.finding import FAIL, NOTE, PASS, Finding
from benchmark.mlperf.check import RULESET, USAGE
from benchmark.submission.layout import BENCHMARK, Package

TIMEOUT_SECONDS = 1800
PACKAGE_PASSED = "PACKAGE CHECKER FOUND NO ERRORS, SUCCESS !"
REPOSITORY_PASSED = "ALL CHECKS PASSED."
SYSTEM_PASSED = "System description checker passed for"
ERROR_PREFIXES = ("ERROR", "WARNING", "CRITICAL", "Traceback")
MAX_ERROR_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Output:
    """Output of a checker (stdout and stderr together), and its exit code."""

    text: str
    exit_code: int

    def errors(self) -> str:
        """Return the error lines, and the last line of a crash."""
        lines = [
            line
            for line in self.text.splitlines()
            if line.startswith(ERROR_PREFIXES) and "Traceback" not in line
        ]
        if "Traceback (most recent call last)" in self.text:
            lines.append("the checker crashed: " + self.text.strip().splitlines()[-1])
        lines = lines or self.text.strip().splitlines()[-1:]
        return "\n".join(lines[:MAX_ERROR_LINES])


class Checkers:
    """Runs the checkers on a copy of a submission.

    Args:
        package: Contents of the submission.
        folder: The assembled submission.
        work: Empty directory for the copy.
        outputs: Directory to write the output of each checker to.
    """

    def __init__(self, package: Package, folder: Path, *, work: Path, outputs: Path) -> None:
        self._package = package
        self._work = work
        self._outputs = outputs
        self._is_closed = package.description["division"] == "closed"
        shutil.copytree(folder, work / package.submitter)
        outputs.mkdir(parents=True, exist_ok=True)

    def findings(self) -> Iterator[Finding]:
        """Run the checkers in sequence and yield a finding for each."""
        yield self._system_description()
        yield self._repository()
        yield self._reference_convergence()
        yield self._package_checker()
        yield self._summary()

    def _run(self, name: str, *arguments: str) -> Output:
        """Run a program of mlperf-logging in the work directory, where it writes its logs."""
        command = [sys.executable, "-m", f"mlperf_logging.{name}", *arguments]
        try:
            process = subprocess.run(
                command,
                cwd=self._work,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_SECONDS,
            )
            output = Output(
                text=process.stdout.decode(errors="replace"), exit_code=process.returncode
            )
        except subprocess.TimeoutExpired:
            output = Output(text=f"ERROR - no result within {TIMEOUT_SECONDS} s\n", exit_code=1)
        (self._outputs / f"{name}.txt").write_text(output.text, encoding="utf-8")
        return output

    def _result(self, subject: str, output: Output, *, passed: str, remedy: str) -> Finding:
        """Return the finding about a check; `passed` is its message of success."""
        if output.exit_code == 0 and passed in output.text:
            return Finding(state=PASS, subject=subject, text="mlperf-logging accepts it")
        return Finding(state=FAIL, subject=subject, text=output.errors(), remedy=remedy)

    def _system_description(self) -> Finding:
        file = f"{self._package.submitter}/systems/{self._package.system}.json"
        output = self._run("system_desc_checker", file, USAGE, RULESET)
        remedy = "complete the site file and run describe-system again"
        return self._result(
            "system description checker", output, passed=SYSTEM_PASSED, remedy=remedy
        )

    def _repository(self) -> Finding:
        output = self._run("repo_checker", self._package.submitter, USAGE, RULESET)
        remedy = (
            "names must not have spaces or leading dots, files must be at most 50 MB, and links "
            "must not be broken; commit the change and repeat the runs"
        )
        return self._result("repository checker", output, passed=REPOSITORY_PASSED, remedy=remedy)

    def _package_checker(self) -> Finding:
        output = self._run("package_checker", self._package.submitter, USAGE, RULESET)
        remedy = (
            f"it checks everything in {self._package.submitter}, including earlier systems; see "
            "the full output in package_checker.txt"
        )
        return self._result("package checker", output, passed=PACKAGE_PASSED, remedy=remedy)

    def _reference_convergence(self) -> Finding:
        """Run the RCP checker, which only the closed division requires.

        It compares the number of samples until the target with that of the MLCommons reference.
        """
        folder = Path(self._package.submitter, self._package.results_folder)
        output = self._run(
            "rcp_checker", str(folder), "--rcp_usage", USAGE, "--rcp_version", RULESET
        )
        lines = [line.partition(" - ")[2] for line in output.text.splitlines()]
        messages = [
            line for line in lines if "Submission mean epochs" in line or "RCP test" in line
        ]
        # Remove the checker's advice to bypass the test.
        messages = [line.partition(", RCP test")[0].strip() for line in messages]
        text = "\n".join(messages) or output.errors()
        if output.exit_code == 0:
            return Finding(state=PASS, subject="reference convergence", text=text)
        if not self._is_closed:
            return Finding(
                state=NOTE,
                subject="reference convergence",
                text=text,
                remedy="the open division does not require it",
            )
        return Finding(
            state=FAIL, subject="reference convergence", text=text, remedy=_convergence_remedy(text)
        )

    def _summary(self) -> Finding:
        """Compute the score with mlperf-logging. Needs scaling.json of the package checker."""
        output = self._run(
            "result_summarizer", self._package.submitter, USAGE, RULESET, "--csv", "summary.csv"
        )
        for file in self._work.glob("summary*.csv"):
            shutil.copyfile(file, self._outputs / file.name)
        text = self._score() if output.exit_code == 0 else ""
        if not text:
            return Finding(
                state=FAIL,
                subject="summary",
                text=output.errors(),
                remedy="fix the other failures first",
            )
        return Finding(state=PASS, subject="summary", text=text)

    def _score(self) -> str:
        is_weak = self._package.scaling == "weak"
        url_end = f"/systems/{self._package.system}.json"
        for row in _rows(self._work / ("summary.csv" if is_weak else "summary_detailed.csv")):
            if not row.get("details_url", "").endswith(url_end):
                continue
            if is_weak and row.get(f"{BENCHMARK}:time_to_train_all"):
                models, minutes = (
                    row[f"{BENCHMARK}:number_of_models"],
                    row[f"{BENCHMARK}:time_to_train_all"],
                )
                return f"{float(models):.0f} models in {float(minutes):.3f} min"
            if not is_weak and row.get(f"{BENCHMARK}:time_to_train"):
                return _time_to_train(row)
        return ""


def _time_to_train(row: dict[str, str]) -> str:
    minutes, factor = (
        float(row[f"{BENCHMARK}:time_to_train"]),
        float(row[f"{BENCHMARK}:rcp_scaling_factor"]),
    )
    text = f"{minutes / factor:.3f} min, mean without the fastest and the slowest run"
    if factor != 1:
        text += (
            f"; normalized by {factor:.4f} to the MLCommons reference's convergence: "
            f"{minutes:.3f} min"
        )
    if row.get(f"{BENCHMARK}:Energy"):
        text += f"; energy {float(row[f'{BENCHMARK}:Energy']) / factor:.0f} J"
    return text


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file that may contain a second table with its own header."""
    if not file.exists():
        return
    header: list[str] = []
    with open(file, newline="", encoding="utf-8") as lines:
        for row in csv.reader(lines):
            if row and row[0] == "division":
                header = row
            else:
                yield dict(zip(header, row, strict=False))


def _convergence_remedy(text: str) -> str:
    if "Missing RCP" in text:
        return (
            "the MLCommons reference has no convergence point for this batch size: use a batch "
            "size between those of its points"
        )
    if "Insufficient convergence" in text:
        return (
            "more than one run did not reach the target, so the result is invalid: make a new set "
            "of ten runs"
        )
    return (
        "training needs fewer samples than the MLCommons reference allows: find the difference "
        "from it with `parity` and `rules --preset P`"
    )
