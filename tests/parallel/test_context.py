"""Mesh of ranks, averaging of gradients and agreement between ranks, on gloo processes."""

import pytest
import torch
from tests.parallel.gloo_ranks import run_on_ranks

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import (
    broadcast_object,
    broadcast_tensor,
    check_same_everywhere,
    gather_objects,
)
from openfold_opt.parallel.context import ParallelConfig, ParallelContext, build_parallel_context
from openfold_opt.parallel.gradients import average_gradients
from openfold_opt.parallel.launch import LaunchInfo


def exercise(context: ParallelContext):
    rank = context.world.rank
    gradients = torch.arange(10.0) * (rank + 1)
    average_gradients(gradients, context.data, bucket_bytes=12)
    weights = torch.full((3,), float(rank))
    try:
        check_same_everywhere(weights, context.world, what="weights")
        message = ""
    except ValueError as error:
        message = str(error)
    broadcast_tensor(weights, context.world)
    check_same_everywhere(weights, context.world, what="weights")
    return {
        "gradients": gradients.tolist(),
        "axes": [(axis.rank, axis.size) for axis in (context.world, context.data, context.dap)],
        "message": message,
        "weights": weights.tolist(),
        "object": broadcast_object({"from": rank}, context.world),
        "gathered": gather_objects(rank * 10, context.data),
    }


@pytest.fixture(scope="module")
def four_ranks():
    return run_on_ranks(exercise, 4, dap_size=2)


def test_dap_neighbours_are_neighbouring_ranks(four_ranks):
    assert [result["axes"] for result in four_ranks] == [
        [(0, 4), (0, 2), (0, 2)],
        [(1, 4), (0, 2), (1, 2)],
        [(2, 4), (1, 2), (0, 2)],
        [(3, 4), (1, 2), (1, 2)],
    ]


def test_gradients_are_averaged_over_the_data_axis_only(four_ranks):
    for rank, result in enumerate(four_ranks):
        # ranks 0 and 2, and ranks 1 and 3, see different samples
        factor = (1 + 3) / 2 if rank % 2 == 0 else (2 + 4) / 2
        assert result["gradients"] == pytest.approx((torch.arange(10.0) * factor).tolist())


def test_ranks_that_differ_are_found_and_broadcast_mends_it(four_ranks):
    for result in four_ranks:
        assert "weights of ranks [1, 2, 3] differ from rank 0" in result["message"]
        assert result["weights"] == [0.0, 0.0, 0.0]
        assert result["object"] == {"from": 0}


def test_objects_are_gathered_in_rank_order(four_ranks):
    assert [result["gathered"] for result in four_ranks] == [[0, 20], [10, 30], [0, 20], [10, 30]]


def test_one_process_is_alone():
    context = build_parallel_context(ParallelConfig(), LaunchInfo(), device=torch.device("cpu"))
    assert (context.world.size, context.data.size, context.dap.size) == (1, 1, 1)
    gradients = torch.ones(3)
    average_gradients(gradients, context.data, bucket_bytes=4)
    assert torch.equal(gradients, torch.ones(3))
    assert broadcast_object(5, AxisGroup.single("world")) == 5
    context.close()


def test_ranks_must_divide_by_dap():
    launch = LaunchInfo(rank=0, world_size=3, ranks_per_node=3)
    with pytest.raises(ValueError, match="found 3 ranks; dap_size=2 .* start 2, for instance by torchrun --nproc-per-node 2"):
        build_parallel_context(ParallelConfig(dap_size=2), launch, device=torch.device("cpu"))
