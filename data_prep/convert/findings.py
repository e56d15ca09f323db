"""What conversion found in the input, apart from the data: errors, what was rejected and why, and
queries that differ."""

from __future__ import annotations

import dataclasses

from data_prep.parsers.file_access import printable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """An entry or a chain that is left out of the data set."""

    name: str
    """PDB id of an entry, or `<PDB id>_<author chain>`."""
    reason: str
    is_chain: bool
    is_faulty: bool
    """True: the input is damaged. False: the benchmark leaves it out too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryDifference:
    """A chain whose alignment was made for a sequence with other letters."""

    chain_id: str
    file: str
    """Name of the alignment file."""
    positions: tuple[int, ...]
    """Residues of the chain, from 1."""
    letters: tuple[str, ...]
    """For each position `<letter of the chain>><letter of the alignment>`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unused:
    """A file or folder of the input that conversion does not read."""

    path: str
    reason: str
    size_bytes: int | None
    """None for a folder, which is not opened to find out, and where the size is unknown."""


class Findings:
    """What was found in the inputs of one shard."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        """Input that could not be read: the shard is not written."""
        self.rejected: list[Rejection] = []
        self.differences: list[QueryDifference] = []

    def add_error(self, error: Exception) -> None:
        """Stop the conversion once the other shards are finished."""
        self.errors.append(str(error))

    def reject_entry(self, name: str, error: Exception, *, is_faulty: bool) -> None:
        """Leave out an entry."""
        self.rejected.append(
            Rejection(
                name=printable(name), reason=_one_line(error), is_chain=False, is_faulty=is_faulty
            )
        )

    def reject_chain(self, chain_id: str, error: Exception) -> None:
        """Leave out a chain, whose alignment is faulty.

        The benchmark's preprocessing would stop, or take it.
        """
        self.rejected.append(
            Rejection(name=chain_id, reason=_one_line(error), is_chain=True, is_faulty=True)
        )

    def as_json(self) -> dict[str, list]:
        """Rejections and differences for the state of a finished shard."""
        return {
            "rejected": [dataclasses.asdict(each) for each in self.rejected],
            "differences": [dataclasses.asdict(each) for each in self.differences],
        }

    @classmethod
    def from_json(cls, stored: dict[str, list]) -> Findings:
        """The inverse of as_json. KeyError or TypeError if it is not that."""
        findings = cls()
        findings.rejected = [Rejection(**each) for each in stored["rejected"]]
        for each in stored["differences"]:
            positions, letters = tuple(each.pop("positions")), tuple(each.pop("letters"))
            findings.differences.append(
                QueryDifference(**each, positions=positions, letters=letters)
            )
        return findings


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
