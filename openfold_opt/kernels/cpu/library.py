"""The native library of the CPU kernels, compiled once per machine for its processor."""

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
"""Without -ffast-math, which assumes that no value is infinite or NaN."""
_FLAGS_BY_MACHINE = {"x86_64": ("-mprefer-vector-width=512",)}


class LibraryError(Exception):
    """The native library cannot be compiled or loaded; the message gives the reason."""


@cache
def library() -> ctypes.CDLL:
    """Return the native library. The first call on a machine compiles it in a few seconds.

    Raises:
        LibraryError: there is no C++ compiler, it failed, or no cache folder can be used.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise LibraryError(
            f"there is no C++ compiler: none of {', '.join(COMPILERS)} is on the PATH "
            "(Debian, Ubuntu: apt-get install g++)"
        )
    name = f"kernels-{_key(compiler)}.so"
    folders = list(_folders())
    for folder in folders:
        try:
            return ctypes.CDLL(str(folder / name))
        except OSError:
            # The file is missing or cannot be loaded.
            continue
    with tempfile.TemporaryDirectory() as work:
        _compile(compiler, Path(work, name))
        reasons = []
        for folder in folders:
            try:
                _install(Path(work, name), folder)
                return ctypes.CDLL(str(folder / name))
            except OSError as error:
                reasons.append(f"{folder} ({error})")
    raise LibraryError(
        f"the compiled library cannot be stored in any of {', '.join(reasons)}: make one of them "
        "writable, with 1 MB of free space and without the mount option noexec"
    )


@cache
def unsupported_reason() -> str | None:
    """Return why this machine has no native library; None if it has one."""
    try:
        library()
    except LibraryError as error:
        return str(error)
    return None


def _folders() -> Iterator[Path]:
    """Yield the cache folders in order of preference."""
    yield SOURCES / "built"
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        yield Path(home, ".cache", "openfold_opt")
    temporary = Path(tempfile.gettempdir(), f"openfold_opt-{os.getuid()}")
    # Any user can write to the temporary folder, so another user may have created this one.
    try:
        temporary.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return
    if temporary.stat().st_uid == os.getuid():
        yield temporary


def _install(compiled: Path, folder: Path) -> None:
    """Copy the library into the folder atomically, as other processes may do the same."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(compiled.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o755)
        os.replace(part, folder / compiled.name)
    except OSError:
        os.unlink(part)
        raise


def _flags() -> tuple[str, ...]:
    return FLAGS + _FLAGS_BY_MACHINE.get(platform.machine(), ())


def _key(compiler: str) -> str:
    """Return a hash of all that the machine code depends on.

    It includes the processor, as machines of several kinds may share a home folder.
    """
    digest = hashlib.sha256(_run([compiler, "--version"]).stdout.encode())
    for path in sorted(SOURCES.glob("*.*")):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(" ".join((*_flags(), platform.machine(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """Return model and instruction sets of the first processor, as Linux reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        line for line in lines if line.startswith(("model", "flags", "Features", "CPU "))
    )


def _compile(compiler: str, out: Path) -> None:
    # table.cpp includes all other sources.
    command = [compiler, *_flags(), str(SOURCES / "table.cpp"), "-o", str(out)]
    finished = _run(command)
    if finished.returncode != 0:
        raise LibraryError(
            f"{' '.join(command)} ended with exit code {finished.returncode}:\n"
            f"{finished.stderr[-2000:]}"
        )


def _run(command: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise LibraryError(f"{command[0]} cannot be started: {error}") from error
