"""The counted work of a prediction is that of the forward that predicts."""

import dataclasses

import pytest

from benchmark.plan.prediction_work import PredictionWork, alphafold2_work, alphafold3_work
from openfold_opt.model.config import ModelConfig
from openfold_opt.predict.memory_plan import plan_memory


@pytest.mark.parametrize(("num_residues", "num_templates"), [(96, 0), (640, 4)])
def test_the_memory_plan_counts_the_same_work(num_residues, num_templates):
    config = ModelConfig()
    plan = plan_memory(
        config=config,
        num_residues=num_residues,
        max_msa_clusters=128,
        max_extra_msa=1024,
        num_templates=num_templates,
        num_passes=4,
        dtype="bf16",
        device="h100",
    )
    work = alphafold2_work(
        num_residues,
        config=config,
        msa_rows=128,
        extra_rows=1024,
        num_templates=num_templates,
        num_passes=4,
    )
    assert work.total == pytest.approx(plan.expected.flops, rel=0.02)


def test_the_parts_grow_with_their_powers_of_the_length():
    config = ModelConfig()
    for count in (lambda n: alphafold2_work(n, config=config), alphafold3_work):
        short, long = count(500), count(1000)
        assert long.linear == pytest.approx(2 * short.linear)
        assert long.quadratic == pytest.approx(4 * short.quadratic)
        assert long.cubic == pytest.approx(8 * short.cubic)


def test_published_counts_are_reproduced():
    """Issued numbers for 512 MSA rows, 5,120 extra rows and 4 passes, in PFLOP."""
    for length, published in {500: 0.38, 1000: 1.37, 2000: 6.16, 5000: 60.2}.items():
        work = alphafold2_work(length, config=ModelConfig())
        assert work.total / 1e15 == pytest.approx(published, rel=0.06)


def test_a_model_without_templates_has_no_work_for_them():
    config = ModelConfig()
    without = dataclasses.replace(config, has_templates=False)
    assert alphafold2_work(300, config=without) == alphafold2_work(
        300, config=config, num_templates=0
    )


def test_work_is_added_by_parts():
    total = PredictionWork(linear=1, cubic=2) + PredictionWork(quadratic=3) * 2
    assert (total.linear, total.quadratic, total.cubic, total.total) == (1, 6, 2, 9)
