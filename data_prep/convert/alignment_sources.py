"""Assignment of alignment folders to chains."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.convert.entry_files import unused_item
from data_prep.convert.findings import Unused
from data_prep.errors import DataPrepError, escaped
from data_prep.parsers.file_access import Item, exists, list_folder
from data_prep.parsers.input_files import FileSlice
from data_prep.parsers.tables import read_duplicates

DUPLICATES_NAME = "duplicate_pdb_chains.txt"
_CHAIN_FOLDER = re.compile(r"[0-9A-Za-z]{4,}_\w+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentUnit:
    """An alignment folder that at least one chain uses. A shard contains one or more units."""

    alignment_id: str
    """Name of the folder."""
    msa_paths: tuple[Path | FileSlice, ...]
    hits_paths: tuple[Path | FileSlice, ...]
    members: tuple[str, ...]
    """Chains of the data set that use the alignment, in canonical order."""
    size_bytes: int
    """Size of all files, uncompressed."""
    fingerprint: list[Any]
    """JSON values that identify the input; if they change, the shard is built again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderUse:
    """The assignment of the folders below `pdb/` to the chains of a data set."""

    users: dict[str, list[str]]
    """Folder name -> chains that use it, both in canonical order."""
    missing: list[str]
    """Chains without a folder."""
    similar: dict[str, str]
    """Chain without a folder -> folder whose name differs only in upper and lower case."""
    unused: list[Unused]


def alignments_root(open_protein_set: Path) -> Path:
    """Return the folder that contains one folder of alignments per chain.

    This is `<open_protein_set>/pdb` in OpenProteinSet's layout. In OpenFold's layout, which has
    no `pdb`, it is the given folder itself.
    """
    root = open_protein_set / "pdb"
    if exists(root) or not exists(open_protein_set):
        return root
    has_chains = any(
        item.is_folder and _CHAIN_FOLDER.fullmatch(item.name)
        for item in list_folder(open_protein_set)
    )
    return open_protein_set if has_chains else root


def list_alignment_folders(open_protein_set: Path) -> list[Item]:
    """Return everything in the alignments' root except the table of duplicates.

    Raises:
        DataPrepError: the folder does not exist.
    """
    root = alignments_root(open_protein_set)
    if not exists(root):
        raise DataPrepError(
            f"{root} does not exist; expected one folder of alignments per chain in it, "
            f"or such folders, named <PDB id>_<author chain>, in {open_protein_set}"
        )
    return [item for item in list_folder(root) if item.path != open_protein_set / DUPLICATES_NAME]


def chains_by_folder(
    chain_ids: Iterable[str], items: Iterable[Item], groups: Iterable[list[str]]
) -> FolderUse:
    """Assign the folders to chains.

    A chain uses its own folder, or that of any chain in its group (duplicate_pdb_chains.txt).
    """
    # A folder that cannot be opened counts as a folder, because its chain must not count as a chain
    # without an alignment.
    folders = {
        item.name: item
        for item in items
        if item.is_folder or (item.problem and not _is_file_name(item.name))
    }
    folder_of = {folder: folder for folder in folders}
    for group in groups:
        with_folder = [chain_id for chain_id in group if chain_id in folders]
        if with_folder:
            folder = with_folder[0]
            folder_of.update({chain_id: folder for chain_id in group if chain_id not in folders})
    users: dict[str, list[str]] = {}
    missing = []
    for chain_id in chain_ids:
        if chain_id in folder_of:
            users.setdefault(folder_of[chain_id], []).append(chain_id)
        else:
            missing.append(chain_id)
    by_case = {folder.lower(): folder for folder in folders if folder not in users}
    similar = {
        chain_id: by_case[chain_id.lower()] for chain_id in missing if chain_id.lower() in by_case
    }
    similar_chains = {folder: chain_id for chain_id, folder in similar.items()}
    unused = [
        unused_item(item, _unused_reason(item, similar_chains))
        for item in items
        if item.name not in users
    ]
    return FolderUse(users=users, missing=missing, similar=similar, unused=unused)


def read_folder_use(chain_ids: Iterable[str], open_protein_set: Path) -> FolderUse:
    """Call `chains_by_folder` with the folders and the table of duplicates of OpenProteinSet.

    Without the table each chain is its own group.
    """
    path = open_protein_set / DUPLICATES_NAME
    groups = read_duplicates(path) if exists(path) else []
    return chains_by_folder(chain_ids, list_alignment_folders(open_protein_set), groups)


def _is_file_name(name: str) -> bool:
    return "." in name


def _unused_reason(item: Item, similar_chains: dict[str, str]) -> str:
    if item.name in similar_chains:
        chain_id = similar_chains[item.name]
        return f"no chain has this name; chain {chain_id} differs in upper and lower case"
    if not item.is_folder:
        return "not in a folder; expected one folder per chain, named <PDB id>_<author chain>"
    return "no chain of the data set uses this folder"


def describe_missing(use: FolderUse, root: Path) -> str:
    """Return what to do about chains without a folder, for the error message."""
    text = f"add the folders below {escaped(root)} (or lines to {DUPLICATES_NAME})"
    if use.similar:
        chain_id, folder = next(iter(use.similar.items()))
        text = (
            f"{root / folder} differs from {chain_id} in upper and lower case; rename it, or {text}"
        )
    return text
