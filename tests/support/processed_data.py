"""Writer of raw files in the processed form of MLCommons, for tests."""

from __future__ import annotations

import csv
import json
import pickle
import zlib
from pathlib import Path

from data_prep.convert.alignment_sources import read_folder_use
from data_prep.convert.build_index import commonest_cluster
from data_prep.errors import EntryRejected
from data_prep.parsers.mmcif import parse_mmcif
from data_prep.parsers.tables import read_clusters, read_duplicates


def write_processed(raw: Path, out: Path) -> tuple[Path, Path]:
    """Write the processed form of the files in raw/pdb_mmcif and raw/open_protein_set.

    Returns:
        The folders of entries and of alignments.
    """
    return _write_entries(raw / "pdb_mmcif", out / "pdb"), _write_alignments(
        raw / "open_protein_set", out / "alignments"
    )


def _write_entries(pdb_mmcif: Path, out: Path) -> Path:
    (out / "dicts").mkdir(parents=True)
    clusters = read_clusters(pdb_mmcif / "clusters-by-entity-40.txt")
    chain_rows, log_rows = [], []
    for folder in sorted((pdb_mmcif / "raw").iterdir()):
        entries = {}
        for path in sorted(folder.glob("*.cif.gz")):
            error = ""
            try:
                entry = parse_mmcif(path)
                entries[entry.pdb_id] = _entry_dict(entry)
                for chain in entry.chains:
                    chain_rows.append(
                        [
                            f"{entry.pdb_id}_{chain.author_chain_id}",
                            commonest_cluster(chain.entity_keys, clusters),
                        ]
                    )
            except EntryRejected:
                error = "RuntimeError('legal_polymers are empty')"
            log_rows.append([path.name.split(".")[0], folder.name, path.stat().st_size, error])
        (out / "dicts" / folder.name).write_bytes(pickle.dumps(entries))
    _write_csv(out / "chains.csv", [["pdb_chain_id", "pdb_cluster_id"], *chain_rows])
    _write_csv(
        out / "dicts_preprocessing_logs.csv",
        [["pdb_id", "subdirname", "mmcif_gz_size", "error"], *log_rows],
    )
    (out / "obsolete.dat").write_bytes((pdb_mmcif / "obsolete.dat").read_bytes())
    return out


def _entry_dict(entry) -> dict:
    """Return the dict of an entry with one entity per chain, as in all synthetic entries."""
    labels = {
        label: chain.author_chain_id for chain in entry.chains for label in chain.mmcif_chain_ids
    }
    return {
        "pdb_id": entry.pdb_id,
        "exptl_method": entry.method,
        "release_date": entry.release_date,
        "resolution": entry.resolution,
        "author_chain_ids": [chain.author_chain_id for chain in entry.chains],
        "entity_id_to_mmcif_chain_ids": {
            chain.entity_keys[0].split("_")[1]: list(chain.mmcif_chain_ids)
            for chain in entry.chains
        },
        "mmcif_chain_id_to_author_chain_id": labels,
        "sequences": {chain.author_chain_id: chain.sequence for chain in entry.chains},
        "atoms": {
            chain.author_chain_id: {
                "all_atom_positions": (
                    zlib.compress(chain.positions.tobytes()),
                    chain.positions.shape,
                ),
                "all_atom_mask": (zlib.compress(chain.mask.tobytes()), chain.mask.shape),
            }
            for chain in entry.chains
        },
    }


def _write_alignments(open_protein_set: Path, out: Path) -> Path:
    folder_out = out / "pdb_alignments"
    folder_out.mkdir(parents=True)
    folders = sorted(path for path in (open_protein_set / "pdb").iterdir() if path.is_dir())
    groups = read_duplicates(open_protein_set / "duplicate_pdb_chains.txt")
    index = {}
    for number in range(2):
        contents = b""
        for folder in folders[number::2]:
            files = []
            for path in sorted(folder.glob("*/*")):
                files.append([path.name, len(contents), path.stat().st_size])
                contents += path.read_bytes()
            members = next((group for group in groups if folder.name in group), [folder.name])
            assert read_folder_use(members, open_protein_set).missing == []
            index.update(dict.fromkeys(members, {"db": f"{number}.db", "files": files}))
        (folder_out / f"{number}.db").write_bytes(contents)
    (folder_out / "super.index").write_text(json.dumps(index))
    return out


def _write_csv(path: Path, rows: list[list]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
