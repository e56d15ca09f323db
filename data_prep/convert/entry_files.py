"""Which files below `raw/` are entries, and which are not used."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from data_prep.convert.findings import Unused
from data_prep.convert.plan import file_fingerprint
from data_prep.errors import DataPrepError
from data_prep.parsers.file_access import Item, exists, files_below, list_folder, printable

SUFFIXES = (".cif.gz", ".cif")
"""In the order of preference. The benchmark's data set has compressed files alone."""
_LAYOUT = "<two middle letters>/<id>.cif.gz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntryFile:
    """One mmCIF file."""

    path: Path
    size_bytes: int
    fingerprint: list[Any]

    @property
    def entry(self) -> str:
        return entry_of(self.path.name)


def entry_of(name: str) -> str:
    """The id in the name of an entry's file."""
    return name.split(".")[0]


def find_entries(raw: Path) -> tuple[list[EntryFile], list[Unused]]:
    """The entries below `raw`, by folder and then by file name, and everything else there.

    Entries directly in `raw` come first; one that is also in a folder is not used. DataPrepError if
    there is no entry, or if one is in two folders or twice in one.
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
    place_of = _places(chosen)
    loose, others = _entries_of_folder([item for item in top if not item.is_folder])
    unused.extend(others)
    for item in loose:
        place = place_of.get(entry_of(item.name).lower())
        if place is not None:
            unused.append(not_used(item, f"the entry is read from a folder; {printable(place)}"))
    loose = [item for item in loose if entry_of(item.name).lower() not in place_of]
    _places(loose)
    chosen = loose + chosen
    if not chosen:
        raise DataPrepError(f"{raw} holds no entries; expected {raw}/{_LAYOUT}{_found(unused)}")
    return [_entry_file(item, raw) for item in chosen], unused


def _entries_of_folder(items: list[Item]) -> tuple[list[Item], list[Unused]]:
    """The entries among the items of one folder, one file for each, and the others."""
    names = {item.name for item in items}
    entries, unused = [], []
    for item in items:
        if item.is_folder:
            reason = f"too deep; expected {_LAYOUT}"
            unused.extend(not_used(below, reason) for below in files_below(item))
        elif not item.name.endswith(SUFFIXES) or not entry_of(item.name):
            unused.append(
                not_used(item, "not an entry: expected a name that ends with .cif.gz or .cif")
            )
        elif item.name.endswith(".cif") and item.name + ".gz" in names:
            unused.append(not_used(item, f"the entry's .cif.gz is read; {printable(item.name)}.gz"))
        else:
            entries.append(item)
    return entries, unused


def not_used(item: Item, reason: str) -> Unused:
    """An item for unused.csv.

    The report counts reasons as far as their semicolon; names of files come after it.
    """
    if item.problem:
        reason = f"{reason} ({item.problem})"
    return Unused(path=printable(item.path), reason=reason, size_bytes=item.size_bytes())


def _places(items: list[Item]) -> dict[str, Path]:
    """Entry -> its file. DataPrepError if an entry has two."""
    places: dict[str, Path] = {}
    for item in items:
        other = places.setdefault(entry_of(item.name).lower(), item.path)
        if other is not item.path:
            name, *both = map(printable, (item.name, other, item.path))
            raise DataPrepError(
                f"entry {name} is in two places: {both[0]} and {both[1]}; remove one"
            )
    return places


def _entry_file(item: Item, raw: Path) -> EntryFile:
    status = item.status()
    return EntryFile(
        path=item.path,
        size_bytes=status.st_size,
        fingerprint=file_fingerprint(item.path, raw, status),
    )


def _found(unused: list[Unused]) -> str:
    return f"; found {unused[0].path} ({unused[0].reason})" if unused else ""
