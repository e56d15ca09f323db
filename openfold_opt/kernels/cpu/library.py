"""The library of loops: compiled once on a machine, by its own C++ compiler for its own processor, and kept."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).with_name("cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fopenmp-simd",
    "-shared",
    "-fPIC",
)
"""Not -ffast-math, for which nothing is ever infinite or not a number."""
_FLAGS_BY_MACHINE = {"x86_64": ("-mprefer-vector-width=512",)}


class LibraryError(Exception):
    """Why there is no library."""


@cache
def library() -> ctypes.CDLL:
    """The library; the first call on a machine compiles it, which takes some seconds. LibraryError tells why it cannot be had."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise LibraryError(
            f"there is no C++ compiler: none of {', '.join(COMPILERS)} is on the PATH (Debian, Ubuntu: apt-get install g++)"
        )
    name = f"loops-{_key(compiler)}.so"
    folders = list(_folders())
    for folder in folders:
        try:
            return ctypes.CDLL(str(folder / name))
        except OSError:
            # there is none, or none that can be used here
            continue
    with tempfile.TemporaryDirectory() as work:
        _compile(compiler, Path(work, name))
        reasons = []
        for folder in folders:
            try:
                _keep(Path(work, name), folder)
                return ctypes.CDLL(str(folder / name))
            except OSError as error:
                reasons.append(f"{folder} ({error})")
    raise LibraryError(
        f"its machine code can be kept in none of {', '.join(reasons)}: make one of them writable, with 1 MB of room, and not noexec"
    )


@cache
def unsupported_reason() -> str | None:
    """Why this machine cannot have the library, or None."""
    try:
        library()
    except LibraryError as error:
        return str(error)
    return None


def _folders() -> Iterator[Path]:
    """Where machine code may lie, by preference."""
    yield SOURCES / "built"
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        yield Path(home, ".cache", "openfold_opt")
    shared = Path(tempfile.gettempdir(), f"openfold_opt-{os.getuid()}")
    # where everybody may write, somebody else could have made a folder of that name
    try:
        shared.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return
    if shared.stat().st_uid == os.getuid():
        yield shared


def _keep(made: Path, folder: Path) -> None:
    """Lays a copy into the folder, whole or not at all: another process may do the same at this moment, with the same result."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(made.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o755)
        os.replace(part, folder / made.name)
    except OSError:
        os.unlink(part)
        raise


def _flags() -> tuple[str, ...]:
    return FLAGS + _FLAGS_BY_MACHINE.get(platform.machine(), ())


def _key(compiler: str) -> str:
    """Stands for all that the machine code depends on; home directories are shared by machines of several kinds."""
    digest = hashlib.sha256(_run([compiler, "--version"]).stdout.encode())
    for path in sorted(SOURCES.glob("*.*")):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(" ".join((*_flags(), platform.machine(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """Model and abilities of the first processor, as Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        line for line in lines if line.startswith(("model", "flags", "Features", "CPU "))
    )


def _compile(compiler: str, out: Path) -> None:
    command = [compiler, *_flags(), str(SOURCES / "table.cpp"), "-o", str(out)]
    finished = _run(command)
    if finished.returncode != 0:
        raise LibraryError(
            f"{' '.join(command)} ended with exit code {finished.returncode}:\n{finished.stderr[-2000:]}"
        )


def _run(command: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise LibraryError(f"{command[0]} cannot be started: {error}") from error
