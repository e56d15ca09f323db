"""Parsers of small tables: clusters, obsolete entries, chains that share an alignment."""

from __future__ import annotations

from pathlib import Path

from data_prep.errors import BrokenFile
from data_prep.parsers.input_files import read_text

_OBSOLETE_KEYWORD = "OBSLTE"
_OBSOLETE_ID = slice(20, 24)
_FIRST_SUCCESSOR = slice(29, 33)
"""Columns of a record of obsolete.dat. The keyword and the date precede them."""


def read_clusters(path: Path) -> dict[str, int]:
    """Map each `<ID>_<entity>` of clusters-by-entity-40.txt, in upper case, to its line, from 0.

    Raises:
        BrokenFile: The table is empty, or has a name in two clusters, of which one may be held out.
    """
    clusters: dict[str, int] = {}
    for number, line in enumerate(read_text(path).strip().split("\n")):
        for name in line.upper().split():
            if clusters.setdefault(name, number) != number:
                raise BrokenFile(
                    path,
                    f"{name} is in two clusters; it must be on one line only",
                    line=number + 1,
                )
    if not clusters:
        raise BrokenFile(path, "is empty; expected one cluster of entities per line")
    return clusters


def read_obsolete(path: Path) -> dict[str, str]:
    """Map every obsolete PDB id of obsolete.dat to its first successor, both in lower case.

    The title line and records without a successor are skipped. A record has a successor if it is
    longer than 30 characters without leading and trailing blanks.
    """
    records = (line.strip() for line in read_text(path).splitlines())
    return {
        record[_OBSOLETE_ID].lower(): record[_FIRST_SUCCESSOR].lower()
        for record in records
        if record.startswith(_OBSOLETE_KEYWORD) and len(record) > _FIRST_SUCCESSOR.start + 1
    }


def read_duplicates(path: Path) -> list[list[str]]:
    """Return the lines of duplicate_pdb_chains.txt: groups of chain ids with the same sequence."""
    groups = [line.split() for line in read_text(path).split("\n") if line.strip()]
    group_of: dict[str, int] = {}
    for number, group in enumerate(groups):
        for chain_id in group:
            if group_of.setdefault(chain_id, number) != number:
                raise BrokenFile(
                    path,
                    f"chain {chain_id} is in two groups; a chain must be on one line only",
                    line=number + 1,
                )
    return groups
