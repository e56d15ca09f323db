"""Parser of alignments (.a3m, .sto) to arrays, and their union without duplicates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.errors import BrokenFile
from data_prep.parsers.input_files import read_bytes
from openfold_opt.protein.hhblits_alphabet import ILLEGAL_CODE, INSERTION_CODE, byte_to_token

_GAP = ord("-")
_IS_INSERTION = byte_to_token == INSERTION_CODE
_IS_ILLEGAL = byte_to_token == ILLEGAL_CODE


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedMsa:
    """The aligned rows of one file."""

    letters: np.ndarray
    """uint8 [N_seq, N_res]: ASCII letters as in the file."""
    deletions: np.ndarray
    """int32 [N_seq, N_res]: number of residues inserted before each column."""

    @property
    def query(self) -> str:
        return self.letters[0].tobytes().decode("ascii")


def parse_msa(path: Path) -> ParsedMsa | None:
    """Read an .a3m or .sto file, uncompressed or .gz. Return None for an empty file.

    Raises:
        BrokenFile: the file is malformed; it names the file and the line.
    """
    contents = read_bytes(path)
    if not contents:
        return None
    if ".sto" in path.suffixes:
        return _parse_stockholm(path, contents)
    return parse_a3m(path, contents)


def parse_a3m(
    path: Path, contents: bytes, *, max_rows: int | None = None, first_line: int = 1
) -> ParsedMsa:
    """Parse rows that have equal length without their lower-case letters.

    A deletion count belongs to the next aligned column. Odd: lower-case letters after the last
    column are dropped, because the model has no column for them.

    Args:
        path: the file, for messages.
        contents: the rows, all of the file or a part of it.
        max_rows: rows after these are not parsed.
        first_line: number of the first line of `contents` in the file.

    Raises:
        BrokenFile: the rows are malformed.
    """
    sequences, header_lines = _fasta_records(path, contents, first_line=first_line)
    sequences, header_lines = sequences[:max_rows], header_lines[:max_rows]
    letters = np.frombuffer(b"".join(sequences), dtype=np.uint8)
    lengths = np.array([len(sequence) for sequence in sequences])
    row_starts = np.cumsum(lengths) - lengths
    _check_letters(path, letters, row_starts, header_lines)
    aligned = np.flatnonzero(~_IS_INSERTION[letters])
    widths = np.diff(np.searchsorted(aligned, np.append(row_starts, len(letters))))
    if widths[0] == 0:
        reason = "is in lower case, so that it" if lengths[0] else "has no letters and"
        raise BrokenFile(
            path, f"the first row (the query) {reason} has no aligned column", line=header_lines[0]
        )
    if np.any(widths != widths[0]):
        row = int(np.argmax(widths != widths[0]))
        raise BrokenFile(
            path,
            f"row {row + 1} has {widths[row]} aligned columns, expected {widths[0]} as in the "
            "first row",
            line=header_lines[row],
        )
    shape = (len(sequences), int(widths[0]))
    # Positions between two aligned letters are insertions. Before the first column they count from
    # the start of the row.
    skipped = np.diff(aligned, prepend=-1) - 1
    skipped = skipped.reshape(shape)
    skipped[:, 0] = aligned.reshape(shape)[:, 0] - row_starts
    return ParsedMsa(letters=letters[aligned].reshape(shape), deletions=skipped.astype(np.int32))


def _fasta_records(
    path: Path, contents: bytes, *, first_line: int = 1
) -> tuple[list[bytes], list[int]]:
    """Return the sequences and the line number of each header, from 1."""
    sequences: list[bytes] = []
    header_lines: list[int] = []
    for number, line in enumerate(contents.splitlines(), start=first_line):
        line = line.strip()
        if line.startswith(b">"):
            sequences.append(b"")
            header_lines.append(number)
        elif line and not line.startswith(b"#"):
            if not sequences:
                raise BrokenFile(path, "sequence before the first '>' line", line=number)
            sequences[-1] = sequences[-1] + line if sequences[-1] else line
    if not sequences:
        raise BrokenFile(path, "holds no sequence")
    return sequences, header_lines


def _check_letters(
    path: Path, letters: np.ndarray, row_starts: np.ndarray, lines: Sequence[int]
) -> None:
    illegal = _IS_ILLEGAL[letters]
    if illegal.any():
        position = int(np.argmax(illegal))
        row = int(np.searchsorted(row_starts, position, side="right")) - 1
        raise BrokenFile(
            path,
            f"row {row + 1} has {chr(letters[position])!r}; expected letters and '-' only",
            line=lines[row],
        )


def _parse_stockholm(path: Path, contents: bytes) -> ParsedMsa:
    """Parse a Stockholm file. Columns in which the query has a gap are insertions."""
    sequences, lines = _stockholm_records(path, contents)
    for row, sequence in enumerate(sequences):
        if len(sequence) != len(sequences[0]):
            raise BrokenFile(
                path,
                f"row {row + 1} has {len(sequence)} columns, expected {len(sequences[0])} as in "
                "the first row",
                line=lines[row],
            )
    letters = np.frombuffer(b"".join(sequences), dtype=np.uint8)
    _check_letters(path, letters, np.arange(len(sequences)) * len(sequences[0]), lines)
    letters = letters.reshape(len(sequences), -1)
    kept = np.flatnonzero(letters[0] != _GAP)
    if len(kept) == 0:
        raise BrokenFile(path, "the first row has only gaps", line=lines[0])
    inserted = (letters != _GAP) & (letters[0] == _GAP)
    inserted_before = np.cumsum(inserted, axis=1, dtype=np.int32)[:, kept]
    return ParsedMsa(
        letters=letters[:, kept], deletions=np.diff(inserted_before, axis=1, prepend=0)
    )


def _stockholm_records(path: Path, contents: bytes) -> tuple[list[bytes], list[int]]:
    """Return the sequences in upper case with '-' for gaps, and the first line of each, from 1.

    Sequences may be wrapped over several blocks; "//" ends the file.
    """
    rows: dict[bytes, list[bytes]] = {}
    first_lines: dict[bytes, int] = {}
    end_line = 0
    for number, line in enumerate(contents.splitlines(), start=1):
        line = line.strip()
        if not line:
            continue
        if end_line:
            raise BrokenFile(
                path,
                f"continues after the '//' of line {end_line}; expected one alignment",
                line=number,
            )
        if line.startswith(b"//"):
            end_line = number
        elif not line.startswith(b"#"):
            fields = line.split()
            if len(fields) != 2:
                raise BrokenFile(
                    path, f"{len(fields)} fields, expected a name and a sequence", line=number
                )
            rows.setdefault(fields[0], []).append(fields[1])
            first_lines.setdefault(fields[0], number)
    if rows and not end_line:
        raise BrokenFile(
            path, "cut short: expected '//' on the last line", line=contents.count(b"\n") + 1
        )
    if not rows:
        raise BrokenFile(path, "holds no sequence")
    sequences = [b"".join(parts).replace(b".", b"-").upper() for parts in rows.values()]
    return sequences, list(first_lines.values())


def merge_without_duplicates(msas: Sequence[ParsedMsa]) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate the rows of several alignments and drop duplicates.

    Rows are compared by their letters, not by their tokens (B and D differ), and without their
    insertions. The first of several equal rows is kept, with its deletions.

    Returns:
        tokens uint8 [N_seq, N_res] and deletions int32 [N_seq, N_res].
    """
    seen: set[bytes] = set()
    tokens, deletions = [], []
    for msa in msas:
        first_seen = [
            row for row, letters in enumerate(msa.letters) if _is_new(letters.tobytes(), seen)
        ]
        tokens.append(byte_to_token[msa.letters[first_seen]])
        deletions.append(msa.deletions[first_seen])
    return np.concatenate(tokens), np.concatenate(deletions)


def _is_new(row: bytes, seen: set[bytes]) -> bool:
    before = len(seen)
    seen.add(row)
    return len(seen) > before
