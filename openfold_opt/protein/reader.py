"""Reader of a data directory: records by chain id."""

from __future__ import annotations

import functools
from collections import OrderedDict
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS, sequence_to_tokens
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.records import AlignmentRecord, ChainEntry, StructureRecord, TemplateHit
from openfold_opt.protein.shard_files import AlignmentShard, StructureShard, damage_as_shard_error

_MAX_OPEN_SHARDS = 256
"""Each open shard uses one file descriptor, and a process usually has a limit of 1,024."""

_Shard = TypeVar("_Shard", bound=StructureShard | AlignmentShard)


class ShardReader:
    """Structures, alignments and template hits of a converted data set.

    The constructor reads the index, so it raises ShardError if the data directory is missing or
    damaged. Shards are opened on first use. A reader can be passed to forked and spawned worker
    processes: only the path is pickled, and each spawned process opens the files itself. All
    methods raise KeyError for an unknown chain.
    """

    def __init__(self, data_dir: str | Path) -> None:
        self.data_dir = Path(data_dir)
        self._open: OrderedDict[int, StructureShard | AlignmentShard] = OrderedDict()
        # Read the index now, so that a bad data directory is reported at once. It is cached.
        _ = self.index

    @functools.cached_property
    def index(self) -> ShardIndex:
        """Index of the data directory."""
        return ShardIndex.load(self.data_dir)

    def __getstate__(self) -> dict[str, object]:
        return {"data_dir": self.data_dir, "_open": OrderedDict()}

    def entry(self, chain_id: str) -> ChainEntry:
        """Return the chain's entry in the index."""
        entry = self.index.by_id.get(chain_id)
        if entry is None:
            raise KeyError(
                f"chain {chain_id!r} is not in {self.data_dir} ({len(self.index.chains)} chains)"
            )
        return entry

    def structure(self, chain_id: str) -> StructureRecord:
        """Return the sequence and coordinates of a chain."""
        entry = self.entry(chain_id)
        shard = self._shard(entry.structure_shard, StructureShard)
        with damage_as_shard_error(shard.path):
            positions, mask = shard.atoms(entry.structure_row)
            sequence = shard.sequence(entry.structure_row)
        return StructureRecord(
            sequence=sequence,
            residue_index=np.arange(len(mask), dtype=np.int32),
            all_atom_positions=positions,
            all_atom_mask=mask,
            resolution=entry.resolution,
            release_date=entry.release_date,
            method=entry.method,
            cluster_id=entry.cluster_id,
        )

    def sequence(self, chain_id: str) -> str:
        """Return the sequence of a chain, one letter per residue."""
        entry = self.entry(chain_id)
        shard = self._shard(entry.structure_shard, StructureShard)
        with damage_as_shard_error(shard.path):
            return shard.sequence(entry.structure_row)

    def alignment(self, chain_id: str) -> AlignmentRecord:
        """Return the alignment of a chain.

        If the chain has none (conversion with `--missing-alignments query`), the alignment
        consists of the chain's sequence only.
        """
        entry = self.entry(chain_id)
        if entry.alignment_id is None:
            return single_row_alignment(self.sequence(chain_id))
        shard = self._shard(entry.alignment_shard, AlignmentShard)
        with damage_as_shard_error(shard.path):
            return shard.alignment(entry.alignment_row)

    def template_hits(self, chain_id: str) -> tuple[TemplateHit, ...]:
        """Return the hits that pass every filter except the date, highest sum_probs first.

        Hits with equal sum_probs keep the order of the .hhr file. Hits on the chain's own PDB entry
        are excluded, and so are hits on chains that conversion rejected because of their alignment.
        """
        entry = self.entry(chain_id)
        if entry.alignment_id is None or entry.num_template_hits == 0:
            return ()
        shard = self._shard(entry.alignment_shard, AlignmentShard)
        with damage_as_shard_error(shard.path):
            hits = shard.hits(entry.hit_set)
        known = self.index.by_id
        return tuple(hit for hit in hits if hit.pdb_id != entry.pdb_id and hit.name in known)

    def _shard(self, number: int, kind: type[_Shard]) -> _Shard:
        shard = self._open.get(number)
        if shard is None:
            file = self.index.shards[number]
            shard = kind(self.data_dir / file.name, expected_size_bytes=file.size_bytes)
            self._open[number] = shard
            if len(self._open) > _MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(number)
        return cast(_Shard, shard)


def single_row_alignment(sequence: str) -> AlignmentRecord:
    """Return an alignment whose only row is the query."""
    tokens = sequence_to_tokens(sequence)
    counts = np.zeros((len(tokens), NUM_TOKENS), dtype=np.int32)
    counts[np.arange(len(tokens)), tokens] = 1
    return AlignmentRecord(
        msa=tokens[None],
        deletion_indptr=np.zeros(2, dtype=np.int64),
        deletion_column=np.zeros(0, dtype=np.uint16),
        deletion_count=np.zeros(0, dtype=np.int32),
        token_counts=counts,
    )
