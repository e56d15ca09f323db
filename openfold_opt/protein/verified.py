"""The record that `verify` writes to a data directory."""

from __future__ import annotations

import json
from pathlib import Path

from openfold_opt.protein.shard_format import VERIFIED_FILE_NAME


def verified_checksum(data_dir: str | Path) -> str | None:
    """Return the index checksum of the last successful `verify`, or None without a valid record.

    If it is equal to `ShardIndex.checksum`, all shards of this data set were verified.
    """
    path = Path(data_dir) / VERIFIED_FILE_NAME
    if not path.is_file():
        return None
    try:
        checksum = json.loads(path.read_text())["index_checksum"]
    except (ValueError, KeyError, TypeError):
        return None
    return checksum if isinstance(checksum, str) else None
