"""The first half of conversion: entries to structure shards."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.convert.entry_files import find_entries
from data_prep.convert.findings import Findings
from data_prep.convert.plan import Chunk, Plan, make_chunks
from data_prep.convert.work import BuildShard
from data_prep.errors import CannotRead, EntryRejected, FaultyEntry
from data_prep.parsers.mmcif import ParsedChain, ParsedEntry, parse_mmcif
from data_prep.progress import Progress
from openfold_opt.protein.shard_format import PACKED_MASK_BYTES, encode_strings, offsets

KIND = "structures"

_COMPRESSED_BYTES_PER_SHARD_BYTE = 2
"""Used to estimate the size of an entry in the shard from the size of its .cif.gz file.

The actual size is about a third of the file; a half is an upper limit.
"""


def plan_structures(pdb_mmcif: Path, *, shard_size_bytes: int, own_data: bool = False) -> Plan:
    """Assign all entries below `<pdb_mmcif>/raw` to structure shards.

    Entries are ordered by folder (the two middle letters of the id) and file name.
    """
    files, unused = find_entries(pdb_mmcif / "raw")
    chunks = make_chunks(
        KIND,
        files,
        expected_bytes=lambda file: expected_bytes_of_entry(file.size_bytes),
        shard_size_bytes=shard_size_bytes,
        depends_on="own data" if own_data else "",
    )
    return Plan(chunks=chunks, unused=tuple(unused))


def expected_bytes_of_entry(compressed_bytes: int) -> int:
    """Estimate the size of an entry in a shard from the size of its .cif.gz file."""
    return compressed_bytes // _COMPRESSED_BYTES_PER_SHARD_BYTE


def structure_builder(*, own_data: bool = False) -> BuildShard:
    """Return a function that builds the datasets of a structure shard from mmCIF files.

    Args:
        own_data: as for `parse_mmcif`.
    """
    return functools.partial(_build_structure_shard, own_data=own_data)


def _build_structure_shard(
    chunk: Chunk, findings: Findings, progress: Progress, *, own_data: bool
) -> Mapping[str, np.ndarray]:
    """Return the datasets of a structure shard.

    An entry whose contents cannot be used is rejected with its reason. A file that cannot be read
    is an error.
    """
    chains: list[PackedChain] = []
    for file in chunk.units:
        try:
            entry = parse_mmcif(file.path, own_data=own_data)
            chains.extend(pack_chain(entry, chain) for chain in entry.chains)
        except EntryRejected as reason:
            findings.reject_entry(file.entry, reason, is_faulty=isinstance(reason, FaultyEntry))
        except CannotRead as error:
            findings.add_error(error)
        progress.update()
    return structure_arrays(
        chains, [(rejection.name, rejection.reason) for rejection in findings.rejected]
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedChain:
    """A chain with only its resolved atoms.

    All chains of a shard are in memory, and a residue has on average 8 of the 37 atom types.
    """

    chain_id: str
    mmcif_chain_ids: tuple[str, ...]
    entity_keys: tuple[str, ...]
    release_date: str
    method: str
    resolution: float | None
    """Angstrom."""
    sequence: str
    atom_mask: np.ndarray
    """uint8 [N_res, 5]: 37 packed flags per residue."""
    atom_positions: np.ndarray
    """float32 [num_atoms, 3], angstrom."""


def pack_chain(entry: ParsedEntry, chain: ParsedChain) -> PackedChain:
    """Pack a chain of a parsed entry."""
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


def structure_arrays(
    chains: Sequence[PackedChain], rejected: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
    """Return the datasets of a structure shard.

    Args:
        rejected: pairs of entry and reason.
    """
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
        "atom_mask": np.concatenate(
            [
                np.zeros((0, PACKED_MASK_BYTES), dtype=np.uint8),
                *(chain.atom_mask for chain in chains),
            ]
        ),
        "atom_positions": np.concatenate(
            [np.zeros((0, 3), dtype=np.float32), *(chain.atom_positions for chain in chains)]
        ),
    }
