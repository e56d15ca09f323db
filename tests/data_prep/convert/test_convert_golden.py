"""Conversion of real data gives exactly the results of the benchmark's preprocessing."""

from __future__ import annotations

import csv
import hashlib
import json
import math

import numpy as np
import pytest

from data_prep.inspect_data import LATE_TEMPLATE_DATE, raw_features
from data_prep.parsers.hhr import parse_hhr
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.residue_constants import hhblits_to_model_order
from openfold_opt.protein.selection import training_chains
from openfold_opt.protein.templates import featurize_templates

TRAINING_DATE = "2021-09-16"


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def grouped(npz):
    """Return {chain: {array name: array}} from an archive with keys <chain>/<name>."""
    groups = {}
    for key in npz.files:
        chain_id, name = key.split("/", 1)
        groups.setdefault(chain_id, {})[name] = npz[key]
    return groups


def check_entries_and_chains(data_dir, golden):
    reader = ShardReader(data_dir)
    rejected = {row["entry"] for row in rows(data_dir / "rejected.csv")}
    assert rejected == {row["pdb_id"] for row in rows(golden / "entries.csv") if row["error"]}
    assert all(row["reason"] for row in rows(data_dir / "rejected.csv"))
    expected = rows(golden / "chains.csv")
    assert [chain.chain_id for chain in reader.index.chains] == [
        row["pdb_chain_id"] for row in expected
    ]
    for chain, row in zip(reader.index.chains, expected):
        assert (chain.pdb_id, chain.author_chain_id) == (row["pdb_id"], row["author_chain_id"])
        assert ";".join(chain.mmcif_chain_ids) == row["mmcif_chain_ids"]
        assert chain.release_date == row["release_date"]
        assert chain.resolution == (float(row["resolution"]) if row["resolution"] else None)
        assert chain.cluster_id == int(row["pdb_cluster_id"])
        assert chain.sequence_length == int(row["sequence_length"])
        assert reader.sequence(chain.chain_id) == row["sequence"]


def check_training_list(data_dir, golden):
    chosen = training_chains(ShardReader(data_dir).index, max_release_date=TRAINING_DATE)
    expected = rows(golden / "training_chains.csv")
    assert [chain.chain_id for chain in chosen] == [row["pdb_chain_id"] for row in expected]
    for chain, row in zip(chosen, expected):
        assert chain.cluster_size == int(row["pdb_cluster_size"])
        assert math.isclose(chain.weight, float(row["weight"]), rel_tol=1e-12)


def check_alignment(alignment, expected):
    msa, deletions = np.asarray(alignment.msa), alignment.dense_deletions()
    assert msa.dtype == np.uint8 and deletions.dtype == np.int32
    counts = np.stack([(msa == token).sum(axis=0) for token in range(22)], axis=1)
    np.testing.assert_array_equal(alignment.token_counts, counts)
    if "msa" in expected:
        np.testing.assert_array_equal(msa, expected["msa"])
        np.testing.assert_array_equal(deletions, expected["deletion"])
        return
    assert len(msa) == expected["num_alignments"]
    np.testing.assert_array_equal(msa[:64], expected["msa_first64"])
    np.testing.assert_array_equal(
        alignment.dense_deletions(slice(0, 64)), expected["deletion_first64"]
    )
    assert hashlib.sha256(msa.tobytes()).digest() == expected["msa_sha256"].tobytes()
    assert hashlib.sha256(deletions.tobytes()).digest() == expected["deletion_sha256"].tobytes()
    if "token_counts" in expected:
        np.testing.assert_array_equal(alignment.token_counts, expected["token_counts"])


def test_entries_and_chain_table(golden_case):
    check_entries_and_chains(*golden_case)


def test_training_list_and_weights(golden_case):
    check_training_list(*golden_case)


def test_structures_bit_for_bit(golden_case):
    data_dir, golden = golden_case
    reader = ShardReader(data_dir)
    expected = grouped(np.load(golden / "structures.npz"))
    assert len(expected) == len(reader.index.chains)
    for chain_id, arrays in expected.items():
        structure = reader.structure(chain_id)
        np.testing.assert_array_equal(structure.all_atom_mask, arrays["all_atom_mask"])
        assert structure.all_atom_positions.tobytes() == arrays["all_atom_positions"].tobytes()


def test_alignments_bit_for_bit(golden_case):
    data_dir, golden = golden_case
    reader = ShardReader(data_dir)
    for chain_id, arrays in grouped(np.load(golden / "msa.npz")).items():
        check_alignment(reader.alignment(chain_id), arrays)


def test_template_hits_as_parsed(golden_case, shared):
    data_dir, golden = golden_case
    reader = ShardReader(data_dir)
    root = (
        shared
        / "data"
        / {"data": "real", "data_quirks": "quirks"}[golden.name]
        / "open_protein_set"
        / "pdb"
    )
    for chain_id, expected in json.loads((golden / "template_hits.json").read_text()).items():
        hits = parse_hhr(root / reader.entry(chain_id).alignment_id / "hhr" / "pdb70_hits.hhr")
        assert len(hits) == len(expected)
        for hit, fields in zip(hits, expected):
            for name, value in fields.items():
                actual = getattr(hit, name)
                assert (list(actual) if isinstance(actual, tuple) else actual) == value, (
                    chain_id,
                    name,
                )


def test_template_features(golden_case):
    data_dir, golden = golden_case
    reader = ShardReader(data_dir)
    expected = {}
    for key, array in np.load(golden / "templates.npz").items():
        chain_id, date, name = key.split("/")
        expected.setdefault((chain_id, date), {})[name] = array
    assert expected
    for (chain_id, date), arrays in expected.items():
        features = featurize_templates(
            reader,
            chain_id,
            max_template_date={"own_date": None, "late_date": LATE_TEMPLATE_DATE}[date],
            max_templates=4,
        )
        assert features["names"] == list(arrays["template_domain_names"])
        for name in ("template_all_atom_positions", "template_all_atom_mask", "template_sum_probs"):
            assert features[name].dtype == np.float32
            assert features[name].tobytes() == arrays[name].tobytes(), (chain_id, date, name)
        assert features["template_aatype"].dtype == np.int32
        if len(features["names"]):
            ours = np.asarray(hhblits_to_model_order)[arrays["template_aatype"].argmax(axis=-1)]
            np.testing.assert_array_equal(features["template_aatype"], ours)
        else:
            assert features["template_aatype"].shape == arrays["template_aatype"].shape


def test_inspected_features(golden_case):
    data_dir, golden = golden_case
    reader = ShardReader(data_dir)
    late = {key.split("/")[0]: 0 for key in np.load(golden / "templates.npz").files}
    templates = np.load(golden / "templates.npz")
    for chain_id in late:
        features = raw_features(reader, chain_id)
        for name in (
            "template_aatype",
            "template_all_atom_positions",
            "template_all_atom_mask",
            "template_sum_probs",
        ):
            golden_array = templates[f"{chain_id}/late_date/{name}"]
            assert (
                features[name].dtype == golden_array.dtype
                and features[name].shape == golden_array.shape
            )
            np.testing.assert_array_equal(features[name], golden_array)
        assert features["deletion"].shape == features["msa"].shape


@pytest.mark.parametrize("check", [check_entries_and_chains, check_training_list])
def test_large_tables(large_case, check):
    check(*large_case)


def test_large_structures_by_hash(large_case):
    data_dir, golden = large_case
    reader = ShardReader(data_dir)
    for row in rows(golden / "structures.csv"):
        structure = reader.structure(row["pdb_chain_id"])
        assert structure.all_atom_mask.sum() == int(row["num_atoms"])
        assert (
            hashlib.sha256(structure.all_atom_positions.tobytes()).hexdigest()
            == row["positions_sha256"]
        ), row["pdb_chain_id"]
        assert (
            hashlib.sha256(structure.all_atom_mask.tobytes()).hexdigest() == row["mask_sha256"]
        ), row["pdb_chain_id"]


def test_large_alignments(large_case):
    data_dir, golden = large_case
    reader = ShardReader(data_dir)
    expected = grouped(np.load(golden / "msa.npz"))
    assert len({reader.entry(chain_id).alignment_id for chain_id in expected}) == len(expected)
    for chain_id, arrays in expected.items():
        check_alignment(reader.alignment(chain_id), arrays)
