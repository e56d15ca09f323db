"""The report and the exit code of a finished conversion."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data_prep.convert.build_index import Summary
from data_prep.convert.listings import DIFFERENCES_FILE_NAME, UNUSED_FILE_NAME
from openfold_opt.protein import shard_format

EXIT_OK = 0
EXIT_INPUT = 3
"""The data set is complete, but input was faulty, or with --strict some input was not used."""
_CHAINS_SHOWN = 10
_MEBIBYTE = 1 << 20


def exit_code(summary: Summary, *, is_strict: bool) -> int:
    """Return EXIT_INPUT for faulty or, with is_strict, unused input, otherwise EXIT_OK.

    Entries that the benchmark rejects too are not faulty.
    """
    if any(rejection.is_faulty for rejection in summary.rejected) or (is_strict and summary.unused):
        return EXIT_INPUT
    return EXIT_OK


def describe(out: Path, summary: Summary) -> str:
    """Return the report in several lines."""
    entries = [rejection for rejection in summary.rejected if not rejection.is_chain]
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
            f"{summary.num_without_cluster} chains are in no cluster: the training filter excludes "
            "them"
        )
    lines.extend(_rejections(out, summary))
    if summary.differences:
        chains = {difference.chain_id for difference in summary.differences}
        lines.append(
            f"alignments whose query differs from the chain in some letters: {len(chains)} chains, "
            f"listed in {out / DIFFERENCES_FILE_NAME}"
        )
    lines.extend(_unused(out, summary))
    return "\n".join(lines)


def _rejections(out: Path, summary: Summary) -> list[str]:
    listing = out / shard_format.REJECTED_FILE_NAME
    entries = [rejection for rejection in summary.rejected if not rejection.is_chain]
    chains = [rejection for rejection in summary.rejected if rejection.is_chain]
    lines = []
    if entries:
        lines.append(f"rejected entries: {len(entries)}, listed in {listing}:")
        counts = Counter(rejection.reason.split(": ")[0] for rejection in entries)
        lines.extend(f"  {count} x {reason}" for reason, count in counts.most_common())
    if chains:
        lines.append(f"rejected chains: {len(chains)}, listed in {listing}:")
        shown = chains[:_CHAINS_SHOWN]
        lines.extend(f"  {rejection.name}: {rejection.reason}" for rejection in shown)
        if len(chains) > _CHAINS_SHOWN:
            lines.append(f"  ... and {len(chains) - _CHAINS_SHOWN} more")
    num_faulty = sum(rejection.is_faulty for rejection in summary.rejected)
    if num_faulty:
        lines.append(
            f"{num_faulty} of these for faulty input (exit code {EXIT_INPUT}); repair it and run "
            "the same command again"
        )
    return lines


def _unused(out: Path, summary: Summary) -> list[str]:
    if not summary.unused:
        return []
    total = sum(item.size_bytes or 0 for item in summary.unused)
    lines = [
        f"input that was not used: {len(summary.unused)} files or folders, {total / _MEBIBYTE:.1f} "
        f"MiB, listed in {out / UNUSED_FILE_NAME}:"
    ]
    counts = Counter(item.reason.split(";")[0] for item in summary.unused)
    return lines + [f"  {count} x {reason}" for reason, count in counts.most_common()]
