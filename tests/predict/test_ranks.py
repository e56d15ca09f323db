"""Groups of ranks: their sizes, and the chains that each gets."""

import pytest

from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.predict.ranks import deal_out, split_of_ranks


@pytest.mark.parametrize(
    ("world", "dap", "replicas", "expected"),
    [
        (1, None, None, (1, 1)),
        (8, None, None, (8, 1)),
        (8, None, 8, (1, 8)),
        (8, None, 2, (4, 2)),
        (8, 2, None, (2, 4)),
        (8, 2, 4, (2, 4)),
        (3, 3, None, (3, 1)),
    ],
)
def test_sizes(world, dap, replicas, expected):
    launch = LaunchInfo(world_size=world, ranks_per_node=world)
    assert split_of_ranks(launch, dap=dap, replicas=replicas) == expected


@pytest.mark.parametrize(("world", "dap", "replicas"), [(8, 3, None), (1, 2, None), (4, 2, 4)])
def test_a_product_that_differs_from_the_number_of_ranks_is_refused(world, dap, replicas):
    launch = LaunchInfo(world_size=world, ranks_per_node=world)
    with pytest.raises(ValueError, match=rf"but {world} were started.*torchrun"):
        split_of_ranks(launch, dap=dap, replicas=replicas)


def test_chains_are_dealt_out_by_cost():
    costs = [1.0, 9.0, 4.0, 4.0, 2.0, 1.0]
    dealt = deal_out(costs, 2)
    assert sorted(dealt[0] + dealt[1]) == list(range(6))
    loads = [sum(costs[index] for index in chains) for chains in dealt]
    assert max(loads) - min(loads) <= 1.0
    for chains in dealt:
        assert [costs[i] for i in chains] == sorted((costs[i] for i in chains), reverse=True)
    assert deal_out([5.0], 3) == [[0], [], []]
