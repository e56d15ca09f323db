"""Which of the pinned requirements an image lacks, and the versions that it has, which an installation must not touch.

    python3 docker/missing_requirements.py FOLDER [EXTRA ...]

writes FOLDER/missing.txt (requirements) and FOLDER/held.txt (constraints) for pip, and tells what the image brings. Standard library
only: it runs before anything is installed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

PROJECT_FILE = Path(__file__).resolve().parent.parent / "pyproject.toml"


def list_pins(extras: Sequence[str]) -> list[str]:
    """The requirements of pyproject.toml, "name==version" each, with those of the named extras; ValueError for an unknown one."""
    project = tomllib.loads(PROJECT_FILE.read_text(encoding="utf-8"))["project"]
    groups = project["optional-dependencies"]
    unknown = sorted(set(extras) - set(groups))
    if unknown:
        raise ValueError(
            f"found the extra {', '.join(unknown)}; expected some of {', '.join(sorted(groups))}"
        )
    return list(
        dict.fromkeys(
            [*project["dependencies"], *(pin for extra in extras for pin in groups[extra])]
        )
    )


def list_held() -> list[str]:
    """Constraints, sorted: every installed distribution where the image brings torch, as its builder has fitted them to one another.

    None on a bare Python, whose pip and setuptools may be older than what is asked for needs.
    """
    if not is_there("torch"):
        return []
    found = {
        item.metadata["Name"]: item.version
        for item in importlib.metadata.distributions()
        if item.metadata["Name"]
    }
    return sorted(f"{name}=={version}" for name, version in found.items())


def is_there(name: str) -> bool:
    """True if the distribution is installed, or something else brings its module (Triton has come under several names)."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return importlib.util.find_spec(re.sub("-", "_", name)) is not None
    return True


def main(arguments: Sequence[str]) -> int:
    """Writes the two files; 2 where the arguments are wrong."""
    if not arguments:
        print("usage: missing_requirements.py FOLDER [EXTRA ...]", file=sys.stderr)
        return 2
    try:
        pins = list_pins(arguments[1:])
    except ValueError as error:
        print(f"missing_requirements.py: {error}", file=sys.stderr)
        return 2
    missing = [pin for pin in pins if not is_there(pin.partition("==")[0])]
    kept = [pin for pin in pins if pin not in missing]
    folder = Path(arguments[0])
    (folder / "missing.txt").write_text("".join(f"{pin}\n" for pin in missing), encoding="utf-8")
    (folder / "held.txt").write_text("".join(f"{pin}\n" for pin in list_held()), encoding="utf-8")
    print(
        f"the image brings, in versions of its own: {', '.join(pin.partition('==')[0] for pin in kept) or 'nothing'}"
    )
    print(f"to be installed: {' '.join(missing) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
