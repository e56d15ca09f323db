"""An open shard: tables are in memory, and slices of large arrays are read from the file on demand.

The large arrays are read and not memory-mapped. If a mapped file is truncated, the kernel kills the
process with SIGBUS; a failed read raises an error that names the file.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
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
    """A contiguous array in an open file. Indexing it with a slice of the first dim reads it."""

    def __init__(self, path: Path, descriptor: int, dataset: h5py.Dataset) -> None:
        offset = dataset.id.get_offset()
        if offset is None:
            raise ShardError(
                f"{path}: dataset {dataset.name} is not contiguous; expected a shard without "
                "compression, as written by `python -m data_prep convert`"
            )
        self._path, self._descriptor, self._offset = path, descriptor, offset
        self._dtype, self._shape = dataset.dtype, dataset.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return a read-only array [rows, ...].

        Raises:
            ShardError: The file was truncated after it was opened.
        """
        start, stop, _ = rows.indices(self._shape[0])
        array = np.empty((max(stop - start, 0), *self._shape[1:]), dtype=self._dtype)
        row_bytes = self._dtype.itemsize * math.prod(self._shape[1:])
        self._read(array.reshape(-1).view(np.uint8).data, self._offset + start * row_bytes)
        array.flags.writeable = False
        return array

    def _read(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            try:
                count = os.preadv(self._descriptor, [buffer], offset)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self._path)) from error
            if count == 0:
                raise ShardError(
                    f"{self._path} became shorter while it was in use: found the end of the file, "
                    f"expected {len(buffer):,} bytes from byte {offset:,}; wait until the program "
                    "that writes it has finished, check it with `python -m data_prep verify`, and "
                    "start again"
                )
            buffer, offset = buffer[count:], offset + count


class _OpenShard:
    """The datasets of a shard by name."""

    large_names: tuple[str, ...] = ()
    """Datasets that are read in slices. All others are in `arrays`."""

    def __init__(self, path: Path, *, expected_size_bytes: int | None = None) -> None:
        if (
            expected_size_bytes is not None
            and path.is_file()
            and path.stat().st_size != expected_size_bytes
        ):
            raise ShardError(
                f"{path} has {path.stat().st_size} bytes, expected {expected_size_bytes}; "
                "remove it and run the same `convert` again"
            )
        self.path = path
        self.arrays: dict[str, np.ndarray] = {}
        self._large: dict[str, np.ndarray | _StoredArray] = {}
        with damage_as_shard_error(path), shard_format.open_checked(path) as file:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, descriptor)
            for name, dataset in file.items():
                if not isinstance(dataset, h5py.Dataset):
                    raise OSError(f"dataset {name} cannot be opened")
                if name in self.large_names:
                    self._large[name] = _large_array(path, descriptor, dataset)
                else:
                    self.arrays[name] = dataset[()]
            self.attributes = dict(file.attrs)


@contextmanager
def damage_as_shard_error(path: Path) -> Iterator[None]:
    """Convert exceptions of HDF5 and NumPy for a damaged file to a ShardError that names it.

    h5py raises RuntimeError for some kinds of damage, and wrong offsets give a LookupError.
    """
    try:
        yield
    except ShardError:
        raise
    except (OSError, ValueError, RuntimeError, LookupError) as error:
        raise ShardError(
            f"{path} is damaged ({error}); remove it and run the same `convert` again. "
            f"`python -m data_prep verify {path.parent}` checks all files of the data set"
        ) from error


def _large_array(path: Path, descriptor: int, dataset: h5py.Dataset) -> np.ndarray | _StoredArray:
    """Return a dataset as an array that can be sliced.

    An empty dataset is read at once: HDF5 allocates no storage for it, so it has no offset.
    """
    return _StoredArray(path, descriptor, dataset) if dataset.size else dataset[()]


class StructureShard(_OpenShard):
    """A shard of sequences and coordinates. Each row is a chain, in the order of `chain_id`."""

    large_names = _LARGE_STRUCTURE_ARRAYS

    def strings(self, name: str) -> list[str]:
        """Return the values of a text column.

        Columns: chain_id, mmcif_chain_ids, entity_keys, release_date, method, rejected_entry and
        rejected_reason.
        """
        return shard_format.decode_strings(self.arrays[name])

    def sequence(self, row: int) -> str:
        """Return the sequence of a chain, one letter per residue."""
        start, stop = self.arrays["residue_offset"][row : row + 2]
        return self._large["sequence"][start:stop].tobytes().decode("ascii")

    def atoms(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the atoms of a chain.

        Returns:
            Positions, float32 [N_res, 37, 3], angstrom, zero for unresolved atoms; and the mask of
            resolved atoms, bool [N_res, 37].
        """
        residue_start, residue_stop = self.arrays["residue_offset"][row : row + 2]
        atom_start, atom_stop = self.arrays["atom_offset"][row : row + 2]
        packed = self._large["atom_mask"][residue_start:residue_stop]
        mask = np.unpackbits(packed, axis=1, count=NUM_ATOM_TYPES).astype(bool)
        positions = np.zeros((*mask.shape, 3), dtype=np.float32)
        positions[mask] = self._large["atom_positions"][atom_start:atom_stop]
        return positions, mask


class AlignmentShard(_OpenShard):
    """A shard of alignments and template hits.

    Each row is an alignment. A hit set belongs to one alignment and one query sequence, because the
    chains that share an alignment may have slightly different sequences.
    """

    large_names = _LARGE_ALIGNMENT_ARRAYS

    def alignment(self, row: int) -> AlignmentRecord:
        """Return the alignment of a row."""
        arrays, large = self.arrays, self._large
        row_start, row_stop = arrays["row_offset"][row : row + 2]
        residue_start, residue_stop = arrays["residue_offset"][row : row + 2]
        byte_start, byte_stop = arrays["msa_offset"][row : row + 2]
        indptr = arrays["deletion_indptr"][row_start : row_stop + 1]
        return AlignmentRecord(
            msa=np.asarray(large["msa"][byte_start:byte_stop]).reshape(
                row_stop - row_start, residue_stop - residue_start
            ),
            deletion_indptr=indptr - indptr[0],
            deletion_column=np.asarray(large["deletion_column"][indptr[0] : indptr[-1]]),
            deletion_count=np.asarray(large["deletion_count"][indptr[0] : indptr[-1]]),
            token_counts=np.array(large["token_counts"][residue_start:residue_stop]),
        )

    def hits(self, hit_set: int) -> tuple[TemplateHit, ...]:
        """Return the template hits of a set by descending sum_probs, ties in .hhr file order."""
        start, stop = self.arrays["hit_offset"][hit_set : hit_set + 2]
        return tuple(self._hit(hit) for hit in range(start, stop))

    def _hit(self, hit: int) -> TemplateHit:
        arrays, large = self.arrays, self._large
        start, stop = arrays["pair_offset"][hit : hit + 2]
        return TemplateHit(
            name=arrays["hit_name"][hit].decode(),
            sum_probs=float(arrays["hit_sum_probs"][hit]),
            release_date=arrays["hit_release_date"][hit].decode(),
            query_index=np.array(large["pair_query"][start:stop]),
            template_index=np.array(large["pair_template"][start:stop]),
            template_tokens=np.array(large["pair_token"][start:stop]),
            failure=arrays["hit_failure"][hit].decode(),
        )
