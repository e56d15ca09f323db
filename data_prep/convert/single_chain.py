"""The record of one chain from its own alignment files and a folder of template structures.

Prediction uses it. Conversion makes the same records for many chains and stores them in shards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.convert.alignment_record import compare_letters, make_alignment_record
from data_prep.convert.findings import QueryDifference
from data_prep.convert.template_files import TemplateFiles
from data_prep.convert.template_mapping import iterate_hits
from data_prep.errors import BrokenFile
from data_prep.parsers.alignment_blocks import Block, read_blocks, read_first_row
from data_prep.parsers.hhr import parse_named_hits
from data_prep.parsers.msa import ParsedMsa, parse_msa
from openfold_opt.protein.records import AlignmentRecord, TemplateHit


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainAlignment:
    """The alignment of a chain, and what is to be said about its files."""

    record: AlignmentRecord
    notes: tuple[str, ...]


def check_query(path: Path, *, chain_id: str, sequence: str) -> QueryDifference | None:
    """Compare the query of an .a3m file with the chain, without reading all of the file.

    Nothing is compared for an .sto file, in which the query may be spread over the whole file.

    Returns:
        the letters that differ; None if there are none.

    Raises:
        BrokenFile: the file is the alignment of another protein or of a complex.
        CannotRead: the file cannot be read.
    """
    if ".sto" in path.suffixes:
        return None
    first_row = read_first_row(path)
    if first_row is None:
        return None
    try:
        _refuse_complex(path, first_row.complex_header)
        return compare_letters(path, first_row.query, chain_id=chain_id, sequence=sequence)
    except BrokenFile:
        # The chain may be the query of another block.
        _choose_blocks(path, read_blocks(path), chain_id=chain_id, sequence=sequence)
        return None


def read_alignment(
    paths: Sequence[Path], *, chain_id: str, sequence: str, max_rows: int
) -> ChainAlignment:
    """Read the alignment of a chain from its files, in their order.

    Args:
        paths: .a3m or .sto files, uncompressed or .gz; without any, the sequence is the only row.
        chain_id: for messages.
        sequence: the chain.
        max_rows: maximum number of rows, counted with duplicates; others are not used.

    Raises:
        BrokenFile: a file is malformed, or is the alignment of another protein or of a complex.
        CannotRead: a file cannot be read.
    """
    msas: list[ParsedMsa] = []
    notes: list[str] = []
    num_rows = 0
    for path in paths:
        for msa in _parse_file(path, chain_id, sequence, notes, max_rows - num_rows + 1):
            difference = compare_letters(path, msa.query, chain_id=chain_id, sequence=sequence)
            if difference is not None:
                notes.append(describe_difference(difference, path))
            kept = max(max_rows - num_rows, 0)
            if len(msa.letters) > kept:
                notes.append(
                    f"{path}: the alignment has more than {max_rows:,} rows; the first "
                    f"{max_rows:,} are used"
                )
                msa = ParsedMsa(letters=msa.letters[:kept], deletions=msa.deletions[:kept])
            if len(msa.letters):
                msas.append(msa)
            num_rows += len(msa.letters)
    return ChainAlignment(
        record=make_alignment_record(msas, sequence), notes=tuple(dict.fromkeys(notes))
    )


def _parse_file(
    path: Path, chain_id: str, sequence: str, notes: list[str], max_rows: int
) -> list[ParsedMsa]:
    if ".sto" in path.suffixes:
        msa = parse_msa(path)
        return [] if msa is None else [msa]
    blocks = read_blocks(path)
    chosen = _choose_blocks(path, blocks, chain_id=chain_id, sequence=sequence)
    if len(chosen) < len(blocks):
        notes.append(
            f"{path}: {len(blocks) - len(chosen)} of {len(blocks)} alignments have another query "
            "and are not used"
        )
    return [block.parse(max_rows=max_rows) for block in chosen]


def _choose_blocks(
    path: Path, blocks: Sequence[Block], *, chain_id: str, sequence: str
) -> list[Block]:
    """Return the blocks whose query is the chain. Raise BrokenFile if none is."""
    chosen, first_error = [], None
    for block in blocks:
        try:
            _refuse_complex(path, block.first_row.complex_header)
            compare_letters(path, block.first_row.query, chain_id=chain_id, sequence=sequence)
            chosen.append(block)
        except BrokenFile as error:
            first_error = first_error or error
    if not chosen and first_error is not None:
        raise first_error
    return chosen


def _refuse_complex(path: Path, header: str) -> None:
    if header:
        raise BrokenFile(
            path,
            f"found the header {header!r} of a complex, expected the alignment of a single chain; "
            "write one alignment for each chain",
            line=1,
        )


def describe_difference(difference: QueryDifference, path: Path) -> str:
    """Say how the query of an alignment differs from its chain."""
    expected, actual = difference.letters[0].split(">")
    return (
        f"{path}: its query differs from chain {difference.chain_id} in "
        f"{len(difference.positions)} letters; the first: it has {actual} at residue "
        f"{difference.positions[0]}, the chain has {expected}. The rows are used as they are"
    )


def find_templates(
    hits_paths: Sequence[Path],
    sequence: str,
    *,
    structures: TemplateFiles,
    is_allowed: Callable[[TemplateHit], bool],
    max_templates: int,
) -> list[TemplateHit]:
    """Return the best usable template hits of a chain.

    These are the first max_templates hits, by decreasing sum_probs, that pass the filters of
    conversion, are allowed and can be featurized. Only the structures of hits up to the last of
    these are read.

    Raises:
        BrokenFile: an .hhr file is malformed.
        CannotRead: a file cannot be read.
    """
    used: list[TemplateHit] = []
    if max_templates == 0:
        return used
    hits = [hit for path in hits_paths for hit in parse_named_hits(path)]
    for hit in iterate_hits(hits, sequence, library=structures, obsolete=structures.obsolete):
        if is_allowed(hit) and hit.is_featurizable:
            used.append(hit)
            if len(used) == max_templates:
                break
    return used
