"""Which files of an alignment folder are read, in which order, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from data_prep.convert.alignment_sources import AlignmentUnit
from data_prep.convert.entry_files import not_used
from data_prep.convert.findings import Unused
from data_prep.convert.plan import file_fingerprint
from data_prep.parsers.file_access import Item, files_below, list_folder
from data_prep.parsers.sources import uncompressed_size

T = TypeVar("T")

MSA_STEMS = ("uniref90_hits", "bfd_uniclust_hits", "mgnify_hits")
"""The benchmark's databases, in the order in which their rows are put together."""
HIT_STEMS = ("pdb70_hits",)
_MSA_SUFFIXES = (".a3m", ".a3m.gz", ".sto", ".sto.gz")
"""In the order of preference, if one alignment is there in two forms."""
_HIT_SUFFIXES = (".hhr", ".hhr.gz")
_OTHER_SEARCHES = ("hmm_output", "pdb_hits")
"""AlphaFold's template searches with hmmsearch: .sto files whose first row is a template, not the
query."""


def read_folder(
    folder: Path, members: Sequence[str], *, use_all: bool = False
) -> tuple[AlignmentUnit, list[Unused]]:
    """The files of one folder, which are in it (OpenFold's layout) or one folder deeper
    (OpenProteinSet's).

    The benchmark's names are read, in the benchmark's order. Other names are read, after them and
    by name, where there are none of the benchmark's, or with use_all. The rest of the folder is
    returned as unused. A file without a byte counts as absent. CannotRead if the folder cannot be
    listed.
    """
    present, unused = _files_by_name(folder)
    filled = {name: item for name, item in present.items() if item.size_bytes() != 0}
    msas = choose_files(filled, MSA_STEMS, _MSA_SUFFIXES, use_all=use_all)
    hits = choose_files(filled, HIT_STEMS, _HIT_SUFFIXES, use_all=use_all)
    used = {item.name: item.status() for item in [*msas, *hits]}
    for name, item in present.items():
        if name not in used:
            unused.append(not_used(item, _why_unused(name, used, is_empty=name not in filled)))
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
    """Out of files by name: those with rows, and those with template hits; the benchmark's names
    only."""
    msas = _by_stems(present, MSA_STEMS, _MSA_SUFFIXES)
    return msas, _by_stems(present, HIT_STEMS, _HIT_SUFFIXES)


def choose_files(
    present: Mapping[str, T], stems: Sequence[str], suffixes: Sequence[str], *, use_all: bool
) -> list[T]:
    """The benchmark's files in the order of `stems`; with use_all, or if there are none, also those
    of other names."""
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
    """Files in the folder and in its folders, by name.

    Of two with one name the deeper one counts, then the last by folder.
    """
    loose, deeper, unused = {}, {}, []
    for item in list_folder(folder):
        if not item.is_folder:
            loose[item.name] = item
            continue
        for inner in list_folder(item.path):
            if inner.is_folder:
                reason = "too deep in the alignment folder"
                unused.extend(not_used(below, reason) for below in files_below(inner))
                continue
            replaced = deeper.get(inner.name)
            if replaced is not None:
                unused.append(not_used(replaced, f"a file of this name is read from {item.name}/"))
            deeper[inner.name] = inner
    for name in sorted(loose.keys() & deeper.keys()):
        unused.append(
            not_used(
                loose[name], f"a file of this name is read from {deeper[name].path.parent.name}/"
            )
        )
    return {**loose, **deeper}, unused


def _why_unused(name: str, used: Iterable[str], *, is_empty: bool) -> str:
    if _stem(name) in _OTHER_SEARCHES and name.endswith(_MSA_SUFFIXES):
        return "a template search of hmmsearch; template hits are read from .hhr files"
    if not name.endswith((*_MSA_SUFFIXES, *_HIT_SUFFIXES)):
        return "not an alignment: expected .a3m, .sto or .hhr, plain or .gz"
    if is_empty:
        return "is empty"
    if _stem(name) in map(_stem, used):
        return "the same alignment is read in another form"
    return "the folder has files of the benchmark's names; others are read with --own-data"
