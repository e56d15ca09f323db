"""The one place where input files and folders are opened.

It keeps apart "is not there" and "cannot be read". What is not there is for the caller to judge.
What cannot be read (no permission, an I/O error, a stale handle, a link to a file that is missing)
is always an error that names the path: a second try may succeed, and a smaller data set must not be
the result. `Path.glob` and `Path.is_file` hide such errors, so nothing else in `data_prep` lists or
opens input.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import BinaryIO

from data_prep.errors import DataPrepError

DANGLING = "a link to a path that does not exist"
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


class CannotRead(DataPrepError):
    """Input that is there but cannot be read. The message names the path and the reason."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(
            f"cannot read {printable(path)}: {reason}; repair this and run the same command again"
        )


def printable(path: object) -> str:
    """A path as text that can be written as UTF-8; bytes of a name that are not UTF-8 become
    `\\xe9`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_utf8(name: str) -> bool:
    """Whether a file name, as Python gives it, is UTF-8 on the disk."""
    return printable(name) == name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """Something in a folder. A link counts as what it leads to."""

    path: Path
    is_folder: bool
    is_link: bool
    problem: str
    """Why it can be neither read nor listed: the reason, or empty."""
    _entry: os.DirEntry

    @property
    def name(self) -> str:
        return self.path.name

    def status(self) -> os.stat_result:
        """Size and times; asked of the system once. CannotRead if that fails."""
        if self.problem:
            raise CannotRead(self.path, self.problem)
        try:
            return self._entry.stat()
        except OSError as error:
            raise CannotRead(self.path, reason_of(error)) from error

    def size_bytes(self) -> int | None:
        """Size of a file for a listing; None for a folder, or where it cannot be found out."""
        return None if self.is_folder or self.problem else self.status().st_size


def list_folder(path: Path) -> list[Item]:
    """Everything in a folder, by name. CannotRead if it cannot be listed."""
    try:
        with _scandir(path) as entries:
            return sorted((_item(path, entry) for entry in entries), key=lambda item: item.name)
    except OSError as error:
        is_dangling = error.errno == errno.ENOENT and path.is_symlink()
        raise CannotRead(path, DANGLING if is_dangling else reason_of(error)) from error


def files_below(folder: Item) -> list[Item]:
    """The files in a folder and in all folders below it; an empty folder itself.

    A link to a folder is returned itself, not entered.
    """
    contents = [] if folder.is_link else list_folder(folder.path)
    found = []
    for item in contents:
        found.extend(files_below(item) if item.is_folder else [item])
    return found or [folder]


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
    """The system's words for an error, without the path."""
    return error.strerror or str(error)


def exists(path: Path) -> bool:
    """Whether there is something at a path.

    CannotRead if that cannot be found out, or for a link to nowhere.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise CannotRead(path, reason_of(error)) from error
        if path.is_symlink():
            raise CannotRead(path, DANGLING) from error
        return False
    return True


def read_file(path: Path, *, start: int = 0, size: int = -1) -> bytes:
    """The bytes of a file, or `size` of them from `start`.

    CannotRead if the system does not give them.
    """
    try:
        with _open(path) as file:
            if start:
                file.seek(start)
            return file.read(size)
    except OSError as error:
        raise CannotRead(path, reason_of(error)) from error


def _open(path: Path) -> BinaryIO:
    return open(path, "rb")


def _scandir(path: Path):
    return os.scandir(path)
