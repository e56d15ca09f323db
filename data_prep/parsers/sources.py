"""Reading input files, plain or compressed."""

from __future__ import annotations

import dataclasses
import gzip
import zlib
from pathlib import Path

from data_prep.parsers.errors import BrokenFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSlice:
    """A file that lies within another one."""

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
        with self.path.open("rb") as file:
            file.seek(self.start)
            contents = file.read(self.size)
        if len(contents) != self.size:
            raise BrokenFile(self.path, f"ends within {self.name}: found {len(contents)} of {self.size} bytes; fetch it again")
        return contents

    def uncompressed_size(self) -> int:
        """Size in bytes; of a .gz file what its trailer says."""
        if self.suffix != ".gz" or self.size < 4:
            return self.size
        return int.from_bytes(self.read_bytes()[-4:], "little")


def read_bytes(path: Path | FileSlice) -> bytes:
    """The contents of a file; one named *.gz is decompressed. BrokenFile if that fails."""
    contents = path.read_bytes()
    if path.suffix != ".gz":
        return contents
    try:
        return gzip.decompress(contents)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BrokenFile(path, f"damaged gzip file ({error}); fetch it again") from error


def read_text(path: Path | FileSlice) -> str:
    """The contents of a text file as a string; bytes that are not UTF-8 are a BrokenFile."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BrokenFile(path, f"not a text file ({error})") from error


def uncompressed_size(path: Path) -> int:
    """Size in bytes; of a .gz file what its trailer says (modulo 4 GiB), without reading it."""
    size = path.stat().st_size
    if path.suffix != ".gz" or size < 4:
        return size
    with open(path, "rb") as file:
        file.seek(-4, 2)
        return int.from_bytes(file.read(4), "little")
