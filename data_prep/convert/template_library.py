"""Access to all chains that can be templates: the structure shards of this conversion."""

from __future__ import annotations

import functools
from collections.abc import KeysView, Sequence
from pathlib import Path

import numpy as np

from openfold_opt.protein.residue_constants import atom_order
from openfold_opt.protein.shard_files import StructureShard
from openfold_opt.protein.templates import center_atoms

MAX_CA_DISTANCE_ANGSTROM = 150.0
"""Limit of AlphaFold's check of templates. It rejects corrupt coordinates, not missing residues."""
_CACHED_CHAINS = 4096


class TemplateLibrary:
    """Look-up of chains by id across the structure shards.

    The constructor reads ids and release dates; sequences and atoms are read on demand.
    """

    def __init__(self, shard_paths: Sequence[Path]) -> None:
        self._shards = [StructureShard(path) for path in shard_paths]
        self._location: dict[str, tuple[int, int]] = {}
        """Chain id -> number of its shard, and its row there."""
        self._chains_of: dict[str, list[str]] = {}
        self._release_dates: dict[str, str] = {}
        for number, shard in enumerate(self._shards):
            rows = zip(shard.strings("chain_id"), shard.strings("release_date"))
            for row, (chain_id, release_date) in enumerate(rows):
                pdb_id, chain = chain_id.split("_", 1)
                self._location[chain_id] = number, row
                self._chains_of.setdefault(pdb_id, []).append(chain)
                self._release_dates[pdb_id] = release_date
        self._atom_summary = functools.lru_cache(maxsize=_CACHED_CHAINS)(
            self._atom_summary_uncached
        )

    @property
    def chain_ids(self) -> KeysView[str]:
        """Ids of all chains, in canonical order (docs/glossary.md)."""
        return self._location.keys()

    def release_date(self, pdb_id: str) -> str | None:
        """Return the ISO date of an entry; None if there is no such entry."""
        return self._release_dates.get(pdb_id)

    def sequence(self, chain_id: str) -> str:
        shard, row = self._location[chain_id]
        return self._shards[shard].sequence(row)

    def sequences(self, pdb_id: str) -> dict[str, str]:
        """Return the sequences of an entry by author chain, in canonical order."""
        return {chain: self.sequence(f"{pdb_id}_{chain}") for chain in self._chains_of[pdb_id]}

    def num_atoms(self, chain_id: str) -> np.ndarray:
        """Return the number of resolved atoms of each residue: int64 [N_res]."""
        return self._atom_summary(chain_id)[0]

    def has_implausible_ca_distance(self, chain_id: str) -> bool:
        """Return whether the CA atoms of two consecutive residues are over 150 angstrom apart."""
        return self._atom_summary(chain_id)[1]

    def _atom_summary_uncached(self, chain_id: str) -> tuple[np.ndarray, bool]:
        """Return the results of num_atoms and has_implausible_ca_distance."""
        shard, row = self._location[chain_id]
        positions, mask = self._shards[shard].atoms(row)
        return mask.sum(axis=1), has_implausible_ca_distance(positions, mask)


def has_implausible_ca_distance(positions: np.ndarray, mask: np.ndarray) -> bool:
    """Return whether the CA atoms of two consecutive residues are over 150 angstrom apart.

    Args:
        positions: float32 [N_res, 37, 3], angstrom.
        mask: bool [N_res, 37].
    """
    # The published conversion centers the atoms first, which changes the rounding in float32.
    ca = center_atoms(positions, mask)[:, atom_order["CA"]]
    has_ca = mask[:, atom_order["CA"]]
    distances = np.linalg.norm(ca[1:] - ca[:-1], axis=-1)
    is_break = (distances > MAX_CA_DISTANCE_ANGSTROM) & has_ca[1:] & has_ca[:-1]
    return bool(is_break.any())
