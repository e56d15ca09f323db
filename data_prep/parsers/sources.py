"""Contents of input files, plain or compressed."""

from __future__ import annotations

import dataclasses
import gzip
import zlib
from pathlib import Path

from data_prep.parsers.errors import BrokenFile
from data_prep.parsers.file_access import read_file

DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)
"""What decompression of a damaged file raises."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSlice:
    """A file inside another one."""

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
        """BrokenFile if the outer file ends too early."""
        contents = read_file(self.path, start=self.start, size=self.size)
        if len(contents) != self.size:
            raise BrokenFile(
                self.path,
                f"ends within {self.name}: found {len(contents)} of {self.size} bytes; fetch it "
                f"again",
            )
        return contents

    def uncompressed_size(self) -> int:
        """Size in bytes; of a .gz file what its trailer says."""
        if self.suffix != ".gz" or self.size < 4:
            return self.size
        return int.from_bytes(self.read_bytes()[-4:], "little")


def read_bytes(path: Path | FileSlice) -> bytes:
    """The contents of a file; one named *.gz is decompressed.

    BrokenFile if that fails, CannotRead if the system fails.
    """
    contents = path.read_bytes() if isinstance(path, FileSlice) else read_file(path)
    if path.suffix != ".gz":
        return contents
    try:
        return gzip.decompress(contents)
    except DAMAGED_GZIP as error:
        raise BrokenFile(path, f"damaged gzip file ({error}); fetch it again") from error


def read_text(path: Path | FileSlice) -> str:
    """The contents of a text file in UTF-8, without a byte order mark. BrokenFile for other bytes."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BrokenFile(path, f"not a text file ({error})") from error


def uncompressed_size(path: Path, size_bytes: int) -> int:
    """Size in bytes of a file of the given size; of a .gz file what its trailer says (modulo 4
    GiB)."""
    if path.suffix != ".gz" or size_bytes < 4:
        return size_bytes
    return int.from_bytes(read_file(path, start=size_bytes - 4, size=4), "little")
