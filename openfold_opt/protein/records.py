"""What the shards give back: one frozen record per chain, per structure, per alignment and per template hit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ChainEntry:
    """One line of the chain table, as the index holds it (no arrays: the index of all of PDB must stay small)."""

    chain_id: str
    """`<pdb id>_<author chain id>`, for example 2hhb_A."""
    mmcif_chain_ids: tuple[str, ...]
    """All label ids of that author chain, ligands and water included, in the order of the file."""
    release_date: str
    """ISO date of the earliest revision."""
    resolution: float | None
    """Angstrom; None where the entry has none."""
    method: str
    cluster_id: int
    """Line of the cluster file, from 0; -1: in no cluster."""
    sequence_length: int
    commonest_letter_count: int
    """How often the most frequent letter of the sequence occurs."""
    alignment_id: str | None
    """Name of the alignment folder that this chain uses; None: the sequence alone stands in for it."""
    num_alignments: int
    """Rows of the alignment after de-duplication; 1 if the sequence stands alone."""
    num_template_hits: int
    """Template hits that pass every filter but date and own entry."""
    structure_shard: int
    structure_row: int
    alignment_shard: int
    """-1 where alignment_id is None."""
    alignment_row: int
    hit_set: int

    @property
    def pdb_id(self) -> str:
        return self.chain_id.split("_", 1)[0]

    @property
    def author_chain_id(self) -> str:
        return self.chain_id.split("_", 1)[1]

    @property
    def has_alignment(self) -> bool:
        return self.alignment_id is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructureRecord:
    """Sequence and coordinates of a chain; unresolved atoms are zero and masked."""

    sequence: str
    residue_index: np.ndarray
    """int32 [N_res], from 0."""
    all_atom_positions: np.ndarray
    """float32 [N_res, 37, 3], angstrom."""
    all_atom_mask: np.ndarray
    """bool [N_res, 37]."""
    resolution: float | None
    release_date: str
    method: str
    cluster_id: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentRecord:
    """A de-duplicated alignment. Row 0 is the query. Deletions are sparse, in the manner of a CSR matrix."""

    msa: np.ndarray
    """uint8 [N_seq, N_res], tokens of `hhblits_alphabet`; read-only, may be a view into the shard."""
    deletion_indptr: np.ndarray
    """int64 [N_seq + 1]: row i has the deletions indptr[i] to indptr[i + 1]."""
    deletion_column: np.ndarray
    """uint16 [num_deletions]: the aligned column before which residues were left out."""
    deletion_count: np.ndarray
    """int32 [num_deletions]: how many."""
    token_counts: np.ndarray
    """int32 [N_res, 22]: how often each token stands in each column; divided by N_seq it is the exact profile."""

    @property
    def num_sequences(self) -> int:
        return self.msa.shape[0]

    def dense_deletions(self, rows: Sequence[int] | np.ndarray | slice | None = None) -> np.ndarray:
        """Deletion counts of the given rows (all if None), in the order given: int32 [len(rows), N_res]."""
        rows = np.arange(self.num_sequences) if rows is None else rows
        rows = (
            np.arange(self.num_sequences)[rows]
            if isinstance(rows, slice)
            else np.asarray(rows, dtype=np.int64)
        )
        dense = np.zeros((len(rows), self.msa.shape[1]), dtype=np.int32)
        starts = self.deletion_indptr[rows]
        counts = self.deletion_indptr[rows + 1] - starts
        total = int(counts.sum())
        if total:
            row_of = np.repeat(np.arange(len(rows)), counts)
            within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
            source = np.repeat(starts, counts) + within
            dense[row_of, self.deletion_column[source]] = self.deletion_count[source]
        return dense


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateHit:
    """A template hit that passed every filter except the date; mapped onto a chain of this data set."""

    name: str
    """The chain whose atoms are used (rule 22 may have found the sequence in another chain of the entry)."""
    sum_probs: float
    release_date: str
    query_index: np.ndarray
    """int32 [num_pairs]: residues of the query."""
    template_index: np.ndarray
    """int32 [num_pairs]: their partners in the template chain."""
    template_tokens: np.ndarray
    """uint8 [num_pairs]: residue types of the partners, tokens of `hhblits_alphabet`."""
    failure: str
    """Why this hit cannot be featurised; empty if it can."""

    @property
    def pdb_id(self) -> str:
        return self.name.split("_", 1)[0]

    @property
    def is_featurisable(self) -> bool:
        return not self.failure
