"""Distillation sets: what is stored, the filters, names, resumption, and bad input."""

import csv
import dataclasses
import errno
import re
import shutil

import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.distill.distillation_source import METHOD
from data_prep.distill.prediction_files import chain_id_of, find_predictions
from openfold_opt.protein import shard_format
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.records import FIRST_OWN_CLUSTER
from tests.support.predicted_data import predicted, write_predictions
from tests.support.synthetic_shards import write_synthetic_shards

NO_FILTERS = ("--min-length", "0", "--max-length", "0", "--min-msa-rows", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Raw files and shards of eight synthetic chains, and predictions of six of them."""
    folder = tmp_path_factory.mktemp("distill")
    write_synthetic_shards(folder / "raw", folder / "shards")
    reader = ShardReader(folder / "shards")
    write_predictions(
        folder / "predictions", [predicted(reader, chain_id) for chain_id in chain_ids(reader)[2:]]
    )
    return folder


@pytest.fixture
def reader(folder):
    return ShardReader(folder / "shards")


def chain_ids(reader):
    return [chain.chain_id for chain in reader.index.chains]


def distill(folder, out, *options, predictions=None):
    """Run the command and return its exit code."""
    inputs = ["--predictions", str(predictions or folder / "predictions")]
    inputs += ["--alignments", str(folder / "raw" / "open_protein_set")]
    return main(["distill", *inputs, "--out", str(out), *map(str, options)])


def rejected(out):
    with (out / "rejected.csv").open() as file:
        return {row["entry"]: row["reason"] for row in csv.DictReader(file)}


def test_distilled_chains_have_the_predicted_atoms_and_the_alignment(folder, reader, tmp_path):
    name = chain_ids(reader)[3]
    plddt = np.linspace(10, 90, len(reader.sequence(name)), dtype=np.float32)
    plddt[5], plddt[6] = 50.0, 50.01
    predictions = write_predictions(tmp_path / "p", [predicted(reader, name, plddt=plddt)])
    options = (*NO_FILTERS, "--release-date", "2022-02-03")
    assert distill(folder, tmp_path / "out", *options, predictions=predictions) == 0
    distilled = ShardReader(tmp_path / "out")
    (entry,) = distilled.index.chains
    record, true = distilled.structure(name), reader.structure(name)
    assert (entry.chain_id, entry.method, entry.resolution) == (name, METHOD, None)
    assert (entry.release_date, entry.num_template_hits) == ("2022-02-03", 0)
    assert entry.cluster_id == FIRST_OWN_CLUSTER
    assert record.sequence == true.sequence
    is_kept = np.round(plddt, 2) > 50
    assert not is_kept[5] and is_kept[6]
    assert (record.all_atom_mask == true.all_atom_mask & is_kept[:, None]).all()
    kept = record.all_atom_mask
    np.testing.assert_allclose(
        record.all_atom_positions[kept], true.all_atom_positions[kept], atol=6e-4
    )
    np.testing.assert_array_equal(distilled.alignment(name).msa, reader.alignment(name).msa)


def test_the_defaults_are_those_of_the_paper_and_reject_short_chains(folder, tmp_path, capsys):
    assert distill(folder, tmp_path / "out") == 1
    assert "all 6 entries were rejected; the first: " in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.h5").exists()
    assert all(
        reason.startswith("too short: ") and reason.endswith(" residues, expected at least 200")
        for reason in rejected(tmp_path / "out").values()
    )


def test_each_filter_rejects_and_is_counted(folder, reader, tmp_path, capsys):
    """Chains of 36, 36, 31, 31, 33 and 33 residues with 40, 17, 30, 43, 34 and 17 rows."""
    names = chain_ids(reader)[2:]
    plddt = dict.fromkeys(names, 90.0) | {names[2]: 50.0}
    structures = [predicted(reader, name, plddt=plddt[name]) for name in names]
    predictions = write_predictions(tmp_path / "p", structures)

    def kinds(*limits, code):
        assert distill(folder, tmp_path / "out", *limits, predictions=predictions) == code
        found = rejected(tmp_path / "out")
        return [found.get(name, "").split(":")[0] for name in names]

    length = ("--min-length", 0, "--max-length", 35, "--min-msa-rows", 0)
    expected = ["too long", "too long", "no confident residue", "", "", ""]
    assert kinds(*length, code=0) == expected
    output = capsys.readouterr().out
    assert "3 of 6 predicted chains" in output and "  2 x too long\n" in output
    rows = ("--min-length", 33, "--max-length", 0, "--min-msa-rows", 18, "--min-plddt", 0)
    expected = ["", "few alignment rows", "too short", "too short", "", "few alignment rows"]
    assert kinds(*rows, code=0) == expected
    assert len(ShardReader(tmp_path / "out").index.chains) == 2
    assert kinds(*NO_FILTERS[:4], "--min-msa-rows", 44, code=1)[2] == "no confident residue"
    assert "rejected.csv: 5 x few alignment rows, 1 x no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--min-plddt", "100"), "--min-plddt is 100, expected less than 100"),
        (("--min-length", "-1"), "--min-length is -1, expected 0"),
        (("--max-length", "100"), "--max-length 100 is below --min-length 200"),
        (("--release-date", "2022"), "--release-date is '2022', expected a date"),
    ],
)
def test_wrong_options_are_refused(folder, tmp_path, capsys, options, message):
    assert distill(folder, tmp_path / "out", *options) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_become_chain_ids_and_files_are_found_by_name(folder, reader, tmp_path):
    assert chain_id_of("1abc_A") == "1abc_A"
    assert chain_id_of("sp|P1|X_Y") == "sp-P1-X-Y_A"
    assert chain_id_of("||") == "chain_A"
    name, query = chain_ids(reader)[2], "my protein"
    alignments = tmp_path / "alignments"
    alignments.mkdir()
    rows = folder / "raw" / "open_protein_set" / "pdb" / name / "a3m" / "uniref90_hits.a3m"
    shutil.copy(rows, alignments / "my_protein.a3m")
    predictions = write_predictions(tmp_path / "p", [predicted(reader, name, name=query)])
    inputs = ["--predictions", str(predictions), "--alignments", str(alignments)]
    assert main(["distill", *inputs, "--out", str(tmp_path / "out"), *NO_FILTERS]) == 0
    distilled = ShardReader(tmp_path / "out")
    assert chain_ids(distilled) == ["my-protein_A"]
    assert distilled.alignment("my-protein_A").num_sequences > 1


def test_a_rerun_keeps_finished_shards_and_another_filter_makes_them_again(
    folder, tmp_path, capsys
):
    out = tmp_path / "out"
    assert distill(folder, out, *NO_FILTERS) == 0
    before = {path.name: path.read_bytes() for path in out.glob("*.h5")}
    assert distill(folder, out, *NO_FILTERS) == 0
    assert "1 of 1 shards are finished already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.glob("*.h5")} == before
    assert distill(folder, out, *NO_FILTERS, "--min-plddt", "90") == 1
    assert not (out / "index.h5").exists()


def test_a_full_disk_leaves_no_index(folder, tmp_path, monkeypatch, capsys):
    def fail(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_format, "write_atomically", fail)
    assert distill(folder, tmp_path / "out", *NO_FILTERS) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.h5"))


def test_validation_chains_are_rejected_by_id_and_by_sequence(folder, reader, tmp_path):
    names = chain_ids(reader)[2:5]
    structures = [
        predicted(reader, names[0]),
        predicted(reader, names[1], name="renamed_A"),
        dataclasses.replace(predicted(reader, names[2]), name="9999_A"),
    ]
    predictions = write_predictions(tmp_path / "p", structures)
    validation = write_predictions(
        tmp_path / "v", [predicted(reader, names[0]), predicted(reader, names[1])]
    )
    assert distill(folder, tmp_path / "v_out", *NO_FILTERS, predictions=validation) == 0
    options = ("--validation-data-dir", tmp_path / "v_out", "--missing-alignments", "query")
    assert distill(folder, tmp_path / "out", *NO_FILTERS, *options, predictions=predictions) == 0
    assert rejected(tmp_path / "out") == {
        names[0]: f"validation chain: {names[0]} has this id",
        "renamed_A": f"validation chain: {names[1]} has this sequence",
    }
    assert chain_ids(ShardReader(tmp_path / "out")) == ["9999_A"]


def test_chains_are_in_the_clusters_of_a_table(folder, reader, tmp_path, capsys):
    names = chain_ids(reader)[2:]
    table = tmp_path / "clusters.txt"
    table.write_text(f"1ABC_1 2ABC_1\n{names[1].upper()} 1ABD_1 {names[0]}\n")
    assert distill(folder, tmp_path / "out", *NO_FILTERS, "--clusters", table) == 0
    found = {c.chain_id: c.cluster_id for c in ShardReader(tmp_path / "out").index.chains}
    assert [found[name] for name in names[:4]] == [1, 1, FIRST_OWN_CLUSTER, FIRST_OWN_CLUSTER + 1]
    table.write_text("1ABC_1\n")
    assert distill(folder, tmp_path / "other", *NO_FILTERS, "--clusters", table) == 1
    assert "has none of the 6 chains" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[: len(text) // 2], "not a valid CIF file|different lengths|no pLDDT"),
        (
            lambda text: text.replace("_ma_qa_metric_local.", "_other."),
            "mmCIF has no _ma_qa_metric",
        ),
        (lambda text: text.replace("_ma_qa_metric.", "_other."), "not a prediction"),
        (lambda text: text.replace("90.00\n", "0.90\n"), "the highest pLDDT is 0.9"),
        (lambda text: text.replace("90.00\n", "nan\n"), "is 'nan', expected 0 to 100"),
    ],
)
def test_structures_that_are_no_predictions_are_rejected(
    folder, reader, tmp_path, capsys, change, reason
):
    names = chain_ids(reader)[2:4]
    predictions = write_predictions(tmp_path / "p", [predicted(reader, name) for name in names])
    path = predictions / f"{names[0]}.cif"
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    assert distill(folder, tmp_path / "out", *NO_FILTERS, predictions=predictions) == 3
    found = rejected(tmp_path / "out")
    assert list(found) == [names[0]]
    assert re.search(reason, found[names[0]]), found
    assert "1 of these for faulty input (exit code 3)" in capsys.readouterr().out


def test_an_experimental_structure_and_coordinates_that_are_not_finite(folder, reader, tmp_path):
    names = chain_ids(reader)[2:5]
    predictions = write_predictions(tmp_path / "p", [predicted(reader, name) for name in names])
    lines = (predictions / f"{names[0]}.cif").read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("ATOM"))
    x = next(word for word in lines[row].split() if "." in word and word != ".")
    lines[row] = lines[row].replace(x, "nan", 1)
    (predictions / f"{names[0]}.cif").write_text("\n".join(lines))
    (raw,) = (folder / "raw" / "pdb_mmcif" / "raw").rglob(f"{names[1][:4]}.cif.gz")
    for path in predictions.glob("*.json"):
        path.unlink()
    (predictions / f"{names[1]}.cif").unlink()
    shutil.copy(raw, predictions / f"{names[1]}.cif.gz")
    assert distill(folder, tmp_path / "out", *NO_FILTERS, predictions=predictions) == 3
    found = rejected(tmp_path / "out")
    assert "expected a finite number" in found[names[0]]
    assert found[names[1]].startswith("no pLDDT of residues")
    assert chain_ids(ShardReader(tmp_path / "out")) == [names[2]]


def test_duplicates_and_alignments_of_other_chains_are_rejected(folder, reader, tmp_path):
    names = chain_ids(reader)[2:5]
    structures = [predicted(reader, name) for name in names]
    structures += [predicted(reader, names[0], name="9zzz_A")]
    predictions = write_predictions(tmp_path / "p", structures)
    root = tmp_path / "alignments"
    shutil.copytree(folder / "raw" / "open_protein_set" / "pdb", root)
    shutil.rmtree(root / names[1])
    shutil.copytree(root / names[2], root / names[1])
    inputs = ["--predictions", str(predictions), "--alignments", str(root)]
    assert main(["distill", *inputs, "--out", str(tmp_path / "out"), *NO_FILTERS]) == 3
    found = rejected(tmp_path / "out")
    assert found["9zzz_A"] == f"duplicate: {names[0]} has the same sequence"
    assert "its query" in found[names[1]]
    assert chain_ids(ShardReader(tmp_path / "out")) == [names[0], names[2]]


def test_of_two_chains_with_the_same_sequence_the_one_with_more_alignments_stays(
    folder, reader, tmp_path
):
    name = chain_ids(reader)[2]
    predictions = write_predictions(
        tmp_path / "p", [predicted(reader, name), predicted(reader, name, name="9zzz_A")]
    )
    root = tmp_path / "alignments"
    shutil.copytree(folder / "raw" / "open_protein_set" / "pdb" / name, root / "9zzz_A")
    shutil.copytree(root / "9zzz_A", root / name)
    for path in (root / name).rglob("*.a3m"):
        query = path.read_text().split(">")[1]
        path.write_text(f">{query}")
    inputs = ["--predictions", str(predictions), "--alignments", str(root)]
    filters = ["--min-msa-rows", "2", *NO_FILTERS[:-2]]
    assert main(["distill", *inputs, "--out", str(tmp_path / "out"), *filters]) == 0
    assert rejected(tmp_path / "out") == {name: "duplicate: 9zzz_A has the same sequence"}
    assert chain_ids(ShardReader(tmp_path / "out")) == ["9zzz_A"]


def test_missing_input_is_named(folder, reader, tmp_path, capsys):
    name = chain_ids(reader)[2]
    predictions = write_predictions(tmp_path / "p", [predicted(reader, name, name="9zzz_A")])
    assert distill(folder, tmp_path / "out", *NO_FILTERS, predictions=predictions) == 1
    assert "1 of 1 chains have no alignment: 9zzz_A" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert distill(folder, tmp_path / "o", *NO_FILTERS, predictions=tmp_path / "empty") == 1
    assert "no predicted structure in" in capsys.readouterr().err
    assert distill(folder, tmp_path / "o", *NO_FILTERS, predictions=tmp_path / "none") == 1
    assert "do not exist" in capsys.readouterr().err
    (predictions / "9zzz_A.cif").unlink()
    assert distill(folder, tmp_path / "o", *NO_FILTERS, predictions=predictions) == 1
    assert "9zzz_A.cif, which does not exist" in capsys.readouterr().err


def test_two_structures_of_a_chain_and_other_data_are_refused(folder, reader, tmp_path, capsys):
    name = chain_ids(reader)[2]
    one = write_predictions(tmp_path / "1", [predicted(reader, name)])
    two = write_predictions(tmp_path / "2", [predicted(reader, name)])
    inputs = ["--alignments", str(folder / "raw" / "open_protein_set"), *NO_FILTERS]
    predictions = ["--predictions", str(one), str(two)]
    assert main(["distill", *predictions, *inputs, "--out", str(tmp_path / "out")]) == 1
    assert f"two structures of chain {name}" in capsys.readouterr().err
    before = (folder / "shards" / "index.h5").read_bytes()
    assert distill(folder, folder / "shards", *NO_FILTERS) == 1
    assert "holds another data set" in capsys.readouterr().err
    assert (folder / "shards" / "index.h5").read_bytes() == before


def test_only_records_of_chains_are_read(reader, tmp_path):
    """Files of the aligned error are large, and a chain may be named like one."""
    names = chain_ids(reader)[2:4]
    structures = [
        predicted(reader, names[0]),
        predicted(reader, names[1], name="9abc_x_confidence"),
    ]
    predictions = write_predictions(tmp_path / "p", structures)
    for ending in ("_predicted_aligned_error.json", "_confidence.json"):
        # Reading a link to a missing file is an error.
        (predictions / f"{names[0]}{ending}").symlink_to(tmp_path / "missing")
    found, _ = find_predictions([predictions])
    assert [file.chain_id for file in found] == [names[0], "9abc_x_confidence"]


def test_a_chain_whose_prediction_failed_is_listed_as_unused(folder, reader, tmp_path):
    names = chain_ids(reader)[2:4]
    predictions = write_predictions(tmp_path / "p", [predicted(reader, name) for name in names])
    record = predictions / f"{names[0]}.json"
    record.write_text(record.read_text().replace('"finished"', '"failed"'))
    assert distill(folder, tmp_path / "out", *NO_FILTERS, predictions=predictions) == 0
    assert chain_ids(ShardReader(tmp_path / "out")) == [names[1]]
    assert "the chain has no structure" in (tmp_path / "out" / "unused.csv").read_text()
