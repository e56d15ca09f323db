"""Parser of template hits in the format of hhsearch (.hhr).

A file has a header, a table of all hits, and then a block per hit. Its Q and T lines are segments
of the aligned query and template, each with the numbers of its first and last residue:

    No 1
    >1ABC_A name of the chain
    Probab=99.98  E-value=1e-20  ...  Aligned_cols=60  ...  Sum_probs=55.1  ...
    Q query            1 MKV-LSDE    7 (120)
    T 1ABC_A           9 MRVALS-E   15 (98)
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import string
from pathlib import Path

from data_prep.errors import BrokenFile
from data_prep.parsers.input_files import read_text

_HEADER_END = "Command"
_FILE_END = "Done!"
_TABLE_HEAD = " No Hit"
_TABLE_ROW = re.compile(r"\s*\d+ ")
_BLOCK = re.compile(r"No \s*(\d+)")
_SUMMARY = re.compile(r"Probab=.*Aligned_cols=(\d+).*Sum_probs=(\S+)")
_PDB_ID_LENGTH = 4
_PDB_ID_CHARACTERS = frozenset(string.ascii_letters + string.digits)
_CHAIN_ID_CHARACTERS = _PDB_ID_CHARACTERS | {"."}
_SEQUENCE_COLUMN = 17
"""First column after the name in a Q or T line."""
_SEQUENCE = re.compile(r"[\t ]*(\d+) ([A-Z-]+)[\t ]*(\d+) \(\d+\)")
_NOT_SEQUENCES = ("ss_dssp", "ss_pred", "ss_conf", "Consensus", "sa_dssp", "sa_pred")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HhrHit:
    """A template hit."""

    index: int
    """Number of the hit in the file, from 1."""
    name: str
    """The line after '>', which begins with <PDB id>_<chain>."""
    aligned_cols: int
    """Number of aligned pairs according to the summary."""
    sum_probs: float
    """Sum of the probabilities of the aligned pairs, from the summary."""
    query: str
    """Aligned part of the query, with '-' for gaps."""
    hit_sequence: str
    """Aligned part of the template, of the same length as `query`."""
    indices_query: tuple[int, ...]
    """Residue of each letter of `query`, from 0; -1 at gaps."""
    indices_hit: tuple[int, ...]
    """Residue of each letter of `hit_sequence`, from 0; -1 at gaps."""

    @property
    def chain(self) -> tuple[str, str]:
        """The PDB id in lower case and the chain id as written, from a name `1ABC_A text`.

        Raises:
            ValueError: the name does not start with a PDB id, an underscore and a chain id.
        """
        pdb_id, _, rest = self.name.partition("_")
        chain_id = "".join(itertools.takewhile(_CHAIN_ID_CHARACTERS.__contains__, rest))
        is_pdb_id = len(pdb_id) == _PDB_ID_LENGTH and _PDB_ID_CHARACTERS.issuperset(pdb_id)
        if not is_pdb_id or not chain_id:
            raise ValueError(
                f"hit {self.index} is named {self.name!r}, "
                "expected <PDB id>_<chain> at the beginning"
            )
        return pdb_id.lower(), chain_id


def parse_hhr(path: Path) -> list[HhrHit]:
    """Return all hits of a file (.hhr or .hhr.gz) in its order. An empty file has no hits.

    A hit may have fewer aligned columns than its summary says, even none: hhsearch writes 1 if its
    backtrace is empty. The benchmark reads such hits and applies its filters to them.

    Raises:
        BrokenFile: the file is truncated: its header is incomplete, it has fewer hits than its
            table lists, or its last hit has fewer aligned columns than its summary says.
    """
    lines = read_text(path).splitlines()
    try:
        return _parse_lines(path, lines)
    except BrokenFile:
        raise
    except (ValueError, OverflowError) as error:  # Text that is not a number, or a large number.
        raise BrokenFile(path, str(error)) from error


def parse_named_hits(path: Path) -> list[HhrHit]:
    """Return the hits of `parse_hhr`, all of which name a chain.

    Raises:
        BrokenFile: also if the name of a hit does not start with a PDB id and a chain.
    """
    hits = parse_hhr(path)
    for hit in hits:
        try:
            _ = hit.chain  # This raises ValueError for a malformed name.
        except ValueError as error:
            raise BrokenFile(path, str(error)) from error
    return hits


def _parse_lines(path: Path, lines: list[str]) -> list[HhrHit]:
    starts = [i for i, line in enumerate(lines) if _BLOCK.match(line)]
    num_listed = _count_table_rows(path, lines)
    if len(starts) < num_listed:
        raise BrokenFile(
            path,
            f"cut short: its table lists {num_listed} hits, but {len(starts)} follow",
            line=len(lines),
        )
    return [
        _parse_hit(path, lines, start, stop)
        for start, stop in zip(starts, [*starts[1:], len(lines)])
    ]


def _count_table_rows(path: Path, lines: list[str]) -> int:
    for head, line in enumerate(lines):
        if line.startswith(_TABLE_HEAD):
            count = 0
            while head + 1 + count < len(lines) and _TABLE_ROW.match(lines[head + 1 + count]):
                count += 1
            return count
    # The file of a search without hits may have only its header, which ends with the command.
    if any(line.strip() for line in lines) and not any(
        line.startswith(_HEADER_END) for line in lines
    ):
        raise BrokenFile(
            path,
            f"cut short, or no .hhr file: expected a header that ends with {_HEADER_END!r}",
            line=len(lines),
        )
    return 0


def _parse_hit(path: Path, lines: list[str], start: int, stop: int) -> HhrHit:
    """Parse the block of a hit, lines[start:stop]."""
    if stop - start < 3:
        raise BrokenFile(path, "cut short: a hit without its summary", line=stop)
    name = lines[start + 1][1:]
    if not lines[start + 1].startswith(">"):
        raise BrokenFile(
            path,
            f"expected '>' and the name of a hit, found {lines[start + 1][:60]!r}",
            line=start + 2,
        )
    summary = _SUMMARY.match(lines[start + 2])
    if summary is None:
        raise BrokenFile(
            path, f"expected the summary of a hit, found {lines[start + 2][:60]!r}", line=start + 3
        )
    sum_probs = float(summary.group(2))
    if not math.isfinite(sum_probs):
        raise BrokenFile(
            path, f"Sum_probs is {summary.group(2)}, expected a finite number", line=start + 3
        )
    query, hit = _read_sequences(path, lines, start + 3, stop)
    aligned_cols = int(float(summary.group(1)))
    num_pairs = sum(q != "-" and t != "-" for q, t in zip(query.text, hit.text))
    may_be_truncated = stop == len(lines) and _may_be_truncated(lines, aligned_cols, num_pairs)
    if (
        len(query.text) != len(hit.text)
        or num_pairs > aligned_cols
        or (num_pairs < aligned_cols and may_be_truncated)
    ):
        raise BrokenFile(
            path,
            f"cut short: hit has {num_pairs} aligned columns, its summary says {aligned_cols}",
            line=stop,
        )
    return HhrHit(
        index=int(_BLOCK.match(lines[start]).group(1)),
        name=name,
        aligned_cols=aligned_cols,
        sum_probs=sum_probs,
        query=query.text,
        hit_sequence=hit.text,
        indices_query=tuple(query.indices),
        indices_hit=tuple(hit.indices),
    )


def _read_sequences(
    path: Path, lines: list[str], start: int, stop: int
) -> tuple[_AlignedSequence, _AlignedSequence]:
    """Return the query and the template sequence of a hit from its alignment blocks."""
    query, hit = _AlignedSequence(), _AlignedSequence()
    for number in range(start, stop):
        line = lines[number]
        if line[:2] in ("Q ", "T ") and not line[2:].startswith(_NOT_SEQUENCES):
            sequence = query if line[0] == "Q" else hit
            if not sequence.extend(line[_SEQUENCE_COLUMN:]):
                raise BrokenFile(
                    path,
                    f"expected a segment of an aligned sequence, found {line[:60]!r}",
                    line=number + 1,
                )
    return query, hit


def _may_be_truncated(lines: list[str], aligned_cols: int, num_pairs: int) -> bool:
    """Return whether the last hit of a file may have lost columns at the end of the file.

    hhsearch ends its file with "Done!". Without this line, a hit without columns whose summary says
    1 is a hit with an empty backtrace.
    """
    has_end = any(line.startswith(_FILE_END) for line in lines[-3:])
    return not has_end and not (num_pairs == 0 and aligned_cols == 1)


class _AlignedSequence:
    """One of the two sequences of a hit, concatenated from its segments."""

    def __init__(self) -> None:
        self.text = ""
        self.indices: list[int] = []

    def extend(self, segment: str) -> bool:
        """Append `<start> <letters> <end> (<length>)`. Return False if the segment is malformed."""
        match = _SEQUENCE.match(segment)
        if match is None:
            return False
        number = int(match.group(1)) - 1
        for letter in match.group(2):
            self.indices.append(-1 if letter == "-" else number)
            number += letter != "-"
        self.text += match.group(2)
        return number == int(match.group(3))
