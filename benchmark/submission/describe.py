"""`describe-system`: write a system description from the machine and a site file."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.finding import FAIL
from benchmark.replace_file import replace_text
from benchmark.submission.description import MEANINGS, check_description
from benchmark.submission.machine_description import collect_description


def add_parser(subparsers) -> None:
    """Declare the command line of `describe-system`."""
    parser = subparsers.add_parser(
        "describe-system",
        help="the system description of a submission",
        description=(
            "Collect the system description from this node (run it on a node that trained, not "
            "on a login node), complete it from the site file, and check it. Missing keys are "
            "printed as lines for the site file. The exit code is 0 if the description can be "
            "submitted, else 1."
        ),
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="SYSTEM.json",
        help="file to write; its name without .json becomes the system's folder",
    )
    parser.add_argument(
        "--site",
        type=Path,
        metavar="FILE.toml",
        help="site file with keys that cannot be collected; it overrides collected keys",
    )


def run(args: argparse.Namespace) -> int:
    """Write the description, print missing keys, and return 0 if no required key is missing."""
    site = {} if args.site is None else read_site(args.site)
    content = collect_description() | site
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(args.out, json.dumps(content, indent=4) + "\n")
    except OSError as error:
        raise BenchmarkError(
            f"--out {args.out} cannot be written: {error.strerror or error}; give a file in a "
            "writable folder"
        ) from error
    print(f"wrote {args.out}")
    findings = check_description(content)
    for finding in findings:
        print("\n".join(finding.lines()))
    has_accelerators = content["accelerators_per_node"] != "0"
    empty = [
        key
        for key in MEANINGS
        if not content.get(key) and (has_accelerators or not key.startswith("accelerator"))
    ]
    if empty:
        print("\nlines for the site file (--site); keys without a message above may stay empty:")
        print("\n".join(f'{key} = ""  # {MEANINGS[key]}' for key in empty))
    return 1 if any(finding.state == FAIL for finding in findings) else 0


def read_site(path: Path) -> dict[str, object]:
    """Read the keys of the site file.

    Raises:
        BenchmarkError: The file is not TOML, or has a key that a system description does not have.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(
            f"{path} cannot be read ({error.strerror}); give the site file with --site"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise BenchmarkError(
            f'{path} is not TOML ({error}); expected lines such as submitter = "..."'
        ) from error
    unknown = sorted(content.keys() - MEANINGS.keys())
    if unknown:
        raise BenchmarkError(
            f"{path} has keys that a system description does not have: {', '.join(unknown)}; "
            "correct or remove them"
        )
    # The site file may have numbers, but a description has only strings.
    return {key: value if isinstance(value, dict) else str(value) for key, value in content.items()}
