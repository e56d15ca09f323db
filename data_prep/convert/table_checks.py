"""Whether the tables next to the entries are what they should be, checked before any work is done.

A wrong table gives no error later. With a cluster file that knows none of the entries, every chain
would be in no cluster, and the training filter would leave out all of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_prep.errors import DataPrepError
from data_prep.parsers.errors import BrokenFile
from data_prep.parsers.file_access import exists, printable
from data_prep.parsers.sources import read_text
from data_prep.parsers.tables import read_duplicates

_ENTITY = re.compile(r"[\w-]+_\d+")
_CHAIN = re.compile(r"[^\W_]+_\S+")
_FEW = 0.5
"""A cluster file that knows a smaller part of the entries is reported."""
_SHOWN = 3


def check_present(paths: Iterable[Path]) -> None:
    """DataPrepError that names everything that is not there."""
    missing = [path for path in paths if not exists(path)]
    if missing:
        lines = [f"{path} does not exist" for path in missing]
        raise DataPrepError(
            "\n  ".join(["input is missing:", *lines])
            + "\n`python -m data_prep download --help` says where it comes from; your own entries "
            "need no tables with --own-data"
        )


def check_clusters(path: Path, clusters: Mapping[str, int], entries: Iterable[str]) -> None:
    """BrokenFile if a table of clusters (`read_clusters`) is of another kind, or knows none of the
    entries (PDB ids).

    One that knows few of them is reported on stderr.
    """
    _refuse_web_page_and_commas(path)
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
    if num_known < _FEW * len(names):
        print(f"{path}: only {num_known} of {len(names)} entries are in a cluster", file=sys.stderr)


def check_duplicates(path: Path) -> None:
    """BrokenFile if a table of chains that share an alignment is of another kind.

    Also if a chain is in two of its groups.
    """
    _refuse_web_page_and_commas(path)
    names = read_text(path).split()
    strange = [name for name in names if not _CHAIN.fullmatch(name)]
    if len(strange) > len(names) / 2:
        raise BrokenFile(
            path, f"lists {_examples(strange)}; expected chains such as 1abc_A, separated by blanks"
        )
    read_duplicates(path)


def check_obsolete(path: Path) -> None:
    """BrokenFile if a table of obsolete entries is of another kind."""
    text = read_text(path)
    if text.strip() and "OBSLTE" not in text and "OBSOLETE" not in text:
        raise BrokenFile(
            path, f"begins with {text.strip()[:40]!r}; expected lines that begin with OBSLTE"
        )


def _refuse_web_page_and_commas(path: Path) -> None:
    text = read_text(path)
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        raise BrokenFile(
            path, f"is a web page ({text.strip()[:40]!r}), not a table; fetch it again"
        )
    found = re.search("[,;]", text)
    if found:
        start = text.rfind("\n", 0, found.start()) + 1
        raise BrokenFile(
            path,
            f"has commas or semicolons ({text[start : start + 40].splitlines()[0]!r}); expected names "
            "separated by blanks only",
        )


def _examples(names: list[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return printable(", ".join(names[:_SHOWN]) + more)
