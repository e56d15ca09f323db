"""What conversion reports about the input: errors, rejections, different queries, unused files."""

from __future__ import annotations

import dataclasses

from data_prep.errors import escaped


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """An entry or a chain that is not in the data set."""

    name: str
    """PDB id of an entry, or `<PDB id>_<author chain>`."""
    reason: str
    is_chain: bool
    is_faulty: bool
    """True: the input is damaged. False: the benchmark rejects it too, or a filter of `distill`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryDifference:
    """A chain whose alignment has a query with other letters."""

    chain_id: str
    file: str
    """Name of the alignment file."""
    positions: tuple[int, ...]
    """Residues of the chain, counted from 1."""
    letters: tuple[str, ...]
    """`<letter of the chain>><letter of the alignment>` for each position."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unused:
    """A file or folder of the input that conversion does not read."""

    path: str
    reason: str
    size_bytes: int | None
    """None for a folder, which is not opened, and for a file of unknown size."""


class Findings:
    """Errors, rejections and different queries in the inputs of one shard."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        """Messages about input that could not be read. If there are any, no shard is written."""
        self.rejected: list[Rejection] = []
        self.differences: list[QueryDifference] = []

    def add_error(self, error: Exception) -> None:
        """Record an error. The conversion stops after the other shards are finished."""
        self.errors.append(str(error))

    def reject_entry(self, name: str, error: Exception, *, is_faulty: bool) -> None:
        """Reject an entry."""
        self.rejected.append(
            Rejection(
                name=escaped(name),
                reason=_one_line(error),
                is_chain=False,
                is_faulty=is_faulty,
            )
        )

    def reject_chain(self, chain_id: str, error: Exception, *, is_faulty: bool = True) -> None:
        """Reject a chain because of its alignment.

        The benchmark's preprocessing would stop at a faulty alignment, or accept it.
        """
        self.rejected.append(
            Rejection(name=chain_id, reason=_one_line(error), is_chain=True, is_faulty=is_faulty)
        )

    def as_json(self) -> dict[str, list]:
        """Return rejections and differences for the state file of a finished shard."""
        return {
            "rejected": [dataclasses.asdict(rejection) for rejection in self.rejected],
            "differences": [dataclasses.asdict(difference) for difference in self.differences],
        }

    @classmethod
    def from_json(cls, stored: dict[str, list]) -> Findings:
        """Return the findings that `as_json` stored.

        Raises:
            KeyError, TypeError: `stored` has another form.
        """
        findings = cls()
        findings.rejected = [Rejection(**fields) for fields in stored["rejected"]]
        for fields in stored["differences"]:
            positions, letters = tuple(fields.pop("positions")), tuple(fields.pop("letters"))
            findings.differences.append(
                QueryDifference(**fields, positions=positions, letters=letters)
            )
        return findings


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
