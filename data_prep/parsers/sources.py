"""Reading input files, plain or compressed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from data_prep.parsers.errors import BrokenFile


def read_bytes(path: Path) -> bytes:
    """The contents of a file; one named *.gz is decompressed. BrokenFile if that fails."""
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path, "rb") as file:
            return file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BrokenFile(path, f"damaged gzip file ({error}); fetch it again") from error


def read_text(path: Path) -> str:
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
