"""Assignment of inputs to shards."""

import random

import pytest

from data_prep.convert.plan import cut_evenly


@pytest.mark.parametrize("seed", range(20))
def test_shards_are_few_bounded_and_of_similar_size(seed):
    draw = random.Random(seed)
    sizes = [int(draw.paretovariate(1.2) * 1000) for _ in range(draw.randrange(1, 400))]
    limit = draw.choice([5_000, 50_000, 400_000])
    ranges = cut_evenly(sizes, limit=limit)
    assert [i for group in ranges for i in group] == list(range(len(sizes)))
    sums = [sum(sizes[i] for i in group) for group in ranges]
    assert all(total <= limit or len(group) == 1 for total, group in zip(sums, ranges, strict=True))
    assert len(ranges) == greedy_count(sizes, limit)


def greedy_count(sizes, limit):
    count, filled = 0, limit + 1
    for size in sizes:
        if filled + size > limit:
            count, filled = count + 1, 0
        filled += size
    return count


def test_last_shard_is_not_small():
    sums = [10 * len(group) for group in cut_evenly([10] * 105, limit=1000)]
    assert sums == [530, 520]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([0, 0, 0], [range(3)]),
        ([5000], [range(1)]),
        ([10, 5000, 10], [range(i, i + 1) for i in range(3)]),
    ],
)
def test_odd_sizes(sizes, expected):
    assert cut_evenly(sizes, limit=1000) == expected
