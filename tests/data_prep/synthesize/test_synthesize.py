"""Synthetic families: the same seed gives the same bytes; they are converted like real files."""

import hashlib
from pathlib import Path

import pytest

from data_prep.__main__ import main
from data_prep.synthesize.command import VALIDATION_DATES
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.selection import chains_released_between, training_chains
from openfold_opt.protein.templates import featurize_templates

CHAINS = 24


def synthesize(folder: Path, *, seed: int = 0, chains: int = CHAINS) -> Path:
    assert (
        main(["synthesize", "--out", str(folder), "--chains", str(chains), "--seed", str(seed)])
        == 0
    )
    return folder


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("synthetic") / "raw")


@pytest.fixture(scope="module")
def reader(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "shards"
    inputs = [
        "--pdb-mmcif",
        str(raw / "pdb_mmcif"),
        "--open-protein-set",
        str(raw / "open_protein_set"),
    ]
    assert main(["convert", *inputs, "--out", str(out)]) == 0
    return ShardReader(out)


def test_same_seed_gives_the_same_bytes(raw, tmp_path):
    first = digest(raw)
    assert len(first) == 3 * CHAINS + 3
    assert digest(synthesize(tmp_path / "again")) == first
    assert digest(synthesize(tmp_path / "other", seed=1)) != first


def test_a_family_does_not_depend_on_the_number_of_families(raw, tmp_path):
    fewer = synthesize(tmp_path / "fewer", chains=CHAINS // 2)
    name = "pdb_mmcif/raw/00/9006.cif.gz"
    assert (fewer / name).read_bytes() == (raw / name).read_bytes()


def test_every_chain_is_converted_with_its_alignment_and_structure(reader):
    assert len(reader.index.chains) == CHAINS
    for entry in reader.index.chains:
        structure = reader.structure(entry.chain_id)
        assert structure.all_atom_mask[:, 1].all(), "every CA is there"
        assert len(reader.alignment(entry.chain_id).msa) > 1


def test_validation_families_are_not_trained_on(reader):
    validation = set(
        chains_released_between(
            reader.index, min_date="2021-11-20", max_date="2021-12-11", max_length=700
        )
    )
    training = {
        chain.chain_id for chain in training_chains(reader.index, max_release_date="2021-09-16")
    }
    assert len(validation) >= 1 and len(training) >= CHAINS // 2
    cluster = {entry.chain_id: entry.cluster_id for entry in reader.index.chains}
    assert not {cluster[chain] for chain in validation} & {cluster[chain] for chain in training}


def test_the_newer_member_has_the_older_one_as_its_template(reader):
    newer = [entry for entry in reader.index.chains if entry.release_date == VALIDATION_DATES[1]]
    older = [entry for entry in reader.index.chains if entry.release_date == VALIDATION_DATES[0]]
    assert len(newer) == len(older) >= 1
    for entry, template in zip(newer, older, strict=True):
        features = featurize_templates(reader, entry.chain_id, max_templates=4)
        assert features["template_all_atom_mask"].shape[0] == 1
        assert [hit.name for hit in reader.template_hits(entry.chain_id)] == [template.chain_id]
        # The older member must not use a newer template.
        assert (
            featurize_templates(reader, template.chain_id, max_templates=4)[
                "template_aatype"
            ].shape[0]
            == 0
        )


def test_a_folder_with_files_is_refused(raw, capsys):
    assert main(["synthesize", "--out", str(raw)]) == 1
    assert "not empty" in capsys.readouterr().err


def test_too_few_chains_are_refused(tmp_path, capsys):
    assert main(["synthesize", "--out", str(tmp_path / "out"), "--chains", "2"]) == 1
    assert "expected at least 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--seed", "-1"], "--seed is -1"), (["--chains", "2"], "expected at least 4")],
)
def test_impossible_options(tmp_path, capsys, options, message):
    assert main(["synthesize", "--out", str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_output_path_that_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["synthesize", "--out", str(tmp_path / "file")]) == 1
    assert "is a file, expected a folder" in capsys.readouterr().err
