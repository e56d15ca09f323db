"""Search of the alignment files of a chain, in every layout that prediction and `distill` accept.

DIR/<chain>/{a3m,hhr}/*                 OpenProteinSet; also below DIR/pdb
DIR/<chain>/*                           OpenFold
DIR/<chain>.a3m, .sto, .hhr             one file per chain
DIR/*, DIR/{a3m,hhr}/*                  flat, if only one chain is predicted
FILE                                    <chain>.a3m or .sto; any name, if only one chain is
                                        predicted
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from data_prep.convert.alignment_files import read_folder
from data_prep.convert.alignment_sources import DUPLICATES_NAME
from data_prep.errors import DataPrepError
from data_prep.parsers.file_access import exists, list_folder
from data_prep.parsers.tables import read_duplicates

MSA_SUFFIXES = (".a3m", ".a3m.gz", ".sto", ".sto.gz")
"""In order of preference."""
HITS_SUFFIXES = (".hhr", ".hhr.gz")
UNREADABLE = -1
"""Size of something that the operating system cannot open."""
_FLAT_FOLDERS = frozenset({"a3m", "hhr"})


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """Alignment files of a chain. It is empty if nothing was found."""

    msa_paths: tuple[Path, ...] = ()
    hits_paths: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    looked_for: tuple[str, ...] = ()
    """Files and folders that were looked for, with patterns."""

    def describe_missing(self) -> str:
        """Say where rows were looked for, and what to do without them."""
        looked = f"; looked for {', '.join(self.looked_for)}" if self.looked_for else ""
        found = f"no alignment found{looked}" if looked else "no alignment is given"
        notes = "".join(f"; {note}" for note in self.notes)
        return (
            f"{found}{notes}; name the directory of the alignments with --alignments, or predict "
            "from the sequence alone with --single-sequence"
        )


SelectFiles = Callable[[Path], FoundFiles]
"""Selects and orders the files of a chain's folder."""


class AlignmentSource(Protocol):
    """A folder or file that may have the alignment of a chain."""

    def find(self, name: str, *, is_only_chain: bool) -> FoundFiles:
        """Return the files of a chain. is_only_chain: no other chain is predicted."""


def file_keys(name: str) -> tuple[str, ...]:
    """Return the names that the files of a chain may have, without suffix.

    A name that cannot be a file name, or is rarely one, may be written with `_` for every run of
    characters other than letters, digits and `._+-`.
    """
    is_file_name = "/" not in name and "\0" not in name and name not in (".", "..")
    replaced = re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._-")
    keys = [name] if is_file_name else []
    return tuple(dict.fromkeys([*keys, *([replaced] if replaced else [])]))


@dataclass(frozen=True, kw_only=True)
class AlignmentFolder:
    """A folder with the alignments of many chains, or of one."""

    root: Path
    items: Mapping[str, int | None]
    """Everything in the folder: size in bytes by name; None for a folder, UNREADABLE for a link to
    a file that does not exist and the like."""
    shared_folders: Mapping[str, str] = field(default_factory=dict)
    """Chain -> chain with the same sequence, whose folder it uses."""
    select: SelectFiles

    def find(self, name: str, *, is_only_chain: bool) -> FoundFiles:
        """Return the files of a chain: in its folder, else named after it, else in a flat folder.

        Rows and hits are found separately.
        """
        keys = file_keys(name)
        folders = [*keys, *([self.shared_folders[name]] if name in self.shared_folders else [])]
        candidates = [FoundFiles(looked_for=(f"{self.root / folder}/",)) for folder in folders]
        candidates += [
            self.select(self.root / folder) for folder in folders if self._is_folder(folder)
        ]
        candidates += [self._files_named(key) for key in keys]
        if is_only_chain and self._is_flat():
            candidates.append(FoundFiles(looked_for=(f"{self.root}/*.a3m or *.sto",)))
            candidates.append(self.select(self.root))
        found = first_of_each(candidates)
        return found if found.msa_paths else replace(found, notes=found.notes + self._similar(keys))

    def _is_folder(self, name: str) -> bool:
        """Return whether something is a folder, or cannot be opened, which must be an error."""
        size = self.items.get(name, 0)
        return size is None or size == UNREADABLE

    def _files_named(self, key: str) -> FoundFiles:
        return FoundFiles(
            msa_paths=self._files(key, MSA_SUFFIXES),
            hits_paths=self._files(key, HITS_SUFFIXES),
            looked_for=(f"{self.root / key}.a3m or .sto",),
        )

    def _files(self, key: str, suffixes: Sequence[str]) -> tuple[Path, ...]:
        """Return the preferred file of the chain that is not empty, if there is one."""
        names = [key + suffix for suffix in suffixes if self.items.get(key + suffix)]
        return tuple(self.root / name for name in names[:1])

    def _is_flat(self) -> bool:
        folders = {name for name, size in self.items.items() if size is None}
        return folders <= _FLAT_FOLDERS

    def _similar(self, keys: Sequence[str]) -> tuple[str, ...]:
        wanted = {key.lower() for key in keys}
        return tuple(
            f"{self.root / item} differs in upper and lower case"
            for item in self.items
            if _without_suffixes(item).lower() in wanted and _without_suffixes(item) not in keys
        )


@dataclass(frozen=True, kw_only=True)
class AlignmentFile:
    """A single alignment file, or a file of template hits."""

    path: Path

    def find(self, name: str, *, is_only_chain: bool) -> FoundFiles:
        """Return the file if it has the name of the chain, or if there is only one chain."""
        if not is_only_chain and _without_suffixes(self.path.name) not in file_keys(name):
            return FoundFiles(looked_for=(f"{self.path} (named <chain>.a3m or .sto)",))
        if self.path.name.endswith(HITS_SUFFIXES):
            return FoundFiles(hits_paths=(self.path,))
        return FoundFiles(msa_paths=(self.path,))


def find_alignment(
    sources: Sequence[AlignmentSource], name: str, *, is_only_chain: bool
) -> FoundFiles:
    """Return the files of a chain: the rows of the first source that has any, likewise the hits."""
    return first_of_each([source.find(name, is_only_chain=is_only_chain) for source in sources])


def first_of_each(found: Sequence[FoundFiles]) -> FoundFiles:
    """Return the first rows and the first hits that were found, and all notes."""
    return FoundFiles(
        msa_paths=next((files.msa_paths for files in found if files.msa_paths), ()),
        hits_paths=next((files.hits_paths for files in found if files.hits_paths), ()),
        notes=tuple(note for files in found for note in files.notes),
        looked_for=tuple(text for files in found for text in files.looked_for),
    )


def _without_suffixes(name: str) -> str:
    for suffix in (*MSA_SUFFIXES, *HITS_SUFFIXES):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def open_alignments(path: Path) -> AlignmentSource:
    """Return the source of alignments at a path.

    Raises:
        DataPrepError: the path does not exist, is no alignment, or cannot be read.
    """
    if not exists(path):
        raise DataPrepError(f"the alignments {path} do not exist; expected a directory or a file")
    if not path.is_dir():
        suffixes = (*MSA_SUFFIXES, *HITS_SUFFIXES)
        if not path.name.endswith(suffixes):
            raise DataPrepError(f"{path} is no alignment; expected a name that ends in {suffixes}")
        return AlignmentFile(path=path)
    root = path / "pdb" if (path / "pdb").is_dir() else path
    items = {
        item.name: UNREADABLE if item.problem else item.size_bytes() for item in list_folder(root)
    }
    table = path / DUPLICATES_NAME
    shared = {}
    for group in read_duplicates(table) if exists(table) else []:
        first = next((chain for chain in group if chain in items), None)
        if first is not None:
            shared.update(dict.fromkeys(group, first))
    return AlignmentFolder(root=root, items=items, shared_folders=shared, select=select_files)


def select_files(folder: Path) -> FoundFiles:
    """Select the files that conversion reads with --own-data, in its order."""
    unit, unused = read_folder(folder, (), use_all=True)
    suffixes = (*MSA_SUFFIXES, *HITS_SUFFIXES)
    return FoundFiles(
        msa_paths=tuple(path for path in unit.msa_paths if isinstance(path, Path)),
        hits_paths=tuple(path for path in unit.hits_paths if isinstance(path, Path)),
        notes=tuple(
            f"{file.path} is not used: {file.reason}"
            for file in unused
            if file.path.endswith(suffixes)
        ),
    )
