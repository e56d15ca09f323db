"""The command `python -m data_prep convert-mlperf`."""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from data_prep.convert import alignments
from data_prep.convert.build_index import NO_CLUSTER, ClusterOf
from data_prep.convert.command import (
    EXIT_CODES,
    add_common_arguments,
    convert_and_report,
    shard_size_bytes,
)
from data_prep.convert.pipeline import check_missing
from data_prep.convert.plan import DEFAULT_SHARD_SIZE_BYTES, Chunk, Plan, make_chunks
from data_prep.convert.raw_source import fingerprint_of_templates
from data_prep.convert.table_checks import check_present
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.work import BuildShard
from data_prep.convert_mlperf.processed_alignments import INDEX_NAME, SuperIndex
from data_prep.convert_mlperf.processed_structures import build_structure_shard, plan_structures
from data_prep.errors import BrokenFile
from data_prep.parsers.tables import read_obsolete

CHAINS_NAME = "chains.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessedSource:
    """The source of the benchmark's processed data set."""

    min_alignment_rows: ClassVar[int] = 0

    pdb_mmcif_processed: Path
    """Folder with chains.csv, dicts_preprocessing_logs.csv, obsolete.dat and dicts/."""
    alignments: Path
    """Folder with super.index and the .db files, or with a folder pdb_alignments that has them."""
    missing_alignments: str = "error"
    shard_size_bytes: int = DEFAULT_SHARD_SIZE_BYTES

    @property
    def _obsolete_path(self) -> Path:
        return self.pdb_mmcif_processed / "obsolete.dat"

    @property
    def _alignments_folder(self) -> Path:
        inner = self.alignments / "pdb_alignments"
        return (
            inner
            if not (self.alignments / INDEX_NAME).exists() and inner.is_dir()
            else self.alignments
        )

    def plan_structures(self) -> Plan:
        """Assign all entries of the log to structure shards.

        Raises:
            DataPrepError, BrokenFile: a file is missing or malformed.
        """
        check_present(
            [
                self.pdb_mmcif_processed / CHAINS_NAME,
                self._obsolete_path,
                self._alignments_folder / INDEX_NAME,
            ]
        )
        return plan_structures(self.pdb_mmcif_processed, shard_size_bytes=self.shard_size_bytes)

    @property
    def build_structures(self) -> BuildShard:
        return build_structure_shard

    def plan_alignments(self, library: TemplateLibrary, structure_chunks: Sequence[Chunk]) -> Plan:
        """Assign the alignments that chains use to alignment shards."""
        index = SuperIndex(self._alignments_folder)
        users, missing = index.chains_by_alignment(library.chain_ids)
        check_missing(
            self.missing_alignments,
            missing,
            num_chains=len(library.chain_ids),
            remedy=f"fetch the {INDEX_NAME} that belongs to chains.csv",
        )
        chunks = make_chunks(
            alignments.KIND,
            [index.unit(name, members) for name, members in users.items()],
            expected_bytes=lambda unit: unit.size_bytes,
            shard_size_bytes=self.shard_size_bytes,
            depends_on=fingerprint_of_templates(structure_chunks, self._obsolete_path),
        )
        return Plan(chunks=chunks)

    def read_obsolete(self) -> Mapping[str, str]:
        return read_obsolete(self._obsolete_path)

    def read_clusters(self) -> ClusterOf:
        """Return the clusters of chains.csv, which has one cluster per chain."""
        path = self.pdb_mmcif_processed / CHAINS_NAME
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = {"pdb_chain_id", "pdb_cluster_id"} - set(rows.fieldnames or ())
            if missing:
                raise BrokenFile(
                    path,
                    f"has no column {', '.join(sorted(missing))}; expected the chains.csv of the "
                    "processed data set",
                    line=1,
                )
            clusters = {row["pdb_chain_id"]: row["pdb_cluster_id"] for row in rows}
        return lambda chain_id, entity_keys: _cluster(path, chain_id, clusters.get(chain_id))


def _cluster(path: Path, chain_id: str, text: str | None) -> int:
    if text is None:
        raise BrokenFile(path, f"lacks chain {chain_id}, which dicts/ has; fetch both again")
    try:
        return max(int(text), NO_CLUSTER)  # Any negative number means no cluster.
    except ValueError as error:
        raise BrokenFile(
            path, f"chain {chain_id} has cluster {text!r}, expected a number"
        ) from error


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "convert-mlperf",
        help="the processed data set of MLCommons -> shards",
        description="Convert the processed data set of MLCommons to the shards that `convert` "
        "makes from the raw files. Runs under `mpiexec -n N`; a second run after an interruption "
        "resumes the first one. Pickles are read without executing code in them.",
        epilog=EXIT_CODES,
    )
    parser.add_argument(
        "--pdb-mmcif-processed",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with chains.csv, dicts_preprocessing_logs.csv, obsolete.dat and dicts/",
    )
    parser.add_argument(
        "--alignments",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with super.index and 0.db, 1.db, ..., or with pdb_alignments/, which has them",
    )
    add_common_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert the data set and return the exit code."""
    source = ProcessedSource(
        pdb_mmcif_processed=arguments.pdb_mmcif_processed,
        alignments=arguments.alignments,
        missing_alignments=arguments.missing_alignments,
        shard_size_bytes=shard_size_bytes(arguments),
    )
    return convert_and_report(source, arguments)
