"""The tables next to the shards: what of the input is not in the data set, or differs from it."""

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
    """Write rejected.csv, query_differences.csv and unused.csv, each with its header even where it
    lists nothing."""
    _write(
        data_dir / shard_format.REJECTED_FILE_NAME,
        ("entry", "reason"),
        [(each.name, each.reason) for each in rejected],
    )
    _write(
        data_dir / DIFFERENCES_FILE_NAME,
        ("chain", "positions", "letters", "file"),
        [
            (each.chain_id, " ".join(map(str, each.positions)), " ".join(each.letters), each.file)
            for each in differences
        ],
    )
    _write(
        data_dir / UNUSED_FILE_NAME,
        ("path", "reason", "bytes"),
        [
            (each.path, each.reason, "" if each.size_bytes is None else each.size_bytes)
            for each in unused
        ],
    )


def read_listing(path: Path) -> list[dict[str, str]]:
    """The rows of one of these tables; none if there is no such file, as in data directories of
    earlier versions."""
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
