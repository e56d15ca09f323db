"""The filters of a distillation set, each with its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep.errors import DataPrepError, EntryRejected
from data_prep.parsers.predicted_mmcif import PredictedChain
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.same_chain import SequenceTable, comparable_id

OFF = 0
"""Value that switches a filter off."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters:
    """Which chains are used, and which of their residues."""

    min_plddt: float = 50.0
    """Residues with at most this pLDDT are masked (OpenFold)."""
    min_length: int = 200
    """Minimum number of residues (AF2 suppl. 1.3)."""
    max_length: int = 1024
    """Maximum number of residues (AF2 suppl. 1.3)."""
    min_msa_rows: int = 200
    """Minimum number of rows of the alignment, without duplicates (AF2 suppl. 1.3)."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 0:
                option = "--" + name.replace("_", "-")
                raise DataPrepError(f"{option} is {value}, expected 0 (off) or more")
        if not self.min_plddt < 100:
            raise DataPrepError(
                f"--min-plddt is {self.min_plddt:g}, expected less than 100: all residues would "
                "be masked"
            )
        if OFF < self.max_length < self.min_length:
            raise DataPrepError(
                f"--max-length {self.max_length} is below --min-length {self.min_length}"
            )

    def check_length(self, num_residues: int) -> None:
        """Raise EntryRejected if a chain is too short or too long."""
        if num_residues < self.min_length:
            raise EntryRejected(
                f"too short: {num_residues} residues, expected at least {self.min_length}"
            )
        if OFF < self.max_length < num_residues:
            raise EntryRejected(
                f"too long: {num_residues} residues, expected at most {self.max_length}"
            )

    def confident_atoms(self, chain: PredictedChain) -> np.ndarray:
        """Return the mask without the atoms of residues of low pLDDT: bool [N_res, 37].

        Raises EntryRejected if no atom remains, because the chain would have no loss of structure.
        """
        is_confident = chain.plddt > self.min_plddt if self.min_plddt > OFF else True
        mask = chain.mask & np.broadcast_to(is_confident, len(chain.plddt))[:, None]
        if not mask.any():
            raise EntryRejected(
                f"no confident residue: the highest pLDDT is {chain.plddt.max():.2f}, expected "
                f"above {self.min_plddt:g}"
            )
        return mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationChains:
    """Chains that must not be distilled."""

    checksum: str
    """Of the index of their data set."""
    ids: Mapping[str, str]
    """Comparable chain id -> chain id."""
    sequences: SequenceTable

    @classmethod
    def load(cls, data_dir: Path) -> ValidationChains:
        """Return all chains of a data directory. Raises ShardError if it cannot be read."""
        reader = ShardReader(data_dir)
        names = [chain.chain_id for chain in reader.index.chains]
        return cls(
            checksum=reader.index.checksum,
            ids={comparable_id(name): name for name in names},
            sequences=SequenceTable({name: reader.sequence(name) for name in names}),
        )

    def check(self, chain_id: str, sequence: str) -> None:
        """Raise EntryRejected if a chain has the id or the sequence of a validation chain."""
        same_id = self.ids.get(comparable_id(chain_id))
        if same_id is not None:
            raise EntryRejected(f"validation chain: {same_id} has this id")
        same = self.sequences.find(sequence)
        if same is not None:
            raise EntryRejected(f"validation chain: {same} has this sequence")
