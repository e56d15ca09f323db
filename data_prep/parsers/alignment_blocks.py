"""Blocks of an .a3m file as MMseqs2 and ColabFold write it.

A block is an alignment. NUL bytes separate the blocks of several queries, and one may follow the
last block. A first line such as `#120\\t1` has the lengths of the chains of a complex and how often
each occurs.
"""

from __future__ import annotations

import dataclasses
import gzip
import itertools
from pathlib import Path

from data_prep.errors import BrokenFile, CannotRead
from data_prep.parsers.file_access import read_file, reason_of
from data_prep.parsers.input_files import DAMAGED_GZIP, read_bytes
from data_prep.parsers.msa import ParsedMsa, parse_a3m

_SEPARATOR = b"\0"
_HEAD_BYTES = 1 << 16
"""Bytes that are read of a file to find its first row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstRow:
    """The first row of a block."""

    letters: str
    """All letters of the row, also the lower-case ones."""
    complex_header: str
    """The line that says that the block is a complex of several chains; empty if there is none."""

    @property
    def query(self) -> str:
        """The letters without insertions, which are in lower case."""
        return "".join(letter for letter in self.letters if not letter.islower())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """One alignment of a file, not parsed except for its first row."""

    path: Path
    contents: bytes
    first_line: int
    """Number of its first line in the file, from 1."""
    first_row: FirstRow

    def parse(self, *, max_rows: int) -> ParsedMsa:
        """Parse the first max_rows rows.

        Raises:
            BrokenFile: a row is malformed.
        """
        return parse_a3m(self.path, self.contents, max_rows=max_rows, first_line=self.first_line)


def read_blocks(path: Path) -> list[Block]:
    """Return the alignments of an .a3m file, uncompressed or .gz. An empty file has none.

    Raises:
        BrokenFile: the file is not an .a3m file.
        CannotRead: the file cannot be read.
    """
    blocks, line = [], 1
    for contents in read_bytes(path).split(_SEPARATOR):
        if contents.strip():
            first_row = _parse_first_row(path, contents, line)
            blocks.append(Block(path=path, contents=contents, first_line=line, first_row=first_row))
        line += contents.count(b"\n")
    return blocks


def read_first_row(path: Path) -> FirstRow | None:
    """Read the first row of an .a3m file without reading the rest of the file.

    Returns:
        the row; None if the file is empty or the row does not end in the first 64 KiB.

    Raises:
        BrokenFile: the file does not begin as an .a3m file.
        CannotRead: the file cannot be read.
    """
    head = _read_head(path)
    block, separator, _ = head.partition(_SEPARATOR)
    is_whole = len(head) < _HEAD_BYTES or separator or block.count(b"\n>") > 1
    return _parse_first_row(path, block, 1) if is_whole and head.strip() else None


def _read_head(path: Path) -> bytes:
    if path.suffix != ".gz":
        return read_file(path, size=_HEAD_BYTES)
    try:
        with gzip.open(path) as file:
            return file.read(_HEAD_BYTES)
    except DAMAGED_GZIP as error:
        raise BrokenFile(path, f"damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise CannotRead(path, reason_of(error)) from error


def _parse_first_row(path: Path, block: bytes, first_line: int) -> FirstRow:
    lines = [line.strip() for line in block.splitlines()]
    filled = [line for line in lines if line and not line.startswith(b"#")]
    if not filled or not filled[0].startswith(b">"):
        found = repr(filled[0][:40])[1:] if filled else "no row"
        raise BrokenFile(
            path,
            f"not an .a3m alignment: found {found}, expected '>' and the name of the query",
            line=first_line,
        )
    row = b"".join(itertools.takewhile(lambda line: not line.startswith(b">"), filled[1:]))
    if not row.isascii():
        raise BrokenFile(path, "the first row has bytes that are not letters", line=first_line)
    return FirstRow(letters=row.decode("ascii"), complex_header=_complex_header(lines[0]))


def _complex_header(line: bytes) -> str:
    """Return a line `#<lengths>\\t<copies>` that names more than one chain, else nothing."""
    fields = line[1:].decode("ascii", "replace").split()
    if not line.startswith(b"#") or len(fields) != 2:
        return ""
    lengths, copies = (field.split(",") for field in fields)
    if not all(text.isdecimal() for text in [*lengths, *copies]):
        return ""
    is_complex = len(lengths) > 1 or any(int(text) > 1 for text in copies)
    return line.decode("ascii") if is_complex else ""
