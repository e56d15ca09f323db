"""The end of conversion: the index, and the removal of shards of an earlier conversion."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from data_prep.convert.findings import Findings, QueryDifference, Rejection, Unused
from data_prep.convert.listings import write_listings
from data_prep.convert.plan import Chunk, ChunkState, Plan, read_state, state_path
from data_prep.errors import DataPrepError
from openfold_opt.protein import shard_format
from openfold_opt.protein.index import ShardFile, encode_index
from openfold_opt.protein.records import ChainEntry
from openfold_opt.protein.shard_files import AlignmentShard, StructureShard

NO_CLUSTER = -1
_MAX_REASONS = 5
"""Maximum number of reasons that the message about a data set without chains counts."""

ClusterOf = Callable[[str, Sequence[str]], int]
"""Maps a chain id and its entity keys to the cluster or NO_CLUSTER."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _AlignmentLocation:
    """The location of a chain's alignment and template hits in the shards."""

    alignment_id: str
    num_alignments: int
    num_template_hits: int
    alignment_shard: int
    alignment_row: int
    hit_set: int


_NO_ALIGNMENT = _AlignmentLocation(
    alignment_id="",
    num_alignments=1,
    num_template_hits=0,
    alignment_shard=-1,
    alignment_row=-1,
    hit_set=-1,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """The results of a conversion, for its report."""

    num_entries: int
    num_chains: int
    num_without_alignment: int
    num_query_alone: int
    """Chains whose alignment has only their sequence, including chains without an alignment."""
    num_without_cluster: int
    num_shards: int
    size_bytes: int
    rejected: tuple[Rejection, ...]
    differences: tuple[QueryDifference, ...]
    unused: tuple[Unused, ...]


def write_index(
    data_dir: Path,
    *,
    structures: Plan,
    alignments: Plan,
    cluster_of: ClusterOf,
    missing_alignments: str,
) -> Summary:
    """Write the listings (rejected.csv and others) and then the index.

    Raises:
        DataPrepError: all chains were rejected. There is then no index.
    """
    states = [
        (chunk, read_finished_state(data_dir, chunk))
        for chunk in [*structures.chunks, *alignments.chunks]
    ]
    shards = [
        ShardFile(name=chunk.shard_name, sha256=state.sha256, size_bytes=state.size_bytes)
        for chunk, state in states
    ]
    findings = merge_findings(state for _, state in states)
    findings.rejected.extend([*structures.rejected, *alignments.rejected])
    rejected_chains = {rejection.name for rejection in findings.rejected if rejection.is_chain}
    chains = _chain_table(data_dir, structures, alignments, cluster_of, rejected=rejected_chains)
    unused = sorted([*structures.unused, *alignments.unused], key=lambda item: item.path)
    write_listings(
        data_dir, rejected=findings.rejected, differences=findings.differences, unused=unused
    )
    if not chains:
        raise DataPrepError(_describe_all_rejected(findings.rejected, data_dir))
    attributes = {
        "missing_alignments": missing_alignments,
        "num_entries": sum(len(chunk.units) for chunk in structures.chunks),
        "num_rejected_entries": sum(not rejection.is_chain for rejection in findings.rejected),
    }
    shard_format.write_atomically(
        data_dir / shard_format.INDEX_FILE_NAME,
        encode_index(chains, shards, attributes=attributes),
        scratch_dir=data_dir / shard_format.STATE_DIR_NAME,
    )
    _remove_leftovers(data_dir, {shard.name for shard in shards})
    return Summary(
        num_entries=attributes["num_entries"],
        num_chains=len(chains),
        num_without_alignment=sum(not chain.has_alignment for chain in chains),
        num_query_alone=sum(chain.num_alignments == 1 for chain in chains),
        num_without_cluster=sum(chain.cluster_id == NO_CLUSTER for chain in chains),
        num_shards=len(shards),
        size_bytes=sum(shard.size_bytes for shard in shards),
        rejected=tuple(findings.rejected),
        differences=tuple(findings.differences),
        unused=tuple(unused),
    )


def _chain_table(
    data_dir: Path,
    structures: Plan,
    alignments: Plan,
    cluster_of: ClusterOf,
    *,
    rejected: Set[str],
) -> list[ChainEntry]:
    """Return all chains that are not rejected, in canonical order."""
    shards = [StructureShard(data_dir / chunk.shard_name) for chunk in structures.chunks]
    first_number = len(structures.chunks)
    locations = dict(
        _alignment_locations(
            data_dir, alignments.chunks, first_number=first_number, rejected=rejected
        )
    )
    entries = _chain_entries(shards, locations, cluster_of)
    return [chain for chain in entries if chain.chain_id not in rejected]


def merge_findings(states: Iterable[ChunkState]) -> Findings:
    """Merge the findings of several shards in their order."""
    merged = Findings()
    for state in states:
        findings = Findings.from_json(state.findings)
        merged.rejected.extend(findings.rejected)
        merged.differences.extend(findings.differences)
    return merged


def read_finished_state(data_dir: Path, chunk: Chunk) -> ChunkState:
    """Return the state of a finished shard.

    Raises:
        DataPrepError: the shard vanished, or another conversion replaced it.
    """
    state = read_state(data_dir, chunk.shard_name)
    if state is None or state.made_from != chunk.made_from:
        path = data_dir / chunk.shard_name
        raise DataPrepError(
            f"{path} vanished or changed during conversion; run the same command again"
        )
    return state


def _describe_all_rejected(rejected: Sequence[Rejection], data_dir: Path) -> str:
    entries = [rejection for rejection in rejected if not rejection.is_chain]
    chains = [rejection for rejection in rejected if rejection.is_chain]
    if entries and chains:
        text = f"{len(entries)} entries and all chains of the others were rejected"
    else:
        text = f"all {len(rejected)} {'chains' if chains else 'entries'} were rejected"
    first = [*entries, *chains][0]
    counts = Counter(rejection.reason.split(": ")[0] for rejection in rejected).most_common()
    kinds = ", ".join(f"{count} x {reason}" for reason, count in counts)
    return (
        f"{text}; the first: {first.name}: {first.reason} (all are in "
        f"{data_dir / shard_format.REJECTED_FILE_NAME}"
        f"{f': {kinds}' if 1 < len(counts) <= _MAX_REASONS else ''})"
    )


def _alignment_locations(
    data_dir: Path, chunks: Sequence[Chunk], *, first_number: int, rejected: Set[str]
) -> Iterator[tuple[str, _AlignmentLocation]]:
    for number, chunk in enumerate(chunks, start=first_number):
        shard = AlignmentShard(data_dir / chunk.shard_name)
        names = shard_format.decode_strings(shard.arrays["alignment_id"])
        num_rows = (shard.arrays["row_offset"][1:] - shard.arrays["row_offset"][:-1]).tolist()
        num_hits = _count_hits(shard, rejected)
        members = shard_format.decode_strings(shard.arrays["member_chain_id"])
        rows, hit_sets = (
            shard.arrays["member_row"].tolist(),
            shard.arrays["member_hit_set"].tolist(),
        )
        for chain_id, row, hit_set in zip(members, rows, hit_sets):
            yield (
                chain_id,
                _AlignmentLocation(
                    alignment_id=names[row],
                    num_alignments=num_rows[row],
                    num_template_hits=num_hits[hit_set],
                    alignment_shard=number,
                    alignment_row=row,
                    hit_set=hit_set,
                ),
            )


def _count_hits(shard: AlignmentShard, rejected: Set[str]) -> list[int]:
    """Return the number of hits of each hit set, without hits on rejected chains.

    The reader skips hits on rejected chains too.
    """
    offsets = shard.arrays["hit_offset"]
    if not rejected:
        return (offsets[1:] - offsets[:-1]).tolist()
    is_counted = [
        name not in rejected for name in shard_format.decode_strings(shard.arrays["hit_name"])
    ]
    return [sum(is_counted[start:stop]) for start, stop in itertools.pairwise(offsets.tolist())]


def _chain_entries(
    shards: Sequence[StructureShard],
    locations: Mapping[str, _AlignmentLocation],
    cluster_of: ClusterOf,
) -> Iterator[ChainEntry]:
    names = ("chain_id", "mmcif_chain_ids", "entity_keys", "release_date", "method")
    for number, shard in enumerate(shards):
        columns = zip(*(shard.strings(name) for name in names), shard.arrays["resolution"].tolist())
        for row, (chain_id, labels, entity_keys, release_date, method, resolution) in enumerate(
            columns
        ):
            sequence = shard.sequence(row)
            location = locations.get(chain_id, _NO_ALIGNMENT)
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
                **{**dataclasses.asdict(location), "alignment_id": location.alignment_id or None},
            )


def commonest_cluster(entity_keys: Sequence[str], clusters: Mapping[str, int]) -> int:
    """Return the most common cluster among all entities of an author chain, including ligands.

    The first of several equally common clusters is returned.
    """
    counts = Counter(clusters[key] for key in entity_keys if key in clusters)
    return counts.most_common(1)[0][0] if counts else NO_CLUSTER


def _remove_leftovers(data_dir: Path, used: set[str]) -> None:
    """Remove the shards of an earlier conversion that had more shards."""
    for kind in ("structures", "alignments"):
        for path in data_dir.glob(f"{kind}-*.h5"):
            if path.name not in used:
                path.unlink()
                state_path(data_dir, path.name).unlink(missing_ok=True)
