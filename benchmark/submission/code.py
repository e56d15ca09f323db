"""The code of a submission: the tracked files of one commit."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from benchmark.code_revision import DIRTY_MARK, digest_files, is_code
from benchmark.command_line import BenchmarkError

COMMIT_DIGITS = 12
"""Hexadecimal digits of a commit in the name of the code's folder."""


def resolve_commit(checkout: Path, revision: str) -> str:
    """Return the full hash of a revision, without the "-dirty" mark.

    Raises:
        BenchmarkError: The checkout does not have this commit.
    """
    name = revision.removesuffix(DIRTY_MARK)
    parsed = _git(checkout, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if parsed.returncode != 0:
        reason = parsed.stderr.decode(errors="replace").strip()
        raise BenchmarkError(
            f"{checkout} does not have the commit {name}{': ' + reason if reason else ''}; "
            "run `submit` in the git checkout that made the runs"
        )
    return parsed.stdout.decode().strip()


def has_file(checkout: Path, commit: str, name: str) -> bool:
    """Return whether a commit has a file. name: path relative to the checkout, with slashes."""
    return _git(checkout, "cat-file", "-e", f"{commit}:{name}").returncode == 0


def commit_digest(checkout: Path, commit: str) -> str:
    """Return the SHA-256 that `code_digest` computes in a clean checkout of a commit."""
    with _open_commit(checkout, commit) as tar:
        members = [member for member in tar if member.isfile() and is_code(member.name)]
        return digest_files((member.name, tar.extractfile(member).read()) for member in members)


def unpack_commit(checkout: Path, commit: str, target: Path) -> list[str]:
    """Write the tracked files of a commit to target, and return the skipped files.

    Names with a leading dot are skipped, because mlperf-logging's repository checker refuses them.
    """
    with _open_commit(checkout, commit) as tar:
        members = tar.getmembers()
        kept = [member for member in members if not _is_hidden(member.name)]
        tar.extractall(target, members=kept, filter="data")
    return sorted(
        member.name for member in members if _is_hidden(member.name) and not member.isdir()
    )


def _open_commit(checkout: Path, commit: str) -> tarfile.TarFile:
    archive = _git(checkout, "archive", "--format=tar", commit)
    if archive.returncode != 0:
        reason = archive.stderr.decode(errors="replace").strip()
        raise BenchmarkError(f"git cannot read commit {commit} of {checkout}: {reason}")
    return tarfile.open(fileobj=io.BytesIO(archive.stdout))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _git(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    if not (checkout / ".git").exists():
        raise BenchmarkError(
            f"{checkout} is not a git checkout, so its tracked files are unknown; run `submit` in "
            "a clone"
        )
    try:
        return subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, timeout=300
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(
            f"git cannot run ({error}); install it, `submit` needs it to pack the code"
        ) from error
