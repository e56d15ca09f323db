"""Template hits as hhsearch writes them (.hhr)."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import string
from pathlib import Path

from data_prep.parsers.errors import BrokenFile
from data_prep.parsers.sources import read_text

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
_SEQUENCE = re.compile(r"[\t ]*(\d+) ([A-Z-]+)[\t ]*(\d+) \(\d+\)")
_ANNOTATIONS = ("ss_dssp", "ss_pred", "ss_conf", "Consensus", "sa_dssp", "sa_pred")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HhrHit:
    """One hit. query and hit_sequence are aligned to each other, with '-' for gaps; indices count from 0, -1 at gaps."""

    index: int
    name: str
    aligned_cols: int
    sum_probs: float
    query: str
    hit_sequence: str
    indices_query: tuple[int, ...]
    indices_hit: tuple[int, ...]

    @property
    def chain(self) -> tuple[str, str]:
        """The PDB id in lower case and the chain id in its own case, from a name `1ABC_A text`.

        ValueError if the name does not start with a PDB id, an underscore and a chain id.
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
    """All hits in the order of the file (.hhr or .hhr.gz).

    A file without a byte has no hits. BrokenFile if the file is cut: half a header, fewer hits than
    its table lists, or a last hit with fewer aligned columns than its summary says. Other hits may
    have fewer, even none: hhsearch writes 1 where its backtrace is empty. The benchmark reads such
    hits, and its filters judge them.
    """
    lines = read_text(path).splitlines()
    try:
        return _parse_lines(path, lines)
    except BrokenFile:
        raise
    except (ValueError, OverflowError) as error:  # A number that is none, or too large.
        raise BrokenFile(path, str(error)) from error


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
        _parse_hit(path, lines, first, last)
        for first, last in zip(starts, [*starts[1:], len(lines)])
    ]


def _count_table_rows(path: Path, lines: list[str]) -> int:
    for head, line in enumerate(lines):
        if line.startswith(_TABLE_HEAD):
            count = 0
            while head + 1 + count < len(lines) and _TABLE_ROW.match(lines[head + 1 + count]):
                count += 1
            return count
    # a search without hits may leave its header alone, which ends with the command
    if any(line.strip() for line in lines) and not any(
        line.startswith(_HEADER_END) for line in lines
    ):
        raise BrokenFile(
            path,
            f"cut short, or no .hhr file: expected a header that ends with {_HEADER_END!r}",
            line=len(lines),
        )
    return 0


def _parse_hit(path: Path, lines: list[str], first: int, last: int) -> HhrHit:
    if last - first < 3:
        raise BrokenFile(path, "cut short: a hit without its summary", line=last)
    name = lines[first + 1][1:]
    if not lines[first + 1].startswith(">"):
        raise BrokenFile(
            path,
            f"expected '>' and the name of a hit, found {lines[first + 1][:60]!r}",
            line=first + 2,
        )
    summary = _SUMMARY.match(lines[first + 2])
    if summary is None:
        raise BrokenFile(
            path, f"expected the summary of a hit, found {lines[first + 2][:60]!r}", line=first + 3
        )
    sum_probs = float(summary.group(2))
    if not math.isfinite(sum_probs):
        raise BrokenFile(
            path, f"Sum_probs is {summary.group(2)}, expected a finite number", line=first + 3
        )
    query, hit = _Row(), _Row()
    for number in range(first + 3, last):
        line = lines[number]
        if line[:2] in ("Q ", "T ") and not line[2:].startswith(_ANNOTATIONS):
            row = query if line[0] == "Q" else hit
            if not row.extend(line[_SEQUENCE_COLUMN:]):
                raise BrokenFile(
                    path,
                    f"expected a stretch of an aligned sequence, found {line[:60]!r}",
                    line=number + 1,
                )
    aligned_cols = int(float(summary.group(1)))
    found = sum(q != "-" and t != "-" for q, t in zip(query.text, hit.text))
    is_whole = not (last == len(lines) and _may_be_cut(lines, aligned_cols, found))
    if (
        len(query.text) != len(hit.text)
        or found > aligned_cols
        or (found < aligned_cols and not is_whole)
    ):
        raise BrokenFile(
            path,
            f"cut short: hit has {found} aligned columns, its summary says {aligned_cols}",
            line=last,
        )
    return HhrHit(
        index=int(_BLOCK.match(lines[first]).group(1)),
        name=name,
        aligned_cols=aligned_cols,
        sum_probs=sum_probs,
        query=query.text,
        hit_sequence=hit.text,
        indices_query=tuple(query.indices),
        indices_hit=tuple(hit.indices),
    )


def _may_be_cut(lines: list[str], aligned_cols: int, found: int) -> bool:
    """Whether the last hit of a file may have lost columns at the end of the file.

    hhsearch ends its file with "Done!". Without it, a hit that has no column where its summary says
    1 is one without a backtrace.
    """
    has_end = any(line.startswith(_FILE_END) for line in lines[-3:])
    return not has_end and not (found == 0 and aligned_cols == 1)


class _Row:
    """One of the two sequences of a hit, put together from its stretches."""

    def __init__(self) -> None:
        self.text = ""
        self.indices: list[int] = []

    def extend(self, stretch: str) -> bool:
        """Append `<start> <letters> <end> (<length>)`; False if that is not what is there."""
        match = _SEQUENCE.match(stretch)
        if match is None:
            return False
        number = int(match.group(1)) - 1
        for letter in match.group(2):
            self.indices.append(-1 if letter == "-" else number)
            number += letter != "-"
        self.text += match.group(2)
        return number == int(match.group(3))
