"""The format of a data directory: names, version, layout of its HDF5 files, and how to write one so that no half of it is ever seen.

    <data dir>/index.h5                 one table of all chains and all shards; written last, so a directory with it is complete
    <data dir>/structures-00000.h5 ...  sequences and coordinates
    <data dir>/alignments-00000.h5 ...  alignments and template hits
    <data dir>/rejected.csv             entries and chains that were left out, each with its reason
    <data dir>/query_differences.csv    chains whose alignment was made for other letters
    <data dir>/unused.csv               files and folders of the input that were not read
    <data dir>/verified.json            the record of the last successful `verify`, if any

Arrays of all chains of a shard lie end to end in one contiguous, uncompressed dataset each, with an offset table beside it, so that
a chain is one slice of the file. docs/data_format.md has the list of datasets.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np

FORMAT_NAME = "openfold-opt shards"
FORMAT_VERSION = 1

INDEX_FILE_NAME = "index.h5"
REJECTED_FILE_NAME = "rejected.csv"
VERIFIED_FILE_NAME = "verified.json"
STATE_DIR_NAME = ".convert"
"""Inside the data directory: files under construction, and what finished shards were made from."""

NUM_ATOM_TYPES = 37
PACKED_MASK_BYTES = 5
"""37 flags of one residue, packed to whole bytes (big-endian bit order, as numpy.packbits does)."""

_ALIGNMENT_BYTES = 64
"""Datasets begin at multiples of this, so that a view into the file is an aligned array."""


class ShardError(ValueError):
    """A data directory that cannot be used as it is: says which file, what was found, what was expected, and what to do."""


def shard_name(kind: str, number: int) -> str:
    """File name of a shard; kind is "structures" or "alignments"."""
    return f"{kind}-{number:05d}.h5"


def encode_strings(values: Iterable[str]) -> np.ndarray:
    """Strings as fixed-width UTF-8 bytes, as wide as the longest: S<width> [n]."""
    encoded = [value.encode("utf-8") for value in values]
    width = max((len(value) for value in encoded), default=1)
    return np.array(encoded, dtype=f"S{max(width, 1)}")


def decode_strings(values: np.ndarray) -> list[str]:
    """The inverse of encode_strings."""
    return [value.decode("utf-8") for value in values.tolist()]


def offsets(lengths: Iterable[int]) -> np.ndarray:
    """Where each of several arrays laid end to end begins, and where the last ends: int64 [n + 1]."""
    lengths = np.fromiter(lengths, dtype=np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def file_image(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, str | int]) -> memoryview:
    """A whole HDF5 file of contiguous datasets. The same contents give the same bytes: nothing of clock or machine goes in."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT_BYTES) as file:
        file.attrs["format_name"] = FORMAT_NAME
        file.attrs["format_version"] = FORMAT_VERSION
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    # a view: a copy would be as large as the shard once more
    return buffer.getbuffer()


def write_atomically(
    path: Path, contents: bytes | memoryview, *, scratch_dir: Path | None = None
) -> str:
    """Write a file under a temporary name, flush it to the disk, and rename it. Returns its sha256.

    If anything fails (a full disk, say), the temporary file is removed and what stood at `path` before is still there.
    """
    temporary = (scratch_dir or path.parent) / f"{path.name}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    return hashlib.sha256(contents).hexdigest()


def open_checked(path: Path) -> h5py.File:
    """Open one of our files for reading; ShardError if it is missing, damaged, of another kind or of another version."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ShardError(f"{path} {why_not_opened(path, error)}") from error
    found_name = file.attrs.get("format_name")
    found_version = file.attrs.get("format_version")
    if found_name != FORMAT_NAME or found_version != FORMAT_VERSION:
        file.close()
        raise ShardError(
            f"{path} has format {found_name!r}, version {found_version}; this program reads {FORMAT_NAME!r}, version "
            f"{FORMAT_VERSION}: convert the raw data again, or use the version of the program that wrote it"
        )
    return file


def why_not_opened(path: Path, error: OSError) -> str:
    """What an error of h5py means.

    Only a file that the system reads, and HDF5 does not, is damaged and may be removed.
    """
    if "unable to lock file" in str(error):
        return (
            f"is locked by another program, or its file system has no locks ({error}). The file is "
            "not damaged: wait until the program that writes it has finished, or set "
            "HDF5_USE_FILE_LOCKING=FALSE"
        )
    try:
        with open(path, "rb") as file:
            file.read(1)
    except FileNotFoundError:
        return "does not exist; expected a file written by `python -m data_prep convert`"
    except OSError as refusal:
        return _refused(refusal, "correct this")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return _refused(error, "raise the limit (ulimit -n)")
    return f"cannot be read as HDF5 ({error}); remove it and run the same `convert` again"


def _refused(error: OSError, remedy: str) -> str:
    found = f"cannot be opened: {error.strerror}"
    return f"{found}. The file need not be damaged: {remedy} and try again"


def content_checksum(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, str | int]) -> str:
    """sha256 over names, types, shapes and bytes of the contents, whatever HDF5 puts around them."""
    digest = hashlib.sha256()
    for name, value in sorted(attributes.items()):
        digest.update(f"{name}={value}\n".encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def sha256_of_file(path: Path, *, block_bytes: int = 1 << 22) -> str:
    """sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(block_bytes):
            digest.update(block)
    return digest.hexdigest()
