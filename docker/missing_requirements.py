"""List the pinned requirements that an image lacks, and the installed versions to keep.

    python3 docker/missing_requirements.py FOLDER [EXTRA ...]

It writes FOLDER/missing.txt (requirements) and FOLDER/held.txt (constraints) for pip, and prints
what the image contains. It runs before the installation, so it needs only the standard library.
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
    """Return the requirements of pyproject.toml and of the extras, as "name==version".

    Raises ValueError for an unknown extra.
    """
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
    """Return sorted constraints that keep the installed distributions of an image with torch.

    The builder of such an image made its versions compatible. An image without torch has no
    constraints, as its pip and setuptools may be too old for the requirements.
    """
    if not is_installed("torch"):
        return []
    found = {
        item.metadata["Name"]: item.version
        for item in importlib.metadata.distributions()
        if item.metadata["Name"]
    }
    return sorted(f"{name}=={version}" for name, version in found.items())


def is_installed(name: str) -> bool:
    """Return whether a distribution or its module is installed (Triton has had several names)."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return importlib.util.find_spec(re.sub("-", "_", name)) is not None
    return True


def main(arguments: Sequence[str]) -> int:
    """Write the two files. Return 2 for wrong arguments."""
    if not arguments:
        print("usage: missing_requirements.py FOLDER [EXTRA ...]", file=sys.stderr)
        return 2
    try:
        pins = list_pins(arguments[1:])
    except ValueError as error:
        print(f"missing_requirements.py: {error}", file=sys.stderr)
        return 2
    missing = [pin for pin in pins if not is_installed(pin.partition("==")[0])]
    kept = [pin for pin in pins if pin not in missing]
    folder = Path(arguments[0])
    (folder / "missing.txt").write_text("".join(f"{pin}\n" for pin in missing), encoding="utf-8")
    (folder / "held.txt").write_text("".join(f"{pin}\n" for pin in list_held()), encoding="utf-8")
    print(
        "the image contains, in its own versions: "
        f"{', '.join(pin.partition('==')[0] for pin in kept) or 'nothing'}"
    )
    print(f"to be installed: {' '.join(missing) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
