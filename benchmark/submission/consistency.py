"""Check that the logs are of different runs of one system, one commit and one configuration.

mlperf-logging's checkers do not check this.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmark.code_revision import DIRTY_MARK
from benchmark.finding import FAIL, NOTE, PASS, Finding
from benchmark.mlperf.check import check_log
from benchmark.mlperf.run_log import Event, RunLog
from benchmark.run.output_directory import POWER_FOLDER
from benchmark.submission.submitted_run import RECORD_FILE, SubmittedRun

REQUIRED_RUNS = 10
PER_RUN_KEYS = ("seed", "tracked_stats", "eval_accuracy", "cache_clear")
"""Log keys whose values differ between runs; all others belong to the system or configuration."""
MAX_DIFFERENCES = 20
"""Largest number of differences to report; with more, the runs are unrelated."""
POWER_KEYS = ("power_measurement_start", "power_reading", "power_measurement_stop")
NEW_RUNS = (
    "do not edit the log: fix the cause, and make a new set of runs in new output directories"
)


def check_runs(
    runs: Sequence[SubmittedRun], *, description: Mapping[str, object], scaling: str
) -> list[Finding]:
    """Return findings about each log and about the logs as a set."""
    return [
        _check_number(runs, scaling=scaling),
        *_check_compliance(runs, division=str(description["division"]), scaling=scaling),
        _check_seeds(runs),
        _check_start_times(runs, scaling=scaling),
        _check_configuration(runs),
        *_check_system(runs, description=description, scaling=scaling),
        *_check_commits(runs),
        *_check_power(runs),
        *_check_caches(runs),
    ]


def _check_number(runs: Sequence[SubmittedRun], *, scaling: str) -> Finding:
    number, subject = len(runs), "number of runs"
    if number == REQUIRED_RUNS or (scaling == "weak" and number > REQUIRED_RUNS):
        return Finding(state=PASS, subject=subject, text=f"{number}")
    expected = f"at least {REQUIRED_RUNS}" if scaling == "weak" else f"exactly {REQUIRED_RUNS}"
    remedy = f"make {REQUIRED_RUNS - number} more and give all {REQUIRED_RUNS}"
    if number > REQUIRED_RUNS:
        remedy = (
            f"give the {REQUIRED_RUNS} consecutive runs whose score is the median of all such "
            "sets; the rules allow no other choice"
        )
    return Finding(
        state=FAIL, subject=subject, text=f"{number}; expected {expected}", remedy=remedy
    )


def _check_compliance(
    runs: Sequence[SubmittedRun], *, division: str, scaling: str
) -> list[Finding]:
    findings = []
    below_target = []
    for run in runs:
        result = check_log(run.path)
        errors = list(result.complaints)
        if run.was_resumed:
            errors.append("the run was resumed by another process, so it is not a result")
        elif errors and check_log(run.path, below_target=True).passed:
            below_target.append(run.name)
            errors = []
        if division == "closed" and result.division != "closed":
            # The package checker would apply the rules of the open division to such a log.
            errors.append(
                f"the log is of the {result.division} division; expected closed, as in the system "
                "description"
            )
        if errors:
            text = "\n".join([f"{run.name}, from {run.path}", *errors])
            findings.append(Finding(state=FAIL, subject="compliance", text=text, remedy=NEW_RUNS))
    if below_target:
        findings.append(_check_convergence(below_target, scaling=scaling))
    return findings or [
        Finding(state=PASS, subject="compliance", text=f"all {len(runs)} logs, {division} division")
    ]


def _check_convergence(below_target: Sequence[str], *, scaling: str) -> Finding:
    """Check runs below the target: one of ten may miss it, and none of a throughput result.

    Source: training_rules.adoc and hpc_training_rules.adoc of mlcommons/training_policies.
    """
    text = f"{_names(below_target)} did not reach the target"
    if scaling == "strong" and len(below_target) == 1:
        remedy = (
            "the rules count one such run as the slowest; do not replace it, because that would "
            "be a selection of runs"
        )
        return Finding(state=NOTE, subject="target", text=text, remedy=remedy)
    remedy = "more than one makes the result invalid: make a new set of ten runs"
    if scaling == "weak":
        remedy = "omit these instances if at least ten remain"
    return Finding(state=FAIL, subject="target", text=text, remedy=remedy)


def _check_seeds(runs: Sequence[SubmittedRun]) -> Finding:
    seeds = _group(runs, lambda run: run.log.values.get("seed"))
    lines = [
        f"seed {seed} in {_names(names)}"
        for seed, names in seeds.items()
        if seed != "null" and len(names) > 1
    ]
    lines += [f"no seed in {_names(seeds['null'])}"] if "null" in seeds else []
    if lines:
        remedy = (
            "without --seed every run draws a different seed; keep one of the runs with the same "
            "seed and replace the others"
        )
        return Finding(state=FAIL, subject="seeds", text="\n".join(lines), remedy=remedy)
    return Finding(state=PASS, subject="seeds", text="all different")


def _check_start_times(runs: Sequence[SubmittedRun], *, scaling: str) -> Finding:
    """Check that no two runs start in the same millisecond, which indicates copies of a log.

    Concurrent instances may start together, but do not also stop together.
    """
    keys = ("run_start",) if scaling == "strong" else ("init_start", "run_start", "run_stop")
    groups = _group(runs, lambda run: [_time(run.log.first(key)) for key in keys])
    lines = [
        f"{' and '.join(keys)} at {times} ms in {_names(names)}"
        for times, names in groups.items()
        if len(names) > 1 and "null" not in times
    ]
    if lines:
        text = "\n".join([*lines, "expected a different time in every log"])
        remedy = "these are copies of one log; give the logs of different runs"
        return Finding(state=FAIL, subject="start times", text=text, remedy=remedy)
    return Finding(state=PASS, subject="start times", text="all different")


def _check_configuration(runs: Sequence[SubmittedRun]) -> Finding:
    """Check that log keys and values of config.json are the same in all runs."""
    values_of = {run.name: _shared_values(run) for run in runs}
    recorded = [run.name for run in runs if run.record]
    lines = []
    keys = {key for values in values_of.values() for key in values}
    # List differences of the logs, which MLCommons sees, before those of config.json.
    for key in sorted(keys, key=lambda key: (RECORD_FILE in key, key)):
        # Logs without config.json do not have its values.
        comparable = [run for run in runs if RECORD_FILE not in key or run.name in recorded]
        groups = _group(comparable, lambda run, key=key: values_of[run.name].get(key))
        if len(groups) > 1:
            lines.append(
                f"{key}: "
                + ", ".join(f"{value} in {_names(names)}" for value, names in groups.items())
            )
    if len(lines) > MAX_DIFFERENCES:
        lines[MAX_DIFFERENCES:] = [f"and {len(lines) - MAX_DIFFERENCES} more"]
    if lines:
        remedy = (
            "runs of different systems or configurations are not one result; give runs with the "
            "same configuration"
        )
        return Finding(
            state=FAIL, subject="one configuration", text="\n".join(lines), remedy=remedy
        )
    return Finding(state=PASS, subject="one configuration", text="the same values in all logs")


def _time(event: Event | None) -> object:
    return None if event is None else event.time_ms


def _shared_values(run: SubmittedRun) -> dict[str, object]:
    """Return the values that all runs of a set should share, by key."""
    logged = {key: value for key, value in run.log.values.items() if key not in PER_RUN_KEYS}
    record = run.record or {}
    shared: dict[str, Any] = {
        key: record[key] for key in ("preset", "config", "data_checksum") if key in record
    }
    if isinstance(shared.get("config"), Mapping):
        # `recompute` depends on the free memory and does not change results.
        config = shared["config"].items()
        shared["config"] = {key: value for key, value in config if key != "recompute"}
    shared["accelerator"] = (record.get("machine") or {}).get("accelerator")
    return logged | {f"{RECORD_FILE} {path}": value for path, value in _leaves(shared)}


def _leaves(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_system(
    runs: Sequence[SubmittedRun], *, description: Mapping[str, object], scaling: str
) -> list[Finding]:
    """Compare the logs with the system description."""
    findings = []
    values = runs[0].log.values
    for key in ("number_of_nodes", "accelerators_per_node"):
        logged, described = values.get(key), int(str(description[key]))
        # A throughput instance uses a part of the nodes.
        is_part = scaling == "weak" and key == "number_of_nodes" and isinstance(logged, int)
        if logged is None or logged == described or (is_part and logged <= described):
            continue
        text = f"{key} is {logged} in the logs and {described} in the system description"
        findings.append(
            Finding(
                state=FAIL,
                subject="system",
                text=text,
                remedy="describe the system that made the runs",
            )
        )
    pairs = {
        "submission_org": "submitter",
        "submission_status": "status",
        "submission_division": "division",
    }
    for key, name in pairs.items():
        if key == "submission_division" and description["division"] == "closed":
            continue  # reported with the compliance of each log
        if values.get(key) != description[name]:
            text = (
                f"{key} is {values.get(key)!r} in the logs, {name} is {description[name]!r} in "
                "the system description"
            )
            remedy = (
                "the checkers accept this; set SUBMISSION_ORG and SUBMISSION_STATUS for the next "
                "runs"
            )
            findings.append(Finding(state=NOTE, subject="system", text=text, remedy=remedy))
    return findings


def _check_commits(runs: Sequence[SubmittedRun]) -> list[Finding]:
    without_record = [run.name for run in runs if run.record is None]
    unknown = [run for run in runs if run.record is not None and run.commit is None]
    groups = _group([run for run in runs if run.commit is not None], lambda run: run.commit)
    findings = []
    if without_record:
        text = f"unknown for {_names(without_record)}: no {RECORD_FILE} next to the log"
        remedy = "make sure that the packed code is the code that ran"
        findings.append(Finding(state=NOTE, subject="commit", text=text, remedy=remedy))
    if unknown:
        lines = [f"{run.name}: {run.recorded_commit}" for run in unknown]
        problem = "the runs have no commit in their records, so their code cannot be packed"
        text = "\n".join([problem, *lines])
        remedy = "run in a git checkout, or in an image built with REVISION, and repeat the runs"
        findings.append(Finding(state=FAIL, subject="commit", text=text, remedy=remedy))
    lines = [f"{commit} in {_names(names)}" for commit, names in groups.items()]
    if len(groups) > 1:
        text = "\n".join(["the runs are of different commits", *lines])
        findings.append(
            Finding(state=FAIL, subject="commit", text=text, remedy="give runs of one commit")
        )
    elif any(DIRTY_MARK in commit for commit in groups):
        problem = "changed or new files were not committed, so the code that ran cannot be packed"
        text = "\n".join([problem, *lines])
        findings.append(
            Finding(
                state=FAIL, subject="commit", text=text, remedy="commit them and repeat the runs"
            )
        )
    elif groups and not unknown and not without_record:
        findings.append(Finding(state=PASS, subject="commit", text=next(iter(groups)).strip('"')))
    return findings


def _check_power(runs: Sequence[SubmittedRun]) -> list[Finding]:
    """Check the power readings, which are optional.

    If there are any, every run must have complete ones: mlperf-logging's summarizer crashes on an
    incomplete reading.
    """
    if not any(run.power_files for run in runs):
        return []
    lines = []
    for run in runs:
        nodes = [file for file in run.power_files if file.stem.startswith("node_")]
        if not nodes:
            lines.append(f"{run.name} has no {POWER_FOLDER}/node_0.txt next to its log")
        elif {file.stem for file in nodes} != {f"node_{index}" for index in range(len(nodes))}:
            lines.append(
                f"{run.name}: found {', '.join(file.name for file in nodes)}; expected "
                "node_0.txt, node_1.txt, ..."
            )
        for file in nodes:
            keys = {event.key for event in RunLog.read(file).events}
            lines += [f"{file} has no event {key}" for key in POWER_KEYS if key not in keys]
    if lines:
        return [
            Finding(
                state=FAIL,
                subject="power",
                text="\n".join(lines),
                remedy="see docs/submission.md, Power",
            )
        ]
    return [Finding(state=PASS, subject="power", text="readings of every run")]


def _check_caches(runs: Sequence[SubmittedRun]) -> list[Finding]:
    warm = [run.name for run in runs if run.log.values.get("cache_clear") is False]
    if not warm:
        return []
    text = f"{_names(warm)} did not clear the page cache before the run"
    remedy = "the rules require cleared caches on all nodes; see docs/timing_rules.md"
    return [Finding(state=NOTE, subject="caches", text=text, remedy=remedy)]


def _group(
    runs: Sequence[SubmittedRun], value_of: Callable[[SubmittedRun], object]
) -> dict[str, list[str]]:
    """Return value as JSON ("null" for None) -> names of the logs that have it."""
    groups: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        groups[json.dumps(value_of(run), sort_keys=True)].append(run.name)
    return dict(groups)


def _names(names: Sequence[str]) -> str:
    return (
        ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    )
