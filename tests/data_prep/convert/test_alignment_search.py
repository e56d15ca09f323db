"""Search of the files of a chain in folders that have several candidates."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.convert.alignment_search import (
    AlignmentFile,
    AlignmentFolder,
    FoundFiles,
    file_keys,
    find_alignment,
)
from openfold_opt.predict.inputs import read_chains
from tests.support.prediction_inputs import write_fasta

ROOT = Path("/alignments")
QUERY = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEV"


def folder_with(items, contents=(), **options):
    """Return a source. items: sizes by name; contents: files of each folder that is selected."""

    def select(path):
        paths = tuple(path / name for name in dict(contents).get(path.name, ()))
        rows = tuple(path for path in paths if path.suffix != ".hhr")
        return FoundFiles(msa_paths=rows, hits_paths=tuple(set(paths) - set(rows)))

    return AlignmentFolder(root=ROOT, items=items, select=select, **options)


def find(source, name="q", *, is_only_chain=False):
    found = source.find(name, is_only_chain=is_only_chain)
    return [str(path.relative_to(ROOT)) for path in found.msa_paths + found.hits_paths]


def test_names_of_files():
    assert file_keys("1abc_A") == ("1abc_A",)
    assert file_keys("sp|P1|X") == ("sp|P1|X", "sp_P1_X")
    assert file_keys("a/b") == ("a_b",)
    assert file_keys("..") == file_keys("/") == ()


def test_a_folder_is_preferred_to_files_and_a_file_to_a_flat_folder():
    items = {"q": None, "q.a3m": 5, "q.sto": 5, "q.hhr": 5}
    assert find(folder_with(items, {"q": ["x.a3m", "x.hhr"]})) == ["q/x.a3m", "q/x.hhr"]
    assert find(folder_with(items, {"q": ["x.a3m"]})) == ["q/x.a3m", "q.hhr"]
    assert find(folder_with(items, {"q": ["x.hhr"]})) == ["q.a3m", "q/x.hhr"]
    assert find(folder_with(items)) == ["q.a3m", "q.hhr"]
    flat = folder_with({"q.a3m": 5, "a3m": None}, {"alignments": ["x.a3m"]})
    assert find(flat, is_only_chain=True) == ["q.a3m"]
    assert find(flat, "other", is_only_chain=True) == ["x.a3m"]
    assert find(flat, "other") == []


def test_the_folders_of_other_chains_are_no_flat_folder():
    source = folder_with({"p": None}, {"alignments": ["x.a3m"]})
    assert find(source, is_only_chain=True) == []


def test_empty_files_are_absent():
    assert find(folder_with({"q.a3m": 0, "q.sto.gz": 9})) == ["q.sto.gz"]


def test_a_shared_folder_is_used_if_the_chain_has_none():
    source = folder_with({"p": None}, {"p": ["x.a3m"]}, shared_folders={"q": "p", "p": "p"})
    assert find(source) == find(source, "p") == ["p/x.a3m"]


def test_everything_that_was_looked_for_is_named():
    found = folder_with({"Q.a3m": 3}).find("q|r", is_only_chain=False)
    assert found.looked_for == (
        "/alignments/q|r/",
        "/alignments/q_r/",
        "/alignments/q|r.a3m or .sto",
        "/alignments/q_r.a3m or .sto",
    )
    (note,) = folder_with({"Q.a3m": 3}).find("q", is_only_chain=False).notes
    assert note == "/alignments/Q.a3m differs in upper and lower case"


def test_single_files():
    rows, hits = AlignmentFile(path=ROOT / "q.a3m.gz"), AlignmentFile(path=ROOT / "q.hhr")
    assert find(rows) == ["q.a3m.gz"] and find(hits) == ["q.hhr"]
    assert find(rows, "p") == [] and find(rows, "p", is_only_chain=True) == ["q.a3m.gz"]
    both = find_alignment([folder_with({}), rows, hits], "q", is_only_chain=False)
    assert both.msa_paths == (rows.path,) and both.hits_paths == (hits.path,)
    assert (
        "no alignment found; looked for /alignments/p/"
        in find_alignment([folder_with({}), rows], "p", is_only_chain=False).describe_missing()
    )


@pytest.mark.parametrize("name", ["q", "q.a3m"])
def test_links_to_missing_files_are_errors(tmp_path, name):
    folder = tmp_path / "alignments"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "nowhere")
    fasta = write_fasta(tmp_path / "x.fasta", {"q": QUERY})
    chains, (failure,) = read_chains([fasta], alignments=[folder], single_sequence=True)
    assert chains == [] and f"cannot read {folder / name}" in failure.message


def test_chains_that_share_a_folder(tmp_path):
    folder = tmp_path / "alignments" / "pdb" / "1abc_A"
    folder.mkdir(parents=True)
    (folder / "mgnify_hits.a3m").write_text(f">q\n{QUERY}\n")
    (tmp_path / "alignments" / "duplicate_pdb_chains.txt").write_text("1abc_B 1abc_A 2abc_A\n")
    fasta = write_fasta(tmp_path / "x.fasta", {"1abc_A": QUERY, "2abc_A": QUERY})
    chains, failures = read_chains([fasta], alignments=[tmp_path / "alignments"])
    assert failures == []
    assert [chain.msa_paths for chain in chains] == [(folder / "mgnify_hits.a3m",)] * 2
