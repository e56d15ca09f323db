"""Features of a prediction from files: bit for bit those of evaluation from shards."""

from __future__ import annotations

import gzip
import pickle
import shutil

import pytest
import torch

from openfold_opt.loader.random_streams import evaluation_seed, prediction_seed
from openfold_opt.predict.inputs import chain_features, prepare_chain, read_chains
from openfold_opt.protein.features import FEATURES
from openfold_opt.protein.hhblits_alphabet import GAP_TOKEN
from tests.support.prediction_inputs import (
    LABELS,
    evaluation_features,
    evaluation_settings,
    settings,
    write_fasta,
)


def read(data, **changes):
    """Read the chains of the FASTA file with all alignments and templates."""
    arguments = {
        "inputs": [data.fasta],
        "alignments": [data.alignments],
        "template_structures": data.structures,
        **changes,
    }
    chains, failures = read_chains(**arguments)
    assert failures == []
    return {chain.name: chain for chain in chains}


def differing(found, expected):
    return {name for name in FEATURES if not torch.equal(getattr(found, name), expected[name])}


@pytest.mark.parametrize("max_templates", [4, 1, 0])
def test_features_from_files_equal_those_of_evaluation(synthetic, max_templates):
    reader = synthetic.reader()
    num_with_template = 0
    for name, chain in read(synthetic).items():
        expected = evaluation_features(reader, name, max_templates=max_templates)
        changes = {"max_templates": max_templates}
        found = chain_features(chain, evaluation_settings(reader, name, **changes))
        assert differing(found, expected) == LABELS
        num_with_template += bool(found.template_mask.any())
    assert num_with_template == (4 if max_templates else 0)


def test_the_msa_is_masked_as_in_evaluation(synthetic):
    reader, name = synthetic.reader(), synthetic.chain_ids()[0]
    masking = {
        "masked_msa_fraction": 0.5,
        "masked_msa_uniform_probability": 0.6,
        "masked_msa_profile_probability": 0.2,
        "masked_msa_same_probability": 0.0,
    }
    chain = read(synthetic)[name]
    found = chain_features(chain, evaluation_settings(reader, name, **masking))
    assert differing(found, evaluation_features(reader, name, **masking)) == LABELS
    for setting in masking:
        others = {key: value for key, value in masking.items() if key != setting}
        other = chain_features(chain, evaluation_settings(reader, name, **others))
        assert not torch.equal(found.msa_feat, other.msa_feat), setting


def test_without_a_structure_labels_are_zero(synthetic):
    chain = next(iter(read(synthetic).values()))
    batch = chain_features(chain, settings())
    assert torch.isnan(batch.resolution).all()
    for name in LABELS - {"resolution"}:
        value = getattr(batch, name)
        assert torch.isfinite(value).all(), name
        if "frames" not in name and name != "backbone_rigid_tensor":
            assert not value.any(), name


def test_features_have_the_length_of_the_chain_and_a_slice_for_each_pass(synthetic):
    chain = next(iter(read(synthetic).values()))
    batch = chain_features(chain, settings(num_recycling_iterations=2, max_extra_msa=100))
    length = len(synthetic.sequence(chain.name))
    assert batch.aatype.shape == (1, length) and batch.num_passes == 3
    assert batch.msa_feat.shape == (1, 3, 8, length, 49)
    assert batch.extra_msa.shape == (1, 3, 100, length)
    assert batch.seq_mask.all() and not batch.extra_msa_mask[0, 0, -1].any()


def test_chains_of_shards_have_the_same_features(synthetic):
    names = synthetic.chain_ids()[2:4]
    stored, failures = read_chains(data_dir=synthetic.shards, chain_names=names)
    assert failures == [] and [chain.name for chain in stored] == names
    from_files = read(synthetic)
    for chain in stored:
        chosen = evaluation_settings(synthetic.reader(), chain.name)
        found, expected = (
            vars(chain_features(pickle.loads(pickle.dumps(one)), chosen))
            for one in (chain, from_files[chain.name])
        )
        assert all(torch.equal(found[n], expected[n]) for n in FEATURES if n != "resolution")
    everything, _ = read_chains(data_dir=synthetic.shards)
    assert [chain.name for chain in everything] == synthetic.chain_ids()


def test_draws_depend_on_name_and_seed_alone(synthetic, tmp_path):
    name = synthetic.chain_ids()[0]
    assert prediction_seed(name, seed=0) == evaluation_seed(name)
    assert len({prediction_seed(n, seed=s) for n in "ab" for s in range(3)}) == 6
    first = chain_features(read(synthetic)[name], settings(seed=5)).true_msa
    alone = write_fasta(tmp_path / "x.fasta", {name: synthetic.sequence(name)})
    again = chain_features(read(synthetic, inputs=[alone])[name], settings(seed=5)).true_msa
    assert torch.equal(first, again)
    other = chain_features(read(synthetic)[name], settings(seed=6)).true_msa
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="seed is -1"):
        prediction_seed(name, seed=-1)


def test_passes_can_be_decoded_one_at_a_time(synthetic):
    prepared = prepare_chain(next(iter(read(synthetic).values())), settings())
    everything = prepared.features()
    for number in range(2):
        found = vars(prepared.features_of_pass(number).at_pass(0))
        expected = vars(everything.at_pass(number))
        assert all(torch.equal(found[n], expected[n]) for n in FEATURES if n != "resolution")


def test_prepared_chain_says_what_was_used(synthetic):
    name = synthetic.chain_ids()[1]
    chain = pickle.loads(pickle.dumps(read(synthetic)[name]))
    prepared = prepare_chain(chain, settings(max_template_date="2021-10-02"))
    assert prepared.templates == (synthetic.chain_ids()[0],) and prepared.warnings == ()
    num_rows = synthetic.reader().alignment(name).num_sequences
    assert prepared.num_alignment_rows == num_rows > 8
    (stored,), _ = read_chains(data_dir=synthetic.shards, chain_names=[name])
    depth = (synthetic.reader().alignment(name).msa != GAP_TOKEN).sum(axis=0)
    assert prepared.alignment_depth == tuple(depth)
    assert prepare_chain(stored, settings()).alignment_depth == tuple(depth)
    assert chain.num_residues == len(chain.sequence) == prepared.features().aatype.shape[1]


def write_layout(layout, source, folder, name):
    """Write the alignment of a chain in one of the layouts; return the folder or file."""
    msa, hits = source.msa_path(name), source.hits_path(name)
    rows = msa.read_bytes()
    if layout == "open_protein_set":
        shutil.copytree(source.alignments / "pdb" / name, folder / name)
    elif layout == "pdb":
        shutil.copytree(source.alignments, folder, dirs_exist_ok=True)
    elif layout == "openfold":
        (folder / name).mkdir()
        (folder / name / "uniref90_hits.a3m.gz").write_bytes(gzip.compress(rows))
        shutil.copy(hits, folder / name)
    elif layout == "flat":
        shutil.copy(msa, folder)
        shutil.copy(hits, folder)
    elif layout == "flat_in_folders":
        shutil.copytree(source.alignments / "pdb" / name, folder, dirs_exist_ok=True)
    else:
        shutil.copy(hits, folder / f"{name}.hhr")
        contents = {
            "file": rows,
            "terminated": rows + b"\0",
            "header": f"#{len(source.sequence(name))}\t1\n".encode() + rows,
            "blocks": b">101\nMKVWWWWWWWWWWWWWW\n\0" + rows + b"\0",
        }
        (folder / f"{name}.a3m").write_bytes(contents[layout])
    return folder


LAYOUTS = "open_protein_set pdb openfold flat flat_in_folders file terminated header blocks".split()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_features(synthetic, tmp_path, layout):
    name = synthetic.chain_ids()[1]
    fasta = write_fasta(tmp_path / "x.fasta", {name: synthetic.sequence(name)})
    (tmp_path / "alignments").mkdir()
    folder = write_layout(layout, synthetic, tmp_path / "alignments", name)
    chain = read(synthetic, inputs=[fasta], alignments=[folder])[name]
    assert len(chain.msa_paths) == len(chain.hits_paths) == 1
    reader = synthetic.reader()
    found = chain_features(chain, evaluation_settings(reader, name))
    assert differing(found, evaluation_features(reader, name)) == LABELS


def test_a3m_input_is_chain_and_alignment(synthetic, tmp_path):
    name = synthetic.chain_ids()[1]
    path = tmp_path / f"{name}.a3m"
    shutil.copy(synthetic.msa_path(name), path)
    reader = synthetic.reader()
    chain = read(synthetic, inputs=[path], alignments=[synthetic.hits_path(name)])[name]
    assert chain.msa_paths == (path,) and chain.sequence == synthetic.sequence(name)
    found = chain_features(chain, evaluation_settings(reader, name))
    assert differing(found, evaluation_features(reader, name)) == LABELS
    both = read(synthetic, inputs=[tmp_path])[name]
    assert both.msa_paths == (path,) and "is not used" in both.warnings[0]


def test_rows_follow_the_order_of_conversion(synthetic, tmp_path):
    name = synthetic.chain_ids()[0]
    query = synthetic.sequence(name)
    folder = tmp_path / "alignments" / name
    folder.mkdir(parents=True)
    order = ["uniref90_hits", "bfd_uniclust_hits", "mgnify_hits", "a_custom", "z_custom"]
    for number, stem in enumerate(reversed(order)):
        row = "ACDEF"[number] * len(query)
        (folder / f"{stem}.a3m").write_text(f">{name}\n{query}\n>row\n{row}\n")
    (folder / "hmm_output.sto").write_text("# STOCKHOLM 1.0\n")
    chain = read(synthetic, alignments=[folder.parent, synthetic.alignments])[name]
    assert [path.stem for path in chain.msa_paths] == order
    assert [path.name for path in chain.hits_paths] == ["pdb70_hits.hhr"], "from the second folder"
    assert "template search of hmmsearch" in " ".join(chain.warnings)
    batch = chain_features(chain, settings(max_msa_clusters=1, max_extra_msa=20, max_templates=0))
    assert batch.extra_msa_mask[0, 0, :, 0].sum() == 5, "the query of five files is one row"
