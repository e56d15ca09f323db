"""The record that `verify` leaves in a data directory."""

from __future__ import annotations

import json
from pathlib import Path

from openfold_opt.protein.shard_format import VERIFIED_FILE_NAME


def verified_checksum(data_dir: str | Path) -> str | None:
    """Checksum of the index for which every shard was last verified; None if there is no (readable) record.

    Equal to `ShardIndex.checksum` means: this very data set was read and hashed, and was right.
    """
    path = Path(data_dir) / VERIFIED_FILE_NAME
    if not path.is_file():
        return None
    try:
        checksum = json.loads(path.read_text())["index_checksum"]
    except (ValueError, KeyError, TypeError):
        return None
    return checksum if isinstance(checksum, str) else None
