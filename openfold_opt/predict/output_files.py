"""Files of one chain, written under temporary names and renamed when the chain is complete.

file_names.py lists the kinds of files and the ends of their names. With one set of weights, the
files of a chain have the names STEM.cif, STEM_confidence.json, ... With several, every set of
weights has these files with the stem STEM_rank_1_WEIGHTS, STEM_rank_2_WEIGHTS, ...; the best ones
of some kinds have a copy STEM.cif, ... The record STEM.json (chain_record.py) is written last.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from openfold_opt.predict.file_names import (
    KINDS_OF_THE_BEST,
    PAE,
    STRUCTURE,
    SUFFIXES,
    TEMPORARY_SUFFIX,
    ranked_stem,
)
from openfold_opt.predict.row_files import RowFile, naming_file, write_archive

PAE_ROWS = "pae_rows"
"""Scratch file with the rows of the aligned error."""
FULL_DISK_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space left on the device, the quota is used up, or the file would be too large."""


class ChainFiles:
    """The files of one chain while it is predicted."""

    def __init__(self, folder: Path, stem: str, weights: Sequence[str]) -> None:
        """weights: names of the sets of weights, in the order of the command line."""
        self._folder, self._stem, self._weights = folder, stem, tuple(weights)
        self._rows: dict[tuple[str, str], RowFile] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self._sizes: dict[str, int] = {}

    def path(self, weights: str, kind: str) -> Path:
        """Return the temporary path of a file, for a function that writes it.

        `finish` gives the file its name, and `discard` removes it.
        """
        path = self._temporary_path(str(self._weights.index(weights)), kind)
        self._paths[weights, kind] = path
        return path

    def write(self, weights: str, kind: str, blocks: Iterable[str]) -> None:
        """Write a text file from its parts. Raises OSError if the disk is full."""
        path = self.path(weights, kind)
        with naming_file(path), open(path, "w", encoding="utf-8", newline="") as file:
            for block in blocks:
                file.write(block)

    def row_file(
        self, weights: str, kind: str, *, num_rows: int, is_square: bool = True
    ) -> RowFile:
        """Return the sink of the rows of a matrix (PAE, DISTOGRAM, SINGLE or PAIR)."""
        path = self.path(weights, PAE_ROWS if kind == PAE else kind)
        self._rows[weights, kind] = RowFile(path, num_rows=num_rows, is_square=is_square)
        return self._rows[weights, kind]

    def close_rows(self, weights: str) -> list[str]:
        """Complete the matrices of a set of weights, and return warnings about their values.

        Raises:
            ValueError: rows are missing.
            OSError: the disk is full.
        """
        warnings = []
        for (name, kind), rows in self._rows.items():
            if name != weights:
                continue
            rows.close()
            if kind == PAE:
                write_archive(self.path(weights, PAE), PAE, rows.path)
            if rows.num_limited:
                warnings.append(
                    f"{rows.num_limited:,} values of {SUFFIXES[kind]} of {weights} are beyond the "
                    "range of float16 and were replaced by its largest value"
                )
        return warnings

    def matrix(self, weights: str, kind: str) -> np.ndarray | None:
        """Return a matrix, memory-mapped, after `close_rows`; None if it is not written."""
        rows = self._rows.get((weights, kind))
        return None if rows is None else np.load(rows.path, mmap_mode="r")

    def finish(self, ranking: Sequence[str]) -> list[dict[str, str]]:
        """Give all files their names, and return the names by kind, best first.

        Args:
            ranking: names of the weights, best first.

        Raises:
            OSError: the disk is full.
        """
        names: list[dict[str, str]] = []
        paths: dict[str, Path] = {}
        for rank, weights in enumerate(ranking, start=1):
            is_one = len(self._weights) == 1
            stem = self._stem if is_one else ranked_stem(self._stem, rank, weights)
            kinds = [kind for kind in SUFFIXES if (weights, kind) in self._paths]
            names.append({kind: stem + SUFFIXES[kind] for kind in kinds})
            paths |= {names[-1][kind]: self._paths[weights, kind] for kind in kinds}
            if not is_one and rank == 1:
                paths |= self._copies(weights, [k for k in kinds if k in KINDS_OF_THE_BEST])
        for name, path in paths.items():
            self._sizes[name] = _flush(path)
        for name, path in paths.items():
            os.replace(path, self._folder / name)
        self.discard()
        return names

    def _copies(self, weights: str, kinds: Sequence[str]) -> dict[str, Path]:
        """Copy files of the best weights, and return the copies by the names they will get."""
        copies = {}
        for kind in kinds:
            copy = self._temporary_path("best", kind)
            self._paths["", kind] = copies[self._stem + SUFFIXES[kind]] = copy
            with naming_file(copy):
                shutil.copyfile(self._paths[weights, kind], copy)
        return copies

    @property
    def best_structure(self) -> str:
        """Name of the file with the best structure."""
        return self._stem + SUFFIXES[STRUCTURE]

    @property
    def sizes(self) -> dict[str, int]:
        """Size in bytes of each file, by name, after `finish`."""
        return dict(sorted(self._sizes.items()))

    def discard(self) -> None:
        """Remove temporary files."""
        for rows in self._rows.values():
            rows.discard()
        for path in self._paths.values():
            path.unlink(missing_ok=True)
        self._rows.clear()
        self._paths.clear()

    def _temporary_path(self, part: str, kind: str) -> Path:
        return self._folder / f"{self._stem}.{part}.{kind}{TEMPORARY_SUFFIX}"


def temporary_patterns() -> Iterator[str]:
    """Yield patterns of the temporary files that an interrupted run leaves."""
    for kind in (*SUFFIXES, PAE_ROWS):
        yield f"*.{kind}{TEMPORARY_SUFFIX}"


def _flush(path: Path) -> int:
    """Write a file to the disk, and return its size in bytes."""
    with naming_file(path), open(path, "rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def is_full_disk(error: BaseException) -> bool:
    """Return whether an exception or one of its causes is a full disk."""
    return any(
        isinstance(cause, OSError) and cause.errno in FULL_DISK_NUMBERS for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
