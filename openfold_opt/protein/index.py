"""The index of a data directory: the chain table and the list of shards with their checksums."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openfold_opt.protein import shard_format
from openfold_opt.protein.records import ChainEntry
from openfold_opt.protein.shard_format import ShardError

_STRING_COLUMNS = ("chain_id", "release_date", "method")
_INTEGER_COLUMNS = (
    "cluster_id",
    "sequence_length",
    "commonest_letter_count",
    "num_alignments",
    "num_template_hits",
    "structure_shard",
    "structure_row",
    "alignment_shard",
    "alignment_row",
    "hit_set",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardFile:
    """The index entry of a shard."""

    name: str
    sha256: str
    size_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The chain table and the list of shards.

    Chains are in canonical order: by folder and name of the mmCIF file, then by entity, then in the
    order of `_struct_asym`.
    """

    format_version: int
    checksum: str
    """SHA-256 of the contents of the index.

    It identifies the data set, because the contents include the checksums of the shards.
    """
    chains: tuple[ChainEntry, ...]
    shards: tuple[ShardFile, ...]
    missing_alignments: str
    """Value of `convert --missing-alignments`: "error" or "query"."""
    num_entries: int
    """Number of PDB entries in the input, including the rejected ones."""
    num_rejected_entries: int

    @functools.cached_property
    def by_id(self) -> dict[str, ChainEntry]:
        """Chain id -> row of the chain table."""
        return {chain.chain_id: chain for chain in self.chains}

    @classmethod
    def load(cls, data_dir: str | Path) -> ShardIndex:
        """Read `<data_dir>/index.h5` and verify its checksum.

        Raises:
            ShardError: The directory is missing or empty, the conversion is unfinished, or the
                index is damaged or has another format.
        """
        path = _index_path(Path(data_dir))
        with shard_format.open_checked(path) as file:
            try:
                arrays = {name: dataset[()] for name, dataset in file.items()}
            except OSError as error:
                raise ShardError(
                    f"{path} is damaged ({error}); remove it and run the same `convert` again"
                ) from error
            attributes = {
                name: file.attrs[name]
                for name in ("missing_alignments", "num_entries", "num_rejected_entries")
            }
            stored_checksum = file.attrs["checksum"]
        checksum = shard_format.content_checksum(arrays, attributes)
        if checksum != stored_checksum:
            raise ShardError(
                f"{path} is damaged: its contents have sha256 {checksum}, "
                f"expected {stored_checksum}; remove it and run the same `convert` again"
            )
        return cls(
            format_version=shard_format.FORMAT_VERSION,
            checksum=checksum,
            chains=_chains_from_columns(arrays),
            shards=_shards_from_columns(arrays),
            missing_alignments=str(attributes["missing_alignments"]),
            num_entries=int(attributes["num_entries"]),
            num_rejected_entries=int(attributes["num_rejected_entries"]),
        )


def verified_checksum(data_dir: str | Path) -> str | None:
    """Return the index checksum that the last successful `verify` recorded, or None.

    If it is equal to `ShardIndex.checksum`, all shards of this data set were verified.
    """
    path = Path(data_dir) / shard_format.VERIFIED_FILE_NAME
    if not path.is_file():
        return None
    try:
        checksum = json.loads(path.read_text())["index_checksum"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return checksum if isinstance(checksum, str) else None


def encode_index(
    chains: Sequence[ChainEntry], shards: Sequence[ShardFile], *, attributes: dict[str, str | int]
) -> memoryview:
    """Return the bytes of an index file.

    Args:
        attributes: missing_alignments, num_entries and num_rejected_entries.
    """
    arrays = {
        name: shard_format.encode_strings(getattr(chain, name) for chain in chains)
        for name in _STRING_COLUMNS
    }
    arrays["mmcif_chain_ids"] = shard_format.encode_strings(
        ";".join(chain.mmcif_chain_ids) for chain in chains
    )
    arrays["alignment_id"] = shard_format.encode_strings(
        chain.alignment_id or "" for chain in chains
    )
    arrays["resolution"] = np.array(
        [math.nan if chain.resolution is None else chain.resolution for chain in chains],
        dtype=np.float64,
    )
    for name in _INTEGER_COLUMNS:
        arrays[name] = np.array([getattr(chain, name) for chain in chains], dtype=np.int64)
    arrays["shard_name"] = shard_format.encode_strings(shard.name for shard in shards)
    arrays["shard_sha256"] = shard_format.encode_strings(shard.sha256 for shard in shards)
    arrays["shard_size_bytes"] = np.array([shard.size_bytes for shard in shards], dtype=np.int64)
    checksum = shard_format.content_checksum(arrays, attributes)
    return shard_format.encode_file(arrays, {**attributes, "checksum": checksum})


def _index_path(data_dir: Path) -> Path:
    if not data_dir.is_dir():
        raise ShardError(
            f"data directory {data_dir} does not exist; "
            "create it with `python -m data_prep convert`"
        )
    path = data_dir / shard_format.INDEX_FILE_NAME
    if path.is_file():
        return path
    if (data_dir / shard_format.STATE_DIR_NAME).is_dir():
        raise ShardError(
            f"conversion into {data_dir} is not finished (no {path.name}); "
            "run the same `convert` again to resume it"
        )
    state = "is empty" if not any(data_dir.iterdir()) else f"has no {path.name}"
    raise ShardError(
        f"data directory {data_dir} {state}; expected shards made by `python -m data_prep convert`"
    )


def _chains_from_columns(arrays: dict[str, np.ndarray]) -> tuple[ChainEntry, ...]:
    columns: dict[str, list] = {
        name: shard_format.decode_strings(arrays[name]) for name in _STRING_COLUMNS
    }
    columns.update({name: arrays[name].tolist() for name in _INTEGER_COLUMNS})
    columns["mmcif_chain_ids"] = [
        tuple(ids.split(";")) for ids in shard_format.decode_strings(arrays["mmcif_chain_ids"])
    ]
    columns["alignment_id"] = [
        name or None for name in shard_format.decode_strings(arrays["alignment_id"])
    ]
    columns["resolution"] = [
        None if math.isnan(value) else value for value in arrays["resolution"].tolist()
    ]
    names = list(columns)
    return tuple(ChainEntry(**dict(zip(names, values))) for values in zip(*columns.values()))


def _shards_from_columns(arrays: dict[str, np.ndarray]) -> tuple[ShardFile, ...]:
    names = shard_format.decode_strings(arrays["shard_name"])
    checksums = shard_format.decode_strings(arrays["shard_sha256"])
    sizes = arrays["shard_size_bytes"].tolist()
    return tuple(
        ShardFile(name=name, sha256=sha256, size_bytes=size)
        for name, sha256, size in zip(names, checksums, sizes)
    )
