"""What parsers raise."""

from __future__ import annotations

from data_prep.parsers.file_access import printable


class EntryRejected(ValueError):
    """A PDB entry that is left out. The message is the reason that is written to rejected.csv.

    The benchmark's preprocessing leaves out the same entries for the same reasons.
    """


class FaultyEntry(EntryRejected):
    """An entry whose file is damaged: left out too, but the conversion says so by its exit code."""


class BrokenFile(ValueError):
    """An input file whose contents cannot be used.

    The message names the file, and the line where there is one.
    """

    def __init__(self, path: object, message: str, *, line: int | None = None) -> None:
        super().__init__(f"{printable(path)}{'' if line is None else f':{line}'}: {message}")
