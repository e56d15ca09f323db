"""Lists of predicted and true structures, and which of them belong together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.comparison.sequence_matching import MatchError, match_chain
from openfold_opt.predict.comparison.structure_reader import (
    STRUCTURE_SUFFIXES,
    read_structures,
    structure_stem,
)
from openfold_opt.predict.summary import SUMMARY_FILE, read_identity
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.shard_format import INDEX_FILE_NAME, ShardError


class PathError(ValueError):
    """A path is no structure file and no directory with structures."""


class NoTruthError(ValueError):
    """There is no true structure of a prediction."""


@dataclass(frozen=True, kw_only=True)
class PredictionFile:
    """A file with a prediction."""

    stem: str
    """Start of its name, which is unique in its directory."""
    name: str
    """Name of the chain; the same as stem if nothing else is known."""
    path: Path


def list_predictions(path: Path) -> list[PredictionFile]:
    """Return the predictions of a file or a directory, ordered by name.

    In an output directory of openfold_opt.predict these are the best structures of the finished
    chains, without relaxation. In another directory these are all structure files.

    Raises:
        PathError: the path does not exist, or there is no prediction.
    """
    if not path.exists():
        raise PathError(f"{path} does not exist; expected a structure file or a directory")
    if not path.is_dir():
        stem = structure_stem(path) or path.stem
        return [PredictionFile(stem=stem, name=stem, path=path)]
    if (path / SUMMARY_FILE).exists():
        read_identity(path)  # Raises ValueError if this is no summary of a prediction.
        content = json.loads((path / SUMMARY_FILE).read_text(encoding="utf-8"))
        predictions = [
            PredictionFile(
                stem=entry["stem"], name=entry["name"], path=path / Path(entry["structure"]).name
            )
            for entry in content["chains"]
            if entry["status"] == "finished"
        ]
    else:
        predictions = [
            PredictionFile(stem=stem, name=stem, path=file)
            for stem, file in _files_by_stem(path).items()
        ]
    if not predictions:
        raise PathError(f"directory {path} has no predicted structures")
    return sorted(predictions, key=lambda prediction: prediction.stem)


class TrueStructures:
    """True structures, found by the name of a prediction."""

    def __init__(
        self, paths: Sequence[Path], *, on_warning: Callable[[str], None] | None = None
    ) -> None:
        """List the files.

        Args:
            paths: structure files, directories of them, and directories of shards. Subdirectories
                are not searched.
            on_warning: receives a line about each property of a file that is ignored.

        Raises:
            PathError: a path does not exist, a directory has no structure files, or shards cannot
                be read.
        """
        self._by_stem: dict[str, Path] = {}
        self._files: list[Path] = []
        self._shards: dict[Path, ShardReader] = {}
        for path in paths:
            if (path / INDEX_FILE_NAME).is_file():
                self._shards[path] = _open_shards(path)
            elif path.is_dir():
                self._by_stem = _files_by_stem(path) | self._by_stem
            elif path.exists():
                self._files.append(path)
                self._by_stem = {structure_stem(path) or path.stem: path} | self._by_stem
            else:
                raise PathError(f"{path} does not exist; expected a structure file or a directory")
        # Many chains of one entry follow each other.
        self._read = lru_cache(maxsize=1)(lambda path: read_structures(path, on_warning=on_warning))

    def find(
        self, prediction: PredictionFile, chains: Sequence[ChainStructure]
    ) -> tuple[Path, list[ChainStructure]]:
        """Return the file with the truth of a prediction, and its chains that may be meant.

        A chain NAME of shards and a file NAME.cif belong to the prediction NAME, and chain A of
        1abc.cif to the prediction 1abc_A. Otherwise a file that was given itself, and not with its
        directory, belongs to the predictions with the sequence of one of its chains.

        Args:
            prediction: the prediction.
            chains: its chains.

        Raises:
            NoTruthError: no file belongs to the prediction.
            MatchError: the file does not have the chain in the name of the prediction.
            StructureError: the file is not a structure with protein chains.
            ShardError: a shard is damaged.
        """
        for path, reader in self._shards.items():
            if prediction.name in reader.index.by_id:
                return path, [_stored_chain(reader, prediction.name)]
        for name in dict.fromkeys((prediction.name, prediction.stem)):
            path = self._with_stem(name)
            if path is not None:
                return path, self._read(path)
            entry, _, chain_name = name.rpartition("_")
            path = self._with_stem(entry)
            if path is not None:
                return path, self._named_chains(path, chain_name)
        reasons = [f"no file {prediction.name}.cif"]
        for path in self._files:
            candidates = self._read(path)
            errors = [_mismatch(chain, candidates) for chain in chains]
            if None in errors:
                return path, candidates
            reasons.append(f"{path.name}: {errors[0]}")
        raise NoTruthError(
            f"found no true structure of {prediction.name}; expected a file with its name, such as "
            f"NAME.cif or 1abc.cif.gz for 1abc_A, or with its sequence: {'; '.join(reasons)}"
        )

    def _with_stem(self, stem: str) -> Path | None:
        names = (stem, stem.lower(), stem.upper())
        return next((self._by_stem[name] for name in names if name in self._by_stem), None)

    def _named_chains(self, path: Path, chain_name: str) -> list[ChainStructure]:
        chains = self._read(path)
        named = [chain for chain in chains if chain.name == chain_name]
        if not named:
            raise MatchError(
                f"{path} has no protein chain {chain_name}; its protein chains are "
                f"{', '.join(chain.name for chain in chains)}"
            )
        return named


def _open_shards(path: Path) -> ShardReader:
    """Open a directory of shards. Raises PathError."""
    try:
        return ShardReader(path)
    except (ShardError, OSError) as error:
        raise PathError(str(error)) from error


def _stored_chain(reader: ShardReader, chain_id: str) -> ChainStructure:
    stored = reader.structure(chain_id)
    return ChainStructure(
        name=chain_id,
        sequence=stored.sequence,
        positions=stored.all_atom_positions,
        atom_mask=stored.all_atom_mask,
    )


def _mismatch(chain: ChainStructure, candidates: Sequence[ChainStructure]) -> str | None:
    """Return why no candidate has the sequence of a chain; None if one has it."""
    try:
        match_chain(chain, candidates)
    except MatchError as error:
        return str(error)
    return None


def _files_by_stem(folder: Path) -> dict[str, Path]:
    """Return the structure files of a directory; of several with one stem, mmCIF comes first.

    Raises:
        PathError: there are none.
    """
    files: dict[str, Path] = {}
    paths = [path for path in folder.iterdir() if structure_stem(path) and path.is_file()]
    for path in sorted(paths, key=_order):
        files.setdefault(structure_stem(path), path)
    if not files:
        raise PathError(
            f"directory {folder} has no structure files; expected names that end with "
            f"{', '.join(STRUCTURE_SUFFIXES)}"
        )
    return files


def _order(path: Path) -> tuple[str, int]:
    suffix = path.name.lower()[len(structure_stem(path)) :]
    return structure_stem(path), STRUCTURE_SUFFIXES.index(suffix)
