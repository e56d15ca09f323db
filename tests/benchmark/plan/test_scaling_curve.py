"""Speedup over GPUs: layouts of the curve, and its picture."""

import dataclasses

import pytest

from benchmark.command_line import BenchmarkError
from benchmark.plan.scaling_curve import LARGEST_BATCHES, draw_curves, scaling_curve
from benchmark.plan.step_counts import NVIDIA, PROJECT, REFERENCE
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


def test_missing_counts_are_an_error(small_table):
    steps = [each for each in small_table.steps if each.code == PROJECT]
    with pytest.raises(BenchmarkError, match="no counts of nvidia"):
        scaling_curve(NVIDIA, dataclasses.replace(small_table, steps=steps), Factors())


def test_the_picture_is_a_png(small_table, tmp_path):
    curves = {code: scaling_curve(code, small_table, Factors()) for code in (REFERENCE, NVIDIA)}
    draw_curves(curves, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
