"""The end of conversion: the chain table and the list of shards, rejected entries, and the removal of what is left over."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.convert.plan import Chunk, read_state, state_path
from data_prep.errors import DataPrepError
from openfold_opt.protein import shard_format
from openfold_opt.protein.index import ShardFile, index_image
from openfold_opt.protein.records import ChainEntry
from openfold_opt.protein.shard_files import AlignmentShard, StructureShard

NO_CLUSTER = -1

ClusterOf = Callable[[str, Sequence[str]], int]
"""(chain id, its entity keys) -> cluster, or NO_CLUSTER."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _AlignmentPlace:
    """Where a chain's alignment and hits are."""

    alignment_id: str
    num_alignments: int
    num_template_hits: int
    alignment_shard: int
    alignment_row: int
    hit_set: int


_NO_ALIGNMENT = _AlignmentPlace(
    alignment_id="", num_alignments=1, num_template_hits=0, alignment_shard=-1, alignment_row=-1, hit_set=-1
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a conversion gave, for its last words."""

    num_entries: int
    num_chains: int
    num_without_alignment: int
    num_shards: int
    size_bytes: int
    rejected: tuple[tuple[str, str], ...]
    """(entry, reason)."""


def write_index(
    data_dir: Path,
    *,
    structure_chunks: Sequence[Chunk],
    alignment_chunks: Sequence[Chunk],
    cluster_of: ClusterOf,
    missing_alignments: str,
) -> Summary:
    """Write rejected.csv and, last of all, the index."""
    shards = [_shard_file(data_dir, chunk) for chunk in [*structure_chunks, *alignment_chunks]]
    structure_shards = [StructureShard(data_dir / chunk.shard_name) for chunk in structure_chunks]
    places = dict(_alignment_places(data_dir, alignment_chunks, first_number=len(structure_chunks)))
    chains = list(_chain_entries(structure_shards, places, cluster_of))
    rejected = [
        pair for shard in structure_shards for pair in zip(shard.strings("rejected_entry"), shard.strings("rejected_reason"))
    ]
    if not chains:
        raise DataPrepError(f"all {len(rejected)} entries were rejected; the first: {rejected[0][0]}: {rejected[0][1]}")
    num_entries = sum(len(chunk.units) for chunk in structure_chunks)
    attributes = {
        "missing_alignments": missing_alignments,
        "num_entries": num_entries,
        "num_rejected_entries": len(rejected),
    }
    _write_rejected(data_dir, rejected)
    shard_format.write_atomically(
        data_dir / shard_format.INDEX_FILE_NAME,
        index_image(chains, shards, attributes=attributes),
        scratch_dir=data_dir / shard_format.STATE_DIR_NAME,
    )
    _remove_leftovers(data_dir, {shard.name for shard in shards})
    return Summary(
        num_entries=num_entries,
        num_chains=len(chains),
        num_without_alignment=sum(not chain.has_alignment for chain in chains),
        num_shards=len(shards),
        size_bytes=sum(shard.size_bytes for shard in shards),
        rejected=tuple(rejected),
    )


def _shard_file(data_dir: Path, chunk: Chunk) -> ShardFile:
    state = read_state(data_dir, chunk.shard_name)
    if state is None or state.made_from != chunk.made_from:
        raise DataPrepError(f"{data_dir / chunk.shard_name} vanished or changed during conversion; run the same command again")
    return ShardFile(name=chunk.shard_name, sha256=state.sha256, size_bytes=state.size_bytes)


def _alignment_places(
    data_dir: Path, chunks: Sequence[Chunk], *, first_number: int
) -> Iterator[tuple[str, _AlignmentPlace]]:
    for number, chunk in enumerate(chunks, start=first_number):
        shard = AlignmentShard(data_dir / chunk.shard_name)
        names = shard_format.decode_strings(shard.arrays["alignment_id"])
        num_rows = (shard.arrays["row_offset"][1:] - shard.arrays["row_offset"][:-1]).tolist()
        num_hits = (shard.arrays["hit_offset"][1:] - shard.arrays["hit_offset"][:-1]).tolist()
        members = shard_format.decode_strings(shard.arrays["member_chain_id"])
        rows, hit_sets = shard.arrays["member_row"].tolist(), shard.arrays["member_hit_set"].tolist()
        for chain_id, row, hit_set in zip(members, rows, hit_sets):
            yield chain_id, _AlignmentPlace(
                alignment_id=names[row],
                num_alignments=num_rows[row],
                num_template_hits=num_hits[hit_set],
                alignment_shard=number,
                alignment_row=row,
                hit_set=hit_set,
            )


def _chain_entries(
    shards: Sequence[StructureShard], places: Mapping[str, _AlignmentPlace], cluster_of: ClusterOf
) -> Iterator[ChainEntry]:
    names = ("chain_id", "mmcif_chain_ids", "entity_keys", "release_date", "method")
    for number, shard in enumerate(shards):
        columns = zip(*(shard.strings(name) for name in names), shard.arrays["resolution"].tolist())
        for row, (chain_id, labels, entity_keys, release_date, method, resolution) in enumerate(columns):
            sequence = shard.sequence(row)
            place = places.get(chain_id, _NO_ALIGNMENT)
            yield ChainEntry(
                chain_id=chain_id,
                mmcif_chain_ids=tuple(labels.split(";")),
                release_date=release_date,
                resolution=None if math.isnan(resolution) else resolution,
                method=method,
                cluster_id=cluster_of(chain_id, entity_keys.split(";")),
                sequence_length=len(sequence),
                commonest_letter_count=max(Counter(sequence).values()),
                structure_shard=number,
                structure_row=row,
                **{**dataclasses.asdict(place), "alignment_id": place.alignment_id or None},
            )


def commonest_cluster(entity_keys: Sequence[str], clusters: Mapping[str, int]) -> int:
    """The commonest cluster among all entities of the author chain, ligands included; the first of equals."""
    found = Counter(clusters[key] for key in entity_keys if key in clusters)
    return found.most_common(1)[0][0] if found else NO_CLUSTER


def _write_rejected(data_dir: Path, rejected: Sequence[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("entry", "reason"), *rejected])
    shard_format.write_atomically(
        data_dir / shard_format.REJECTED_FILE_NAME,
        text.getvalue().encode("utf-8"),
        scratch_dir=data_dir / shard_format.STATE_DIR_NAME,
    )


def _remove_leftovers(data_dir: Path, used: set[str]) -> None:
    """Shards of an earlier conversion with more of them."""
    for kind in ("structures", "alignments"):
        for path in data_dir.glob(f"{kind}-*.h5"):
            if path.name not in used:
                path.unlink()
                state_path(data_dir, path.name).unlink(missing_ok=True)
