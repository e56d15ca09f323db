"""ChainStructure: coordinates and confidence of one chain, predicted or experimental."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openfold_opt.protein.residue_constants import atom_order, atom_type_num


@dataclass(frozen=True, kw_only=True, eq=False)
class ChainStructure:
    """Structure of one chain."""

    name: str
    sequence: str
    """One-letter codes of all residues, with those without atoms. X is an unknown residue."""
    positions: np.ndarray
    """[N_res, 37, 3] float32, angstrom, in the order of atom37; zero where there is no atom."""
    atom_mask: np.ndarray
    """[N_res, 37] bool: which atoms there are."""
    plddt: np.ndarray | None = None
    """[N_res] float32, 0..100; None for an experimental structure."""

    def __post_init__(self) -> None:
        """Raise ValueError if an array has another number of residues than the sequence."""
        num_residues = len(self.sequence)
        expected = ((num_residues, atom_type_num, 3), (num_residues, atom_type_num))
        found = (self.positions.shape, self.atom_mask.shape)
        if found != expected:
            raise ValueError(
                f"{self.name}: positions and atom mask have the shapes {found}; expected those of "
                f"{num_residues} residues in atom37, {expected}"
            )
        if self.plddt is not None and self.plddt.shape != (num_residues,):
            raise ValueError(
                f"{self.name}: pLDDT has the shape {self.plddt.shape}; expected ({num_residues},)"
            )

    @property
    def num_residues(self) -> int:
        """Length of the sequence."""
        return len(self.sequence)

    @property
    def ca_positions(self) -> np.ndarray:
        """[N_res, 3] float32: positions of the CA atoms, angstrom."""
        return self.positions[:, atom_order["CA"]]

    @property
    def has_ca(self) -> np.ndarray:
        """[N_res] bool: which residues have a CA atom."""
        return self.atom_mask[:, atom_order["CA"]]
