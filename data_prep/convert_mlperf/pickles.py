"""Reader of the pickles of `dicts/` that executes no code in them.

There is one file per folder of the PDB (the two middle letters of the ids): a dict of entries by
PDB id. An entry is a dict of texts, numbers, lists and dicts. Coordinates are zlib-compressed bytes
with their shape. None of these needs a class, so the unpickler refuses a pickle that requests any
class, before the class is looked up.
"""

from __future__ import annotations

import io
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.convert.structures import PackedChain
from data_prep.errors import BrokenFile, EntryRejected
from data_prep.parsers.file_access import read_file
from data_prep.parsers.mmcif import parse_date
from openfold_opt.protein.shard_format import NUM_ATOM_TYPES

_ENTRY_FIELDS = {
    "pdb_id": str,
    "exptl_method": str,
    "release_date": str,
    "resolution": (float, type(None)),
    "author_chain_ids": list,
    "entity_id_to_mmcif_chain_ids": dict,
    "mmcif_chain_id_to_author_chain_id": dict,
    "sequences": dict,
    "atoms": dict,
}
_ARRAYS = {
    "all_atom_positions": (np.dtype(np.float32), (NUM_ATOM_TYPES, 3)),
    "all_atom_mask": (np.dtype(bool), (NUM_ATOM_TYPES,)),
}
"""Maps a name to its dtype and to its shape after the dimension of residues."""


class _Refused(Exception):
    """A pickle requests an import."""


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise _Refused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"it asks for the persistent object {pid!r}")


def read_entries(path: Path) -> dict[str, dict[str, Any]]:
    """Return all entries of a file by PDB id.

    Raises:
        BrokenFile: the file is malformed, or reading it would execute code.
    """
    try:
        entries = _RestrictedUnpickler(io.BytesIO(read_file(path))).load()
    except _Refused as error:
        raise BrokenFile(
            path,
            f"refused: {error}; expected only dict, list, tuple, str, bytes, int, float, bool and "
            "None. Fetch the file again",
        ) from error
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise BrokenFile(
            path, f"damaged pickle ({type(error).__name__}: {error}); fetch the file again"
        ) from error
    if not isinstance(entries, dict) or not all(isinstance(key, str) for key in entries):
        raise BrokenFile(
            path, f"holds a {type(entries).__name__}, expected a dict of entries by PDB id"
        )
    for pdb_id, entry in entries.items():
        _check_entry(path, pdb_id, entry)
    return entries


def _check_entry(path: Path, pdb_id: str, entry: Any) -> None:
    if not isinstance(entry, dict):
        raise BrokenFile(path, f"entry {pdb_id} is a {type(entry).__name__}, expected a dict")
    for name, kind in _ENTRY_FIELDS.items():
        if name not in entry:
            raise BrokenFile(
                path, f"entry {pdb_id} has no {name!r}, expected {', '.join(_ENTRY_FIELDS)}"
            )
        if not isinstance(entry[name], kind):
            raise BrokenFile(
                path,
                f"entry {pdb_id}: {name} is a {type(entry[name]).__name__}, expected "
                f"{_name_of(kind)}",
            )
    if entry["pdb_id"] != pdb_id:
        raise BrokenFile(
            path, f"entry {pdb_id} has the pdb_id {entry['pdb_id']!r}; fetch the file again"
        )


def _name_of(kind: Any) -> str:
    return " or ".join(part.__name__ for part in kind) if isinstance(kind, tuple) else kind.__name__


def pack_entry(path: Path, entry: dict[str, Any]) -> list[PackedChain]:
    """Return the chains of an entry, packed as `convert` packs those of an mmCIF file.

    Raises:
        BrokenFile: parts of the entry are missing or inconsistent.
    """
    pdb_id = entry["pdb_id"]
    try:
        release_date = parse_date(entry["release_date"]).isoformat()
    except EntryRejected as error:
        raise BrokenFile(path, f"entry {pdb_id}: {error}") from error
    author_of, labels_of_entity = (
        entry["mmcif_chain_id_to_author_chain_id"],
        entry["entity_id_to_mmcif_chain_ids"],
    )
    chains = []
    for author in entry["author_chain_ids"]:
        chain_id = f"{pdb_id}_{author}"
        sequence, atoms = entry["sequences"].get(author), entry["atoms"].get(author)
        if not isinstance(sequence, str) or not isinstance(atoms, dict):
            raise BrokenFile(
                path, f"chain {chain_id} has no sequence or no atoms; fetch the file again"
            )
        positions, mask = (
            _array(path, chain_id, name, atoms.get(name), num_residues=len(sequence))
            for name in _ARRAYS
        )
        if not np.isfinite(positions[mask]).all():
            raise BrokenFile(
                path,
                f"chain {chain_id}: all_atom_positions has a number that is not finite; fetch the "
                "file again",
            )
        labels = tuple(label for label, owner in author_of.items() if owner == author)
        entities = [
            entity
            for label in labels
            for entity, members in labels_of_entity.items()
            if label in members
        ]
        chains.append(
            PackedChain(
                chain_id=chain_id,
                mmcif_chain_ids=labels,
                entity_keys=tuple(
                    f"{pdb_id}_{entity}".upper() for entity in dict.fromkeys(entities)
                ),
                release_date=release_date,
                method=entry["exptl_method"],
                resolution=entry["resolution"],
                sequence=sequence,
                atom_mask=np.packbits(mask, axis=1),
                atom_positions=positions[mask],
            )
        )
    return chains


def _array(path: Path, chain_id: str, name: str, stored: Any, *, num_residues: int) -> np.ndarray:
    dtype, tail = _ARRAYS[name]
    shape = (num_residues, *tail)
    if not (isinstance(stored, tuple) and len(stored) == 2 and isinstance(stored[0], bytes)):
        raise BrokenFile(
            path, f"chain {chain_id}: {name} is not a pair of compressed bytes and shape"
        )
    compressed, stored_shape = stored
    if tuple(stored_shape) != shape:
        raise BrokenFile(
            path,
            f"chain {chain_id}: {name} has shape {list(stored_shape)}, expected {list(shape)} for "
            "its sequence",
        )
    expected = int(np.prod(shape)) * dtype.itemsize
    try:
        # One byte more than expected shows that the data are too long.
        data = zlib.decompressobj().decompress(compressed, expected + 1)
    except zlib.error as error:
        raise BrokenFile(
            path, f"chain {chain_id}: {name} cannot be decompressed ({error}); fetch the file again"
        ) from error
    if len(data) != expected:
        raise BrokenFile(
            path,
            f"chain {chain_id}: {name} has {'more' if len(data) > expected else 'less'} than the "
            f"{expected} bytes expected",
        )
    return np.frombuffer(data, dtype).reshape(shape)
