"""The way from input files to a data directory, wherever the input comes from: structures, then alignments, then the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from data_prep.communicator import MpiCommunicator, SerialCommunicator
from data_prep.convert import alignments
from data_prep.convert.build_index import ClusterOf, Summary, write_index
from data_prep.convert.plan import Chunk
from data_prep.convert.structures import KIND as STRUCTURES
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.work import BuildShard, make_shards
from data_prep.errors import DataPrepError
from data_prep.parsers.errors import BrokenFile
from openfold_opt.protein import shard_format

T = TypeVar("T")
Communicator = SerialCommunicator | MpiCommunicator
_MEBIBYTE = 1 << 20


class Source(Protocol):
    """Input files in some form."""

    missing_alignments: str
    """"error" or "query", as in the command line."""

    def plan_structures(self) -> list[Chunk]:
        """What goes into which structure shard."""

    @property
    def build_structures(self) -> BuildShard:
        """Makes the datasets of a structure shard."""

    def plan_alignments(self, library: TemplateLibrary, structure_chunks: Sequence[Chunk]) -> list[Chunk]:
        """What goes into which alignment shard, for the chains of the library."""

    def read_obsolete(self) -> Mapping[str, str]:
        """Obsolete PDB id -> successor."""

    def read_clusters(self) -> ClusterOf:
        """Gives the cluster of a chain."""


def convert(source: Source, out: Path, communicator: Communicator) -> Summary:
    """Makes what is not there yet. Every rank returns the same summary or raises the same DataPrepError."""
    structure_chunks = on_rank_0(communicator, lambda: _prepare(source, out))
    make_shards(STRUCTURES, structure_chunks, source.build_structures, data_dir=out, communicator=communicator)
    library = TemplateLibrary([out / chunk.shard_name for chunk in structure_chunks])
    alignment_chunks = on_rank_0(communicator, lambda: source.plan_alignments(library, structure_chunks))
    obsolete = on_rank_0(communicator, source.read_obsolete)
    builder = alignments.AlignmentShardBuilder(library=library, obsolete=obsolete)
    make_shards(alignments.KIND, alignment_chunks, builder, data_dir=out, communicator=communicator)
    return on_rank_0(
        communicator,
        lambda: write_index(
            out,
            structure_chunks=structure_chunks,
            alignment_chunks=alignment_chunks,
            cluster_of=source.read_clusters(),
            missing_alignments=source.missing_alignments,
        ),
    )


def _prepare(source: Source, out: Path) -> list[Chunk]:
    chunks = source.plan_structures()
    if out.exists() and not out.is_dir():
        raise DataPrepError(f"--out {out} is a file, expected a folder to make; name another one")
    (out / shard_format.STATE_DIR_NAME).mkdir(parents=True, exist_ok=True)
    return chunks


def on_rank_0(communicator: Communicator, work: Callable[[], T]) -> T:
    """The result of work() on rank 0, given to all; what the user can mend is raised on all of them."""
    result, message = None, None
    if communicator.rank == 0:
        try:
            result = work()
        except (DataPrepError, BrokenFile, shard_format.ShardError, OSError) as error:
            message = str(error)
    result, message = communicator.broadcast((result, message))
    if message is not None:
        raise DataPrepError(message)
    return result


def check_missing(source_missing: str, missing: Sequence[str], *, num_chains: int, remedy: str) -> None:
    """DataPrepError if chains without alignment are not allowed and there are some."""
    if missing and source_missing == "error":
        raise DataPrepError(
            f"{len(missing)} of {num_chains} chains have no alignment folder: {', '.join(missing[:10])}"
            f"{', ...' if len(missing) > 10 else ''}; {remedy}, or use the sequence alone with --missing-alignments query. "
            "Structures are kept."
        )


def last_words(out: Path, summary: Summary) -> str:
    """What a finished conversion has to say."""
    lines = [
        f"{out}: {summary.num_chains} chains of {summary.num_entries - len(summary.rejected)} entries, "
        f"{summary.num_shards} shards, {summary.size_bytes / _MEBIBYTE:.1f} MiB"
    ]
    if summary.num_without_alignment:
        lines.append(f"{summary.num_without_alignment} chains have no alignment: their sequence stands alone")
    if summary.rejected:
        lines.append(f"rejected entries: {len(summary.rejected)}, listed in {out / shard_format.REJECTED_FILE_NAME}:")
        counts = Counter(reason.split(":")[0] for _, reason in summary.rejected)
        lines.extend(f"  {count} x {reason}" for reason, count in counts.most_common())
    return "\n".join(lines)
