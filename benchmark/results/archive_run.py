"""Keeps a finished run among the records, without what names the machine's owner."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from benchmark.check import check_log
from benchmark.errors import BenchmarkError
from benchmark.output_directory import FIRST_LOG, STATE_FILE
from benchmark.results.archive import CONFIG_KEYS, missing_keys
from benchmark.results.run_log import LogError, read_run_log

REMOVED = "(removed)"
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
REPEATING_KEYS = ("number_of_nodes", "number_of_ranks", "init_checkpoint_sha256")
"""Of config.json, for the command that repeats a run."""
CLEAN_COMMIT = re.compile(r"[0-9a-f]{40}")


def archive_run(
    run_directory: Path, folder: Path, *, name: str, command: str | None = None
) -> None:
    """Copy log, configuration and command of a run to a new folder of this name.

    command: what repeats the run; made from the configuration if None. BenchmarkError if the run is not a result that others
    could repeat: unfinished, resumed, against the rules, from code that was not committed, or with paths of this machine in it.
    """
    target = folder / name
    if not NAME.fullmatch(name):
        raise BenchmarkError(
            f"--name {name!r}: expected lower-case letters, digits, '_', '-' and '.'"
        )
    if target.exists():
        raise BenchmarkError(f"{target} exists; choose another --name")
    state = _read(run_directory / STATE_FILE)
    if state.get("status") != "finished" or state.get("continued"):
        how = (
            "was resumed"
            if state.get("continued")
            else f"is {state.get('status')!r}, expected 'finished'"
        )
        raise BenchmarkError(
            f"{run_directory}: the run {how}; only a run that ended in one go is kept"
        )
    log_path = run_directory / FIRST_LOG
    verdict = check_log(log_path)
    if not verdict.passed:
        raise BenchmarkError(f"{log_path} does not comply: {verdict.complaints[0].strip()}")
    try:
        read_run_log(log_path)
    except LogError as error:
        raise BenchmarkError(f"{log_path}: {error}") from error
    config = _read(run_directory / "config.json")
    lacking = missing_keys(config, (*CONFIG_KEYS, *REPEATING_KEYS, "machine.host"))
    if lacking:
        raise BenchmarkError(
            f"{run_directory}/config.json lacks {', '.join(lacking)}; expected what a run writes"
        )
    log = log_path.read_text(encoding="utf-8")
    commit = config["versions"]["commit"]
    if not CLEAN_COMMIT.fullmatch(commit):
        raise BenchmarkError(
            f"{run_directory}: the code was {commit!r}, expected a whole commit; commit, and run again"
        )
    host = config["machine"]["host"]
    config["machine"]["host"] = REMOVED
    text = json.dumps(config, indent=1) + "\n"
    for file, content in (("config.json", text), (FIRST_LOG, log)):
        _refuse_traces(content, host=host, where=run_directory / file)
    command = command or repeating_command(config)
    target.mkdir(parents=True)
    (target / "config.json").write_text(text, encoding="utf-8")
    (target / FIRST_LOG).write_text(log, encoding="utf-8")
    (target / "command.txt").write_text(command + "\n", encoding="utf-8")


def repeating_command(config: dict[str, Any]) -> str:
    """For ranks on one node; runs on several have commands that their config.json does not know."""
    if config["number_of_nodes"] > 1:
        raise BenchmarkError(
            f"the run was on {config['number_of_nodes']} nodes; give the command that repeats it with --command"
        )
    ranks = config["number_of_ranks"]
    start = ["python"] if ranks == 1 else ["torchrun", "--nproc-per-node", str(ranks)]
    words = [
        *start,
        "-m",
        "benchmark",
        "run",
        "--preset",
        config["preset"],
        "--seed",
        str(config["seed"]),
    ]
    words += [word for setting in config.get("settings", []) for word in ("--set", setting)]
    words += ["--data-dir", "DATA_DIR", "--output-dir", "OUTPUT_DIR"]
    if config["init_checkpoint_sha256"]:
        words += ["--init-checkpoint", "CHECKPOINT"]
    return shlex.join(words)


def _refuse_traces(content: str, *, host: str, where: Path) -> None:
    paths = re.findall(r'"(/[^"]+)"', content)
    if paths:
        raise BenchmarkError(
            f"{where} has a path of this machine in it, {paths[0]}; use relative paths, and run again"
        )
    if re.search(rf"\b{re.escape(host)}\b", content):
        raise BenchmarkError(
            f"{where} has the name of this host in it, {host}; SUBMISSION_PLATFORM and SUBMISSION_ORG should name it otherwise"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(
            f"{path} cannot be read: {error}; expected the output directory of a run"
        ) from error
    if not isinstance(content, dict):
        raise BenchmarkError(
            f"{path} is not a table of keys; expected the output directory of a run"
        )
    return content
