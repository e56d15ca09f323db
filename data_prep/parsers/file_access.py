"""Access to input files and folders. No other module of `data_prep` lists or opens raw input.

Absent input and unreadable input are different cases. The caller decides what absent input means.
Unreadable input (no permission, an I/O error, a stale handle, a link to a missing file) is always
an error that names the path. Skipping it would make the data set smaller without notice, and a
second try may succeed. `Path.glob` and `Path.is_file` hide such errors.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import BinaryIO

from data_prep.errors import CannotRead, escaped

DANGLING = "a link to a path that does not exist"
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def is_utf8(name: str) -> bool:
    """Return whether the bytes of a file name on the disk are valid UTF-8."""
    return escaped(name) == name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A file or folder, as listed by its parent folder. A link counts as its target."""

    path: Path
    is_folder: bool
    is_link: bool
    problem: str
    """Why it is neither a file nor a folder that exists; empty if it is one."""
    _entry: os.DirEntry

    @property
    def name(self) -> str:
        return self.path.name

    def stat(self) -> os.stat_result:
        """Return size and times. They are cached after the first call.

        Raises:
            CannotRead: the operating system reports an error.
        """
        if self.problem:
            raise CannotRead(self.path, self.problem)
        try:
            return self._entry.stat()
        except OSError as error:
            raise CannotRead(self.path, reason_of(error)) from error

    def size_bytes(self) -> int | None:
        """Return the size of a file; None for a folder or an unreadable item."""
        return None if self.is_folder or self.problem else self.stat().st_size


def list_folder(path: Path) -> list[Item]:
    """Return all items of a folder, sorted by name.

    Raises:
        CannotRead: the folder cannot be listed.
    """
    try:
        with _scandir(path) as entries:
            return sorted((_item(path, entry) for entry in entries), key=lambda item: item.name)
    except OSError as error:
        is_dangling = error.errno == errno.ENOENT and path.is_symlink()
        raise CannotRead(path, DANGLING if is_dangling else reason_of(error)) from error


def leaves_below(folder: Item) -> list[Item]:
    """Return what a folder contains at any depth: files, empty folders, and links to folders.

    Links to folders are not entered. If the folder itself is empty or a link, it is returned.
    """
    contents = [] if folder.is_link else list_folder(folder.path)
    files = []
    for item in contents:
        files.extend(leaves_below(item) if item.is_folder else [item])
    return files or [folder]


def _item(folder: Path, entry: os.DirEntry) -> Item:
    problem, is_folder, is_link = "", False, entry.is_symlink()
    try:
        is_folder = entry.is_dir()
        if not is_folder and not entry.is_file():
            problem = DANGLING if is_link else "neither a file nor a folder"
    except OSError as error:
        problem = reason_of(error)
    path = folder / entry.name
    return Item(path=path, is_folder=is_folder, is_link=is_link, problem=problem, _entry=entry)


def reason_of(error: OSError) -> str:
    """Return the operating system's description of an error, without the path."""
    return error.strerror or str(error)


def exists(path: Path) -> bool:
    """Return whether a path exists.

    Raises:
        CannotRead: the operating system reports an error, or the path is a link to a missing path.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise CannotRead(path, reason_of(error)) from error
        if path.is_symlink():
            raise CannotRead(path, DANGLING) from error
        return False
    return True


def read_file(path: Path, *, start: int = 0, size: int = -1) -> bytes:
    """Return the bytes of a file, or `size` bytes from `start`.

    Raises:
        CannotRead: the file cannot be read.
    """
    try:
        with _open(path) as file:
            if start:
                file.seek(start)
            return file.read(size)
    except OSError as error:
        raise CannotRead(path, reason_of(error)) from error


# Tests replace these two functions to simulate input that cannot be read.
def _open(path: Path) -> BinaryIO:
    return open(path, "rb")


def _scandir(path: Path):
    return os.scandir(path)
