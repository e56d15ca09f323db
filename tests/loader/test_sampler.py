"""The sample stream: weights, independence of the number of ranks, and recycling."""

import itertools

import numpy as np
import pytest

from openfold_opt.loader.sampler import (
    DISTILLATION_SET,
    TRAINING_SET,
    SampleStream,
    TrainingSampler,
    WeightedChains,
    num_recycling_iterations,
)

PINNED_CHAINS = "ddba"
PINNED_SEEDS = [6752760931095467645, 3938518703700165131, 1158882705513114298, 5061294849424623838]
"""First samples of the stream before there were distillation sets."""


def test_chains_follow_their_weights_and_seeds_differ():
    weights = [1.0, 2.0, 0.5, 6.5]
    sampler = TrainingSampler("abcd", weights, seed=11)
    samples = [sampler.sample(number) for number in range(5000)]
    shares = (
        np.array([sum(sample.chain_id == letter for sample in samples) for letter in "abcd"]) / 5000
    )
    np.testing.assert_allclose(shares, np.array(weights) / 10, atol=4 * np.sqrt(0.25 / 5000))
    seeds = [sample.seed for sample in samples]
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


def mixture(*, seed=11, probability=0.75):
    return TrainingSampler(
        "abcd",
        [1.0, 2.0, 0.5, 6.5],
        seed=seed,
        distilled=WeightedChains(["x_A", "y_A"], [1.0, 3.0]),
        distillation_probability=probability,
    )


def test_draws_without_a_distillation_set_do_not_change():
    sampler = TrainingSampler("abcd", [1.0, 2.0, 0.5, 6.5], seed=11)
    drawn = [sampler.sample(number) for number in range(4)]
    assert "".join(sample.chain_id for sample in drawn) == PINNED_CHAINS
    assert [sample.seed for sample in drawn] == PINNED_SEEDS


def test_samples_of_the_training_set_are_the_same_with_a_distillation_set():
    alone = TrainingSampler("abcd", [1.0, 2.0, 0.5, 6.5], seed=11)
    kept = 0
    for number in range(400):
        sample = mixture().sample(number)
        assert sample.seed == alone.sample(number).seed
        if sample.data_set == TRAINING_SET:
            assert sample == alone.sample(number)
            kept += 1
    assert 60 < kept < 140


def test_a_mixture_follows_its_probability_and_weights():
    """100,000 draws of 75 % distilled chains match within 1 %, about seven standard deviations."""
    sampler, number_of_draws = mixture(), 100_000
    samples = [sampler.sample(number) for number in range(number_of_draws)]
    distilled = [sample for sample in samples if sample.data_set == DISTILLATION_SET]
    assert abs(len(distilled) / number_of_draws - 0.75) < 0.0075
    assert {sample.chain_id for sample in distilled} == {"x_A", "y_A"}
    share = sum(sample.chain_id == "y_A" for sample in distilled) / len(distilled)
    assert abs(share - 0.75) < 0.0075
    assert len({sample.seed for sample in samples}) == number_of_draws


@pytest.mark.parametrize(("rank_counts", "start"), [((1, 1), 0), ((2, 3), 5), ((4, 1), 7)])
def test_a_resumed_mixture_on_other_ranks_has_the_same_samples(rank_counts, start):
    """Global batch 12: steps up to `start` on some ranks, the others on other ranks."""
    expected = [mixture().sample(number) for number in range(10 * 12)]
    found = {}
    for size, steps in zip(rank_counts, (range(1, start + 1), range(start + 1, 11))):
        for rank in range(size):
            stream = SampleStream(rank=rank, size=size, accumulation=12 // size)
            for step in steps:
                for micro in range(stream.accumulation):
                    position = (step - 1) * stream.accumulation + micro
                    numbers = stream.sample_numbers(position)
                    found |= {number: mixture().sample(number) for number in numbers}
    assert [found[number] for number in range(len(expected))] == expected


@pytest.mark.parametrize(
    ("distilled", "probability"), [(None, 0.5), (WeightedChains("x", [1.0]), 0.0)]
)
def test_a_probability_without_a_distillation_set_is_an_error(distilled, probability):
    with pytest.raises(ValueError, match="expected a probability above 0 with a distillation set"):
        TrainingSampler(
            "a", [1.0], seed=0, distilled=distilled, distillation_probability=probability
        )


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
