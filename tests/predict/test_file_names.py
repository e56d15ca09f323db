"""Names of files: safe, similar to the name of the chain, never shared."""

from pathlib import Path

import pytest

from openfold_opt.predict.file_names import (
    MAX_STEM_CHARACTERS,
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
        ("x" * 500, "x" * MAX_STEM_CHARACTERS),
    ],
)
def test_names_become_safe(name, stem):
    assert safe_stem(name) == stem


def test_chains_never_share_a_stem():
    stems = chain_stems(["a/b", "a|b", "A_B", "a_b_2"], ["w"])
    assert stems == ("a_b", "a_b_2", "A_B_3", "a_b_2_2")
    assert len({stem.lower() for stem in stems}) == 4


def test_files_of_the_run_and_ranked_files_are_not_overwritten():
    assert chain_stems(["summary"], ["w"]) == ("summary_2",)
    ranked = ranked_stem("a", 1, "v")
    assert chain_stems(["a", ranked], ["v", "w"]) == ("a", f"{ranked}_2")
    assert chain_stems(["a", ranked], ["v"]) == ("a", ranked)


def test_weights_have_short_unique_names(tmp_path):
    (tmp_path / "run.v1").mkdir()
    paths = [Path("p/params_model_1_ptm.npz"), Path("q/model_1_ptm.npz"), tmp_path / "run.v1"]
    assert weights_names(paths) == ("model_1_ptm", "model_1_ptm_2", "run.v1")
