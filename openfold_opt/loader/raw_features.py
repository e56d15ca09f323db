"""Everything a sample is made from: one chain's records in the model's residue classes, before any crop, pad or masking."""

from dataclasses import dataclass, field

import numpy as np

from openfold_opt.loader.transforms.deletions import SparseDeletions
from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS


@dataclass(frozen=True, kw_only=True)
class Templates:
    """n templates laid onto the query's residues, n possibly 0."""

    aatype: np.ndarray
    """int64 [n, N_res], classes 0..21."""
    all_atom_positions: np.ndarray
    """float32 [n, N_res, 37, 3], angstrom, centerd on each template chain; 0 where the mask is."""
    all_atom_mask: np.ndarray
    """float32 [n, N_res, 37]"""

    def take(self, chosen: np.ndarray, crop: slice) -> "Templates":
        """Some of the templates, in the order given, and a range of residues."""
        return Templates(
            aatype=self.aatype[chosen, crop],
            all_atom_positions=self.all_atom_positions[chosen, crop],
            all_atom_mask=self.all_atom_mask[chosen, crop],
        )


@dataclass(frozen=True, kw_only=True)
class RawFeatures:
    """One chain; arrays may be read-only views into a shard."""

    aatype: np.ndarray
    """int64 [N_res], classes 0..20."""
    all_atom_positions: np.ndarray
    """float32 [N_res, 37, 3], angstrom; 0 where the mask is."""
    all_atom_mask: np.ndarray
    """float32 [N_res, 37]"""
    resolution: float
    """angstrom, NaN where there is none."""
    msa: np.ndarray
    """uint8 [N_seq, N_res], tokens 0..21; row 0 is the query."""
    class_of_token: np.ndarray = field(
        default_factory=lambda: np.arange(NUM_TOKENS, dtype=np.uint8)
    )
    """uint8 [22], the model's class of each token of `msa`; if not given, tokens are classes."""
    deletions: SparseDeletions
    profile: np.ndarray
    """float32 [N_res, 22], class frequencies over all rows."""
    templates: Templates

    @property
    def num_res(self) -> int:
        return len(self.aatype)

    def classes(self, rows: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Some rows of the MSA as classes 0..21, uint8 [len(rows), number of columns], a copy."""
        return self.class_of_token[self.msa[rows, columns]]
