"""Reading of the files that name the chains to predict: FASTA, .a3m, and directories of them."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from openfold_opt.predict.chain_input import ChainFailure, InputError
from openfold_opt.predict.fasta import FastaRecord, parse_fasta

A3M_SUFFIXES = (".a3m", ".a3m.gz")
FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fas", ".fasta.gz", ".fa.gz", ".faa.gz", ".fas.gz")
"""Of the files that are read in a directory; a file that is named itself may have any suffix."""
_ALIGNMENT_SUFFIXES = (".sto", ".sto.gz", ".hhr", ".hhr.gz")


@dataclass(frozen=True, kw_only=True)
class QueryRecord:
    """A chain as written in a file."""

    name: str
    letters: str
    origin: str
    """File and record, for messages."""
    msa_path: Path | None = None
    """The .a3m file whose first row is the chain."""


def read_records(paths: Sequence[Path]) -> tuple[list[QueryRecord], list[ChainFailure]]:
    """Return the chains of all files in their order, and a failure for each that is malformed.

    Raises:
        InputError: a path does not exist, or a directory has no file to read.
    """
    records: list[QueryRecord] = []
    failures: list[ChainFailure] = []
    first_of: dict[str, str] = {}
    for path in itertools.chain.from_iterable(map(_list_files, paths)):
        try:
            for record in _read_file(path):
                failure = _name_failure(record, first_of)
                if failure is None:
                    records.append(record)
                else:
                    failures.append(failure)
        except InputError as error:
            failures.append(ChainFailure(name=str(path), message=str(error)))
    return records, failures


def _name_failure(record: QueryRecord, first_of: dict[str, str]) -> ChainFailure | None:
    """Check that the name of a chain is unique, and add the name to `first_of`."""
    if not record.name:
        return ChainFailure(
            name=record.origin,
            message=f"{record.origin} has no name; write one after '>'",
        )
    first = first_of.setdefault(record.name, record.origin)
    if first != record.origin:
        return ChainFailure(
            name=record.name,
            message=f"{record.origin} has the name of {first}; give each chain its own name",
        )
    return None


def _list_files(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a FASTA file, an .a3m file or a folder")
    if not path.is_dir():
        if path.name.endswith(_ALIGNMENT_SUFFIXES):
            raise InputError(
                f"{path} is no file of sequences; give the sequence as FASTA, and this file with "
                "--alignments"
            )
        return [path]
    names = (*FASTA_SUFFIXES, *A3M_SUFFIXES)
    files = sorted(file for file in path.iterdir() if file.name.endswith(names))
    if not files:
        raise InputError(
            f"{path} has no file to read; expected names that end in {', '.join(names)}"
        )
    return files


def _read_file(path: Path) -> Iterator[QueryRecord]:
    if not path.name.endswith(A3M_SUFFIXES):
        with _open_text(path) as file:
            for record in parse_fasta(file, str(path)):
                yield QueryRecord(
                    name=record.name, letters=record.letters, origin=_describe(path, record)
                )
        return
    # The other rows are not used here. Their names may have any bytes.
    with _open_text(path, errors="replace") as file:
        row = next(parse_fasta(file, str(path)))
    insertions = [letter for letter in row.letters if letter.islower()]
    if insertions:
        raise InputError(
            f"{path}: the first row, the query, has {insertions[0]!r} in lower case, which is an "
            "insertion; expected the sequence in upper case"
        )
    yield QueryRecord(
        name=path.name.removesuffix(".gz").removesuffix(".a3m"),
        letters=row.letters,
        origin=str(path),
        msa_path=path,
    )


def _describe(path: Path, record: FastaRecord) -> str:
    return f"{path}, record {record.number} (line {record.line})"


@contextmanager
def _open_text(path: Path, *, errors: str = "strict") -> Iterator[TextIO]:
    """Open a text file, uncompressed or .gz; convert errors while it is read to InputError.

    Args:
        errors: as for `open`: what becomes of bytes that are not UTF-8.
    """
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rt", encoding="utf-8-sig", errors=errors) as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8 ({error}); expected FASTA") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
