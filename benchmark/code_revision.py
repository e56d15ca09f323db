"""Identify the code that runs: its commit, uncommitted files, and a digest of the files.

`python3 -m benchmark.code_revision` prints the commit, for the build argument REVISION of an image.
It imports only the standard library.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

CODE_FOLDERS = ("benchmark", "data_prep", "openfold_opt", "slurm")
"""Files in these folders are part of a run, whether git tracks them or not."""
CODE_SUFFIXES = (".py", ".sh", ".sub", ".cpp", ".h")
BUILT_FOLDERS = ("__pycache__", "built")
"""Folders of build products, which git ignores."""
DIRTY_MARK = "-dirty"
"""Suffix of the commit if files in the checkout differ from it."""
REVISION_FILE = "REVISION"
"""File with the commit of an image, which has no git history. The build of the image writes it."""
NO_CHECKOUT = "not a checkout"
"""In place of the commit, if there is neither a git history nor a commit in REVISION_FILE."""

_REVISION = re.compile(rf"[0-9a-f]{{7,40}}({DIRTY_MARK})?")
_TIMEOUT_SECONDS = 60


def describe_commit(checkout: Path) -> str:
    """Return the commit of a checkout or of an image, with "-dirty" if files were not committed.

    If the commit is unknown, it returns a text with spaces that says why.
    """
    if not (checkout / ".git").exists():
        return _commit_of_image(checkout / REVISION_FILE)
    try:
        # `git describe` would return the name of a tag in place of the hash.
        head = _git(checkout, "rev-parse", "--verify", "HEAD")
        changed = uncommitted_files(checkout)
    except subprocess.CalledProcessError:
        return "unknown (git refuses the checkout)"
    except (OSError, subprocess.SubprocessError):
        return "unknown (git does not run)"
    return head.stdout.strip() + (DIRTY_MARK if changed else "")


def _commit_of_image(file: Path) -> str:
    revision = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if revision in ("", "unknown"):
        return NO_CHECKOUT
    if not _REVISION.fullmatch(revision):
        return f"unknown (the image's REVISION is {revision!r}, expected the hash of a commit)"
    return revision


def uncommitted_files(checkout: Path) -> list[str]:
    """Return changed tracked files, and untracked files in CODE_FOLDERS.

    Ignored files are skipped. Raises OSError or SubprocessError if git does not run or fails.
    """
    command = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    status = _git(checkout, *command)
    # An entry is a state of two characters, a space, and the name of the file.
    entries = [(entry[:2], entry[3:]) for entry in status.stdout.split("\0") if entry]
    return sorted(name for state, name in entries if state != "??" or _is_in_code_folder(name))


def code_digest(checkout: Path) -> str:
    """Return the SHA-256 of the names and contents of the code files in a folder."""
    files = [path for top in CODE_FOLDERS for path in (checkout / top).rglob("*") if path.is_file()]
    names = {path.relative_to(checkout).as_posix(): path for path in files}
    return digest_files((name, path.read_bytes()) for name, path in names.items() if is_code(name))


def digest_files(files: Iterable[tuple[str, bytes]]) -> str:
    """Return the SHA-256 of names and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name, content in sorted(files):
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def is_code(name: str) -> bool:
    """Whether the digest covers a file. name: relative to the checkout, with slashes."""
    path = PurePosixPath(name)
    is_built = any(part in BUILT_FOLDERS for part in path.parts)
    return _is_in_code_folder(name) and path.suffix in CODE_SUFFIXES and not is_built


def _is_in_code_folder(name: str) -> bool:
    return name.partition("/")[0] in CODE_FOLDERS


def _git(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git. Raises CalledProcessError if it fails, so empty output is never a hidden error."""
    command = ["git", "--no-optional-locks", "-C", str(checkout), *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_SECONDS,
        check=True,
    )


if __name__ == "__main__":
    print(describe_commit(Path(__file__).resolve().parent.parent))
