"""Find the entries (mmCIF files of the PDB) below pdb_mmcif/raw, and the unused files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from data_prep.convert.findings import Unused
from data_prep.convert.plan import file_fingerprint
from data_prep.errors import DataPrepError, escaped
from data_prep.parsers.file_access import Item, exists, leaves_below, list_folder

SUFFIXES = (".cif.gz", ".cif")
"""In order of preference. The benchmark's data set has only compressed files."""
_LAYOUT = "<two middle letters>/<id>.cif.gz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntryFile:
    """The mmCIF file of an entry."""

    path: Path
    size_bytes: int
    fingerprint: list[Any]
    """JSON values that identify the input; if they change, the shard is built again."""

    @property
    def entry(self) -> str:
        return entry_of(self.path.name)


def entry_of(name: str) -> str:
    """Return the id in the name of an entry's file."""
    return name.split(".")[0]


def find_entries(raw: Path) -> tuple[list[EntryFile], list[Unused]]:
    """Return the entries below `raw`, sorted by folder and file name, and the unused files.

    Files directly in `raw` come first. If an entry is also in a subfolder, that file is used.

    Raises:
        DataPrepError: there is no entry, or an entry is in two subfolders or twice in one.
    """
    if not exists(raw):
        raise DataPrepError(f"{raw} does not exist; expected entries as {raw}/{_LAYOUT}")
    top = list_folder(raw)
    chosen: list[Item] = []
    unused: list[Unused] = []
    for folder in top:
        if folder.is_folder:
            entries, others = _entries_of_folder(list_folder(folder.path))
            chosen.extend(entries)
            unused.extend(others)
    path_of = _paths_by_entry(chosen)
    top_files, others = _entries_of_folder([item for item in top if not item.is_folder])
    unused.extend(others)
    for item in top_files:
        path = path_of.get(entry_of(item.name).lower())
        if path is not None:
            unused.append(unused_item(item, f"the entry is read from a folder; {escaped(path)}"))
    top_files = [item for item in top_files if entry_of(item.name).lower() not in path_of]
    _paths_by_entry(top_files)  # Raises DataPrepError if an entry has two files.
    chosen = top_files + chosen
    if not chosen:
        raise DataPrepError(
            f"{raw} holds no entries; expected {raw}/{_LAYOUT}{_first_unused(unused)}"
        )
    return [_entry_file(item, raw) for item in chosen], unused


def _entries_of_folder(items: list[Item]) -> tuple[list[Item], list[Unused]]:
    """Return one file for each entry in a folder, and the unused files."""
    names = {item.name for item in items}
    entries, unused = [], []
    for item in items:
        if item.is_folder:
            reason = f"too deep; expected {_LAYOUT}"
            unused.extend(unused_item(below, reason) for below in leaves_below(item))
        elif not item.name.endswith(SUFFIXES) or not entry_of(item.name):
            unused.append(
                unused_item(item, "not an entry: expected a name that ends with .cif.gz or .cif")
            )
        elif item.name.endswith(".cif") and item.name + ".gz" in names:
            unused.append(
                unused_item(item, f"the entry's .cif.gz is read; {escaped(item.name)}.gz")
            )
        else:
            entries.append(item)
    return entries, unused


def unused_item(item: Item, reason: str) -> Unused:
    """Return the row of an item for unused.csv.

    The report groups reasons by their text before the semicolon; file names follow it.
    """
    if item.problem:
        reason = f"{reason} ({item.problem})"
    return Unused(path=escaped(item.path), reason=reason, size_bytes=item.size_bytes())


def _paths_by_entry(items: list[Item]) -> dict[str, Path]:
    """Map each entry to its file.

    Raises:
        DataPrepError: an entry has two files.
    """
    paths: dict[str, Path] = {}
    for item in items:
        other = paths.setdefault(entry_of(item.name).lower(), item.path)
        if other is not item.path:
            name, *both = map(escaped, (item.name, other, item.path))
            raise DataPrepError(
                f"entry {name} is in two places: {both[0]} and {both[1]}; remove one"
            )
    return paths


def _entry_file(item: Item, raw: Path) -> EntryFile:
    status = item.stat()
    return EntryFile(
        path=item.path,
        size_bytes=status.st_size,
        fingerprint=file_fingerprint(item.path, raw, status),
    )


def _first_unused(unused: list[Unused]) -> str:
    return f"; found {unused[0].path} ({unused[0].reason})" if unused else ""
