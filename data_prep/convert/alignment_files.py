"""Selection and order of the files that are read from an alignment folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from data_prep.convert.alignment_sources import AlignmentUnit
from data_prep.convert.entry_files import unused_item
from data_prep.convert.findings import Unused
from data_prep.convert.plan import file_fingerprint
from data_prep.parsers.file_access import Item, leaves_below, list_folder
from data_prep.parsers.input_files import uncompressed_size

T = TypeVar("T")
"""What represents a file: an Item, or a FileSlice."""

MSA_STEMS = ("uniref90_hits", "bfd_uniclust_hits", "mgnify_hits")
"""The benchmark's databases, in the order in which their rows are concatenated."""
HIT_STEMS = ("pdb70_hits",)
_MSA_SUFFIXES = (".a3m", ".a3m.gz", ".sto", ".sto.gz")
"""In order of preference, if an alignment exists in several formats."""
_HIT_SUFFIXES = (".hhr", ".hhr.gz")
_OTHER_SEARCHES = ("hmm_output", "pdb_hits")
"""AlphaFold's template searches with hmmsearch: .sto files whose first row is a template, not the
query."""


def read_folder(
    folder: Path, members: Sequence[str], *, use_all: bool = False
) -> tuple[AlignmentUnit, list[Unused]]:
    """Select the files of one folder and return them and the unused ones.

    The files are in the folder (OpenFold's layout) or in its subfolders (OpenProteinSet's layout).
    Files with the benchmark's names are read in the benchmark's order. Files with other names are
    read only if there are none with the benchmark's names, or with use_all; they follow in the
    order of their names. An empty file counts as absent.

    Raises:
        CannotRead: the folder cannot be listed.
    """
    present, unused = _files_by_name(folder)
    filled = {name: item for name, item in present.items() if item.size_bytes() != 0}
    msas = choose_files(filled, MSA_STEMS, _MSA_SUFFIXES, use_all=use_all)
    hits = choose_files(filled, HIT_STEMS, _HIT_SUFFIXES, use_all=use_all)
    used = {item.name: item.stat() for item in [*msas, *hits]}
    for name, item in present.items():
        if name not in used:
            reason = _unused_reason(name, used, is_empty=name not in filled)
            unused.append(unused_item(item, reason))
    unit = AlignmentUnit(
        alignment_id=folder.name,
        msa_paths=tuple(item.path for item in msas),
        hits_paths=tuple(item.path for item in hits),
        members=tuple(members),
        size_bytes=sum(
            uncompressed_size(item.path, used[item.name].st_size) for item in [*msas, *hits]
        ),
        fingerprint=[
            folder.name,
            list(members),
            [file_fingerprint(item.path, folder, used[item.name]) for item in [*msas, *hits]],
        ],
    )
    return unit, unused


def choose_benchmark_files(present: Mapping[str, T]) -> tuple[list[T], list[T]]:
    """Select the benchmark's files from files by name.

    Returns:
        The files with alignment rows and the files with template hits.
    """
    msas = _by_stems(present, MSA_STEMS, _MSA_SUFFIXES)
    return msas, _by_stems(present, HIT_STEMS, _HIT_SUFFIXES)


def choose_files(
    present: Mapping[str, T], stems: Sequence[str], suffixes: Sequence[str], *, use_all: bool
) -> list[T]:
    """Return the files with the given stems, in this order.

    With use_all, or if there are none, files with other stems follow.
    """
    chosen = _by_stems(present, stems, suffixes)
    if chosen and not use_all:
        return chosen
    others = {_stem(name) for name in present if name.endswith(tuple(suffixes))}
    return chosen + _by_stems(present, sorted(others - set(stems) - set(_OTHER_SEARCHES)), suffixes)


def _by_stems(present: Mapping[str, T], stems: Iterable[str], suffixes: Sequence[str]) -> list[T]:
    chosen = []
    for stem in stems:
        chosen.extend(
            [present[stem + suffix] for suffix in suffixes if stem + suffix in present][:1]
        )
    return chosen


def _stem(name: str) -> str:
    return name.removesuffix(".gz").rpartition(".")[0]


def _files_by_name(folder: Path) -> tuple[dict[str, Item], list[Unused]]:
    """Return the files in the folder and in its subfolders by name, and the unused ones.

    Of several files with the same name, one in a subfolder takes precedence over one in the folder
    itself, and a later subfolder takes precedence over an earlier one.
    """
    top_files, inner_files, unused = {}, {}, []
    for item in list_folder(folder):
        if not item.is_folder:
            top_files[item.name] = item
            continue
        for inner in list_folder(item.path):
            if inner.is_folder:
                reason = "too deep in the alignment folder"
                unused.extend(unused_item(below, reason) for below in leaves_below(inner))
                continue
            replaced = inner_files.get(inner.name)
            if replaced is not None:
                unused.append(
                    unused_item(replaced, f"a file of this name is read from {item.name}/")
                )
            inner_files[inner.name] = inner
    for name in sorted(top_files.keys() & inner_files.keys()):
        unused.append(
            unused_item(
                top_files[name],
                f"a file of this name is read from {inner_files[name].path.parent.name}/",
            )
        )
    return {**top_files, **inner_files}, unused


def _unused_reason(name: str, used: Iterable[str], *, is_empty: bool) -> str:
    if _stem(name) in _OTHER_SEARCHES and name.endswith(_MSA_SUFFIXES):
        return "a template search of hmmsearch; template hits are read from .hhr files"
    if not name.endswith((*_MSA_SUFFIXES, *_HIT_SUFFIXES)):
        return "not an alignment: expected .a3m, .sto or .hhr, uncompressed or .gz"
    if is_empty:
        return "is empty"
    if _stem(name) in map(_stem, used):
        return "the same alignment is read in another format"
    return "the folder has files of the benchmark's names; others are read with --own-data"
