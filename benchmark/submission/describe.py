"""`describe-system`: the description of a system, from the machine and a small file of the site."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from benchmark.errors import BenchmarkError
from benchmark.submission.description import MEANINGS, judge_description
from benchmark.submission.finding import FAIL
from benchmark.submission.machine_description import collect_description


def add_parser(subparsers) -> None:
    """Declare the command line of `describe-system`."""
    parser = subparsers.add_parser(
        "describe-system",
        help="the system description of a submission",
        description="Collect the system description from the node that this runs on (start it on a node that trained, not on a "
        "login node), complete it from the site's file, and check it. What is still missing is printed as lines for that "
        "file. The exit code is 0 if the description can be submitted, else 1.",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="SYSTEM.json",
        help="its name without .json is the system's folder",
    )
    parser.add_argument(
        "--site",
        type=Path,
        metavar="FILE.toml",
        help="keys that no machine tells; they win over collected ones",
    )


def run(args: argparse.Namespace) -> int:
    """Write the description, print what is missing, and return 0 if nothing that is demanded is."""
    site = {} if args.site is None else read_site(args.site)
    content = collect_description() | site
    try:
        _write(args.out, content)
    except OSError as error:
        raise BenchmarkError(
            f"--out {args.out} cannot be written: {error.strerror or error}; name a file of a folder of yours"
        ) from error
    print(f"wrote {args.out}")
    findings = judge_description(content)
    for finding in findings:
        print("\n".join(finding.lines()))
    has_accelerators = content["accelerators_per_node"] != "0"
    empty = [
        key
        for key in MEANINGS
        if not content.get(key) and (has_accelerators or not key.startswith("accelerator"))
    ]
    if empty:
        print(
            "\nlines for the site's file (--site); what is empty and was not complained of may stay empty:"
        )
        print("\n".join(f'{key} = ""  # {MEANINGS[key]}' for key in empty))
    return 1 if any(finding.state == FAIL for finding in findings) else 0


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise


def read_site(path: Path) -> dict[str, Any]:
    """The site's keys; BenchmarkError for a file that is none, or a key that no description has."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(
            f"{path} cannot be read ({error.strerror}); name the site's file with --site"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise BenchmarkError(
            f'{path} is not TOML ({error}); expected lines such as submitter = "..."'
        ) from error
    unknown = sorted(content.keys() - MEANINGS.keys())
    if unknown:
        raise BenchmarkError(
            f"{path} has keys that no system description has: {', '.join(unknown)}; correct or remove them"
        )
    # numbers may be written as such in the file; a description has texts
    return {key: value if isinstance(value, dict) else str(value) for key, value in content.items()}
