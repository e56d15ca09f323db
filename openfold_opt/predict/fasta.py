"""Reading of FASTA records, and what becomes of each letter of a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from openfold_opt.predict.chain_input import InputError
from openfold_opt.protein.residue_constants import restypes

AMINO_ACIDS = frozenset(restypes)
UNKNOWN = "X"
UNKNOWN_LETTERS = frozenset("XBJOUZ")
"""Letters that the model reads as an unknown residue, as AlphaFold does."""
_RESIDUE_LETTERS = AMINO_ACIDS | UNKNOWN_LETTERS
MIN_RESIDUES = 16
"""A shorter sequence is predicted with a warning."""
MAX_RESIDUES = 65_535
"""Alignment records number their columns with 16 bits."""
_MAX_NAMED_POSITIONS = 5


@dataclass(frozen=True, kw_only=True)
class FastaRecord:
    """A record of a FASTA file as written."""

    name: str
    """First word of the header; empty if there is none."""
    letters: str
    """The sequence without blanks."""
    number: int
    """Number of the record, from 1."""
    line: int
    """Line of the header, from 1."""


@dataclass(frozen=True, kw_only=True)
class CheckedSequence:
    """A sequence that can be predicted."""

    letters: str
    """In upper case, with B, J, O, U and Z as given."""
    warnings: tuple[str, ...]

    @property
    def sequence(self) -> str:
        """The letters of the model: the 20 amino acids and X."""
        return "".join(letter if letter in AMINO_ACIDS else UNKNOWN for letter in self.letters)


def parse_fasta(lines: Iterable[str], source: str) -> Iterator[FastaRecord]:
    """Yield the records of a FASTA file. Lines that begin with `;` or `#` are comments.

    Args:
        lines: lines of the file. They are read as records are requested.
        source: the file, for messages.

    Raises:
        InputError: there is no record, or text precedes the first header.
    """
    header: tuple[str, int] | None = None
    parts: list[str] = []
    number = 0
    for line_number, line in enumerate(lines, start=1):
        # NUL separates alignments in files of MMseqs2.
        line = line.strip().strip("\0")
        if line.startswith(">"):
            if header is not None:
                yield _record(header, parts, number)
            words = line[1:].split()
            header, parts, number = (words[0] if words else "", line_number), [], number + 1
        elif line and not line.startswith((";", "#")):
            if header is None:
                raise InputError(
                    f"{source}:{line_number}: found {line[:40]!r} before the first header; "
                    "expected a line with '>' and the name of a chain"
                )
            parts.append("".join(line.split()))
    if header is None:
        raise InputError(f"{source} has no sequence; expected lines '>name' and a sequence")
    yield _record(header, parts, number)


def _record(header: tuple[str, int], parts: list[str], number: int) -> FastaRecord:
    name, line = header
    return FastaRecord(name=name, letters="".join(parts), number=number, line=line)


def check_sequence(written: str) -> CheckedSequence:
    """Check the letters of a sequence. docs/predict_inputs.md has the table of letters.

    Raises:
        InputError: the sequence is empty, too long, or has a character that is no residue.
    """
    warnings = []
    without_stop = written.rstrip("*")
    if without_stop != written:
        warnings.append("the '*' at the end, a stop codon, is removed")
    if not without_stop:
        raise InputError("the sequence is empty; expected at least one residue")
    for position, letter in enumerate(without_stop, start=1):
        # A character outside of ASCII may have an upper case of several letters.
        if not letter.isascii() or letter.upper() not in _RESIDUE_LETTERS:
            raise InputError(_describe_bad_letter(letter, position))
    letters = without_stop.upper()
    if letters != without_stop:
        warnings.append("letters in lower case are read as upper case")
    if len(letters) > MAX_RESIDUES:
        raise InputError(
            f"the sequence has {len(letters):,} residues, expected at most {MAX_RESIDUES:,}; "
            "predict overlapping parts of it"
        )
    for letter in sorted(UNKNOWN_LETTERS & set(letters)):
        warnings.append(_describe_unknown(letter, letters))
    if len(letters) < MIN_RESIDUES:
        warnings.append(
            f"the sequence has {len(letters)} residues; predictions of fewer than {MIN_RESIDUES} "
            "are unreliable"
        )
    return CheckedSequence(letters=letters, warnings=tuple(warnings))


def _describe_bad_letter(letter: str, position: int) -> str:
    found = f"{letter!r} at position {position} of the sequence"
    if letter == ":":
        return (
            f"found {found}, which separates the chains of a complex; this model predicts single "
            "chains: write each chain as a record of its own"
        )
    if letter in "-.":
        return f"found the gap {found}; remove the gaps, since the sequence must be unaligned"
    if letter == "*":
        return f"found the stop codon {found}; expected it only at the end: cut the sequence there"
    return f"found {found}; expected letters of amino acids only (docs/predict_inputs.md)"


def _describe_unknown(letter: str, letters: str) -> str:
    positions = [str(i) for i, other in enumerate(letters, start=1) if other == letter]
    named = ", ".join(positions[:_MAX_NAMED_POSITIONS])
    if len(positions) > _MAX_NAMED_POSITIONS:
        named += f" and {len(positions) - _MAX_NAMED_POSITIONS} more"
    return (
        f"{letter} at {named}: the model reads an unknown residue and places no atoms there; "
        "write the most similar amino acid to get atoms"
    )
