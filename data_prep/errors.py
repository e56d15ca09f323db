"""The exceptions of data preparation."""

from __future__ import annotations


def printable(path: object) -> str:
    """Return a path as text that can be encoded as UTF-8.

    Bytes of a file name that are not UTF-8 become escapes such as `\\xe9`.
    """
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class DataPrepError(RuntimeError):
    """An error that the user can fix.

    It ends a command with its message and without a traceback. The message says what is wrong and
    how to fix it.
    """


class CannotRead(DataPrepError):
    """Input exists but cannot be read. The message names the path and the reason."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(
            f"cannot read {printable(path)}: {reason}; repair this and run the same command again"
        )


class BrokenFile(ValueError):
    """The contents of an input file cannot be used.

    The message names the file and, if known, the line.
    """

    def __init__(self, path: object, message: str, *, line: int | None = None) -> None:
        super().__init__(f"{printable(path)}{'' if line is None else f':{line}'}: {message}")


class EntryRejected(ValueError):
    """A PDB entry is rejected. The message is the reason that is written to rejected.csv.

    The benchmark's preprocessing rejects the same entries for the same reasons.
    """


class FaultyEntry(EntryRejected):
    """The file of a PDB entry is damaged.

    The entry is rejected, and the conversion reports it with its exit code.
    """
