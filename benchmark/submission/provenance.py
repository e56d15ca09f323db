"""Check that the packed commit is the code that ran: its preset, and its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.submission.code import commit_digest, has_file
from benchmark.submission.finding import FAIL, PASS, Finding
from benchmark.submission.logs import RECORD_FILE, RunLog

PRESET_FOLDER = "benchmark/presets"


def judge_provenance(logs: Sequence[RunLog], *, commit: str, checkout: Path) -> list[Finding]:
    """Return findings about the runs whose config.json is next to the log; none without one.

    commit: full hash of the commit that is packed.
    """
    recorded = [log for log in logs if log.record]
    if not recorded:
        return []
    return [
        _judge_presets(recorded, commit=commit, checkout=checkout),
        *_judge_settings(recorded),
        *_judge_files(recorded, commit=commit, checkout=checkout),
    ]


def _judge_presets(logs: Sequence[RunLog], *, commit: str, checkout: Path) -> Finding:
    presets = dict.fromkeys(_preset_of(log) for log in logs)
    lines = []
    for preset in presets:
        # a preset outside the folder is named by its path, which no commit has at this place
        file = f"{PRESET_FOLDER}/{preset}.py"
        if not has_file(checkout, commit, file):
            names = ", ".join(log.name for log in logs if _preset_of(log) == preset)
            lines.append(f"{names}: preset {preset}; commit {commit} has no file {file}")
    if lines:
        remedy = "commit the preset, and make the runs again"
        return Finding(state=FAIL, subject="preset", text="\n".join(lines), remedy=remedy)
    return Finding(state=PASS, subject="preset", text=f"{', '.join(presets)} is in the commit")


def _judge_settings(logs: Sequence[RunLog]) -> list[Finding]:
    """Fields changed by `--set` are in no file of the commit, so the run cannot be reproduced from it."""
    settings = {log.name: (log.record or {}).get("settings") or [] for log in logs}
    lines = [f"{name}: {' '.join(map(str, found))}" for name, found in settings.items() if found]
    if not lines:
        return []
    remedy = "put the values into a preset, commit it, and make the runs again"
    text = "\n".join(["fields changed by --set", *lines])
    return [Finding(state=FAIL, subject="settings", text=text, remedy=remedy)]


def _preset_of(log: RunLog) -> str:
    return str((log.record or {}).get("preset"))


def _judge_files(logs: Sequence[RunLog], *, commit: str, checkout: Path) -> list[Finding]:
    """The digest finds an image that was built from other files than its REVISION names."""
    digests = {log.name: ((log.record or {}).get("code") or {}).get("sha256") for log in logs}
    known = {name: digest for name, digest in digests.items() if digest is not None}
    if not known:
        return []
    expected = commit_digest(checkout, commit)
    others = {name: digest for name, digest in known.items() if digest != expected}
    if others:
        found = f"the files that ran are not those of commit {commit} ({expected})"
        lines = [f"{name}: {RECORD_FILE} has {digest}" for name, digest in others.items()]
        text = "\n".join([found, *lines])
        remedy = "build the image from a clean checkout of the commit, and make the runs again"
        return [Finding(state=FAIL, subject="files", text=text, remedy=remedy)]
    return [Finding(state=PASS, subject="files", text="those that ran are those of the commit")]
