"""The first half of conversion: entries to structure shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep.convert.plan import Chunk, file_fingerprint, make_chunks
from data_prep.convert.work import Errors
from data_prep.errors import DataPrepError
from data_prep.parsers.errors import EntryRejected
from data_prep.parsers.mmcif import ParsedChain, ParsedEntry, parse_mmcif
from openfold_opt.protein.shard_format import PACKED_MASK_BYTES, encode_strings, offsets

KIND = "structures"

_COMPRESSED_BYTES_PER_BYTE = 2
"""A shard's size is estimated from the sizes of its .cif.gz files; of coordinates alone about a third is left, here a half at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntryFile:
    """One `.cif.gz` file."""

    path: Path
    size_bytes: int
    fingerprint: list[Any]

    @property
    def entry(self) -> str:
        return self.path.name.split(".")[0]


def plan_structures(pdb_mmcif: Path, *, shard_size_bytes: int) -> list[Chunk]:
    """All entries below `<pdb_mmcif>/raw`: by folder (the two middle letters of the id), then by file name."""
    raw = pdb_mmcif / "raw"
    if not raw.is_dir():
        raise DataPrepError(f"{raw} does not exist; expected entries as {raw}/<two middle letters>/<id>.cif.gz")
    folders = sorted(path for path in raw.iterdir() if path.is_dir())
    paths = [path for folder in folders for path in sorted(folder.glob("*.cif.gz"))]
    if not paths:
        raise DataPrepError(f"{raw} holds no entries; expected {raw}/<two middle letters>/<id>.cif.gz")
    _check_names(paths)
    files = [EntryFile(path=path, size_bytes=path.stat().st_size, fingerprint=file_fingerprint(path, raw)) for path in paths]
    return make_chunks(
        KIND,
        files,
        expected_bytes=lambda file: expected_bytes_of_entry(file.size_bytes),
        shard_size_bytes=shard_size_bytes,
        depends_on="",
    )


def expected_bytes_of_entry(compressed_bytes: int) -> int:
    """Bytes in a shard, from the size of the .cif.gz file."""
    return compressed_bytes // _COMPRESSED_BYTES_PER_BYTE


def _check_names(paths: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.name.lower(), path)
        if other is not path:
            raise DataPrepError(f"entry {path.name} stands in two places: {other} and {path}; remove one")


def build_structure_shard(chunk: Chunk, _errors: Errors, progress: tqdm) -> Mapping[str, np.ndarray]:
    """Datasets of a structure shard. An entry that cannot be read is no error: it is listed as rejected, with its reason."""
    chains: list[PackedChain] = []
    rejected: list[tuple[str, str]] = []
    for file in chunk.units:
        try:
            entry = parse_mmcif(file.path)
            chains.extend(pack_chain(entry, chain) for chain in entry.chains)
        except EntryRejected as reason:
            rejected.append((file.entry, " ".join(str(reason).split())))
        progress.update()
    return structure_arrays(chains, rejected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedChain:
    """A chain without its unresolved atoms: a residue has 8 of 37 on average, and all chains of a shard are held in memory."""

    chain_id: str
    mmcif_chain_ids: tuple[str, ...]
    entity_keys: tuple[str, ...]
    release_date: str
    method: str
    resolution: float | None
    """Angstrom."""
    sequence: str
    atom_mask: np.ndarray
    """uint8 [N_res, 5]: 37 flags"""
    atom_positions: np.ndarray
    """float32 [num_atoms, 3], angstrom"""


def pack_chain(entry: ParsedEntry, chain: ParsedChain) -> PackedChain:
    """A chain of a parsed entry."""
    return PackedChain(
        chain_id=f"{entry.pdb_id}_{chain.author_chain_id}",
        mmcif_chain_ids=chain.mmcif_chain_ids,
        entity_keys=chain.entity_keys,
        release_date=entry.release_date,
        method=entry.method,
        resolution=entry.resolution,
        sequence=chain.sequence,
        atom_mask=np.packbits(chain.mask, axis=1),
        atom_positions=chain.positions[chain.mask],
    )


def structure_arrays(chains: Sequence[PackedChain], rejected: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Datasets of a structure shard; rejected: (entry, reason)."""
    resolutions = [np.nan if chain.resolution is None else chain.resolution for chain in chains]
    sequences = "".join(chain.sequence for chain in chains)
    return {
        "chain_id": encode_strings(chain.chain_id for chain in chains),
        "mmcif_chain_ids": encode_strings(";".join(chain.mmcif_chain_ids) for chain in chains),
        "entity_keys": encode_strings(";".join(chain.entity_keys) for chain in chains),
        "release_date": encode_strings(chain.release_date for chain in chains),
        "method": encode_strings(chain.method for chain in chains),
        "resolution": np.array(resolutions, dtype=np.float64),
        "rejected_entry": encode_strings(entry for entry, _ in rejected),
        "rejected_reason": encode_strings(reason for _, reason in rejected),
        "residue_offset": offsets(len(chain.sequence) for chain in chains),
        "atom_offset": offsets(len(chain.atom_positions) for chain in chains),
        "sequence": np.frombuffer(sequences.encode("ascii"), dtype=np.uint8),
        "atom_mask": np.concatenate([np.zeros((0, PACKED_MASK_BYTES), dtype=np.uint8), *(chain.atom_mask for chain in chains)]),
        "atom_positions": np.concatenate([np.zeros((0, 3), dtype=np.float32), *(chain.atom_positions for chain in chains)]),
    }
