"""The sample stream: weights, independence of the number of ranks, and recycling."""

import itertools

import numpy as np
import pytest

from openfold_opt.loader.sampler import SampleStream, TrainingSampler, num_recycling_iterations


def test_chains_follow_their_weights_and_seeds_differ():
    weights = [1.0, 2.0, 0.5, 6.5]
    sampler = TrainingSampler("abcd", weights, seed=11)
    samples = [sampler.sample(number) for number in range(5000)]
    shares = np.array([sum(chain == letter for chain, _ in samples) for letter in "abcd"]) / 5000
    np.testing.assert_allclose(shares, np.array(weights) / 10, atol=4 * np.sqrt(0.25 / 5000))
    seeds = [seed for _, seed in samples]
    assert len(set(seeds)) == 5000
    assert 0 <= min(seeds) and max(seeds) < 2**63


def test_sample_depends_only_on_seed_and_number():
    assert TrainingSampler("ab", [1, 1], seed=3).sample(17) == TrainingSampler(
        "ab", [2, 2], seed=3
    ).sample(17)
    assert TrainingSampler("ab", [1, 1], seed=3).sample(17) != TrainingSampler(
        "ab", [1, 1], seed=4
    ).sample(17)


@pytest.mark.parametrize(
    ("chains", "weights", "message"),
    [
        ([], [], "no chains"),
        (["a"], [1, 2], "found 2 weights for 1 chains"),
        (["a", "b"], [1, 0], "weight of chain b is 0.0"),
        (["a"], [float("nan")], "weight of chain a is nan"),
    ],
)
def test_invalid_weights_are_errors(chains, weights, message):
    with pytest.raises(ValueError, match=message):
        TrainingSampler(chains, weights, seed=0)


@pytest.mark.parametrize(
    ("size", "local_batch_size", "accumulation"),
    [(1, 8, 1), (8, 1, 1), (2, 2, 2), (1, 1, 8), (4, 2, 1)],
)
def test_all_layouts_cover_the_global_batch_once(size, local_batch_size, accumulation):
    streams = [
        SampleStream(
            rank=rank, size=size, local_batch_size=local_batch_size, accumulation=accumulation
        )
        for rank in range(size)
    ]
    assert {stream.global_batch_size for stream in streams} == {8}
    slots = [
        slot for stream in streams for micro in range(accumulation) for slot in stream.slots(micro)
    ]
    assert sorted(slots) == list(range(8))
    assert streams[0].step_of(accumulation * 5) == (6, 0)


def test_slot_formula():
    stream = SampleStream(rank=1, size=3, local_batch_size=2, accumulation=4)
    assert list(stream.slots(2)) == [(2 * 3 + 1) * 2, (2 * 3 + 1) * 2 + 1]


def test_recycling_iterations_are_shuffled_blocks():
    counts = [num_recycling_iterations(5, step) for step in range(1, 4001)]
    blocks = [tuple(counts[start : start + 4]) for start in range(0, 4000, 4)]
    assert {tuple(sorted(block)) for block in blocks} == {(0, 1, 2, 3)}
    assert set(blocks) == set(itertools.permutations(range(4)))
    firsts = np.bincount([block[0] for block in blocks]) / 1000
    np.testing.assert_allclose(firsts, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 1000))
    assert counts[:40] != [num_recycling_iterations(6, step) for step in range(1, 41)]
    assert {
        num_recycling_iterations(5, step, max_recycling_iterations=0) for step in range(1, 10)
    } == {0}
