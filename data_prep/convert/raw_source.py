"""Raw files as a source: mmCIF entries, and one folder of alignments per chain."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from data_prep.convert import alignments, structures
from data_prep.convert.alignment_sources import chains_by_folder, read_folder
from data_prep.convert.build_index import ClusterOf, commonest_cluster
from data_prep.convert.pipeline import check_missing
from data_prep.convert.plan import DEFAULT_SHARD_SIZE_BYTES, Chunk, make_chunks
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.work import BuildShard
from data_prep.errors import DataPrepError
from data_prep.parsers.tables import read_clusters, read_obsolete


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawSource:
    """The layout of the PDB's mirror and of OpenProteinSet."""

    pdb_mmcif: Path
    """Holds raw/, clusters-by-entity-40.txt and obsolete.dat."""
    open_protein_set: Path
    """Holds pdb/ and duplicate_pdb_chains.txt."""
    missing_alignments: str = "error"
    """"error": a chain without an alignment folder stops conversion; "query": its sequence stands alone."""
    shard_size_bytes: int = DEFAULT_SHARD_SIZE_BYTES

    @property
    def _clusters_path(self) -> Path:
        return self.pdb_mmcif / "clusters-by-entity-40.txt"

    @property
    def _obsolete_path(self) -> Path:
        return self.pdb_mmcif / "obsolete.dat"

    def plan_structures(self) -> list[Chunk]:
        """All entries. DataPrepError if a table is missing, or if there is no entry."""
        for path in (self._clusters_path, self._obsolete_path, self.open_protein_set / "duplicate_pdb_chains.txt"):
            if not path.is_file():
                raise DataPrepError(f"{path} does not exist; `python -m data_prep download --help` says where it comes from")
        return structures.plan_structures(self.pdb_mmcif, shard_size_bytes=self.shard_size_bytes)

    @property
    def build_structures(self) -> BuildShard:
        return structures.build_structure_shard

    def plan_alignments(self, library: TemplateLibrary, structure_chunks: Sequence[Chunk]) -> list[Chunk]:
        """One unit per alignment folder in use. Their shards depend on all structures too, since these are the templates."""
        users, missing = chains_by_folder(library.chain_ids, self.open_protein_set)
        root = self.open_protein_set / "pdb"
        remedy = f"add the folders below {root} (or lines to duplicate_pdb_chains.txt)"
        check_missing(self.missing_alignments, missing, num_chains=len(library.chain_ids), remedy=remedy)
        listing = tqdm(users.items(), desc="alignment folders", disable=len(users) < 10_000)
        units = [read_folder(root / folder, members) for folder, members in listing]
        return make_chunks(
            alignments.KIND,
            units,
            expected_bytes=lambda unit: unit.size_bytes,
            shard_size_bytes=self.shard_size_bytes,
            depends_on=fingerprint_of_templates(structure_chunks, self._obsolete_path),
        )

    def read_obsolete(self) -> Mapping[str, str]:
        return read_obsolete(self._obsolete_path)

    def read_clusters(self) -> ClusterOf:
        clusters = read_clusters(self._clusters_path)
        return lambda chain_id, entity_keys: commonest_cluster(entity_keys, clusters)


def fingerprint_of_templates(structure_chunks: Sequence[Chunk], obsolete_path: Path) -> str:
    """Changes with the structures and with the table of obsolete entries, which template hits are mapped by."""
    digest = hashlib.sha256("".join(chunk.made_from for chunk in structure_chunks).encode())
    digest.update(obsolete_path.read_bytes())
    return digest.hexdigest()
