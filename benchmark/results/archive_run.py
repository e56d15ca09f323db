"""Archive a finished run, without information that identifies the owner of the machine."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError, describe_error
from benchmark.mlperf.check import check_log
from benchmark.results.archive import CONFIG_KEYS, missing_keys
from benchmark.results.logged_run import LogError, read_logged_run
from benchmark.run.output_directory import FIRST_LOG
from benchmark.run.state_file import STATE_FILE, read_state

REMOVED = "(removed)"
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
REPEATING_KEYS = ("number_of_nodes", "number_of_ranks", "init_checkpoint_sha256")
"""Keys of config.json from which `repeating_command` builds the command."""
CLEAN_COMMIT = re.compile(r"[0-9a-f]{40}")
"""A commit that is known and not marked as dirty."""


def archive_run(
    run_directory: Path, folder: Path, *, name: str, command: str | None = None
) -> None:
    """Copy the log, the configuration and the command of a run to a new folder of this name.

    Args:
        run_directory: Output directory of the run.
        folder: Parent of the new folder.
        name: Name of the new folder.
        command: Command that repeats the run; derived from the configuration if None.

    Raises:
        BenchmarkError: The run is not a result that others can repeat: it is unfinished, resumed or
        not compliant, its code was not committed, or its files contain paths of this machine.
    """
    target = folder / name
    if not NAME.fullmatch(name):
        raise BenchmarkError(
            f"--name {name!r}: expected lower-case letters, digits, '_', '-' and '.'"
        )
    if target.exists():
        raise BenchmarkError(f"{target} exists; choose another --name")
    log_path = run_directory / FIRST_LOG
    _check_run(run_directory, log_path)
    config = _read_config(run_directory / "config.json")
    missing = missing_keys(config, (*CONFIG_KEYS, *REPEATING_KEYS, "machine.host"))
    if missing:
        raise BenchmarkError(
            f"{run_directory}/config.json lacks {', '.join(missing)}; expected the file that a "
            "run writes"
        )
    log = log_path.read_text(encoding="utf-8")
    commit = config["versions"]["commit"]
    if not CLEAN_COMMIT.fullmatch(commit):
        raise BenchmarkError(
            f"{run_directory}: the commit of the code is {commit!r}, expected 40 hexadecimal "
            "digits; commit all changes and repeat the run"
        )
    host = config["machine"]["host"]
    config["machine"]["host"] = REMOVED
    text = json.dumps(config, indent=1) + "\n"
    for file, content in (("config.json", text), (FIRST_LOG, log)):
        _check_no_private_names(content, host=host, path=run_directory / file)
    command = command or repeating_command(config)
    target.mkdir(parents=True)
    (target / "config.json").write_text(text, encoding="utf-8")
    (target / FIRST_LOG).write_text(log, encoding="utf-8")
    (target / "command.txt").write_text(command + "\n", encoding="utf-8")


def _check_run(run_directory: Path, log_path: Path) -> None:
    """Check that the run finished, was not resumed, and has a compliant log."""
    state = read_state(run_directory)
    if state is None:
        raise BenchmarkError(
            f"{run_directory} has no {STATE_FILE}; expected the output directory of a run"
        )
    if state.status != "finished" or state.continued:
        reason = "was resumed" if state.continued else f"is {state.status!r}, expected 'finished'"
        raise BenchmarkError(
            f"{run_directory}: the run {reason}; only finished runs that were not resumed are "
            "archived"
        )
    checked = check_log(log_path)
    if not checked.passed:
        raise BenchmarkError(f"{log_path} does not comply: {checked.complaints[0].strip()}")
    try:
        read_logged_run(log_path)
    except LogError as error:
        raise BenchmarkError(f"{log_path}: {error}") from error


def repeating_command(config: Mapping[str, Any]) -> str:
    """Return the command that repeats a run on one node.

    Raises:
        BenchmarkError: The run was on several nodes, so its launcher is not in config.json.
    """
    if config["number_of_nodes"] > 1:
        raise BenchmarkError(
            f"the run was on {config['number_of_nodes']} nodes; give the command that repeats it "
            "with --command"
        )
    ranks = config["number_of_ranks"]
    launcher = ["python"] if ranks == 1 else ["torchrun", "--nproc-per-node", str(ranks)]
    words = [
        *launcher,
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


def _check_no_private_names(content: str, *, host: str, path: Path) -> None:
    # JSON strings that begin with a slash.
    paths = re.findall(r'"(/[^"]+)"', content)
    if paths:
        raise BenchmarkError(
            f"{path} contains a path of this machine, {paths[0]}; use relative paths and repeat "
            "the run"
        )
    if re.search(rf"\b{re.escape(host)}\b", content):
        raise BenchmarkError(
            f"{path} contains the name of this host, {host}; set SUBMISSION_PLATFORM and "
            "SUBMISSION_ORG to other names"
        )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BenchmarkError(
            f"{path} cannot be read: {describe_error(error)}; expected the output directory of a "
            "run"
        ) from error
    if not isinstance(content, dict):
        raise BenchmarkError(f"{path} is not a JSON object; expected the output directory of a run")
    return content
