"""What a finished conversion prints, and its exit code."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data_prep.convert.build_index import Summary
from data_prep.convert.listings import DIFFERENCES_FILE_NAME, UNUSED_FILE_NAME
from openfold_opt.protein import shard_format

EXIT_OK = 0
EXIT_INPUT = 3
"""The data set is complete, but input was faulty; with --strict also if some of the input was not
used."""
_CHAINS_SHOWN = 10
_MEBIBYTE = 1 << 20


def exit_code(summary: Summary, *, is_strict: bool) -> int:
    """0 if everything that was left out is left out by the benchmark too."""
    if any(each.is_faulty for each in summary.rejected) or (is_strict and summary.unused):
        return EXIT_INPUT
    return EXIT_OK


def describe(out: Path, summary: Summary) -> str:
    """A few lines."""
    entries = [each for each in summary.rejected if not each.is_chain]
    lines = [
        f"{out}: {summary.num_chains} chains of {summary.num_entries - len(entries)} entries, "
        f"{summary.num_shards} shards, {summary.size_bytes / _MEBIBYTE:.1f} MiB"
    ]
    if summary.num_query_alone:
        lines.append(
            f"{summary.num_query_alone} chains have their own sequence as their only row, "
            f"{summary.num_without_alignment} of them for lack of an alignment folder"
        )
    if summary.num_without_cluster:
        lines.append(
            f"{summary.num_without_cluster} chains are in no cluster: the training filter leaves "
            f"them out"
        )
    lines.extend(_rejections(out, summary))
    if summary.differences:
        chains = {each.chain_id for each in summary.differences}
        lines.append(
            f"alignments whose query differs from the chain in some letters: {len(chains)} chains, "
            f"listed in {out / DIFFERENCES_FILE_NAME}"
        )
    lines.extend(_unused(out, summary))
    return "\n".join(lines)


def _rejections(out: Path, summary: Summary) -> list[str]:
    listing = out / shard_format.REJECTED_FILE_NAME
    entries = [each for each in summary.rejected if not each.is_chain]
    chains = [each for each in summary.rejected if each.is_chain]
    lines = []
    if entries:
        lines.append(f"rejected entries: {len(entries)}, listed in {listing}:")
        counts = Counter(each.reason.split(": ")[0] for each in entries)
        lines.extend(f"  {count} x {reason}" for reason, count in counts.most_common())
    if chains:
        lines.append(f"rejected chains: {len(chains)}, listed in {listing}:")
        lines.extend(f"  {each.name}: {each.reason}" for each in chains[:_CHAINS_SHOWN])
        if len(chains) > _CHAINS_SHOWN:
            lines.append(f"  ... and {len(chains) - _CHAINS_SHOWN} more")
    num_faulty = sum(each.is_faulty for each in summary.rejected)
    if num_faulty:
        lines.append(
            f"{num_faulty} of these for faulty input (exit code {EXIT_INPUT}); repair it and run "
            f"the same command again"
        )
    return lines


def _unused(out: Path, summary: Summary) -> list[str]:
    if not summary.unused:
        return []
    total = sum(each.size_bytes or 0 for each in summary.unused)
    lines = [
        f"input that was not used: {len(summary.unused)} files or folders, {total / _MEBIBYTE:.1f} "
        f"MiB, listed in {out / UNUSED_FILE_NAME}:"
    ]
    counts = Counter(each.reason.split(";")[0] for each in summary.unused)
    return lines + [f"  {count} x {reason}" for reason, count in counts.most_common()]
