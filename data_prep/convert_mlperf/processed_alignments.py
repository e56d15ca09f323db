"""Alignments of a processed data set.

Files are concatenated in `<n>.db`; `super.index` lists their offsets and sizes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.convert.alignment_files import choose_benchmark_files
from data_prep.convert.alignment_sources import AlignmentUnit
from data_prep.convert.plan import file_fingerprint
from data_prep.errors import BrokenFile, DataPrepError
from data_prep.parsers.input_files import FileSlice

INDEX_NAME = "super.index"


class SuperIndex:
    """The files of each chain's alignment, from `super.index`."""

    def __init__(self, folder: Path) -> None:
        """Read and check the index.

        Raises:
            DataPrepError: the index does not exist.
            BrokenFile: the index is malformed, or a file is outside its database.
        """
        self.path = folder / INDEX_NAME
        if not self.path.is_file():
            raise DataPrepError(
                f"{self.path} does not exist; expected the folder of the processed alignments: "
                f"{INDEX_NAME} and 0.db, 1.db, ..."
            )
        try:
            self._chains = json.loads(self.path.read_bytes())
        except ValueError as error:
            raise BrokenFile(self.path, f"is not JSON ({error}); fetch it again") from error
        if not isinstance(self._chains, dict):
            raise BrokenFile(
                self.path, f"holds a {type(self._chains).__name__}, expected an object of chains"
            )
        # Of the .db files, by name.
        self._sizes: dict[str, int] = {}
        self._fingerprints: dict[str, list[Any]] = {}
        self._name_of: dict[tuple[Any, ...], str] = {}
        """Maps (db, files) to the name of the alignment, which is the first chain with these."""
        self._alignment_of = {
            chain_id: self._alignment_id(chain_id, where)
            for chain_id, where in self._chains.items()
        }

    def _alignment_id(self, chain_id: str, where: Any) -> str:
        """Check the index entry of a chain and return the name of its alignment."""
        try:
            files = tuple(
                (str(name), int(start), int(size)) for name, start, size in where["files"]
            )
            key = (str(where["db"]), files)
        except (TypeError, KeyError, ValueError) as error:
            raise BrokenFile(
                self.path,
                f"chain {chain_id}: expected {{db, files: [[name, start, size], ...]}}, found "
                f"{str(where)[:80]}",
            ) from error
        if key not in self._name_of:
            self._check(chain_id, *key)
        # Each chain without files gets its own alignment: nothing shows that they share one.
        return self._name_of.setdefault(key, chain_id) if files else chain_id

    def _check(self, chain_id: str, database: str, files: tuple[tuple[str, int, int], ...]) -> None:
        path = self.path.parent / database
        if Path(database).name != database or not path.is_file():
            raise BrokenFile(
                self.path,
                f"chain {chain_id} is in {database!r}, which is not in {self.path.parent}; "
                "fetch it",
            )
        if database not in self._sizes:
            self._sizes[database] = path.stat().st_size
            self._fingerprints[database] = file_fingerprint(path, self.path.parent)
        for name, start, size in files:
            if start < 0 or size < 0 or start + size > self._sizes[database]:
                raise BrokenFile(
                    self.path,
                    f"{name} of chain {chain_id} is bytes {start} to {start + size} of {path}, "
                    f"which has {self._sizes[database]}; fetch it again",
                )

    def chains_by_alignment(
        self, chain_ids: Iterable[str]
    ) -> tuple[dict[str, list[str]], list[str]]:
        """Map alignments to the chains that use them, in the order of chain_ids.

        Returns:
            The map, and the chains without an alignment.
        """
        users: dict[str, list[str]] = {}
        missing = []
        for chain_id in chain_ids:
            if chain_id in self._alignment_of:
                users.setdefault(self._alignment_of[chain_id], []).append(chain_id)
            else:
                missing.append(chain_id)
        return users, missing

    def unit(self, alignment_id: str, members: Sequence[str]) -> AlignmentUnit:
        """Return the unit of an alignment, with the files that the benchmark reads."""
        where: Mapping[str, Any] = self._chains[alignment_id]
        path = self.path.parent / where["db"]
        present = {
            name: FileSlice(path=path, name=name, start=start, size=size)
            for name, start, size in where["files"]
        }
        msa_files, hit_files = choose_benchmark_files(present)
        return AlignmentUnit(
            alignment_id=alignment_id,
            msa_paths=tuple(msa_files),
            hits_paths=tuple(hit_files),
            members=tuple(members),
            size_bytes=sum(file.uncompressed_size() for file in [*msa_files, *hit_files]),
            fingerprint=[
                alignment_id,
                list(members),
                self._fingerprints[where["db"]],
                where["files"],
            ],
        )
