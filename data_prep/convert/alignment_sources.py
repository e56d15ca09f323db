"""Which chain uses which alignment folder, and what lies in it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from data_prep.convert.plan import file_fingerprint
from data_prep.errors import DataPrepError
from data_prep.parsers.sources import FileSlice, uncompressed_size
from data_prep.parsers.tables import read_duplicates

T = TypeVar("T")

MSA_STEMS = ("uniref90_hits", "bfd_uniclust_hits", "mgnify_hits")
"""The benchmark's databases, in the order in which their rows are put together."""
_MSA_SUFFIXES = (".a3m", ".a3m.gz", ".sto", ".sto.gz")
"""In the order of preference, should one alignment be there in two forms."""
_HIT_FILES = ("pdb70_hits.hhr", "pdb70_hits.hhr.gz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentUnit:
    """One alignment folder that is in use."""

    alignment_id: str
    msa_paths: tuple[Path | FileSlice, ...]
    hits_path: Path | FileSlice | None
    members: tuple[str, ...]
    """The chains of the data set that use it, in canonical order."""
    size_bytes: int
    fingerprint: list[Any]


def chains_by_folder(chain_ids: Iterable[str], open_protein_set: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Folder name -> chains that use it, both in canonical order; and the chains without one.

    A chain uses the folder of any chain on its line of duplicate_pdb_chains.txt, or its own.
    """
    root = open_protein_set / "pdb"
    if not root.is_dir():
        raise DataPrepError(f"{root} does not exist; expected one folder of alignments per chain in it")
    folders = {item.name for item in os.scandir(root) if item.is_dir()}
    folder_of = {folder: folder for folder in folders}
    for group in read_duplicates(open_protein_set / "duplicate_pdb_chains.txt"):
        named = [chain_id for chain_id in group if chain_id in folders]
        if named:
            folder_of.update({chain_id: named[0] for chain_id in group if chain_id not in folders})
    users: dict[str, list[str]] = {}
    missing = []
    for chain_id in chain_ids:
        if chain_id in folder_of:
            users.setdefault(folder_of[chain_id], []).append(chain_id)
        else:
            missing.append(chain_id)
    return users, missing


def choose_files(present: Mapping[str, T]) -> tuple[list[T], T | None]:
    """Out of files by name: those with rows, in the order in which they are put together, and the one with template hits."""
    msa_files = []
    for stem in MSA_STEMS:
        found = [present[stem + suffix] for suffix in _MSA_SUFFIXES if stem + suffix in present]
        msa_files.extend(found[:1])
    return msa_files, next((present[name] for name in _HIT_FILES if name in present), None)


def read_folder(folder: Path, members: Sequence[str]) -> AlignmentUnit:
    """The files of one folder. Those with other names are left alone, as the benchmark does."""
    msa_paths, hits_path = choose_files({path.name: path for path in sorted(folder.glob("*/*")) if path.is_file()})
    used = msa_paths if hits_path is None else [*msa_paths, hits_path]
    return AlignmentUnit(
        alignment_id=folder.name,
        msa_paths=tuple(msa_paths),
        hits_path=hits_path,
        members=tuple(members),
        size_bytes=sum(map(uncompressed_size, used)),
        fingerprint=[folder.name, list(members), [file_fingerprint(path, folder) for path in used]],
    )
