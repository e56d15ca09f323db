"""The conversion of a source to a data directory: structures, then alignments, then the index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from data_prep.communicator import MpiCommunicator, SerialCommunicator
from data_prep.convert import alignments
from data_prep.convert.build_index import (
    ClusterOf,
    Summary,
    merge_findings,
    read_finished_state,
    write_index,
)
from data_prep.convert.plan import Chunk, Plan
from data_prep.convert.structures import KIND as STRUCTURES
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.work import BuildShard, make_shards, report_errors
from data_prep.errors import BrokenFile, DataPrepError, describe_error
from openfold_opt.protein import shard_format

T = TypeVar("T")
Communicator = SerialCommunicator | MpiCommunicator


class Source(Protocol):
    """The input files of a conversion, in one of the supported layouts."""

    missing_alignments: str
    """"error" or "query", as on the command line."""
    min_alignment_rows: int
    """Chains whose alignment has fewer rows, without duplicates, are rejected."""

    def plan_structures(self) -> Plan:
        """Assign the entries to structure shards.

        Raises:
            DataPrepError, BrokenFile: a table is missing or has the wrong contents.
        """

    @property
    def build_structures(self) -> BuildShard:
        """A function that builds the datasets of a structure shard."""

    def plan_alignments(self, library: TemplateLibrary, structure_chunks: Sequence[Chunk]) -> Plan:
        """Assign the alignments of the chains of the library to alignment shards."""

    def read_obsolete(self) -> Mapping[str, str]:
        """Return a map from obsolete PDB ids to their successors."""

    def read_clusters(self) -> ClusterOf:
        """Return a function that gives the cluster of a chain."""


def convert(
    source: Source, out: Path, communicator: Communicator, *, is_strict: bool = False
) -> Summary:
    """Make the shards that do not exist yet, and the index.

    Every rank returns the same summary or raises the same DataPrepError.

    Args:
        is_strict: treat faulty input as an error instead of rejecting its entry or chain.
    """
    structures = on_rank_0(communicator, lambda: _prepare(source, out))
    make_shards(
        STRUCTURES,
        structures.chunks,
        source.build_structures,
        data_dir=out,
        communicator=communicator,
    )
    if is_strict:
        on_rank_0(communicator, lambda: _refuse_faulty(out, structures.chunks))
    library = TemplateLibrary([out / chunk.shard_name for chunk in structures.chunks])
    alignment_plan = on_rank_0(
        communicator, lambda: source.plan_alignments(library, structures.chunks)
    )
    obsolete = on_rank_0(communicator, source.read_obsolete)
    builder = alignments.AlignmentShardBuilder(
        library=library, obsolete=obsolete, min_rows=source.min_alignment_rows
    )
    make_shards(
        alignments.KIND, alignment_plan.chunks, builder, data_dir=out, communicator=communicator
    )
    if is_strict:
        on_rank_0(communicator, lambda: _refuse_faulty(out, alignment_plan.chunks))
    return on_rank_0(
        communicator,
        lambda: write_index(
            out,
            structures=structures,
            alignments=alignment_plan,
            cluster_of=source.read_clusters(),
            missing_alignments=source.missing_alignments,
        ),
    )


def _prepare(source: Source, out: Path) -> Plan:
    """Return the plan of the structures, and create the data directory."""
    plan = source.plan_structures()
    if out.exists() and not out.is_dir():
        raise DataPrepError(f"--out {out} is a file, expected a folder; name another one")
    (out / shard_format.STATE_DIR_NAME).mkdir(parents=True, exist_ok=True)
    return plan


def _refuse_faulty(out: Path, chunks: Sequence[Chunk]) -> None:
    """Raise DataPrepError if input of these shards is faulty."""
    findings = merge_findings(read_finished_state(out, chunk) for chunk in chunks)
    faulty = [
        f"{rejection.name}: {rejection.reason}"
        for rejection in findings.rejected
        if rejection.is_faulty
    ]
    if faulty:
        raise DataPrepError(report_errors("in the input (--strict)", faulty))


def on_rank_0(communicator: Communicator, work: Callable[[], T]) -> T:
    """Run `work` on rank 0 and return its result on all ranks.

    Raises:
        DataPrepError: on all ranks, if `work` raised an error that the user can fix.
    """
    result, message = None, None
    if communicator.rank == 0:
        try:
            result = work()
        except (DataPrepError, BrokenFile, shard_format.ShardError, OSError) as error:
            message = describe_error(error)
    result, message = communicator.broadcast((result, message))
    if message is not None:
        raise DataPrepError(message)
    return result


def check_missing(
    missing_alignments: str,
    missing: Sequence[str],
    *,
    num_chains: int,
    remedy: str,
    what: str = "alignment folder",
) -> None:
    """Raise DataPrepError if chains have no alignment and this is an error.

    Args:
        missing_alignments: "error" or "query", as on the command line.
        missing: chains without an alignment.
        remedy: how to fix this, for the message.
        what: name of the missing input, for the message.
    """
    if missing and missing_alignments == "error":
        raise DataPrepError(
            f"{len(missing)} of {num_chains} chains have no {what}: "
            f"{', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}; {remedy}, or use "
            "the sequence alone with --missing-alignments query. Structures are kept."
        )
