"""What mlperf-logging's checkers do not ask: are these the runs of one system, one code and one configuration, each once?"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmark.check import check_log
from benchmark.code_revision import DIRTY_MARK
from benchmark.log_events import read_events
from benchmark.output_directory import POWER_FOLDER
from benchmark.submission.finding import FAIL, NOTE, PASS, Finding
from benchmark.submission.logs import RECORD_FILE, RunLog

REQUIRED_RUNS = 10
PER_RUN_KEYS = ("seed", "tracked_stats", "eval_accuracy", "cache_clear")
"""Log keys whose values belong to a run; all others are the system's or the configuration's."""
MAX_DIFFERENCES = 20
"""More of them say only that the runs have nothing to do with one another."""
POWER_KEYS = ("power_measurement_start", "power_reading", "power_measurement_stop")
NEW_RUNS = "a log is not mended by hand: put right what made it so, and make a new set of runs in new output directories"


def judge_logs(
    logs: Sequence[RunLog], *, description: Mapping[str, Any], scaling: str
) -> list[Finding]:
    """Findings about the logs as a set, and about each of them."""
    return [
        _judge_number(logs, scaling=scaling),
        *_judge_compliance(logs, division=description["division"], scaling=scaling),
        _judge_seeds(logs),
        _judge_start_times(logs, scaling=scaling),
        _judge_sameness(logs),
        *_judge_system(logs, description=description, scaling=scaling),
        *_judge_commits(logs),
        *_judge_power(logs),
        *_judge_caches(logs),
    ]


def _judge_number(logs: Sequence[RunLog], *, scaling: str) -> Finding:
    number, subject = len(logs), "number of runs"
    if number == REQUIRED_RUNS or (scaling == "weak" and number > REQUIRED_RUNS):
        return Finding(state=PASS, subject=subject, text=f"{number}")
    wanted = f"at least {REQUIRED_RUNS}" if scaling == "weak" else f"exactly {REQUIRED_RUNS}"
    remedy = f"make {REQUIRED_RUNS - number} more and name all {REQUIRED_RUNS}"
    if number > REQUIRED_RUNS:
        remedy = f"name those {REQUIRED_RUNS} consecutive ones whose score is the median of all such sets; no others may be chosen"
    return Finding(state=FAIL, subject=subject, text=f"{number}; expected {wanted}", remedy=remedy)


def _judge_compliance(logs: Sequence[RunLog], *, division: str, scaling: str) -> list[Finding]:
    findings = []
    below_target = []
    for log in logs:
        verdict = check_log(log.path)
        complaints = list(verdict.complaints)
        if log.was_resumed:
            complaints.append("the run was resumed by another process, so it is not a result")
        elif complaints and check_log(log.path, below_target=True).passed:
            below_target.append(log.name)
            complaints = []
        if division == "closed" and verdict.division != "closed":
            # the package checker would judge such a log by the open division's rules
            complaints.append(
                f"the log is of the {verdict.division} division; expected closed, as the system description says"
            )
        if complaints:
            text = "\n".join([f"{log.name}, from {log.path}", *complaints])
            findings.append(Finding(state=FAIL, subject="compliance", text=text, remedy=NEW_RUNS))
    if below_target:
        findings.append(_judge_convergence(below_target, scaling=scaling))
    return findings or [
        Finding(state=PASS, subject="compliance", text=f"all {len(logs)} logs, {division} division")
    ]


def _judge_convergence(below_target: Sequence[str], *, scaling: str) -> Finding:
    """Of ten runs one may miss the target and is the slowest; of a throughput none may.

    Source: training_rules.adoc and hpc_training_rules.adoc of mlcommons/training_policies.
    """
    text = f"{_names(below_target)} did not reach the target"
    if scaling == "strong" and len(below_target) == 1:
        remedy = "the rules take one such run for the slowest; another run in its place would be a choice among runs"
        return Finding(state=NOTE, subject="target", text=text, remedy=remedy)
    remedy = "more than one make the result invalid: make a new set of ten runs"
    if scaling == "weak":
        remedy = "leave these instances out, if ten remain"
    return Finding(state=FAIL, subject="target", text=text, remedy=remedy)


def _judge_seeds(logs: Sequence[RunLog]) -> Finding:
    seeds = _group(logs, lambda log: log.values.get("seed"))
    lines = [
        f"seed {seed} in {_names(names)}"
        for seed, names in seeds.items()
        if seed != "null" and len(names) > 1
    ]
    lines += [f"no seed in {_names(seeds['null'])}"] if "null" in seeds else []
    if lines:
        remedy = "every run draws a seed of its own when --seed is not given; of those with the same seed one may stay"
        return Finding(state=FAIL, subject="seeds", text="\n".join(lines), remedy=remedy)
    return Finding(state=PASS, subject="seeds", text="all different")


def _judge_start_times(logs: Sequence[RunLog], *, scaling: str) -> Finding:
    """No two runs start in the same millisecond, unless they are instances of one job.

    Instances side by side may start together, but do not stop together as well.
    """
    keys = ("run_start",) if scaling == "strong" else ("init_start", "run_start", "run_stop")
    groups = _group(logs, lambda log: [log.times.get(key) for key in keys])
    lines = [
        f"{' and '.join(keys)} at {times} ms in {_names(names)}"
        for times, names in groups.items()
        if len(names) > 1 and "null" not in times
    ]
    if lines:
        text = "\n".join([*lines, "expected another time in every log"])
        remedy = "these are copies of one log; name the logs of different runs"
        return Finding(state=FAIL, subject="start times", text=text, remedy=remedy)
    return Finding(state=PASS, subject="start times", text="all different")


def _judge_sameness(logs: Sequence[RunLog]) -> Finding:
    """Log keys, and what the runs' own records have, that should be the same in all."""
    facts = {log.name: _lasting_facts(log) for log in logs}
    recorded = [log.name for log in logs if log.record]
    lines = []
    keys = {key for values in facts.values() for key in values}
    # what MLCommons sees, the log, before what only we recorded
    for key in sorted(keys, key=lambda key: (RECORD_FILE in key, key)):
        # a log without a record says nothing of what only records have
        asked = [log for log in logs if RECORD_FILE not in key or log.name in recorded]
        groups = _group(asked, lambda log, key=key: facts[log.name].get(key))
        if len(groups) > 1:
            lines.append(
                f"{key}: "
                + ", ".join(f"{value} in {_names(names)}" for value, names in groups.items())
            )
    if len(lines) > MAX_DIFFERENCES:
        lines[MAX_DIFFERENCES:] = [f"and {len(lines) - MAX_DIFFERENCES} more"]
    if lines:
        remedy = "runs of different systems or configurations make no result together; name those that belong together"
        return Finding(
            state=FAIL, subject="one configuration", text="\n".join(lines), remedy=remedy
        )
    return Finding(state=PASS, subject="one configuration", text="the same values in all logs")


def _lasting_facts(log: RunLog) -> dict[str, Any]:
    """What a run has in common with the others of its set: key -> value."""
    facts = {key: value for key, value in log.values.items() if key not in PER_RUN_KEYS}
    record = log.record or {}
    wanted = {key: record[key] for key in ("preset", "config", "data_checksum") if key in record}
    if isinstance(wanted.get("config"), Mapping):
        # depends on the memory that was free, and changes no result
        config = wanted["config"].items()
        wanted["config"] = {key: value for key, value in config if key != "recompute"}
    wanted["accelerator"] = (record.get("machine") or {}).get("accelerator")
    return facts | {f"{RECORD_FILE} {path}": value for path, value in _leaves(wanted)}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _judge_system(
    logs: Sequence[RunLog], *, description: Mapping[str, Any], scaling: str
) -> list[Finding]:
    """Logs against the system description."""
    findings = []
    values = logs[0].values
    for key in ("number_of_nodes", "accelerators_per_node"):
        logged, described = values.get(key), int(description[key])
        # an instance of a throughput measurement has a part of the nodes
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
            continue  # told with the compliance of each log
        if values.get(key) != description[name]:
            text = f"{key} is {values.get(key)!r} in the logs, {name} is {description[name]!r} in the system description"
            remedy = "nobody refuses that; SUBMISSION_ORG and SUBMISSION_STATUS set them for the next runs"
            findings.append(Finding(state=NOTE, subject="system", text=text, remedy=remedy))
    return findings


def _judge_commits(logs: Sequence[RunLog]) -> list[Finding]:
    without_record = [log.name for log in logs if log.record is None]
    unknown = [log for log in logs if log.record is not None and log.commit is None]
    groups = _group([log for log in logs if log.commit is not None], lambda log: log.commit)
    findings = []
    if without_record:
        text = f"not known for {_names(without_record)}: no {RECORD_FILE} beside the log"
        remedy = "see to it that the packed code is the code that ran"
        findings.append(Finding(state=NOTE, subject="commit", text=text, remedy=remedy))
    if unknown:
        lines = [f"{log.name}: {log.recorded_commit}" for log in unknown]
        found = "the runs do not know their commit, so their code cannot be packed"
        text = "\n".join([found, *lines])
        remedy = (
            "run in a git checkout, or in an image that was built with REVISION, and make the runs "
            "again"
        )
        findings.append(Finding(state=FAIL, subject="commit", text=text, remedy=remedy))
    lines = [f"{commit} in {_names(names)}" for commit, names in groups.items()]
    if len(groups) > 1:
        text = "\n".join(["the runs are of different commits", *lines])
        findings.append(
            Finding(state=FAIL, subject="commit", text=text, remedy="name runs of one commit")
        )
    elif any(DIRTY_MARK in commit for commit in groups):
        found = "files were changed or new and not committed, so the code that ran cannot be packed"
        text = "\n".join([found, *lines])
        findings.append(
            Finding(
                state=FAIL, subject="commit", text=text, remedy="commit, and make the runs again"
            )
        )
    elif groups and not unknown and not without_record:
        findings.append(Finding(state=PASS, subject="commit", text=next(iter(groups)).strip('"')))
    return findings


def _judge_power(logs: Sequence[RunLog]) -> list[Finding]:
    """Readings are voluntary, but then of every run, and whole: mlperf-logging's summarizer dies of one that is not."""
    if not any(log.power_files for log in logs):
        return []
    lines = []
    for log in logs:
        nodes = [file for file in log.power_files if file.stem.startswith("node_")]
        if not nodes:
            lines.append(f"{log.name} has no {POWER_FOLDER}/node_0.txt beside its log")
        elif {file.stem for file in nodes} != {f"node_{index}" for index in range(len(nodes))}:
            lines.append(
                f"{log.name}: found {', '.join(file.name for file in nodes)}; expected node_0.txt, node_1.txt, ..."
            )
        for file in nodes:
            keys = {event["key"] for event in read_events(file)[0]}
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


def _judge_caches(logs: Sequence[RunLog]) -> list[Finding]:
    warm = [log.name for log in logs if log.values.get("cache_clear") is False]
    if not warm:
        return []
    text = f"{_names(warm)} did not clear the page cache before the run"
    remedy = "the rules want the caches of the nodes cleared; see docs/timing_rules.md"
    return [Finding(state=NOTE, subject="caches", text=text, remedy=remedy)]


def _group(logs: Sequence[RunLog], value_of: Callable[[RunLog], Any]) -> dict[str, list[str]]:
    """Value as JSON -> names of the logs that have it."""
    groups: dict[str, list[str]] = defaultdict(list)
    for log in logs:
        groups[json.dumps(value_of(log), sort_keys=True)].append(log.name)
    return dict(groups)


def _names(names: Sequence[str]) -> str:
    return (
        ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    )
