"""The source of raw files: mmCIF entries and one folder of alignments per chain."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from data_prep.convert import alignments, structures
from data_prep.convert.alignment_files import read_folder
from data_prep.convert.alignment_sources import (
    DUPLICATES_NAME,
    AlignmentUnit,
    alignments_root,
    describe_missing,
    read_folder_use,
)
from data_prep.convert.build_index import ClusterOf, commonest_cluster
from data_prep.convert.pipeline import check_missing
from data_prep.convert.plan import DEFAULT_SHARD_SIZE_BYTES, Chunk, Plan, make_chunks
from data_prep.convert.table_checks import (
    check_clusters,
    check_duplicates,
    check_obsolete,
    check_present,
)
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.work import BuildShard
from data_prep.errors import escaped
from data_prep.parsers.file_access import exists, read_file
from data_prep.parsers.tables import read_clusters, read_obsolete
from data_prep.progress import Progress

_MANY_FOLDERS = 10_000
"""Progress is displayed only when listing at least this many alignment folders."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawSource:
    """Raw files in the layout of a PDB mirror and of OpenProteinSet."""

    min_alignment_rows: ClassVar[int] = 0

    pdb_mmcif: Path
    """Folder with raw/, clusters-by-entity-40.txt and obsolete.dat."""
    open_protein_set: Path
    """Folder with pdb/ and duplicate_pdb_chains.txt."""
    missing_alignments: str = "error"
    """"error": a chain without an alignment folder is an error; "query": its sequence alone is
    used."""
    shard_size_bytes: int = DEFAULT_SHARD_SIZE_BYTES
    own_data: bool = False
    """For entries that are in no database: each entity is a cluster, no table is needed, and
    alignment files may have any name."""

    @property
    def _clusters_path(self) -> Path:
        return self.pdb_mmcif / "clusters-by-entity-40.txt"

    @property
    def _obsolete_path(self) -> Path:
        return self.pdb_mmcif / "obsolete.dat"

    @property
    def _duplicates_path(self) -> Path:
        return self.open_protein_set / DUPLICATES_NAME

    def plan_structures(self) -> Plan:
        """Assign all entries to structure shards.

        Raises:
            DataPrepError, BrokenFile: a table is missing or has the wrong contents, or there is no
                entry.
        """
        inputs = [self.pdb_mmcif / "raw", alignments_root(self.open_protein_set)]
        tables = [self._clusters_path, self._obsolete_path, self._duplicates_path]
        check_present(inputs if self.own_data else [*inputs, *tables])
        if exists(self._obsolete_path):
            check_obsolete(self._obsolete_path)
        if exists(self._duplicates_path):
            check_duplicates(self._duplicates_path)
        plan = structures.plan_structures(
            self.pdb_mmcif, shard_size_bytes=self.shard_size_bytes, own_data=self.own_data
        )
        if not self.own_data:
            entries = [file.entry for chunk in plan.chunks for file in chunk.units]
            # The table is read again later, because that of the whole PDB needs much memory.
            check_clusters(self._clusters_path, read_clusters(self._clusters_path), entries)
        return plan

    @property
    def build_structures(self) -> BuildShard:
        return structures.structure_builder(own_data=self.own_data)

    def plan_alignments(self, library: TemplateLibrary, structure_chunks: Sequence[Chunk]) -> Plan:
        """Assign the alignment folders that chains use to alignment shards.

        These shards depend on all structures, since any structure can be a template.
        """
        use = read_folder_use(library.chain_ids, self.open_protein_set)
        root = alignments_root(self.open_protein_set)
        remedy = describe_missing(use, root)
        check_missing(
            self.missing_alignments, use.missing, num_chains=len(library.chain_ids), remedy=remedy
        )
        units, unused, without_alignment = [], list(use.unused), []
        is_silent = len(use.users) < _MANY_FOLDERS
        with Progress(
            len(use.users), what="listing", unit="folder", is_silent=is_silent
        ) as progress:
            for folder, members in use.users.items():
                unit, others = read_folder(root / folder, members, use_all=self.own_data)
                units.append(unit)
                unused.extend(others)
                if others and not unit.msa_paths:
                    without_alignment.append(unit)
                progress.update()
        self._check_without_alignment(without_alignment, num_chains=len(library.chain_ids))
        chunks = make_chunks(
            alignments.KIND,
            units,
            expected_bytes=lambda unit: unit.size_bytes,
            shard_size_bytes=self.shard_size_bytes,
            depends_on=fingerprint_of_templates(structure_chunks, self._obsolete_path),
        )
        return Plan(chunks=chunks, unused=tuple(unused))

    def _check_without_alignment(self, units: Sequence[AlignmentUnit], *, num_chains: int) -> None:
        """Raise DataPrepError if folders have files but no alignment, and missing ones are errors.

        An empty folder is allowed: as in the benchmark's data, its chain has no homologs.
        """
        if not units:
            return
        folder = alignments_root(self.open_protein_set) / units[0].alignment_id
        check_missing(
            self.missing_alignments,
            [chain_id for unit in units for chain_id in unit.members],
            num_chains=num_chains,
            what="alignment among the files of their folders",
            remedy=f"give the files in {escaped(folder)} names that end in .a3m or .sto",
        )

    def read_obsolete(self) -> Mapping[str, str]:
        return read_obsolete(self._obsolete_path) if exists(self._obsolete_path) else {}

    def read_clusters(self) -> ClusterOf:
        if self.own_data:
            return _number_entities()
        clusters = read_clusters(self._clusters_path)
        return lambda chain_id, entity_keys: commonest_cluster(entity_keys, clusters)


def _number_entities() -> ClusterOf:
    """Return a function that makes each entity a cluster, numbered in the order of the chains.

    The first key of a chain is its protein entity.
    """
    numbers: dict[str, int] = {}
    return lambda chain_id, entity_keys: numbers.setdefault(entity_keys[0], len(numbers))


def fingerprint_of_templates(structure_chunks: Sequence[Chunk], obsolete_path: Path) -> str:
    """Return a hash of the structures and of the table of obsolete entries.

    The mapping of template hits depends on both.
    """
    digest = hashlib.sha256("".join(chunk.made_from for chunk in structure_chunks).encode())
    if exists(obsolete_path):
        digest.update(read_file(obsolete_path))
    return digest.hexdigest()
