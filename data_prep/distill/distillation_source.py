"""The source of a distillation set: predicted structures and their alignments."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.convert import alignments, structures
from data_prep.convert.alignment_search import AlignmentSource, find_alignment, open_alignments
from data_prep.convert.alignment_sources import AlignmentUnit
from data_prep.convert.build_index import ClusterOf
from data_prep.convert.findings import Findings, Rejection
from data_prep.convert.pipeline import check_missing
from data_prep.convert.plan import (
    DEFAULT_SHARD_SIZE_BYTES,
    Chunk,
    Plan,
    file_fingerprint,
    make_chunks,
)
from data_prep.convert.structures import PackedChain, structure_arrays
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.work import BuildShard
from data_prep.distill.filters import Filters, ValidationChains
from data_prep.distill.prediction_files import PredictionFile, find_predictions
from data_prep.errors import CannotRead, DataPrepError, EntryRejected, FaultyEntry, escaped
from data_prep.parsers.input_files import uncompressed_size
from data_prep.parsers.predicted_mmcif import parse_predicted_mmcif
from data_prep.parsers.tables import read_clusters
from data_prep.progress import Progress, tracked
from openfold_opt.protein.records import FIRST_OWN_CLUSTER

METHOD = "PREDICTION"
"""Takes the place of the experimental method."""
_BYTES_PER_SHARD_BYTE = 4
"""Used to estimate the size of a chain in the shard from the size of its structure file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationSource:
    """Predicted structures and alignments in the layouts that prediction reads."""

    predictions: tuple[Path, ...]
    alignments: tuple[Path, ...]
    filters: Filters
    release_date: str | None = None
    """ISO date of all chains; None: the day, in UTC, on which the structure file was changed."""
    clusters: Path | None = None
    """Table of clusters; None: each chain is a cluster."""
    validation: ValidationChains | None = None
    missing_alignments: str = "error"
    """"error": a chain without an alignment is an error; "query": its sequence alone is used."""
    shard_size_bytes: int = DEFAULT_SHARD_SIZE_BYTES

    @property
    def min_alignment_rows(self) -> int:
        return self.filters.min_msa_rows

    def plan_structures(self) -> Plan:
        """Assign all predicted structures to structure shards, sorted by chain id.

        Raises:
            DataPrepError, BrokenFile: there is no structure, a path does not exist, or the table
                of clusters has none of the chains.
        """
        for path in self.alignments:
            open_alignments(path)  # Raises DataPrepError before the structures are read.
        files, unused = find_predictions(self.predictions)
        if self.clusters is not None:
            known = read_clusters(self.clusters).keys()
            if not any(file.chain_id.upper() in known for file in files):
                raise DataPrepError(
                    f"{self.clusters} has none of the {len(files):,} chains, such as "
                    f"{files[0].chain_id}; expected one cluster of chain ids per line"
                )
        chunks = make_chunks(
            structures.KIND,
            files,
            expected_bytes=lambda file: file.size_bytes // _BYTES_PER_SHARD_BYTE,
            shard_size_bytes=self.shard_size_bytes,
            depends_on=json.dumps(
                [
                    "distill",
                    dataclasses.asdict(self.filters),
                    self.release_date,
                    None if self.validation is None else self.validation.checksum,
                ]
            ),
        )
        return Plan(chunks=chunks, unused=tuple(unused))

    @property
    def build_structures(self) -> BuildShard:
        return self._build_structure_shard

    def _build_structure_shard(
        self, chunk: Chunk, findings: Findings, progress: Progress
    ) -> Mapping[str, np.ndarray]:
        """Return the datasets of a structure shard. Rejected chains are in the findings."""
        chains: list[PackedChain] = []
        for file in chunk.units:
            try:
                chains.append(self._packed_chain(file))
            except EntryRejected as reason:
                is_faulty = isinstance(reason, FaultyEntry)
                findings.reject_entry(file.chain_id, reason, is_faulty=is_faulty)
            except CannotRead as error:
                findings.add_error(error)
            progress.update()
        return structure_arrays(
            chains, [(rejection.name, rejection.reason) for rejection in findings.rejected]
        )

    def _packed_chain(self, file: PredictionFile) -> PackedChain:
        """Read a structure. Raises EntryRejected if a filter rejects the chain."""
        chain = parse_predicted_mmcif(file.path)
        if self.validation is not None:
            self.validation.check(file.chain_id, chain.sequence)
        self.filters.check_length(len(chain.sequence))
        mask = self.filters.confident_atoms(chain)
        day = datetime.datetime.fromtimestamp(file.modified, tz=datetime.UTC).date()
        return PackedChain(
            chain_id=file.chain_id,
            mmcif_chain_ids=(file.chain_id.split("_", 1)[1],),
            entity_keys=(file.chain_id.upper(),),
            release_date=self.release_date or day.isoformat(),
            method=METHOD,
            # The losses of confidence need an experimental resolution and leave out these chains.
            resolution=None,
            sequence=chain.sequence,
            atom_mask=np.packbits(mask, axis=1),
            atom_positions=chain.positions[mask],
        )

    def plan_alignments(self, library: TemplateLibrary, structure_chunks: Sequence[Chunk]) -> Plan:
        """Assign the alignments of the chains to alignment shards.

        Template hits are not read: distilled chains have no templates.
        """
        names = {file.chain_id: file.name for chunk in structure_chunks for file in chunk.units}
        sources = [open_alignments(path) for path in self.alignments]
        found = {
            chain_id: _alignment_unit(
                chain_id, names[chain_id], sources, is_only_chain=len(names) == 1
            )
            for chain_id in tracked(library.chain_ids, what="listing", unit="chain")
        }
        rejected = _duplicates(library, found)
        duplicates = {rejection.name for rejection in rejected}
        chains = [chain_id for chain_id in library.chain_ids if chain_id not in duplicates]
        units = [unit for chain_id in chains if (unit := found[chain_id]) is not None]
        missing = [chain_id for chain_id in chains if found[chain_id] is None]
        check_missing(
            self.missing_alignments,
            missing,
            num_chains=len(chains),
            what="alignment",
            remedy="name the alignments of the prediction with --alignments",
        )
        if self.min_alignment_rows > 1:
            reason = str(alignments.few_rows(1, self.min_alignment_rows))
            rejected += [_rejection(chain_id, reason) for chain_id in missing]
        chunks = make_chunks(
            alignments.KIND,
            units,
            expected_bytes=lambda unit: unit.size_bytes,
            shard_size_bytes=self.shard_size_bytes,
            depends_on=json.dumps(["distill", [chunk.made_from for chunk in structure_chunks]]),
        )
        return Plan(chunks=chunks, rejected=tuple(rejected))

    def read_obsolete(self) -> Mapping[str, str]:
        return {}

    def read_clusters(self) -> ClusterOf:
        """Return the cluster of each chain: that of the table, or a separate one."""
        known = {} if self.clusters is None else read_clusters(self.clusters)
        numbers = itertools.count(FIRST_OWN_CLUSTER)
        return lambda chain_id, entity_keys: _cluster(chain_id, known, lambda: next(numbers))


def _cluster(chain_id: str, known: Mapping[str, int], own: Callable[[], int]) -> int:
    number = known.get(chain_id.upper())
    return own() if number is None else number


def _duplicates(
    library: TemplateLibrary, units: Mapping[str, AlignmentUnit | None]
) -> list[Rejection]:
    """Reject all but one of the chains with the same sequence.

    The one with the most bytes of alignments stays, because the filter of rows, which is applied
    later, is least likely to reject it; of equal ones the first.
    """
    by_sequence: dict[str, list[str]] = {}
    for chain_id in library.chain_ids:
        by_sequence.setdefault(library.sequence(chain_id), []).append(chain_id)

    def alignment_bytes(chain_id: str) -> int:
        unit = units[chain_id]
        return -1 if unit is None else unit.size_bytes

    kept = {max(chains, key=alignment_bytes): chains for chains in by_sequence.values()}
    return [
        _rejection(chain_id, f"duplicate: {best} has the same sequence")
        for best, chains in kept.items()
        for chain_id in chains
        if chain_id != best
    ]


def _rejection(chain_id: str, reason: str) -> Rejection:
    return Rejection(name=chain_id, reason=reason, is_chain=True, is_faulty=False)


def _alignment_unit(
    chain_id: str, name: str, sources: Sequence[AlignmentSource], *, is_only_chain: bool
) -> AlignmentUnit | None:
    """Return the alignment files of a chain; None if there are none."""
    paths = find_alignment(sources, name, is_only_chain=is_only_chain).msa_paths
    if not paths:
        return None
    fingerprints = [file_fingerprint(path, path.parent) for path in paths]
    return AlignmentUnit(
        alignment_id=chain_id,
        msa_paths=paths,
        hits_paths=(),
        members=(chain_id,),
        size_bytes=sum(uncompressed_size(path, path.stat().st_size) for path in paths),
        fingerprint=[chain_id, [escaped(path) for path in paths], fingerprints],
    )
