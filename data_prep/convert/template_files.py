"""Access to the chains of a folder of mmCIF files as templates, without conversion."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from data_prep.convert.entry_files import SUFFIXES
from data_prep.convert.template_library import has_implausible_ca_distance
from data_prep.errors import DataPrepError, EntryRejected, escaped
from data_prep.parsers.file_access import exists, list_folder
from data_prep.parsers.mmcif import ParsedChain, ParsedEntry, parse_mmcif
from data_prep.parsers.tables import read_obsolete
from openfold_opt.protein.records import StructureRecord

OBSOLETE_NAME = "obsolete.dat"
RAW_NAME = "raw"
_CACHED_ENTRIES = 32


class TemplateFiles:
    """Look-up of chains in a folder of mmCIF files.

    The folder has the layout of conversion's `pdb_mmcif`: files named <id>.cif.gz or <id>.cif in
    folders named after the two middle letters of the id, or directly in the folder or in its
    subfolder raw/. The table of obsolete entries is read if it is in the folder or next to it.
    Files are parsed on demand.
    """

    def __init__(self, folder: Path) -> None:
        """Find the folder of the entries.

        Raises:
            DataPrepError: there is no such folder, or it is empty.
        """
        self.folder = _entries_folder(folder)
        self.problems: dict[str, str] = {}
        """Entries that were asked for and cannot be used, by PDB id, with the reason."""
        tables = [folder / OBSOLETE_NAME, folder.parent / OBSOLETE_NAME]
        table = next(filter(exists, tables), None)
        self.obsolete = {} if table is None else read_obsolete(table)
        """Maps obsolete PDB ids to their successors."""
        self._entry = functools.lru_cache(maxsize=_CACHED_ENTRIES)(self._read_entry)

    def release_date(self, pdb_id: str) -> str | None:
        """Return the ISO date of an entry; None if it cannot be used."""
        entry = self._entry(pdb_id)
        return None if entry is None else entry.release_date

    def sequences(self, pdb_id: str) -> dict[str, str]:
        """Return the sequences of an entry by author chain, in canonical order."""
        entry = self._entry(pdb_id)
        chains = () if entry is None else entry.chains
        return {chain.author_chain_id: chain.sequence for chain in chains}

    def num_atoms(self, chain_id: str) -> np.ndarray:
        """Return the number of resolved atoms of each residue: int64 [N_res]."""
        return self._chain(chain_id).mask.sum(axis=1)

    def has_implausible_ca_distance(self, chain_id: str) -> bool:
        """Return whether the CA atoms of two consecutive residues are over 150 angstrom apart."""
        chain = self._chain(chain_id)
        return has_implausible_ca_distance(chain.positions, chain.mask)

    def structure(self, chain_id: str) -> StructureRecord:
        """Return the sequence and coordinates of a chain."""
        entry = self._entry(chain_id.split("_", 1)[0])
        chain = self._chain(chain_id)
        return StructureRecord(
            sequence=chain.sequence,
            residue_index=np.arange(len(chain.mask), dtype=np.int32),
            all_atom_positions=chain.positions,
            all_atom_mask=chain.mask,
            resolution=entry.resolution,
            release_date=entry.release_date,
            method=entry.method,
            cluster_id=-1,
        )

    def _chain(self, chain_id: str) -> ParsedChain:
        pdb_id, author = chain_id.split("_", 1)
        return next(
            chain for chain in self._entry(pdb_id).chains if chain.author_chain_id == author
        )

    def _read_entry(self, pdb_id: str) -> ParsedEntry | None:
        path = self._path(pdb_id)
        if path is None:
            self.problems[pdb_id] = f"no file {pdb_id}.cif.gz or {pdb_id}.cif in {self.folder}"
            return None
        try:
            # Entries that are in no database are accepted, too.
            return parse_mmcif(path, own_data=True)
        except EntryRejected as error:
            self.problems[pdb_id] = f"{escaped(path)}: {error}"
            return None

    def _path(self, pdb_id: str) -> Path | None:
        """Return the file of an entry, in the order of preference of conversion."""
        folders = [self.folder / pdb_id[1:3], self.folder]
        names = [pdb_id + suffix for suffix in SUFFIXES]
        names += [pdb_id.upper() + suffix for suffix in SUFFIXES]
        candidates = (folder / name for folder in folders for name in names)
        return next(filter(exists, candidates), None)


def _entries_folder(folder: Path) -> Path:
    if not folder.is_dir():
        found = "it is a file" if exists(folder) else "it does not exist"
        raise DataPrepError(
            f"the folder of template structures is {folder}, but {found}; expected a folder with "
            "<id>.cif.gz or <id>.cif files, directly or in folders of the two middle letters"
        )
    if (folder / RAW_NAME).is_dir():
        folder = folder / RAW_NAME
    if not list_folder(folder):
        raise DataPrepError(f"the folder of template structures {folder} is empty")
    return folder
