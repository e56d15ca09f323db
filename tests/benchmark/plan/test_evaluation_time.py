"""Seconds of an evaluation: lengths of the chains, and how they are assigned to ranks."""

import pytest

from benchmark.plan.code_bases import CODE_BASES
from benchmark.plan.evaluation_time import CHAINS, chain_lengths, evaluation_seconds
from benchmark.plan.step_counts import NVIDIA, PROJECT, REFERENCE
from benchmark.plan.step_model import Factors, Layout
from benchmark.plan.systems import load_system
from tests.support.step_counts import small_step

H100 = load_system("h100_sxm")


def seconds_on(code: str, ranks: int, **layout) -> float:
    layout = Layout(code=code, num_gpus=ranks, **layout)
    return evaluation_seconds(small_step(code, 1), H100, layout, Factors(), crop=256)


def test_lengths_of_chains_are_those_of_the_benchmark():
    lengths = chain_lengths()
    assert len(lengths) == CHAINS == 180 and max(lengths) == 700


@pytest.mark.parametrize("ranks", [24, 36, 128])
def test_the_busiest_rank_has_more_to_do_if_lengths_are_not_considered(ranks):
    assert not CODE_BASES[PROJECT].evaluates_in_order
    assert CODE_BASES[REFERENCE].evaluates_in_order
    balanced, in_order = seconds_on(PROJECT, ranks), seconds_on(REFERENCE, ranks)
    assert balanced < in_order
    # No order is better than equal sums, or than the longest chain alone.
    assert balanced >= max(seconds_on(PROJECT, 1) / ranks, seconds_on(PROJECT, CHAINS))


@pytest.mark.parametrize("code", [PROJECT, REFERENCE])
def test_one_rank_has_all_chains_and_many_ranks_one_each(code):
    total, longest = seconds_on(code, 1), seconds_on(code, CHAINS)
    assert seconds_on(code, 1_000) == longest
    assert longest < total < CHAINS * longest
    assert seconds_on(code, 1_000, evaluation_ranks=1) == total


def test_the_mean_over_orders_is_the_same_each_time():
    assert seconds_on(REFERENCE, 36) == seconds_on(REFERENCE, 36)


def test_float32_has_twice_the_bytes_of_bfloat16():
    """The step is dominated by launches without products."""
    assert 1.6 < seconds_on(NVIDIA, 32) / seconds_on(PROJECT, 32) < 2
