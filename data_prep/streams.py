"""Standard output and standard error: any locale, and pipes whose reader ends early."""

from __future__ import annotations

import io
import os
import select
import sys

EXIT_BROKEN_PIPE = 141
"""The exit code of a program that the signal SIGPIPE ended."""


def escape_unencodable_characters() -> None:
    """Print characters that the locale cannot encode as escapes such as `\\xe9`.

    Without this, printing a path that is not ASCII in the C locale is an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def has_lost_reader() -> bool:
    """Return whether standard output is a pipe whose reader has ended (`... | head`).

    A broken pipe can also be a lost connection between processes, which is an error.
    """
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in watched.poll(0))


def discard_output() -> int:
    """Redirect standard output to the null device and return EXIT_BROKEN_PIPE.

    Call it when the reader of the pipe has ended. Otherwise Python prints another error when it
    flushes standard output at exit.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def program_name(*, script: str, module: str) -> str:
    """Return the name by which this program was called: its installed script or the module."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return script if name == script else f"python -m {module}"
