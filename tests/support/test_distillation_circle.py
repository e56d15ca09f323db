"""The circle predict -> distill -> train, with a few steps."""

from openfold_opt.protein.reader import ShardReader
from tests.support.distillation_circle import Circle, describe, record_text, run_circle


def test_a_small_circle_reports_both_scores(tmp_path):
    circle = Circle(
        out=tmp_path,
        num_chains=8,
        num_held_back=2,
        steps=4,
        min_plddt=0.0,
        settings=("warm_up=false",),
    )
    result = run_circle(circle)
    held_back = {path.name.split(".")[0] for path in circle.held_back.iterdir()}
    assert held_back == {"9006", "9007"}
    assert {chain.pdb_id for chain in ShardReader(circle.distilled).index.chains} == held_back
    assert not held_back & {chain.pdb_id for chain in ShardReader(circle.shards).index.chains}
    assert (result["num_predicted"], result["num_distilled"]) == (2, 2)
    scores = result["validation_lddt_ca"]
    assert 0 < scores["without"] < 1 and 0 < scores["with"] < 1
    assert scores["without"] != scores["with"]
    assert "75% of the samples from it" in describe(result)
    assert record_text(result).splitlines()[-1].startswith("4 0.")
    # A second call finds everything finished.
    assert run_circle(circle) == result
