"""The small tables beside the entries: clusters, obsolete entries, chains that share an alignment."""

from __future__ import annotations

from pathlib import Path

from data_prep.parsers.errors import BrokenFile
from data_prep.parsers.sources import read_text

_OBSOLETE_MIN_LENGTH = 30


def read_clusters(path: Path) -> dict[str, int]:
    """clusters-by-entity-40.txt: `<ID>_<entity>` in upper case -> line, from 0."""
    clusters: dict[str, int] = {}
    for number, line in enumerate(read_text(path).strip().split("\n")):
        clusters.update(dict.fromkeys(line.upper().split(), number))
    if not clusters:
        raise BrokenFile(path, "is empty; expected one cluster of entities per line")
    return clusters


def read_obsolete(path: Path) -> dict[str, str]:
    """obsolete.dat: obsolete PDB id -> first successor, both lower case.

    Odd: only lines longer than 30 characters count, so a line padded with blanks is no different from one cut there.
    """
    successors: dict[str, str] = {}
    for line in read_text(path).split("\n"):
        line = line.strip()
        if line.startswith("OBSLTE") and len(line) > _OBSOLETE_MIN_LENGTH:
            successors[line[20:24].lower()] = line[29:33].lower()
    return successors


def read_duplicates(path: Path) -> list[list[str]]:
    """duplicate_pdb_chains.txt: groups of chain ids with the same sequence, one group per line."""
    groups = [line.split() for line in read_text(path).split("\n") if line.strip()]
    group_of: dict[str, int] = {}
    for number, group in enumerate(groups):
        for chain_id in group:
            if group_of.setdefault(chain_id, number) != number:
                raise BrokenFile(path, f"chain {chain_id} stands in two groups", line=number + 1)
    return groups
