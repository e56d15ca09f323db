"""Process mesh, gradient averaging and checks that ranks agree, on gloo processes."""

from types import SimpleNamespace

import pytest
import torch

from openfold_opt.parallel import context as context_module
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
from tests.support.gloo_ranks import run_on_ranks


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


def test_dap_neighbors_are_neighboring_ranks(four_ranks):
    assert [result["axes"] for result in four_ranks] == [
        [(0, 4), (0, 2), (0, 2)],
        [(1, 4), (0, 2), (1, 2)],
        [(2, 4), (1, 2), (0, 2)],
        [(3, 4), (1, 2), (1, 2)],
    ]


def test_gradients_are_averaged_over_the_data_axis_only(four_ranks):
    for rank, result in enumerate(four_ranks):
        # Ranks 0 and 2 have different samples, and so have ranks 1 and 3.
        factor = (1 + 3) / 2 if rank % 2 == 0 else (2 + 4) / 2
        assert result["gradients"] == pytest.approx((torch.arange(10.0) * factor).tolist())


def test_differing_ranks_are_named_and_a_broadcast_makes_them_equal(four_ranks):
    for result in four_ranks:
        assert "weights of ranks [1, 2, 3] differ from rank 0" in result["message"]
        assert result["weights"] == [0.0, 0.0, 0.0]
        assert result["object"] == {"from": 0}


def test_objects_are_gathered_in_rank_order(four_ranks):
    assert [result["gathered"] for result in four_ranks] == [[0, 20], [10, 30], [0, 20], [10, 30]]


def test_one_process_needs_no_process_groups():
    context = build_parallel_context(ParallelConfig(), LaunchInfo(), device=torch.device("cpu"))
    assert (context.world.size, context.data.size, context.dap.size) == (1, 1, 1)
    gradients = torch.ones(3)
    average_gradients(gradients, context.data, bucket_bytes=4)
    assert torch.equal(gradients, torch.ones(3))
    assert broadcast_object(5, AxisGroup.single("world")) == 5
    context.close()


def test_the_number_of_ranks_must_be_divisible_by_dap_size():
    launch = LaunchInfo(rank=0, world_size=3, ranks_per_node=3)
    with pytest.raises(
        ValueError,
        match="found 3 ranks; dap_size=2 .* start 2, for instance by torchrun --nproc-per-node 2",
    ):
        build_parallel_context(ParallelConfig(dap_size=2), launch, device=torch.device("cpu"))


class FakeDistributed:
    """Replaces torch.distributed without NCCL and records how groups are built."""

    class ProcessGroupNCCL:
        class Options:
            def __init__(self, *, is_high_priority_stream: bool) -> None:
                self.is_high_priority_stream = is_high_priority_stream

    group = SimpleNamespace(WORLD="world")

    def __init__(self) -> None:
        self.init: dict = {}
        self.new_groups: list[dict] = []
        self.mesh: dict = {}

    def PrefixStore(self, prefix, store):
        return (prefix, store)

    def init_process_group(self, backend, **options) -> None:
        self.init = {"backend": backend, **options}

    def new_group(self, ranks, **options) -> str:
        self.new_groups.append({"ranks": ranks, **options})
        return f"group {ranks}"

    def device_mesh(self, device_type, ranks, **options) -> "FakeDistributed":
        self.mesh = {"device_type": device_type, "ranks": ranks.tolist(), **options}
        self.mesh_dim_names = options["mesh_dim_names"]
        return self

    def size(self, dim: int) -> int:
        return (1, 2)[dim]

    def get_local_rank(self, name: str) -> int:
        return 0

    def get_group(self, name: str) -> str:
        return f"group {name}"


@pytest.fixture
def fake(monkeypatch):
    fake = FakeDistributed()
    monkeypatch.setattr(context_module, "dist", fake)
    monkeypatch.setattr(context_module, "DeviceMesh", fake.device_mesh)
    monkeypatch.setattr(context_module, "open_store", lambda launch, timeout: "store")
    monkeypatch.setattr(context_module, "wait_for_all", lambda store, launch, timeout: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    return fake


def build(device: torch.device) -> ParallelContext:
    """Two ranks that share a sample, and two that evaluate together."""
    config = ParallelConfig(dap_size=2, num_evaluation_ranks=2, timeout_seconds=77)
    launch = LaunchInfo(rank=0, world_size=4, ranks_per_node=4)
    return build_parallel_context(config, launch, device=device)


def test_nccl_gets_its_gpu_and_dap_groups_get_high_priority_streams(fake):
    assert build(torch.device("cuda", 3)).dap.process_group == "group dap"
    assert fake.init["backend"] == "nccl" and fake.init["device_id"] == torch.device("cuda", 3)
    data, (backend, options) = fake.mesh["backend_override"]
    assert data == (None, None) and backend is None
    training_ranks, evaluation, bridge = fake.new_groups
    for group_options in (options, evaluation["pg_options"]):
        assert (
            group_options.is_high_priority_stream and group_options._timeout.total_seconds() == 77
        )
    assert evaluation["ranks"] == [2, 3] and bridge["backend"] == "gloo"
    assert "pg_options" not in training_ranks and "pg_options" not in bridge
    assert {group["timeout"].total_seconds() for group in fake.new_groups} == {77}


def test_gloo_gets_neither_a_device_nor_nccl_options(fake):
    build(torch.device("cpu"))
    assert fake.init["backend"] == "gloo" and fake.init["device_id"] is None
    assert fake.mesh["backend_override"] is None
    assert all(group.get("pg_options") is None for group in fake.new_groups)
