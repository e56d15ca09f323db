"""The folder of the Unix sockets of multiprocessing.

Linux limits the length of socket paths. A long TMPDIR, which some clusters set, exceeds the limit.
"""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile

MAX_SOCKET_PATH_BYTES = 107
"""Limit of Linux, without the terminating null byte."""
NAME_BELOW_FOLDER = "/pymp-12345678/listener-12345678"
"""Path that multiprocessing appends to the folder for temporary files."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders to try, in this order, if TMPDIR is too long."""


def use_short_socket_folder() -> None:
    """Make multiprocessing create its sockets in a folder with a short path.

    The folder is TMPDIR if its path is short enough, else the first usable one of SHORT_FOLDERS.
    Call this before a fork server starts the first process.

    Raises:
        ValueError: no folder can be used.
    """
    folder = tempfile.gettempdir()
    if _fits(folder):
        return
    usable = [
        short
        for short in SHORT_FOLDERS
        if os.path.isdir(short) and os.access(short, os.W_OK | os.X_OK)
    ]
    if not usable:
        raise ValueError(
            _too_long_message(folder, f"and none of {', '.join(SHORT_FOLDERS)} is writable")
        )
    # multiprocessing queries tempfile once and keeps the folder that it created.
    tempfile.tempdir = usable[0]
    try:
        created = multiprocessing.util.get_temp_dir()
    finally:
        tempfile.tempdir = folder
    if not _fits(os.path.dirname(created)):
        raise ValueError(
            _too_long_message(folder, f"and multiprocessing already uses {created} for its sockets")
        )


def _fits(folder: str) -> bool:
    return len(os.fsencode(folder)) + len(NAME_BELOW_FOLDER) <= MAX_SOCKET_PATH_BYTES


def _too_long_message(folder: str, reason: str) -> str:
    max_bytes = MAX_SOCKET_PATH_BYTES - len(NAME_BELOW_FOLDER)
    return (
        f"TMPDIR is {folder}, which has {len(os.fsencode(folder))} bytes; "
        f"the workers of the loader need a folder of at most {max_bytes} bytes for "
        f"Unix sockets, {reason}; "
        "set TMPDIR to a short folder"
    )
