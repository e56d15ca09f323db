"""Standard output and standard error as any locale and any reader leave them."""

from __future__ import annotations

import io
import os
import select
import sys

EXIT_BROKEN_PIPE = 141
"""As a program that the signal SIGPIPE ends."""


def accept_any_letter() -> None:
    """Print what the locale cannot show (a path in a locale of C) as an escape, in place of an
    error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def has_lost_reader() -> bool:
    """Whether standard output is a pipe whose reader has ended (`... | head`).

    A broken pipe can also be a connection between processes, whose end is an error.
    """
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in watched.poll(0))


def drop_output() -> int:
    """Send what is left of the standard output nowhere, and return the exit code.

    To be called when its reader has ended: Python would complain once more when it flushes at exit.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def program_name(*, script: str, module: str) -> str:
    """How this program was called: by the name of its installed script, or as a module."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return script if name == script else f"python -m {module}"
