"""Where multiprocessing keeps its Unix sockets. Their paths have a limit that a long TMPDIR, as
some clusters set it, exceeds.
"""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile

MAX_SOCKET_PATH_BYTES = 107
"""Of Linux, without the final zero."""
NAME_BELOW_FOLDER = "/pymp-12345678/listener-12345678"
"""What multiprocessing adds to the folder for temporary files."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Tried in this order where TMPDIR is too long."""


def use_short_socket_folder() -> None:
    """Let multiprocessing make its folder for sockets where their paths fit: in TMPDIR if possible,
    else in a short folder.

    Call it before the first process is started by a fork server. Raises ValueError if no folder can
    be used.
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
            _complaint(folder, f"and none of {', '.join(SHORT_FOLDERS)} can be written")
        )
    # multiprocessing asks tempfile once, and keeps the folder that it has made
    tempfile.tempdir = usable[0]
    try:
        made = multiprocessing.util.get_temp_dir()
    finally:
        tempfile.tempdir = folder
    if not _fits(os.path.dirname(made)):
        raise ValueError(
            _complaint(folder, f"and multiprocessing already keeps its sockets in {made}")
        )


def _fits(folder: str) -> bool:
    return len(os.fsencode(folder)) + len(NAME_BELOW_FOLDER) <= MAX_SOCKET_PATH_BYTES


def _complaint(folder: str, reason: str) -> str:
    most = MAX_SOCKET_PATH_BYTES - len(NAME_BELOW_FOLDER)
    return (
        f"TMPDIR, {folder}, has {len(os.fsencode(folder))} bytes; the loader's workers need a folder of at most {most} bytes "
        f"for Unix sockets, {reason}; set TMPDIR to a short folder"
    )
