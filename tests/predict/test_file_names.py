"""Names of files: safe, similar to the name of the chain, never shared."""

from pathlib import Path

import pytest

from openfold_opt.predict.file_names import (
    MAX_STEM_CHARACTERS,
    RECORD_SUFFIX,
    SUFFIXES,
    chain_stems,
    ranked_stem,
    safe_stem,
    weights_names,
)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("T1050", "T1050"),
        ("sp|P69905|HBA_HUMAN", "sp_P69905_HBA_HUMAN"),
        ("../../etc/passwd", "etc_passwd"),
        ("1abc.A-2+x", "1abc.A-2+x"),
        ("-rf", "rf"),
        ("///", "chain"),
        ("Größe", "Gr_e"),
        (".hidden chain", "hidden_chain"),
        ("x" * 500, "x" * MAX_STEM_CHARACTERS),
    ],
)
def test_names_become_safe(name, stem):
    assert safe_stem(name) == stem


def test_chains_never_share_a_stem():
    stems = chain_stems(["a/b", "a|b", "A_B", "a_b_2"], ["w"])
    assert stems == ("a_b", "a_b_2", "A_B_3", "a_b_2_2")
    assert len({stem.lower() for stem in stems}) == 4


@pytest.mark.parametrize("suffix", ["_confidence", "_predicted_aligned_error", "_relaxed"])
def test_the_record_of_a_chain_is_no_file_of_another_chain(suffix):
    assert chain_stems(["x", f"x{suffix}"], ["w"]) == ("x", f"x{suffix}_2")
    assert chain_stems([f"X{suffix}", "x"], ["w"]) == (f"X{suffix}", "x_2")


def test_no_two_chains_share_a_file_of_any_kind():
    ends = ["", *(suffix.partition(".")[0] for suffix in SUFFIXES.values())]
    names = [f"x{end}{other}" for end in ends for other in ends]
    for weights in (["w"], ["v", "w"]):
        stems = chain_stems(names, weights)
        ranked = [ranked_stem("", rank, name) for rank in (1, 2) for name in weights]
        files = [
            {f"{stem}{end}{suffix}" for end in ("", *ranked) for suffix in SUFFIXES.values()}
            | {stem + RECORD_SUFFIX}
            for stem in stems
        ]
        assert len(set().union(*files)) == sum(map(len, files))


def test_files_of_the_run_and_ranked_files_are_not_overwritten():
    for name in ("summary", "Scores", "report", "run"):
        assert chain_stems([name], ["w"]) == (f"{name}_2",)
    ranked = ranked_stem("a", 1, "v")
    assert chain_stems(["a", ranked], ["v", "w"]) == ("a", f"{ranked}_2")
    assert chain_stems(["a", ranked], ["v"]) == ("a", ranked)


def test_weights_have_short_unique_names(tmp_path):
    (tmp_path / "run.v1").mkdir()
    paths = [Path("p/params_model_1_ptm.npz"), Path("q/model_1_ptm.npz"), tmp_path / "run.v1"]
    assert weights_names(paths) == ("model_1_ptm", "model_1_ptm_2", "run.v1")
