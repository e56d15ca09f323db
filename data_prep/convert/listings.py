"""The tables next to the shards: rejected, different and unused input."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_prep.convert.findings import QueryDifference, Rejection, Unused
from openfold_opt.protein import shard_format

UNUSED_FILE_NAME = "unused.csv"
DIFFERENCES_FILE_NAME = "query_differences.csv"


def write_listings(
    data_dir: Path,
    *,
    rejected: Iterable[Rejection],
    differences: Iterable[QueryDifference],
    unused: Iterable[Unused],
) -> None:
    """Write rejected.csv, query_differences.csv and unused.csv.

    Each has its header even if it has no rows.
    """
    _write(
        data_dir / shard_format.REJECTED_FILE_NAME,
        ("entry", "reason"),
        [(rejection.name, rejection.reason) for rejection in rejected],
    )
    _write(
        data_dir / DIFFERENCES_FILE_NAME,
        ("chain", "positions", "letters", "file"),
        [
            (row.chain_id, " ".join(map(str, row.positions)), " ".join(row.letters), row.file)
            for row in differences
        ],
    )
    _write(
        data_dir / UNUSED_FILE_NAME,
        ("path", "reason", "bytes"),
        [
            (item.path, item.reason, "" if item.size_bytes is None else item.size_bytes)
            for item in unused
        ],
    )


def read_listing(path: Path) -> list[dict[str, str]]:
    """Return the rows of one of these tables.

    Data directories of earlier versions may lack the file; the result is then empty.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    contents = text.getvalue().encode("utf-8", "backslashreplace")
    shard_format.write_atomically(
        path, contents, scratch_dir=path.parent / shard_format.STATE_DIR_NAME
    )
