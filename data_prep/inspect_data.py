"""The command `python -m data_prep inspect DIR [CHAIN] [--chains] [--npz FILE]`.

It shows the contents of a data directory or of one of its chains.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from data_prep.convert.listings import DIFFERENCES_FILE_NAME, UNUSED_FILE_NAME, read_listing
from data_prep.errors import DataPrepError
from openfold_opt.protein import shard_format
from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS
from openfold_opt.protein.index import ShardIndex, verified_checksum
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.replace_file import replacing
from openfold_opt.protein.residue_constants import hhblits_to_model_order
from openfold_opt.protein.shard_files import StructureShard
from openfold_opt.protein.templates import featurize_templates, latest_template_date

LATE_TEMPLATE_DATE = latest_template_date("2030-01-01")
"""Later than any entry of the PDB, so that the raw features include templates of all dates."""
MAX_TEMPLATES = 4


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "inspect",
        help="show a data directory, or one chain of it",
        description="Without CHAIN: a summary of the data directory, or with --chains a list of "
        "all chains. With CHAIN: a summary of that chain, or why it was rejected; with --npz its "
        "raw features as arrays.",
    )
    parser.add_argument(
        "data_dir", type=Path, metavar="DIR", help="a data directory made by convert"
    )
    parser.add_argument(
        "chain_id", nargs="?", metavar="CHAIN", help="<PDB id>_<author chain>, for example 2hhb_A"
    )
    parser.add_argument(
        "--chains",
        action="store_true",
        help="list all chains, one per line: id, residues, rows of the alignment, template hits, "
        "cluster, release date, alignment",
    )
    parser.add_argument(
        "--npz",
        type=Path,
        metavar="FILE",
        help="write the chain's raw features (keys in docs/data_format.md)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    _check_not_all_rejected(arguments.data_dir)
    if arguments.chain_id is None:
        if arguments.npz is not None:
            raise DataPrepError("--npz needs a CHAIN")
        index = ShardIndex.load(arguments.data_dir)
        if arguments.chains:
            print_chains(index)
        else:
            print(describe_data_set(index, arguments.data_dir))
        return 0
    if arguments.chains:
        raise DataPrepError("--chains lists all chains; omit CHAIN or --chains")
    reader = ShardReader(arguments.data_dir)
    if arguments.chain_id not in reader.index.by_id:
        raise DataPrepError(_absence_reason(reader.index, arguments.data_dir, arguments.chain_id))
    if arguments.npz is None:
        print(describe_chain(reader, arguments.chain_id))
        return 0
    if arguments.npz.exists() and not arguments.npz.is_file():
        raise DataPrepError(f"--npz {arguments.npz} is not a regular file; name another one")
    features = raw_features(reader, arguments.chain_id)
    with replacing(arguments.npz) as file:
        np.savez_compressed(file, **features)
    shapes = [f"{name} {array.dtype}{list(array.shape)}" for name, array in features.items()]
    print(f"{arguments.npz}: {', '.join(shapes)}")
    return 0


def _check_not_all_rejected(data_dir: Path) -> None:
    """Raise DataPrepError if a conversion has finished its shards and rejected every chain.

    Such a conversion writes rejected.csv and no index. Running it again does not help.
    """
    if (data_dir / shard_format.INDEX_FILE_NAME).exists():
        return
    path = data_dir / shard_format.REJECTED_FILE_NAME
    rejected = {row["entry"] for row in read_listing(path)}
    shards = [StructureShard(shard) for shard in sorted(data_dir.glob("structures-*.h5"))]
    chain_ids = {chain_id for shard in shards for chain_id in shard.strings("chain_id")}
    if rejected and shards and chain_ids <= rejected:
        raise DataPrepError(
            f"{data_dir} has no chains: conversion rejected all entries and chains of the input. "
            f"{path} lists the reasons; fix the input and run the same `convert` again"
        )


def _absence_reason(index: ShardIndex, data_dir: Path, chain_id: str) -> str:
    """Return why a chain is not in the data set, from rejected.csv if it or its entry is there."""
    pdb_id = chain_id.split("_")[0]
    path = data_dir / shard_format.REJECTED_FILE_NAME
    for row in read_listing(path):
        if row["entry"] == chain_id:
            return f"chain {chain_id} was rejected: {row['reason']} ({path})"
        if row["entry"].lower() == pdb_id.lower():
            where = f"chain {chain_id} is not in {data_dir}: entry {row['entry']} was rejected"
            return f"{where}: {row['reason']} ({path})"
    similar = [known for known in index.by_id if known.lower() == chain_id.lower()]
    others = similar or [known for known in index.by_id if known.split("_")[0] == pdb_id]
    hint = f"; there are {', '.join(others[:10])}" if others else ""
    return f"chain {chain_id} is not in {data_dir} ({len(index.chains)} chains){hint}"


def print_chains(index: ShardIndex) -> None:
    """Print a header and one line per chain, with columns separated by tabs."""
    print(
        "chain", "residues", "rows", "template_hits", "cluster", "released", "alignment", sep="\t"
    )
    for chain in index.chains:
        print(
            chain.chain_id,
            chain.sequence_length,
            chain.num_alignments,
            chain.num_template_hits,
            "none" if chain.cluster_id == -1 else chain.cluster_id,
            chain.release_date,
            chain.alignment_id or "none",
            sep="\t",
        )


def describe_data_set(index: ShardIndex, data_dir: Path) -> str:
    """Return a summary of the data set in several lines."""
    dates = sorted(chain.release_date for chain in index.chains)
    methods = Counter(chain.method for chain in index.chains)
    verified = (
        "yes"
        if verified_checksum(data_dir) == index.checksum
        else "no (python -m data_prep verify)"
    )
    with_alignment = [chain for chain in index.chains if chain.has_alignment]
    query_only = [chain for chain in index.chains if chain.num_alignments == 1]
    rejected = read_listing(data_dir / shard_format.REJECTED_FILE_NAME)
    lines = [
        f"data set            {data_dir}",
        f"format version      {index.format_version}",
        f"checksum            {index.checksum}",
        f"verified            {verified}",
        f"entries             {index.num_entries}, of which {index.num_rejected_entries} rejected",
        f"chains              {len(index.chains)}",
        f"rejected chains     {max(len(rejected) - index.num_rejected_entries, 0)} for their "
        f"alignments (rejected.csv)",
        f"released            {dates[0]} to {dates[-1]}",
        f"residues            {sum(chain.sequence_length for chain in index.chains)}",
        f"in a cluster        {sum(chain.cluster_id != -1 for chain in index.chains)}",
        f"with an alignment   {len(with_alignment)} "
        f"({len({chain.alignment_id for chain in with_alignment})} different ones)",
        f"query alone         {len(query_only)} chains without another row, "
        f"{sum(not chain.has_alignment for chain in query_only)} of them for lack of an alignment "
        "folder",
        f"letters differ      {_num_chains(data_dir / DIFFERENCES_FILE_NAME)} chains "
        f"(query_differences.csv)",
        f"not used            {len(read_listing(data_dir / UNUSED_FILE_NAME))} files or folders of "
        f"the input (unused.csv)",
        f"shards              {len(index.shards)}, "
        f"{sum(shard.size_bytes for shard in index.shards)} bytes",
        *(f"method              {count} x {method}" for method, count in methods.most_common()),
    ]
    return "\n".join(lines)


def _num_chains(listing: Path) -> int:
    return len({row["chain"] for row in read_listing(listing)})


def describe_chain(reader: ShardReader, chain_id: str) -> str:
    """Return a summary of a chain and its template hits in several lines."""
    entry = reader.entry(chain_id)
    structure = reader.structure(chain_id)
    alignment = reader.alignment(chain_id)
    num_resolved = int(structure.all_atom_mask.any(axis=1).sum())
    lines = [
        f"chain               {chain_id} (mmCIF chains {', '.join(entry.mmcif_chain_ids)})",
        f"released            {entry.release_date}",
        f"method              {entry.method}",
        f"resolution          "
        f"{'none' if entry.resolution is None else f'{entry.resolution:g} angstrom'}",
        f"cluster             {'none' if entry.cluster_id == -1 else entry.cluster_id}",
        f"residues            {entry.sequence_length}, {num_resolved} of them with atoms",
        f"sequence            {structure.sequence}",
        f"alignment           {entry.alignment_id or 'none: the sequence alone'}, "
        f"{alignment.num_sequences} rows",
    ]
    own_latest = latest_template_date(entry.release_date)
    for hit in reader.template_hits(chain_id):
        note = hit.failure or ("" if hit.release_date <= own_latest else "too late for this chain")
        lines.append(
            f"template hit        {hit.name:<8} {hit.release_date}  "
            f"sum_probs {hit.sum_probs:6.1f}  "
            f"{len(hit.query_index):4d} residues  {note}".rstrip()
        )
    return "\n".join(lines)


def raw_features(reader: ShardReader, chain_id: str) -> dict[str, np.ndarray]:
    """Return the raw features of a chain; docs/data_format.md lists names, dtypes and shapes.

    Templates are the best four of any date. Their aatype is one-hot in HHblits order, int32
    [n, N_res, 22], or [0, N_res] without templates, as in the benchmark.
    """
    structure = reader.structure(chain_id)
    alignment = reader.alignment(chain_id)
    templates = featurize_templates(
        reader, chain_id, max_template_date=LATE_TEMPLATE_DATE, max_templates=MAX_TEMPLATES
    )
    aatype = templates["template_aatype"]
    if len(aatype):
        from_model_order = np.argsort(np.asarray(hhblits_to_model_order))
        aatype = np.eye(NUM_TOKENS, dtype=np.int32)[from_model_order[aatype]]
    return {
        "sequence": np.array(structure.sequence),
        "residue_index": structure.residue_index,
        "all_atom_positions": structure.all_atom_positions,
        "all_atom_mask": structure.all_atom_mask,
        "msa": np.asarray(alignment.msa),
        "deletion": alignment.dense_deletions(),
        "resolution": np.array(np.nan if structure.resolution is None else structure.resolution),
        "release_date": np.array(structure.release_date),
        "template_aatype": aatype,
        "template_all_atom_positions": templates["template_all_atom_positions"],
        "template_all_atom_mask": templates["template_all_atom_mask"],
        "template_sum_probs": templates["template_sum_probs"],
    }
