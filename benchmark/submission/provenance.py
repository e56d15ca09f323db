"""Check that the packed commit has the code that ran: its preset and its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.finding import FAIL, PASS, Finding
from benchmark.submission.code import commit_digest, has_file
from benchmark.submission.submitted_run import RECORD_FILE, SubmittedRun

PRESET_FOLDER = "benchmark/presets"


def check_provenance(runs: Sequence[SubmittedRun], *, commit: str, checkout: Path) -> list[Finding]:
    """Return findings about the runs that have config.json next to the log.

    commit: full hash of the packed commit.
    """
    recorded = [run for run in runs if run.record]
    if not recorded:
        return []
    return [
        _check_presets(recorded, commit=commit, checkout=checkout),
        *check_settings(recorded),
        *_check_files(recorded, commit=commit, checkout=checkout),
    ]


def _check_presets(runs: Sequence[SubmittedRun], *, commit: str, checkout: Path) -> Finding:
    presets = dict.fromkeys(_preset_of(run) for run in runs)
    lines = []
    for preset in presets:
        # A preset outside the folder is named by its path, so no commit has this file.
        file = f"{PRESET_FOLDER}/{preset}.py"
        if not has_file(checkout, commit, file):
            names = ", ".join(run.name for run in runs if _preset_of(run) == preset)
            lines.append(f"{names}: preset {preset}; commit {commit} has no file {file}")
    if lines:
        remedy = "commit the preset and repeat the runs"
        return Finding(state=FAIL, subject="preset", text="\n".join(lines), remedy=remedy)
    return Finding(state=PASS, subject="preset", text=f"{', '.join(presets)} is in the commit")


def check_settings(runs: Sequence[SubmittedRun]) -> list[Finding]:
    """Check that no fields were changed by `--set`, because no file of the commit has them."""
    settings = {run.name: (run.record or {}).get("settings") or [] for run in runs}
    lines = [
        f"{name}: {' '.join(map(str, changes))}" for name, changes in settings.items() if changes
    ]
    if not lines:
        return []
    remedy = "put the values into a preset, commit it and repeat the runs"
    text = "\n".join(["fields changed by --set", *lines])
    return [Finding(state=FAIL, subject="settings", text=text, remedy=remedy)]


def _preset_of(run: SubmittedRun) -> str:
    return str((run.record or {}).get("preset"))


def _check_files(runs: Sequence[SubmittedRun], *, commit: str, checkout: Path) -> list[Finding]:
    """Compare digests of the files, to detect an image that does not match its REVISION."""
    digests = {run.name: ((run.record or {}).get("code") or {}).get("sha256") for run in runs}
    known = {name: digest for name, digest in digests.items() if digest is not None}
    if not known:
        return []
    expected = commit_digest(checkout, commit)
    others = {name: digest for name, digest in known.items() if digest != expected}
    if others:
        problem = f"the files that ran are not those of commit {commit} ({expected})"
        lines = [f"{name}: {RECORD_FILE} has {digest}" for name, digest in others.items()]
        text = "\n".join([problem, *lines])
        remedy = "build the image from a clean checkout of the commit and repeat the runs"
        return [Finding(state=FAIL, subject="files", text=text, remedy=remedy)]
    return [Finding(state=PASS, subject="files", text="those that ran are those of the commit")]
