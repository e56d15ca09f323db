"""mlperf-logging's own checkers on an assembled submission, each in a process of its own.

Of their exit codes only the RCP checker's tells the verdict (4.1.68): the package, repository and system
description checkers exit with 0 whatever they find (the repository checker's function even returns False in
either case), and the summarizer prints titles without a table. So verdicts are read from the last words of
each, and scores from the summarizer's CSV. The package checker and the summarizer write scaling.json beside
the logs, which is the review committee's to add: all of them are given a copy.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.check import RULESET, USAGE
from benchmark.submission.finding import FAIL, NOTE, PASS, Finding
from benchmark.submission.layout import BENCHMARK, Package

TIMEOUT_SECONDS = 1800
PACKAGE_PASSED = "PACKAGE CHECKER FOUND NO ERRORS, SUCCESS !"
REPOSITORY_PASSED = "ALL CHECKS PASSED."
SYSTEM_PASSED = "System description checker passed for"
COMPLAINTS = ("ERROR", "WARNING", "CRITICAL", "Traceback")
MAX_COMPLAINT_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a checker printed (stdout and stderr together), and its exit code."""

    text: str
    exit_code: int

    def complaints(self) -> str:
        """The lines that complain; of a crash, its last line."""
        lines = [
            line
            for line in self.text.splitlines()
            if line.startswith(COMPLAINTS) and "Traceback" not in line
        ]
        if "Traceback (most recent call last)" in self.text:
            lines.append("the checker broke off: " + self.text.strip().splitlines()[-1])
        lines = lines or self.text.strip().splitlines()[-1:]
        return "\n".join(lines[:MAX_COMPLAINT_LINES])


class Checkers:
    """Runs the checkers on a copy of a submission.

    folder: the assembled submission; work: an empty directory, in which the copy is made; outputs: where
    what each checker printed is left, for people.
    """

    def __init__(self, package: Package, folder: Path, *, work: Path, outputs: Path) -> None:
        self._package = package
        self._work = work
        self._outputs = outputs
        self._is_closed = package.description["division"] == "closed"
        shutil.copytree(folder, work / package.submitter)
        outputs.mkdir(parents=True, exist_ok=True)

    def findings(self) -> Iterator[Finding]:
        """One finding for each checker, as each comes to its end."""
        yield self._system_description()
        yield self._repository()
        yield self._reference_convergence()
        yield self._package_checker()
        yield self._summary()

    def _run(self, name: str, *arguments: str) -> Output:
        """A program of mlperf-logging inside the work directory, where it leaves logs of its own."""
        command = [sys.executable, "-m", f"mlperf_logging.{name}", *arguments]
        try:
            shown = subprocess.run(
                command,
                cwd=self._work,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_SECONDS,
            )
            output = Output(text=shown.stdout.decode(errors="replace"), exit_code=shown.returncode)
        except subprocess.TimeoutExpired:
            output = Output(text=f"ERROR - no answer within {TIMEOUT_SECONDS} s\n", exit_code=1)
        (self._outputs / f"{name}.txt").write_text(output.text, encoding="utf-8")
        return output

    def _verdict(self, subject: str, output: Output, *, passed: str, remedy: str) -> Finding:
        if output.exit_code == 0 and passed in output.text:
            return Finding(state=PASS, subject=subject, text="mlperf-logging passes it")
        return Finding(state=FAIL, subject=subject, text=output.complaints(), remedy=remedy)

    def _system_description(self) -> Finding:
        file = f"{self._package.submitter}/systems/{self._package.system}.json"
        output = self._run("system_desc_checker", file, USAGE, RULESET)
        remedy = "complete the site's file and describe the system again"
        return self._verdict(
            "system description checker", output, passed=SYSTEM_PASSED, remedy=remedy
        )

    def _repository(self) -> Finding:
        output = self._run("repo_checker", self._package.submitter, USAGE, RULESET)
        remedy = "no blanks and leading dots in names, no file above 50 MB, no broken links; commit the change and make the runs again"
        return self._verdict("repository checker", output, passed=REPOSITORY_PASSED, remedy=remedy)

    def _package_checker(self) -> Finding:
        output = self._run("package_checker", self._package.submitter, USAGE, RULESET)
        remedy = f"it looks at everything in {self._package.submitter}, earlier systems included; package_checker.txt has it all"
        return self._verdict("package checker", output, passed=PACKAGE_PASSED, remedy=remedy)

    def _reference_convergence(self) -> Finding:
        """RCP: does training need as many samples as the MLCommons reference's? Demanded in the closed division alone."""
        folder = Path(self._package.submitter, self._package.results_folder)
        output = self._run(
            "rcp_checker", str(folder), "--rcp_usage", USAGE, "--rcp_version", RULESET
        )
        lines = [line.partition(" - ")[2] for line in output.text.splitlines()]
        told = [line for line in lines if "Submission mean epochs" in line or "RCP test" in line]
        # its verdict is ours to give, and its advice to go round the test nobody should follow
        told = [line.partition(", RCP test")[0].strip() for line in told]
        text = "\n".join(told) or output.complaints()
        if output.exit_code == 0:
            return Finding(state=PASS, subject="reference convergence", text=text)
        if not self._is_closed:
            return Finding(
                state=NOTE,
                subject="reference convergence",
                text=text,
                remedy="the open division does not ask for it",
            )
        return Finding(
            state=FAIL, subject="reference convergence", text=text, remedy=_convergence_remedy(text)
        )

    def _summary(self) -> Finding:
        """The score as mlperf-logging computes it. scaling.json of the package checker's run is in the copy by now."""
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
                text=output.complaints(),
                remedy="mend what else falls short",
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
        text += f"; normalized by {factor:.4f} to the MLCommons reference's convergence: {minutes:.3f} min"
    if row.get(f"{BENCHMARK}:Energy"):
        text += f"; energy {float(row[f'{BENCHMARK}:Energy']) / factor:.0f} J"
    return text


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV file in which a second table, with a heading of its own, may follow the first."""
    if not file.exists():
        return
    heading: list[str] = []
    with open(file, newline="", encoding="utf-8") as lines:
        for row in csv.reader(lines):
            if row and row[0] == "division":
                heading = row
            else:
                yield dict(zip(heading, row, strict=False))


def _convergence_remedy(text: str) -> str:
    if "Missing RCP" in text:
        return "the MLCommons reference has no convergence point for this batch size: train with a size between those that it has"
    if "Insufficient convergence" in text:
        return "more than one run did not reach the target, so the result is invalid: make a new set of ten runs"
    return "training needs fewer samples than the MLCommons reference allows: look for what differs from it; `parity` and `rules --preset P` help"
