"""Chains to predict, from FASTA and alignment files or from converted data, and their features.

The features are those of evaluation. The true structure is unknown, so that its features are those
of a chain without resolved atoms. docs/predict_inputs.md describes files and layouts.

This is the only file of the package that imports data_prep.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from data_prep.convert.alignment_search import AlignmentSource, find_alignment, open_alignments
from data_prep.convert.single_chain import (
    check_query,
    describe_difference,
    find_templates,
    read_alignment,
)
from data_prep.convert.template_files import TemplateFiles
from data_prep.errors import BrokenFile, DataPrepError
from openfold_opt.loader.random_streams import prediction_seed
from openfold_opt.loader.raw_reading import make_raw_features
from openfold_opt.loader.sample import choose_for_evaluation, encode_sample
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.predict.chain_input import (
    ChainFailure,
    ChainInput,
    FeatureSettings,
    InputError,
    PreparedChain,
)
from openfold_opt.predict.fasta import check_sequence
from openfold_opt.predict.query_files import QueryRecord, read_records
from openfold_opt.predict.template_choice import (
    copy_warnings,
    is_allowed,
    missing_template_warnings,
    template_warnings,
)
from openfold_opt.protein.hhblits_alphabet import GAP_TOKEN, sequence_to_tokens
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.records import (
    AlignmentRecord,
    StructureRecord,
    TemplateHit,
    unresolved_structure,
)
from openfold_opt.protein.shard_format import ShardError
from openfold_opt.protein.templates import featurize_hits, hits_for_date

MAX_ALIGNMENT_ROWS = 100_000
"""Rows of an alignment that are used, counted before duplicates are removed."""


def read_chains(
    inputs: Sequence[Path] = (),
    *,
    alignments: Sequence[Path] = (),
    template_structures: Path | None = None,
    single_sequence: bool = False,
    data_dir: Path | None = None,
    chain_names: Sequence[str] = (),
) -> tuple[list[ChainInput], list[ChainFailure]]:
    """Return the chains to predict, and those that cannot be predicted with the reason.

    Alignments are found, and the queries of .a3m files are compared, but no alignment is parsed.

    Args:
        inputs: FASTA files, .a3m files (the first row is the chain), and directories of them.
        alignments: directories or files with the alignments of the chains.
        template_structures: directory of mmCIF files for the hits in .hhr files.
        single_sequence: whether to predict a chain without an alignment from its sequence alone.
        data_dir: converted data, in place of `inputs`.
        chain_names: chains of `data_dir`; without any, all of them.

    Raises:
        InputError: a file or directory does not exist, or the arguments contradict each other.
    """
    if bool(inputs) == (data_dir is not None):
        found = "both" if inputs else "neither"
        raise InputError(f"found {found} input files and a data directory; expected one of the two")
    if data_dir is not None:
        return _read_stored_chains(data_dir, chain_names)
    if chain_names:
        raise InputError("chain names are given without the data directory that has the chains")
    with _as_input_error():
        if template_structures is not None:
            TemplateFiles(template_structures)  # Raises DataPrepError for a wrong directory.
        sources = [open_alignments(path) for path in alignments]
    with _as_input_error():
        records, failures = read_records(inputs)
    chains: list[ChainInput] = []
    first_of: dict[str, str] = {}
    for record in records:
        try:
            with _as_input_error():
                chain = _find_files(
                    record,
                    sources,
                    is_only_chain=len(records) == 1,
                    single_sequence=single_sequence,
                )
        except InputError as error:
            failures.append(ChainFailure(name=record.name, message=f"{record.origin}: {error}"))
            continue
        first = first_of.setdefault(chain.letters, chain.name)
        same = () if first == chain.name else (f"has the same sequence as chain {first}",)
        chains.append(
            dataclasses.replace(
                chain, template_structures=template_structures, warnings=chain.warnings + same
            )
        )
    return chains, failures


def chain_features(chain: ChainInput, settings: FeatureSettings) -> FeatureBatch:
    """Return the features of a chain: a batch of one, on the CPU, not padded in N_res.

    Raises:
        InputError: a file cannot be read or is malformed.
    """
    return prepare_chain(chain, settings).features()


def prepare_chain(chain: ChainInput, settings: FeatureSettings) -> PreparedChain:
    """Read the files of a chain and make its features, in the wire format.

    The result depends only on the chain's name, its files and the settings.

    Raises:
        InputError: a file cannot be read or is malformed.
    """
    with _as_input_error():
        read = _read_shards if chain.data_dir is not None else _read_files
        sources = read(chain, settings)
    raw = make_raw_features(
        chain.name,
        structure=unresolved_structure(chain.letters),
        alignment=sources.alignment,
        templates=sources.templates,
    )
    config = settings.data_config()
    seed = prediction_seed(chain.name, seed=settings.seed)
    copies = copy_warnings(sources.hits, sequence_to_tokens(chain.letters), settings)
    return PreparedChain(
        name=chain.name,
        wire=encode_sample(raw, choose_for_evaluation(raw, seed=seed, config=config)),
        num_alignment_rows=sources.alignment.num_sequences,
        alignment_depth=_alignment_depth(sources.alignment),
        templates=tuple(hit.name for hit in sources.hits),
        warnings=(*template_warnings(chain, settings), *sources.warnings, *copies),
        input_hash=hash_inputs(chain),
    )


def hash_inputs(chain: ChainInput) -> str:
    """Return 16 characters that differ if the alignments or template hits of a chain differ.

    The structures of templates are not part of it. Of converted data, the whole data set counts.

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    with _as_input_error():
        for path in (*chain.msa_paths, *chain.hits_paths):
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.name} {content}\n".encode())
        if chain.data_dir is not None:
            digest.update(_open_reader(chain.data_dir).index.checksum.encode())
    return digest.hexdigest()[:16]


def _alignment_depth(alignment: AlignmentRecord) -> tuple[int, ...]:
    """Return the number of rows without a gap at each residue."""
    num_gaps = alignment.token_counts[:, GAP_TOKEN]
    return tuple((alignment.num_sequences - num_gaps).tolist())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Sources:
    """What the files or shards of a chain give."""

    alignment: AlignmentRecord
    hits: Sequence[TemplateHit]
    """The hits that are used as templates."""
    templates: dict[str, np.ndarray | list[str]]
    """The result of featurize_hits."""
    warnings: Sequence[str] = ()


def _read_files(chain: ChainInput, settings: FeatureSettings) -> _Sources:
    read = read_alignment(
        chain.msa_paths, chain_id=chain.name, sequence=chain.letters, max_rows=MAX_ALIGNMENT_ROWS
    )
    hits: list[TemplateHit] = []
    missing: list[str] = []
    structure_of: dict[str, StructureRecord] = {}
    if chain.hits_paths and chain.template_structures is not None:
        structures = TemplateFiles(chain.template_structures)
        hits = find_templates(
            chain.hits_paths,
            chain.letters,
            structures=structures,
            is_allowed=functools.partial(is_allowed, settings),
            max_templates=settings.num_template_slots,
        )
        structure_of = {hit.name: structures.structure(hit.name) for hit in hits}
        missing = missing_template_warnings(structures.problems, structures.obsolete, settings)
    return _Sources(
        alignment=read.record,
        hits=hits,
        templates=featurize_hits(
            hits, structure_of=structure_of.__getitem__, num_residues=chain.num_residues
        ),
        warnings=(*read.notes, *missing),
    )


def _read_shards(chain: ChainInput, settings: FeatureSettings) -> _Sources:
    reader = _open_reader(chain.data_dir)
    hits = [
        hit
        for hit in hits_for_date(reader, chain.name, max_template_date=settings.max_template_date)
        if hit.is_featurizable and is_allowed(settings, hit)
    ][: settings.num_template_slots]
    return _Sources(
        alignment=reader.alignment(chain.name),
        hits=hits,
        templates=featurize_hits(
            hits, structure_of=reader.structure, num_residues=chain.num_residues
        ),
    )


@functools.lru_cache(maxsize=1)
def _open_reader(data_dir: Path) -> ShardReader:
    """Open a data directory; the next chain of the same directory uses the same index."""
    return ShardReader(data_dir)


def _read_stored_chains(
    data_dir: Path, chain_names: Sequence[str]
) -> tuple[list[ChainInput], list[ChainFailure]]:
    chains, failures = [], []
    with _as_input_error():
        reader = _open_reader(data_dir)
        known = reader.index.by_id
        for name in dict.fromkeys(chain_names or known):
            if name not in known:
                message = f"not in {data_dir}, which has {len(known):,} chains"
                failures.append(ChainFailure(name=name, message=message))
                continue
            checked = check_sequence(reader.sequence(name))
            alone = () if known[name].has_alignment else (_ALONE,)
            chains.append(
                ChainInput(
                    name=name,
                    sequence=checked.sequence,
                    letters=checked.letters,
                    origin=f"{data_dir}, chain {name}",
                    warnings=checked.warnings + alone,
                    data_dir=data_dir,
                )
            )
    return chains, failures


_ALONE = "has no alignment and is predicted from its sequence alone; expect low confidence"


def _find_files(
    record: QueryRecord,
    sources: Sequence[AlignmentSource],
    *,
    is_only_chain: bool,
    single_sequence: bool,
) -> ChainInput:
    """Check the sequence of a record and find its alignment files."""
    checked = check_sequence(record.letters)
    found = find_alignment(sources, record.name, is_only_chain=is_only_chain)
    warnings = [*checked.warnings, *found.notes]
    msa_paths = found.msa_paths
    if record.msa_path is not None:
        if msa_paths:
            warnings.append(f"the rows are those of {record.msa_path}; {msa_paths[0]} is not used")
        msa_paths = (record.msa_path,)
    if not msa_paths and not single_sequence:
        raise InputError(found.describe_missing())
    for path in msa_paths:
        difference = check_query(path, chain_id=record.name, sequence=checked.letters)
        if difference is not None:
            warnings.append(describe_difference(difference, path))
    return ChainInput(
        name=record.name,
        sequence=checked.sequence,
        letters=checked.letters,
        origin=record.origin,
        warnings=(*warnings, *(() if msa_paths else (_ALONE,))),
        msa_paths=msa_paths,
        hits_paths=found.hits_paths,
    )


@contextmanager
def _as_input_error() -> Iterator[None]:
    """Convert the exceptions of files and shards to InputError."""
    try:
        yield
    except (BrokenFile, DataPrepError, ShardError) as error:
        raise InputError(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise InputError(
            f"cannot read {error.filename}: {error.strerror}; make it readable, or leave it out"
        ) from error
