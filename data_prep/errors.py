"""The exceptions of data preparation."""

from __future__ import annotations


def escaped(path: object) -> str:
    """Return a path as text that can be encoded as UTF-8.

    Bytes of a file name that are not UTF-8 become escapes such as `\\xe9`.
    """
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def describe_error(error: BaseException) -> str:
    """Return the text of an error; of one of the system, the file and the cause, no number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return (
        error.strerror if error.filename is None else f"{escaped(error.filename)}: {error.strerror}"
    )


class DataPrepError(RuntimeError):
    """A wrong option, a missing file or another error of the whole command.

    The command ends. The message says what is wrong and how to fix it.
    """


class CannotRead(DataPrepError):
    """The operating system cannot read an input. The message names the path and the reason."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(
            f"cannot read {escaped(path)}: {reason}; repair this and run the same command again"
        )


class BrokenFile(ValueError):
    """The contents of an input file are damaged or have another format.

    The conversion reports the file and continues with the next one. The message names the file
    and, if known, the line.
    """

    def __init__(self, path: object, message: str, *, line: int | None = None) -> None:
        super().__init__(f"{escaped(path)}{'' if line is None else f':{line}'}: {message}")


class EntryRejected(ValueError):
    """A PDB entry is rejected. The message is the reason that is written to rejected.csv.

    The MLCommons reference rejects the same entries for the same reasons, except for FaultyEntry.
    """


class FaultyEntry(EntryRejected):
    """The file of a PDB entry is damaged.

    The conversion rejects the entry, continues, and ends with an exit code other than 0.
    """
