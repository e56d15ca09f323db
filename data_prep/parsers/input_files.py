"""Reading of input files, uncompressed or compressed."""

from __future__ import annotations

import dataclasses
import gzip
import zlib
from pathlib import Path

from data_prep.errors import BrokenFile
from data_prep.parsers.file_access import read_file

DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)
"""The exceptions that decompression of a damaged file raises."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSlice:
    """A file that is a range of bytes of another file."""

    path: Path
    name: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.path}[{self.start}:{self.start + self.size}] ({self.name})"

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def suffixes(self) -> list[str]:
        return Path(self.name).suffixes

    def read_bytes(self) -> bytes:
        """Return the bytes of this file.

        Raises:
            BrokenFile: the containing file is too short.
        """
        contents = read_file(self.path, start=self.start, size=self.size)
        if len(contents) != self.size:
            raise BrokenFile(
                self.path,
                f"ends within {self.name}: found {len(contents)} of {self.size} bytes; fetch it "
                f"again",
            )
        return contents

    def uncompressed_size(self) -> int:
        """Return the size in bytes; for a .gz file the size in its trailer."""
        if self.suffix != ".gz" or self.size < 4:
            return self.size
        return int.from_bytes(self.read_bytes()[-4:], "little")


def read_bytes(path: Path | FileSlice) -> bytes:
    """Return the contents of a file. A file named *.gz is decompressed.

    Raises:
        BrokenFile: decompression failed.
        CannotRead: the file cannot be read.
    """
    contents = path.read_bytes() if isinstance(path, FileSlice) else read_file(path)
    if path.suffix != ".gz":
        return contents
    try:
        return gzip.decompress(contents)
    except DAMAGED_GZIP as error:
        raise BrokenFile(path, f"damaged gzip file ({error}); fetch it again") from error


def read_text(path: Path | FileSlice) -> str:
    """Return the contents of a text file in UTF-8 without the byte order mark.

    Raises:
        BrokenFile: the file is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BrokenFile(path, f"not a text file ({error})") from error


def uncompressed_size(path: Path, size_bytes: int) -> int:
    """Return the size in bytes of the contents of a file with the given size.

    For a .gz file it is the size in its trailer, which is modulo 4 GiB.
    """
    if path.suffix != ".gz" or size_bytes < 4:
        return size_bytes
    return int.from_bytes(read_file(path, start=size_bytes - 4, size=4), "little")
