"""Checks of the tables next to the entries, before any work is done.

A wrong table gives no error later. With a cluster file that contains none of the entries, no chain
would be in a cluster, and the training filter would exclude all chains.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_prep.errors import BrokenFile, DataPrepError, escaped
from data_prep.parsers.file_access import exists
from data_prep.parsers.input_files import read_text
from data_prep.parsers.tables import read_duplicates

_ENTITY = re.compile(r"[\w-]+_\d+")
_CHAIN = re.compile(r"[^\W_]+_\S+")
_MIN_KNOWN_FRACTION = 0.5
"""A cluster file that contains a smaller fraction of the entries is reported."""
_NUM_EXAMPLES = 3


def check_present(paths: Iterable[Path]) -> None:
    """Raise a DataPrepError that names all missing paths."""
    missing = [path for path in paths if not exists(path)]
    if missing:
        lines = [f"{path} does not exist" for path in missing]
        raise DataPrepError(
            "\n  ".join(["input is missing:", *lines])
            + "\n`python -m data_prep download --help` says where it comes from; your own entries "
            "need no tables with --own-data"
        )


def check_clusters(path: Path, clusters: Mapping[str, int], entries: Iterable[str]) -> None:
    """Check a table of clusters.

    A table that contains fewer than half of the entries is reported on stderr.

    Args:
        clusters: the table as `read_clusters` returns it.
        entries: PDB ids.

    Raises:
        BrokenFile: the file is not a table of clusters, or it contains none of the entries.
    """
    _refuse_web_page(path)
    _refuse_commas(path)
    strange = [key for key in clusters if not _ENTITY.fullmatch(key)]
    if len(strange) > len(clusters) / 2:
        raise BrokenFile(
            path,
            f"lists {_examples(strange)}; expected entities such as 1ABC_1 (<PDB id>_<entity "
            "number>), separated by blanks, not chains",
        )
    known = {key.rpartition("_")[0] for key in clusters}
    names = [entry.upper() for entry in entries]
    num_known = sum(name in known for name in names)
    if num_known == 0:
        raise BrokenFile(
            path,
            f"knows none of the {len(names)} entries ({_examples(names)}); expected the clusters "
            "of these entries. Entries of your own need no clusters with --own-data",
        )
    if num_known < _MIN_KNOWN_FRACTION * len(names):
        print(f"{path}: only {num_known} of {len(names)} entries are in a cluster", file=sys.stderr)


def check_duplicates(path: Path) -> None:
    """Check a table of chains that share an alignment.

    Raises:
        BrokenFile: the file is not such a table, or a chain is in two of its groups.
    """
    _refuse_web_page(path)
    _refuse_commas(path)
    names = read_text(path).split()
    strange = [name for name in names if not _CHAIN.fullmatch(name)]
    if len(strange) > len(names) / 2:
        raise BrokenFile(
            path, f"lists {_examples(strange)}; expected chains such as 1abc_A, separated by blanks"
        )
    read_duplicates(path)


def check_obsolete(path: Path) -> None:
    """Check a table of obsolete entries.

    Raises:
        BrokenFile: the file is not such a table.
    """
    _refuse_web_page(path)
    text = read_text(path)
    if text.strip() and "OBSLTE" not in text and "OBSOLETE" not in text:
        raise BrokenFile(
            path, f"begins with {text.strip()[:40]!r}; expected lines that begin with OBSLTE"
        )


def _refuse_web_page(path: Path) -> None:
    text = read_text(path)
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        raise BrokenFile(
            path, f"is a web page ({text.strip()[:40]!r}), not a table; fetch it again"
        )


def _refuse_commas(path: Path) -> None:
    text = read_text(path)
    separator = re.search("[,;]", text)
    if separator:
        start = text.rfind("\n", 0, separator.start()) + 1
        line = text[start : start + 40].splitlines()[0]
        raise BrokenFile(
            path,
            f"has commas or semicolons ({line!r}); expected names separated by blanks only",
        )


def _examples(names: list[str]) -> str:
    more = ", ..." if len(names) > _NUM_EXAMPLES else ""
    return escaped(", ".join(names[:_NUM_EXAMPLES]) + more)
