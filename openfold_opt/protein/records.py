"""Frozen records read from a data directory: chains, structures, alignments, template hits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from openfold_opt.protein.shard_format import NUM_ATOM_TYPES
from openfold_opt.protein.sparse_deletions import SparseDeletions

FIRST_OWN_CLUSTER = 1 << 40
"""Above every line number of a cluster file, so that it is in no other data set."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ChainEntry:
    """One row of the chain table in the index.

    It holds no arrays, so that the index of the whole PDB stays small.
    """

    chain_id: str
    """`<pdb id>_<author chain id>`, for example 2hhb_A."""
    mmcif_chain_ids: tuple[str, ...]
    """All mmCIF chain ids of this author's chain, also of its ligands and water, in file order."""
    release_date: str
    """ISO date of the entry's earliest revision."""
    resolution: float | None
    """In angstrom; None if the entry has none."""
    method: str
    cluster_id: int
    """0-based line of the cluster file, or -1 if the chain is in no cluster.

    FIRST_OWN_CLUSTER and above: a distilled chain in a separate cluster.
    """
    sequence_length: int
    commonest_letter_count: int
    """Number of occurrences of the most frequent letter of the sequence."""
    alignment_id: str | None
    """Name of the alignment folder, which several chains may share; None if there is none."""
    num_alignments: int
    """Number of rows of the alignment without duplicates; 1 without an alignment folder."""
    num_template_hits: int
    """Number of template hits that pass every filter except those on date and own entry."""
    structure_shard: int
    """Position of the shard in `ShardIndex.shards`."""
    structure_row: int
    """Row of the chain in its structure shard."""
    alignment_shard: int
    """Position of the shard in `ShardIndex.shards`; -1 if alignment_id is None."""
    alignment_row: int
    hit_set: int
    """Row and set of template hits in the alignment shard; -1 if alignment_id is None."""

    @property
    def pdb_id(self) -> str:
        """PDB id of the entry."""
        return self.chain_id.split("_", 1)[0]

    @property
    def author_chain_id(self) -> str:
        """Chain id given by the authors of the entry."""
        return self.chain_id.split("_", 1)[1]

    @property
    def has_alignment(self) -> bool:
        """Whether the chain has an alignment folder."""
        return self.alignment_id is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructureRecord:
    """Sequence and coordinates of a chain. Unresolved atoms have coordinates 0 and mask 0."""

    sequence: str
    residue_index: np.ndarray
    """int32 [N_res], 0-based."""
    all_atom_positions: np.ndarray
    """float32 [N_res, 37, 3], angstrom."""
    all_atom_mask: np.ndarray
    """bool [N_res, 37]."""
    resolution: float | None
    release_date: str
    method: str
    cluster_id: int


def unresolved_structure(sequence: str) -> StructureRecord:
    """Return the record of a chain of unknown structure: no atom is resolved."""
    return StructureRecord(
        sequence=sequence,
        residue_index=np.arange(len(sequence), dtype=np.int32),
        all_atom_positions=np.zeros((len(sequence), NUM_ATOM_TYPES, 3), dtype=np.float32),
        all_atom_mask=np.zeros((len(sequence), NUM_ATOM_TYPES), dtype=bool),
        resolution=None,
        release_date="",
        method="",
        cluster_id=-1,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentRecord:
    """An alignment without duplicate rows. Row 0 is the query.

    Deletion counts form a sparse matrix in CSR format.
    """

    msa: np.ndarray
    """uint8 [N_seq, N_res], tokens of `hhblits_alphabet`. Read-only."""
    deletion_indptr: np.ndarray
    """int64 [N_seq + 1]: row i has the deletions indptr[i] to indptr[i + 1] - 1."""
    deletion_column: np.ndarray
    """uint16 [num_deletions]: the aligned column before which residues were deleted."""
    deletion_count: np.ndarray
    """int32 [num_deletions]: the number of residues deleted there."""
    token_counts: np.ndarray
    """int32 [N_res, 22]: number of occurrences of each token in each column.

    Divided by N_seq it is the profile of the full alignment.
    """

    @property
    def num_sequences(self) -> int:
        """N_seq, including the query."""
        return self.msa.shape[0]

    @property
    def deletions(self) -> SparseDeletions:
        """The deletion counts."""
        return SparseDeletions(
            indptr=self.deletion_indptr,
            column=self.deletion_column,
            count=self.deletion_count,
            num_columns=self.msa.shape[1],
        )

    def dense_deletions(self, rows: Sequence[int] | np.ndarray | slice | None = None) -> np.ndarray:
        """Return deletion counts as a dense array: int32 [len(rows), N_res].

        Args:
            rows: The rows to return, in this order; all rows if None.
        """
        chosen = np.arange(self.num_sequences)[slice(None) if rows is None else rows]
        return self.deletions.dense(chosen, slice(0, self.msa.shape[1]), dtype=np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateHit:
    """A template hit that passes every filter except the date.

    The hit is mapped to a chain of this data set.
    """

    name: str
    """The chain that provides the atoms.

    If the chain in the .hhr file lacks the hit's sequence, this is another chain of its entry.
    """
    sum_probs: float
    """Sum of the probabilities of the aligned pairs, from the .hhr file. A high value is better."""
    release_date: str
    query_index: np.ndarray
    """int32 [num_pairs]: the aligned residues of the query."""
    template_index: np.ndarray
    """int32 [num_pairs]: the aligned residues of the template chain."""
    template_tokens: np.ndarray
    """uint8 [num_pairs]: tokens (`hhblits_alphabet`) of the template residues."""
    failure: str
    """The reason that this hit cannot be featurized; empty if it can."""

    @property
    def pdb_id(self) -> str:
        """PDB id of the template."""
        return self.name.split("_", 1)[0]

    @property
    def is_featurizable(self) -> bool:
        """Whether template features can be computed from this hit."""
        return not self.failure
