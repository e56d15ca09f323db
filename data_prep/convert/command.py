"""`python -m data_prep convert`."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from data_prep.communicator import MpiCommunicator, SerialCommunicator, open_communicator
from data_prep.convert import alignments, structures
from data_prep.convert.alignment_sources import chains_by_folder, read_folder
from data_prep.convert.build_index import Summary, write_index
from data_prep.convert.dry_run import describe
from data_prep.convert.plan import DEFAULT_SHARD_SIZE_BYTES, Chunk, make_chunks
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.work import make_shards
from data_prep.errors import DataPrepError
from data_prep.parsers.errors import BrokenFile
from data_prep.parsers.tables import read_clusters, read_obsolete
from openfold_opt.protein import shard_format

_MEBIBYTE = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What to convert, and into what."""

    pdb_mmcif: Path
    """Holds raw/, clusters-by-entity-40.txt and obsolete.dat."""
    open_protein_set: Path
    """Holds pdb/ and duplicate_pdb_chains.txt."""
    out: Path
    missing_alignments: str = "error"
    """"error": a chain without an alignment folder stops conversion; "query": its sequence stands alone."""
    shard_size_bytes: int = DEFAULT_SHARD_SIZE_BYTES

    @property
    def clusters_path(self) -> Path:
        return self.pdb_mmcif / "clusters-by-entity-40.txt"

    @property
    def obsolete_path(self) -> Path:
        return self.pdb_mmcif / "obsolete.dat"


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="raw PDB and OpenProteinSet files -> shards",
        description="Convert raw files to shards. `mpiexec -n N python -m data_prep convert ...` distributes the work and gives the "
        "same bytes; a second run after an interruption goes on where the first one stopped.",
    )
    parser.add_argument("--pdb-mmcif", type=Path, required=True, metavar="DIR", help="holds raw/, clusters-by-entity-40.txt, obsolete.dat")
    parser.add_argument("--open-protein-set", type=Path, required=True, metavar="DIR", help="holds pdb/ and duplicate_pdb_chains.txt")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data directory to make")
    parser.add_argument(
        "--missing-alignments",
        choices=("error", "query"),
        default="error",
        help="a chain without alignment folder: stop (default), or use its sequence alone",
    )
    parser.add_argument(
        "--shard-size-mib",
        type=int,
        default=DEFAULT_SHARD_SIZE_BYTES // _MEBIBYTE,
        metavar="N",
        help="most of a shard; a process needs about five times as much memory (default: %(default)s)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="write nothing; say what would be done, and how long it should take by a sample of the files"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.shard_size_mib < 1:
        raise DataPrepError(f"--shard-size-mib is {arguments.shard_size_mib}, expected at least 1")
    config = ConvertConfig(
        pdb_mmcif=arguments.pdb_mmcif,
        open_protein_set=arguments.open_protein_set,
        out=arguments.out,
        missing_alignments=arguments.missing_alignments,
        shard_size_bytes=arguments.shard_size_mib * _MEBIBYTE,
    )
    with open_communicator() as communicator:
        try:
            last_words = _dry_run(config, communicator) if arguments.dry_run else _last_words(config, convert(config, communicator))
        except DataPrepError as error:
            if communicator.rank == 0:
                print(f"data_prep convert: {error}", file=sys.stderr)
            return 1
        if communicator.rank == 0:
            print(last_words)
    return 0


def convert(config: ConvertConfig, communicator: SerialCommunicator | MpiCommunicator) -> Summary:
    """Structures, then alignments, then the index. Every rank returns the same summary or raises the same DataPrepError."""
    structure_chunks = _on_rank_0(communicator, lambda: _prepare(config))
    make_shards(
        structures.KIND,
        structure_chunks,
        structures.build_structure_shard,
        data_dir=config.out,
        communicator=communicator,
    )
    library = TemplateLibrary([config.out / chunk.shard_name for chunk in structure_chunks])
    alignment_chunks = _on_rank_0(communicator, lambda: plan_alignments(config, library, structure_chunks))
    obsolete = _on_rank_0(communicator, lambda: read_obsolete(config.obsolete_path))
    builder = alignments.AlignmentShardBuilder(library=library, obsolete=obsolete)
    make_shards(alignments.KIND, alignment_chunks, builder, data_dir=config.out, communicator=communicator)
    return _on_rank_0(
        communicator,
        lambda: write_index(
            config.out,
            structure_chunks=structure_chunks,
            alignment_chunks=alignment_chunks,
            clusters=read_clusters(config.clusters_path),
            missing_alignments=config.missing_alignments,
        ),
    )


def _on_rank_0(communicator: SerialCommunicator | MpiCommunicator, work):
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


def _dry_run(config: ConvertConfig, communicator: SerialCommunicator | MpiCommunicator) -> str:
    return _on_rank_0(
        communicator,
        lambda: describe(
            _plan_structures(config),
            open_protein_set=config.open_protein_set,
            out=config.out,
            shard_size_bytes=config.shard_size_bytes,
            num_processes=communicator.size,
        ),
    )


def _prepare(config: ConvertConfig) -> list[Chunk]:
    chunks = _plan_structures(config)
    (config.out / shard_format.STATE_DIR_NAME).mkdir(parents=True, exist_ok=True)
    return chunks


def _plan_structures(config: ConvertConfig) -> list[Chunk]:
    for path in (config.clusters_path, config.obsolete_path, config.open_protein_set / "duplicate_pdb_chains.txt"):
        if not path.is_file():
            raise DataPrepError(f"{path} does not exist; `python -m data_prep download --help` says where it comes from")
    return structures.plan_structures(config.pdb_mmcif, shard_size_bytes=config.shard_size_bytes)


def plan_alignments(config: ConvertConfig, library: TemplateLibrary, structure_chunks: Sequence[Chunk]) -> list[Chunk]:
    """One unit per alignment folder in use. Their shards depend on all structures too, since these are the templates."""
    users, missing = chains_by_folder(library.chain_ids, config.open_protein_set)
    if missing and config.missing_alignments == "error":
        raise DataPrepError(
            f"{len(missing)} of {len(library.chain_ids)} chains have no alignment folder: {', '.join(missing[:10])}"
            f"{', ...' if len(missing) > 10 else ''}; add the folders below {config.open_protein_set / 'pdb'} (or lines to "
            "duplicate_pdb_chains.txt), or use the sequence alone with --missing-alignments query. Structures are kept."
        )
    root = config.open_protein_set / "pdb"
    listing = tqdm(users.items(), desc="alignment folders", disable=len(users) < 10_000)
    units = [read_folder(root / folder, members) for folder, members in listing]
    depends_on = hashlib.sha256("".join(chunk.made_from for chunk in structure_chunks).encode())
    depends_on.update(config.obsolete_path.read_bytes())
    return make_chunks(
        alignments.KIND,
        units,
        expected_bytes=lambda unit: unit.size_bytes,
        shard_size_bytes=config.shard_size_bytes,
        depends_on=depends_on.hexdigest(),
    )


def _last_words(config: ConvertConfig, summary: Summary) -> str:
    lines = [
        f"{config.out}: {summary.num_chains} chains of {summary.num_entries - len(summary.rejected)} entries, "
        f"{summary.num_shards} shards, {summary.size_bytes / _MEBIBYTE:.1f} MiB"
    ]
    if summary.num_without_alignment:
        lines.append(f"{summary.num_without_alignment} chains have no alignment: their sequence stands alone")
    if summary.rejected:
        lines.append(f"rejected entries: {len(summary.rejected)}, listed in {config.out / shard_format.REJECTED_FILE_NAME}:")
        counts = Counter(reason.split(":")[0] for _, reason in summary.rejected)
        lines.extend(f"  {count} x {reason}" for reason, count in counts.most_common())
    return "\n".join(lines)
