"""One shard, opened: tables in memory, slices of large arrays read from the file when asked for.

The large arrays are read, not mapped: where a mapped file becomes shorter, the system ends the process
with SIGBUS and no message, and a read is an error that names the file.
"""

from __future__ import annotations

import math
import os
import weakref
from pathlib import Path

import h5py
import numpy as np

from openfold_opt.protein import shard_format
from openfold_opt.protein.records import AlignmentRecord, TemplateHit
from openfold_opt.protein.shard_format import NUM_ATOM_TYPES, ShardError

_LARGE_STRUCTURE_ARRAYS = ("sequence", "atom_mask", "atom_positions")
_LARGE_ALIGNMENT_ARRAYS = (
    "msa",
    "deletion_column",
    "deletion_count",
    "token_counts",
    "pair_query",
    "pair_template",
    "pair_token",
)


class _StoredArray:
    """A contiguous array in an open file. Indexing it with a slice of the first dim reads that slice."""

    def __init__(self, path: Path, descriptor: int, dataset: h5py.Dataset) -> None:
        offset = dataset.id.get_offset()
        if offset is None:
            raise ShardError(
                f"{path}: dataset {dataset.name} is not contiguous; expected an uncompressed shard"
            )
        self._path, self._descriptor, self._offset = path, descriptor, offset
        self._dtype, self._shape = dataset.dtype, dataset.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read-only array [rows, ...]. ShardError where the file is too short by now."""
        first, last, _ = rows.indices(self._shape[0])
        found = np.empty((max(last - first, 0), *self._shape[1:]), dtype=self._dtype)
        row_bytes = self._dtype.itemsize * math.prod(self._shape[1:])
        self._read(memoryview(found.reshape(-1).view(np.uint8)), self._offset + first * row_bytes)
        found.flags.writeable = False
        return found

    def _read(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            try:
                count = os.preadv(self._descriptor, [buffer], offset)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self._path)) from error
            if count == 0:
                raise ShardError(
                    f"{self._path} became shorter while it was in use: found the end of the file where "
                    f"{len(buffer):,} bytes from byte {offset:,} on were expected; wait until the "
                    "program that writes it has finished, check it with `python -m data_prep "
                    "verify`, and start again"
                )
            buffer, offset = buffer[count:], offset + count


class _OpenShard:
    """Datasets of a shard by name: the large ones are read slice by slice, the others are in memory."""

    large_arrays: tuple[str, ...] = ()

    def __init__(self, path: Path, *, expected_size_bytes: int | None = None) -> None:
        if (
            expected_size_bytes is not None
            and path.is_file()
            and path.stat().st_size != expected_size_bytes
        ):
            raise ShardError(
                f"{path} has {path.stat().st_size} bytes, expected {expected_size_bytes}; remove it and run the same `convert` again"
            )
        self.path = path
        with shard_format.open_checked(path) as file:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, descriptor)
            try:
                self.arrays = {
                    name: self._array(descriptor, name, dataset) for name, dataset in file.items()
                }
            except (OSError, ValueError) as error:
                raise ShardError(
                    f"{path} is damaged ({error}); remove it and run the same `convert` again"
                ) from error
            self.attributes = dict(file.attrs)

    def _array(
        self, descriptor: int, name: str, dataset: h5py.Dataset
    ) -> np.ndarray | _StoredArray:
        if name not in self.large_arrays or dataset.size == 0:
            return dataset[()]
        return _StoredArray(self.path, descriptor, dataset)


class StructureShard(_OpenShard):
    """Sequences and coordinates. Rows are chains; `chain_ids` gives their order."""

    large_arrays = _LARGE_STRUCTURE_ARRAYS

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


class AlignmentShard(_OpenShard):
    """Alignments and template hits. Rows are alignments; a hit set belongs to one alignment and one query sequence."""

    large_arrays = _LARGE_ALIGNMENT_ARRAYS

    def alignment(self, row: int) -> AlignmentRecord:
        arrays = self.arrays
        first_row, last_row = arrays["row_offset"][row : row + 2]
        first_residue, last_residue = arrays["residue_offset"][row : row + 2]
        first_byte, last_byte = arrays["msa_offset"][row : row + 2]
        indptr = arrays["deletion_indptr"][first_row : last_row + 1]
        return AlignmentRecord(
            msa=np.asarray(arrays["msa"][first_byte:last_byte]).reshape(
                last_row - first_row, last_residue - first_residue
            ),
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
