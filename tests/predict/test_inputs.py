"""Chains that cannot be predicted, and what is said about those that can."""

from __future__ import annotations

import gzip
import time

import pytest

from openfold_opt.predict import inputs
from openfold_opt.predict.chain_input import FeatureSettings, InputError
from openfold_opt.predict.inputs import chain_features, prepare_chain, read_chains
from tests.support.prediction_inputs import settings, write_fasta

QUERY = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEV"
OTHER = "WWPPGGAACCDDEEFFHHIIKKLLMMNNQQRR"


def a3m(*rows, names=()):
    named = zip([*names, *(f"row{i}" for i in range(len(rows)))], rows, strict=False)
    return "".join(f">{name}\n{row}\n" for name, row in named)


def read(tmp_path, alignment, *, query=QUERY, suffix=".a3m", name="q", **options):
    """Read one chain with one alignment file, given as text or bytes."""
    fasta = write_fasta(tmp_path / "x.fasta", {name: query})
    folder = tmp_path / "alignments"
    folder.mkdir(exist_ok=True)
    contents = alignment if isinstance(alignment, bytes) else alignment.encode()
    (folder / f"{name}{suffix}").write_bytes(contents)
    return read_chains([fasta], alignments=[folder], **options)


def only_failure(result):
    chains, failures = result
    assert chains == [] and len(failures) == 1
    return failures[0]


def test_missing_alignment_names_the_files_looked_for(tmp_path):
    fasta = write_fasta(tmp_path / "x.fasta", {"a|b": QUERY, "c": QUERY[::-1]})
    (tmp_path / "alignments" / "C").mkdir(parents=True)
    _, failures = read_chains([fasta], alignments=[tmp_path / "alignments"])
    assert [failure.name for failure in failures] == ["a|b", "c"]
    root = tmp_path / "alignments"
    for text in ("no alignment found", f"{root}/a|b/", f"{root}/a_b.a3m", "--single-sequence"):
        assert text in failures[0].message
    assert "alignments/C differs in upper and lower case" in failures[1].message
    _, (failure, _) = read_chains([fasta])
    assert "no alignment is given; name the directory" in failure.message


def test_single_sequence(tmp_path):
    fasta = write_fasta(tmp_path / "x.fasta", {"q": "B" + QUERY})
    (chain,), failures = read_chains([fasta], single_sequence=True)
    assert failures == [] and "predicted from its sequence alone" in chain.warnings[-1]
    batch = chain_features(chain, settings())
    assert batch.aatype[0, 0] == 20 and batch.true_msa[0, 0, 0, 0] == 3, "X, but D in the MSA"
    assert batch.msa_row_mask.sum() == 2, "the query, in two passes"


def test_alignment_depth_counts_rows_without_a_gap(tmp_path):
    rows = [QUERY, "-" * 30 + "GG", "A" * 31 + "-", "A" * 31 + "-"]  # The last one is a duplicate.
    (chain,), _ = read(tmp_path, a3m(*rows))
    prepared = prepare_chain(chain, settings())
    assert prepared.num_alignment_rows == 3
    assert prepared.alignment_depth == (*(2,) * 30, 3, 2)
    (alone,), _ = read_chains([tmp_path / "x.fasta"], single_sequence=True)
    assert prepare_chain(alone, settings()).alignment_depth == (1,) * 32


def test_an_empty_alignment_file_counts_as_absent(tmp_path):
    assert "no alignment found" in only_failure(read(tmp_path, "")).message
    folder = tmp_path / "alignments" / "q"
    folder.mkdir()
    (folder / "uniref90_hits.a3m").write_text("")
    failure = only_failure(read_chains([tmp_path / "x.fasta"], alignments=[folder.parent]))
    assert "uniref90_hits.a3m is not used: is empty" in failure.message


def test_one_bad_chain_does_not_stop_the_others(tmp_path):
    sequences = {"a": QUERY, "b": "AC:DE", "c": QUERY, "d": QUERY[::-1]}
    fasta = write_fasta(tmp_path / "x.fasta", sequences)
    chains, (failure,) = read_chains([fasta], single_sequence=True)
    assert [chain.name for chain in chains] == ["a", "c", "d"]
    assert failure.name == "b" and failure.message.startswith(f"{fasta}, record 2 (line 3): ")
    assert "has the same sequence as chain a" in chains[1].warnings
    assert not any("same sequence" in text for text in chains[0].warnings + chains[2].warnings)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (OTHER, "differs from chain q in 29 of 32 letters.*it has W at residue 1, the chain has M"),
        (QUERY[:4] + "W" + QUERY[4:], "33 residues.*first differ at residue 5: it has W.*has Y"),
        (QUERY[:20], "20 residues, but chain q has 32; the first 20 are the same"),
        (
            f"{QUERY[:20]}----{QUERY[24:]}",
            "differs from chain q in 4 of 32.*it has - at residue 21",
        ),
    ],
)
@pytest.mark.parametrize("form", ["plain", "gz", "long", "sto"])
def test_alignment_of_another_sequence(tmp_path, form, query, message):
    rows = (query, *["A" * len(query.replace("-", "A"))] * (4000 if form == "long" else 1))
    if form == "sto":
        if "-" in query:
            pytest.skip("a gap of the query is a column that is removed")
        text = "# STOCKHOLM 1.0\n" + "".join(f"r{i} {row}\n" for i, row in enumerate(rows)) + "//\n"
        (chain,), _ = read(tmp_path, text, suffix=".sto")
        with pytest.raises(InputError, match=message):
            chain_features(chain, settings())
        return
    contents = a3m(*rows).encode()
    result = (
        read(tmp_path, gzip.compress(contents), suffix=".a3m.gz")
        if form == "gz"
        else read(tmp_path, contents)
    )
    with pytest.raises(ValueError, match=message):
        raise ValueError(only_failure(result).message)


def test_an_alignment_with_few_other_letters_is_used_with_a_warning(tmp_path):
    (chain,), _ = read(tmp_path, a3m("W" + QUERY[1:]))
    (warning,) = chain.warnings
    assert "in 1 letters; the first: it has W at residue 1, the chain has M" in warning
    assert warning in prepare_chain(chain, settings()).warnings
    (unknown,), _ = read(tmp_path, a3m("X" + QUERY[1:]))
    assert unknown.warnings == (), "X agrees with any letter, as in conversion"


def test_alignment_of_a_complex_is_refused(tmp_path):
    for header in ("#32,10\t1,1", "#32\t2"):
        failure = only_failure(read(tmp_path, f"{header}\n{a3m(QUERY)}"))
        assert "header" in failure.message and "of a complex" in failure.message
    chains, _ = read(tmp_path, f"#32\t1\n{a3m(QUERY)}")
    assert len(chains) == 1


def test_alignments_of_other_queries_in_one_file_are_not_used(tmp_path):
    blocks = "\0".join([a3m(OTHER), a3m(QUERY, OTHER), a3m(QUERY, "A" * 32)])
    (chain,), _ = read(tmp_path, blocks)
    prepared = prepare_chain(chain, settings())
    assert prepared.num_alignment_rows == 3
    assert "1 of 3 alignments have another query and are not used" in prepared.warnings[0]
    assert "differs from chain q" in only_failure(read(tmp_path, a3m(OTHER) + "\0")).message


def test_rows_above_the_limit_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_ALIGNMENT_ROWS", 5)
    rows = [QUERY, *(letter * 32 for letter in "ACDEFG")]
    (chain,), _ = read(tmp_path, a3m(*rows[:5]))
    assert prepare_chain(chain, settings()).warnings == ()
    (chain,), _ = read(tmp_path, a3m(*rows))
    prepared = prepare_chain(chain, settings())
    assert prepared.num_alignment_rows == 5
    assert "more than 5 rows; the first 5 are used" in prepared.warnings[0]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (a3m(QUERY, QUERY[:-1]), "row 2 has 31 aligned columns, expected 32"),
        (a3m(QUERY, "1" + QUERY[1:]), "row 2 has '1'; expected letters"),
    ],
)
def test_malformed_rows_are_found_when_the_features_are_made(tmp_path, contents, message):
    (chain,), _ = read(tmp_path, contents)
    with pytest.raises(InputError, match=message):
        chain_features(chain, settings())


@pytest.mark.parametrize("contents", [b"\x89PNG\r\n\x1a\n" + b"\0\xff" * 99, b"<html>", b"ACDEF\n"])
def test_a_file_that_is_no_alignment(tmp_path, contents):
    assert "not an .a3m alignment: found" in only_failure(read(tmp_path, contents)).message
    damaged = read(tmp_path, b"no gzip", suffix=".a3m.gz")
    (tmp_path / "alignments" / "q.a3m").unlink()
    damaged = read(tmp_path, b"no gzip", suffix=".a3m.gz")
    assert "damaged gzip file" in only_failure(damaged).message


def test_arguments_that_contradict_each_other(tmp_path):
    fasta = write_fasta(tmp_path / "x.fasta", {"q": QUERY})
    with pytest.raises(InputError, match="found neither input files"):
        read_chains()
    with pytest.raises(InputError, match="found both input files and a data directory"):
        read_chains([fasta], data_dir=tmp_path)
    with pytest.raises(InputError, match="without the data directory"):
        read_chains([fasta], chain_names=["q"])
    with pytest.raises(InputError, match="nowhere do not exist; expected a directory or a file"):
        read_chains([fasta], alignments=[tmp_path / "nowhere"])
    with pytest.raises(InputError, match="is no alignment; expected a name that ends in"):
        read_chains([fasta], alignments=[fasta])
    with pytest.raises(InputError, match="index.h5"):
        read_chains(data_dir=tmp_path)


def test_unknown_chains_of_a_data_directory(synthetic):
    name = synthetic.chain_ids()[0]
    chains, failures = read_chains(data_dir=synthetic.shards, chain_names=["9zzz_A", name, name])
    assert [chain.name for chain in chains] == [name]
    assert failures[0].name == "9zzz_A" and "which has 8 chains" in failures[0].message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed is -1, expected 0 or more|seed is -1, expected at least 0"),
        ({"max_msa_clusters": 0}, "max_msa_clusters is 0, expected at least 1"),
        ({"max_template_date": "today"}, "expected a date such as 2021-09-30"),
        ({"max_template_date": "20210930"}, "expected a date such as 2021-09-30"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        settings(**changes)


def test_excluded_templates():
    chosen = settings(excluded_templates=frozenset({"1ABC", "2abc_B"}))
    assert isinstance(chosen, FeatureSettings)
    found = [chosen.excludes(name) for name in ("1abc_A", "2abc_A", "2abc_B", "3abc_A")]
    assert found == [True, False, True, False]


def test_a_thousand_chains_are_checked_quickly(tmp_path):
    sequences = {f"chain{i}": QUERY + "ACDEFGHIKL"[i % 10] * (i // 10 + 1) for i in range(1000)}
    fasta = write_fasta(tmp_path / "x.fasta", sequences)
    for name, letters in sequences.items():
        folder = tmp_path / "alignments" / name / "a3m"
        folder.mkdir(parents=True)
        (folder / "uniref90_hits.a3m").write_text(a3m(letters, *["A" * len(letters)] * 9))
    started = time.process_time()
    chains, failures = read_chains([fasta], alignments=[tmp_path / "alignments"])
    assert len(chains) == 1000 and failures == []
    assert time.process_time() - started < 10


@pytest.mark.parametrize("option", ["inputs", "alignments"])
def test_a_path_that_cannot_be_opened_is_named(tmp_path, option):
    fasta = tmp_path / "x.fasta"
    fasta.write_text(">a\nMKTAYIAKQRQISFVK\n")
    path = tmp_path / ("n" * 300)
    paths = {"inputs": [fasta], "alignments": []} | {option: [path]}
    with pytest.raises(InputError, match="cannot read .*nnn: File name too long"):
        read_chains(paths["inputs"], alignments=paths["alignments"])
