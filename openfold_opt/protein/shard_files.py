"""One shard, opened: tables in memory, large arrays as memory maps."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from openfold_opt.protein import shard_format
from openfold_opt.protein.records import AlignmentRecord, TemplateHit
from openfold_opt.protein.shard_format import NUM_ATOM_TYPES, ShardError

_MAPPED_STRUCTURE_ARRAYS = ("sequence", "atom_mask", "atom_positions")
_MAPPED_ALIGNMENT_ARRAYS = ("msa", "deletion_column", "deletion_count", "token_counts", "pair_query", "pair_template", "pair_token")


class _MappedShard:
    """Datasets of a shard by name: the large ones as read-only views of one memory map, the others read into memory."""

    mapped_arrays: tuple[str, ...] = ()

    def __init__(self, path: Path, *, expected_size_bytes: int | None = None) -> None:
        if expected_size_bytes is not None and path.is_file() and path.stat().st_size != expected_size_bytes:
            raise ShardError(
                f"{path} has {path.stat().st_size} bytes, expected {expected_size_bytes}; remove it and run the same `convert` again"
            )
        self.path = path
        with shard_format.open_checked(path) as file:
            whole = np.memmap(path, dtype=np.uint8, mode="r")
            try:
                self.arrays = {name: self._array(whole, name, dataset) for name, dataset in file.items()}
            except (OSError, ValueError) as error:
                raise ShardError(f"{path} is damaged ({error}); remove it and run the same `convert` again") from error
            self.attributes = dict(file.attrs)

    def _array(self, whole: np.ndarray, name: str, dataset: h5py.Dataset) -> np.ndarray:
        if name not in self.mapped_arrays or dataset.size == 0:
            return dataset[()]
        start = dataset.id.get_offset()
        if start is None:
            raise ShardError(f"{self.path}: dataset {name} is not contiguous; expected an uncompressed shard")
        return whole[start : start + dataset.nbytes].view(dataset.dtype).reshape(dataset.shape)


class StructureShard(_MappedShard):
    """Sequences and coordinates. Rows are chains; `chain_ids` gives their order."""

    mapped_arrays = _MAPPED_STRUCTURE_ARRAYS

    def strings(self, name: str) -> list[str]:
        """A column of text: chain_id, mmcif_chain_ids, entity_keys, release_date, method, rejected_entry, rejected_reason."""
        return shard_format.decode_strings(self.arrays[name])

    def sequence(self, row: int) -> str:
        first, last = self.arrays["residue_offset"][row : row + 2]
        return self.arrays["sequence"][first:last].tobytes().decode("ascii")

    def atoms(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions float32 [N_res, 37, 3] (angstrom, zero where unresolved) and mask bool [N_res, 37] of one chain."""
        first_residue, last_residue = self.arrays["residue_offset"][row : row + 2]
        first_atom, last_atom = self.arrays["atom_offset"][row : row + 2]
        packed = self.arrays["atom_mask"][first_residue:last_residue]
        mask = np.unpackbits(packed, axis=1, count=NUM_ATOM_TYPES).astype(bool)
        positions = np.zeros((*mask.shape, 3), dtype=np.float32)
        positions[mask] = self.arrays["atom_positions"][first_atom:last_atom]
        return positions, mask


class AlignmentShard(_MappedShard):
    """Alignments and template hits. Rows are alignments; a hit set belongs to one alignment and one query sequence."""

    mapped_arrays = _MAPPED_ALIGNMENT_ARRAYS

    def alignment(self, row: int) -> AlignmentRecord:
        arrays = self.arrays
        first_row, last_row = arrays["row_offset"][row : row + 2]
        first_residue, last_residue = arrays["residue_offset"][row : row + 2]
        first_byte, last_byte = arrays["msa_offset"][row : row + 2]
        indptr = arrays["deletion_indptr"][first_row : last_row + 1]
        return AlignmentRecord(
            msa=np.asarray(arrays["msa"][first_byte:last_byte]).reshape(last_row - first_row, last_residue - first_residue),
            deletion_indptr=indptr - indptr[0],
            deletion_column=np.asarray(arrays["deletion_column"][indptr[0] : indptr[-1]]),
            deletion_count=np.asarray(arrays["deletion_count"][indptr[0] : indptr[-1]]),
            token_counts=np.array(arrays["token_counts"][first_residue:last_residue]),
        )

    def hits(self, hit_set: int) -> tuple[TemplateHit, ...]:
        """Template hits of one set: sum_probs descending, ties in the order of the .hhr file."""
        first, last = self.arrays["hit_offset"][hit_set : hit_set + 2]
        return tuple(self._hit(hit) for hit in range(first, last))

    def _hit(self, hit: int) -> TemplateHit:
        arrays = self.arrays
        first, last = arrays["pair_offset"][hit : hit + 2]
        return TemplateHit(
            name=arrays["hit_name"][hit].decode(),
            sum_probs=float(arrays["hit_sum_probs"][hit]),
            release_date=arrays["hit_release_date"][hit].decode(),
            query_index=np.array(arrays["pair_query"][first:last]),
            template_index=np.array(arrays["pair_template"][first:last]),
            template_tokens=np.array(arrays["pair_token"][first:last]),
            failure=arrays["hit_failure"][hit].decode(),
        )
