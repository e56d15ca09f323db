"""Raw features: the data of one chain as read from the shards, uncropped and unmasked.

A *token* (0..21) is a letter of the alignment in the order of HHblits, as a shard stores it. A
*class* is the number of the letter in the model: 0..19 amino acids, 20 unknown, 21 gap, and 22 for
masked positions.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS
from openfold_opt.protein.sparse_deletions import SparseDeletions


@dataclass(frozen=True, kw_only=True)
class Templates:
    """n templates aligned to the residues of the query; n may be 0."""

    aatype: np.ndarray
    """int64 [n, N_res], classes 0..21."""
    all_atom_positions: np.ndarray
    """float32 [n, N_res, 37, 3], angstrom, centered per template chain; 0 where the mask is 0."""
    all_atom_mask: np.ndarray
    """float32 [n, N_res, 37]"""

    def take(self, chosen: np.ndarray, crop: slice) -> "Templates":
        """Return the chosen templates, in the given order, and a range of residues."""
        return Templates(
            aatype=self.aatype[chosen, crop],
            all_atom_positions=self.all_atom_positions[chosen, crop],
            all_atom_mask=self.all_atom_mask[chosen, crop],
        )


@dataclass(frozen=True, kw_only=True)
class RawFeatures:
    """Raw features of one chain. Arrays may be read-only views into a shard."""

    aatype: np.ndarray
    """int64 [N_res], classes 0..20."""
    all_atom_positions: np.ndarray
    """float32 [N_res, 37, 3], angstrom; 0 where the mask is 0."""
    all_atom_mask: np.ndarray
    """float32 [N_res, 37]"""
    resolution: float
    """Angstrom; NaN if unknown."""
    msa: np.ndarray
    """uint8 [N_seq, N_res], tokens 0..21; row 0 is the query."""
    class_of_token: np.ndarray = field(
        default_factory=lambda: np.arange(NUM_TOKENS, dtype=np.uint8)
    )
    """uint8 [22], the class of each token; the default is for an `msa` that contains classes."""
    deletions: SparseDeletions
    profile: np.ndarray
    """float32 [N_res, 22], class frequencies over all rows."""
    templates: Templates

    @property
    def num_res(self) -> int:
        return len(self.aatype)

    def classes(self, rows: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Return a copy of MSA rows as classes 0..21, uint8 [len(rows), number of columns]."""
        return self.class_of_token[self.msa[rows, columns]]

    def with_rows(self, rows: np.ndarray) -> "RawFeatures":
        """Return the chain with the given rows of its MSA. The profile remains that of all rows."""
        return replace(self, msa=self.msa[rows], deletions=self.deletions.take(rows))
