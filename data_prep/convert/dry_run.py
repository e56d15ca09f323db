"""The report of `convert --dry-run`: the planned work and its estimated time.

The time is estimated by converting a sample of the input and discarding the result.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_prep.convert.alignment_files import read_folder
from data_prep.convert.alignment_record import count_tokens
from data_prep.convert.alignment_sources import AlignmentUnit, list_alignment_folders
from data_prep.convert.entry_files import EntryFile, unused_item
from data_prep.convert.findings import Unused
from data_prep.convert.plan import Chunk, make_chunks, unfinished
from data_prep.convert.raw_source import RawSource
from data_prep.convert.structures import pack_chain
from data_prep.errors import BrokenFile, EntryRejected
from data_prep.parsers.hhr import parse_hhr
from data_prep.parsers.mmcif import parse_mmcif
from data_prep.parsers.msa import merge_without_duplicates, parse_msa
from data_prep.progress import Progress, duration

SAMPLE_UNITS = 40
SAMPLE_SECONDS = 20.0
"""The sample of each kind ends when the first of these two limits is reached."""
_MEBIBYTE = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Time that one process needs for all units of a kind, in seconds."""

    seconds: float
    low: float
    high: float
    """Range: estimated from the faster and from the slower half of the sample only."""
    num_sampled: int


def describe(source: RawSource, *, out: Path, num_processes: int) -> str:
    """Return the report in several lines. This reads input files and writes nothing."""
    plan = source.plan_structures()
    files = [file for chunk in plan.chunks for file in chunk.units]
    pending = unfinished(plan.chunks, out)
    convert_entry = functools.partial(_convert_entry, own_data=source.own_data)
    entries = estimate(files, convert_entry, size_of=lambda file: file.size_bytes, what="entries")
    folders, unused = _alignment_units(source)
    alignments = estimate(
        folders, _convert_alignment, size_of=lambda unit: unit.size_bytes, what="alignments"
    )
    alignment_chunks = make_chunks(
        "alignments",
        folders,
        expected_bytes=lambda unit: unit.size_bytes,
        shard_size_bytes=source.shard_size_bytes,
        depends_on="",
    )
    num_finished = len(plan.chunks) - len(pending)
    lines = [
        f"entries:           {len(files):,} files, "
        f"{_mebibytes(file.size_bytes for file in files)}, {len(plan.chunks)} shards, "
        f"{num_finished} of them finished",
        f"alignment folders: {len(folders):,}, {_mebibytes(unit.size_bytes for unit in folders)}, "
        f"about {len(alignment_chunks)} shards (folders that no chain uses will be skipped)",
        f"not used:          {len(plan.unused) + len(unused):,} files (unused.csv will list them)",
        f"memory:            about {5 * source.shard_size_bytes // _MEBIBYTE:,} MiB for each "
        "process, or six times the largest alignment",
        "",
        f"time with {num_processes} process{'es' if num_processes > 1 else ''}, as measured on a "
        "sample:",
        _time_line("entries", _remaining(entries, pending, files), num_processes),
        _time_line("alignments", alignments, num_processes),
        "the time excludes the mapping of template hits, which needs all chains",
    ]
    return "\n".join(lines)


def _remaining(whole: Estimate, pending: Sequence[Chunk], files: Sequence[EntryFile]) -> Estimate:
    """Scale an estimate to the entries of unfinished shards."""
    total = sum(file.size_bytes for file in files)
    fraction = sum(file.size_bytes for chunk in pending for file in chunk.units) / max(total, 1)
    return dataclasses.replace(
        whole,
        seconds=whole.seconds * fraction,
        low=whole.low * fraction,
        high=whole.high * fraction,
    )


def _alignment_units(source: RawSource) -> tuple[list[AlignmentUnit], list[Unused]]:
    """Return the units of all folders, since the chains are not known yet, and the unused files.

    A folder that cannot be listed is an error, as in conversion.
    """
    items = list_alignment_folders(source.open_protein_set)
    units, unused = [], []
    for item in items:
        if item.is_folder:
            unit, others = read_folder(item.path, (), use_all=source.own_data)
            units.append(unit)
            unused.extend(others)
        else:
            unused.append(unused_item(item, "not in a folder"))
    return units, unused


def estimate(
    units: Sequence[Any],
    convert: Callable[[Any], None],
    *,
    size_of: Callable[[Any], int],
    what: str,
) -> Estimate:
    """Convert a sample of units of all sizes and scale the time by bytes."""
    by_size = sorted(units, key=size_of)
    if not by_size:
        return Estimate(seconds=0.0, low=0.0, high=0.0, num_sampled=0)
    count = min(SAMPLE_UNITS, len(by_size))
    # The middle unit of each of `count` groups of equal length.
    sample = [by_size[(2 * i + 1) * len(by_size) // (2 * count)] for i in range(count)]
    measured = []
    deadline = time.perf_counter() + SAMPLE_SECONDS
    # Large and small units alternate, because the time limit may end the sample early.
    with Progress(count, what=f"sample of {what}", unit="unit") as progress:
        for unit in [sample[i // 2] if i % 2 else sample[-1 - i // 2] for i in range(count)]:
            started = time.perf_counter()
            convert(unit)
            measured.append((size_of(unit), time.perf_counter() - started))
            progress.update()
            if time.perf_counter() > deadline:
                break
    total = sum(map(size_of, units))
    by_speed = sorted(measured, key=lambda item: item[1] / max(item[0], 1))
    middle = (len(by_speed) + 1) // 2
    return Estimate(
        seconds=_scaled(measured, total, len(units)),
        low=_scaled(by_speed[:middle], total, len(units)),
        high=_scaled(by_speed[-middle:], total, len(units)),
        num_sampled=len(measured),
    )


def _scaled(measured: Sequence[tuple[int, float]], total_bytes: int, num_units: int) -> float:
    """Scale measured pairs (bytes, seconds) to the seconds for all units.

    If the sampled units are empty (folders without files), the time is scaled by their number.
    """
    sampled_bytes = sum(size for size, _ in measured)
    if sampled_bytes == 0:
        return statistics.fmean(seconds for _, seconds in measured) * num_units
    return sum(seconds for _, seconds in measured) * total_bytes / sampled_bytes


def _convert_entry(file: EntryFile, *, own_data: bool) -> None:
    try:
        entry = parse_mmcif(file.path, own_data=own_data)
    except EntryRejected:
        return
    for chain in entry.chains:
        pack_chain(entry, chain)


def _convert_alignment(unit: AlignmentUnit) -> None:
    """Convert an alignment without the mapping of hits.

    Conversion reports broken files; here they are ignored.
    """
    try:
        msas = [msa for msa in map(parse_msa, unit.msa_paths) if msa is not None]
        if msas:
            count_tokens(merge_without_duplicates(msas)[0])
        for path in unit.hits_paths:
            parse_hhr(path)
    except BrokenFile:
        return


def _mebibytes(sizes) -> str:
    return f"{sum(sizes) / _MEBIBYTE:,.1f} MiB"


def _time_line(what: str, estimated: Estimate, num_processes: int) -> str:
    seconds, low, high = (
        duration(value / num_processes)
        for value in (estimated.seconds, estimated.low, estimated.high)
    )
    return f"  {what:11s} {seconds} ({low} to {high}; {estimated.num_sampled} sampled)"
