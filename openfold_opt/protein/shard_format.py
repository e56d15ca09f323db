"""The format of a data directory: file names, version, layout of the HDF5 files, atomic writes.

    <data dir>/index.h5                 table of all chains and all shards; it is written last, so a
                                        directory that has it is complete
    <data dir>/structures-00000.h5 ...  sequences and coordinates
    <data dir>/alignments-00000.h5 ...  alignments and template hits
    <data dir>/rejected.csv             rejected entries and chains, each with the reason
    <data dir>/query_differences.csv    chains whose alignment has a different query sequence
    <data dir>/unused.csv               files and folders of the input that were not read
    <data dir>/verified.json            record of the last successful `verify`, if any

The arrays of all chains of a shard are concatenated to one contiguous, uncompressed dataset per
array, with a table of offsets, so that a chain is one slice of the file. docs/data_format.md lists
the datasets.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np

from openfold_opt.protein.replace_file import replacing

FORMAT_NAME = "openfold-opt shards"
FORMAT_VERSION = 1

INDEX_FILE_NAME = "index.h5"
REJECTED_FILE_NAME = "rejected.csv"
VERIFIED_FILE_NAME = "verified.json"
STATE_DIR_NAME = ".convert"
"""Folder in the data directory for unfinished files, and for the state file of each shard."""

NUM_ATOM_TYPES = 37
PACKED_MASK_BYTES = 5
"""Size of the 37 flags of one residue, packed in the big-endian bit order of numpy.packbits."""

_ALIGNMENT_BYTES = 64
"""Datasets begin at multiples of this."""


class ShardError(ValueError):
    """A data directory or one of its files cannot be used.

    The message gives the file, what was found, what was expected and how to fix it.
    """


def shard_name(kind: str, number: int) -> str:
    """Return the file name of a shard. kind is "structures" or "alignments"."""
    return f"{kind}-{number:05d}.h5"


def encode_strings(values: Iterable[str]) -> np.ndarray:
    """Encode strings as UTF-8 bytes of the width of the longest string: S<width> [n]."""
    encoded = [value.encode("utf-8") for value in values]
    width = max((len(value) for value in encoded), default=1)
    return np.array(encoded, dtype=f"S{max(width, 1)}")


def decode_strings(values: np.ndarray) -> list[str]:
    """Decode the result of encode_strings."""
    return [value.decode("utf-8") for value in values.tolist()]


def offsets(lengths: Iterable[int]) -> np.ndarray:
    """Return the offsets of n concatenated arrays and the end of the last: int64 [n + 1]."""
    lengths = np.fromiter(lengths, dtype=np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def encode_file(
    arrays: Mapping[str, np.ndarray], attributes: Mapping[str, str | int]
) -> memoryview:
    """Return the bytes of an HDF5 file with contiguous datasets.

    The bytes depend on the contents only, and not on the time or the machine.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT_BYTES) as file:
        file.attrs["format_name"] = FORMAT_NAME
        file.attrs["format_version"] = FORMAT_VERSION
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    # This is a view. getvalue() would copy the shard, which doubles the memory.
    return buffer.getbuffer()


def write_atomically(
    path: Path, contents: bytes | memoryview, *, scratch_dir: Path | None = None
) -> str:
    """Write a file under a temporary name, flush it to disk, rename it and return its SHA-256.

    If this fails, the temporary file is removed and an existing file at `path` is unchanged.

    Args:
        scratch_dir: Folder for the temporary file; if None, the folder of `path`.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path, scratch_dir=scratch_dir) as file:
        file.write(contents)
    return hashlib.sha256(contents).hexdigest()


def open_checked(path: Path) -> h5py.File:
    """Open an index or a shard for reading.

    Raises:
        ShardError: The file is missing or damaged, or has another format or version.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ShardError(f"{path} {why_not_opened(path, error)}") from error
    found_name = file.attrs.get("format_name")
    found_version = file.attrs.get("format_version")
    if found_name != FORMAT_NAME or found_version != FORMAT_VERSION:
        file.close()
        raise ShardError(
            f"{path} has format {found_name!r}, version {found_version}; this program reads "
            f"{FORMAT_NAME!r}, version {FORMAT_VERSION}: convert the raw data again, or use the "
            "version of the program that wrote it"
        )
    return file


def why_not_opened(path: Path, error: OSError) -> str:
    """Explain an error that h5py raised for a file, and how to fix it.

    The text advises to remove the file only if the operating system can read it and HDF5 cannot.
    """
    if "unable to lock file" in str(error):
        return (
            f"is locked by another program, or its file system does not support locks ({error}). "
            "The file is not damaged: wait until the program that writes it has finished, or set "
            "HDF5_USE_FILE_LOCKING=FALSE"
        )
    try:
        with open(path, "rb") as file:
            file.read(1)
    except FileNotFoundError:
        return "does not exist; expected a file written by `python -m data_prep convert`"
    except OSError as system_error:
        return _cannot_be_opened(system_error, "fix this")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return _cannot_be_opened(error, "raise the limit (ulimit -n)")
    return f"cannot be read as HDF5 ({error}); remove it and run the same `convert` again"


def _cannot_be_opened(error: OSError, remedy: str) -> str:
    """Describe an error of the operating system and what to do about it."""
    reason = f"cannot be opened: {error.strerror}"
    return f"{reason}. The file need not be damaged: {remedy} and try again"


def content_checksum(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, str | int]) -> str:
    """Return the SHA-256 of attributes and of the names, dtypes, shapes and bytes of arrays.

    It depends on the contents only, not on how HDF5 stores them.
    """
    digest = hashlib.sha256()
    for name, value in sorted(attributes.items()):
        digest.update(f"{name}={value}\n".encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def sha256_of_file(path: Path, *, block_bytes: int = 1 << 22) -> str:
    """Return the SHA-256 of a file. The file is read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(block_bytes):
            digest.update(block)
    return digest.hexdigest()
