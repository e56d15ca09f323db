"""Speedup over GPUs: layouts of the curve, and its picture."""

import dataclasses

import pytest

from benchmark.command_line import BenchmarkError
from benchmark.plan.fitting import fit_factors
from benchmark.plan.published import published_results
from benchmark.plan.scaling_curve import (
    LARGEST_BATCHES,
    PUBLISHED,
    CurvePoint,
    draw_curves,
    highest_point,
    scaling_curve,
)
from benchmark.plan.step_counts import NVIDIA, PROJECT, REFERENCE, read_table
from benchmark.plan.step_model import Factors


@pytest.mark.parametrize("code", [REFERENCE, NVIDIA])
def test_a_curve_ends_at_the_largest_batch_with_the_largest_group(small_table, code):
    curve = scaling_curve(code, small_table, Factors())
    last = LARGEST_BATCHES[code] * 8
    assert [each.num_gpus for each in curve] == [8 * 2**i for i in range(len(curve))]
    assert (curve[-1].num_gpus, curve[-1].dap) == (last, 8)
    assert all(each.batch * each.dap == each.num_gpus for each in curve)
    assert max(each.batch for each in curve) == LARGEST_BATCHES[code]


def test_a_speedup_is_that_of_samples_per_second(small_table):
    first, second, *_ = scaling_curve(REFERENCE, small_table, Factors())
    assert first.speedup == 1
    assert second.speedup == pytest.approx(2 * first.step_seconds / second.step_seconds)


def test_the_highest_point_has_the_fewest_gpus_that_are_as_fast():
    speedups = {8: 1.0, 16: 1.9, 32: 1.99, 64: 2.0, 128: 1.5}
    curve = [
        CurvePoint(num_gpus=size, dap=1, batch=size, step_seconds=1.0, speedup=speedup)
        for size, speedup in speedups.items()
    ]
    assert highest_point(curve).num_gpus == 32
    assert highest_point(curve[:2]).num_gpus == 16


def test_the_curves_are_highest_where_the_published_ones_are():
    """NVIDIA's figure 1: OpenFold on 512 GPUs, where the host limits it, and NVIDIA on 2,048."""
    table, results = read_table(), published_results()
    factors = fit_factors(results, table)
    for code, (num_gpus, speedup) in PUBLISHED.items():
        best = highest_point(scaling_curve(code, table, factors))
        assert best.num_gpus == num_gpus
        assert best.speedup == pytest.approx(speedup, rel=0.2)


def test_missing_counts_are_an_error(small_table):
    steps = [each for each in small_table.steps if each.code == PROJECT]
    with pytest.raises(BenchmarkError, match="no counts of nvidia"):
        scaling_curve(NVIDIA, dataclasses.replace(small_table, steps=steps), Factors())


def test_the_picture_is_a_png(small_table, tmp_path):
    curves = {code: scaling_curve(code, small_table, Factors()) for code in (REFERENCE, NVIDIA)}
    draw_curves(curves, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
