"""Replayed steps against eager ones; a stand-in records and replays where there is no GPU."""

import dataclasses

import pytest
import torch

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.graphs.recorder import CudaRecorder
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.made_up_features import made_up_batch
from openfold_opt.train.setup import build_model, build_plans, build_train_step
from openfold_opt.train.step import MicroBatch
from tests.train.synthetic import tiny_config

PASSES = (1, 0, 1, 1, 0)


class StandIn:
    """Replays by doing the work again; like a graph it reads and writes the memory that it was recorded on."""

    def __init__(self) -> None:
        self.num_replays = 0

    def rehearse(self, work):
        work()

    def record(self, work):
        return StandInRecording(self, work)


class StandInRecording:
    def __init__(self, recorder, work):
        self._recorder, self._work = recorder, work

    def replay(self):
        self._recorder.num_replays += 1
        self._work()

    def reset(self):
        self._work = None


def new_step(config, device="cpu"):
    device, context = torch.device(device), ParallelContext.alone()
    model = build_model(config, seed=1, device=device)
    plan, _ = build_plans(config, context, device)
    return build_train_step(config, model, plan=plan, context=context, seed=1)


def micro_batch(config, seed, *, num_passes=2, device="cpu"):
    features = made_up_batch(config.data, batch_size=config.local_batch_size, num_passes=num_passes, seed=seed)
    slots = torch.arange(config.local_batch_size, device=device)
    return MicroBatch(features=FeatureBatch.from_features(features).to(device), slots=slots, sample_ids=(f"sample {seed}",))


def new_graphs(config, recorder, device="cpu"):
    step = new_step(config, device)
    start = [x.clone() for x in vars(step.weight_state()).values() if x is not None]
    inputs = [micro_batch(config, 99 + number, device=device) for number in range(config.accumulation)]
    graphs = StepGraphs(step, recorder, micro_batches=inputs)
    for passes in (1, 0):
        graphs.rehearse(passes)
    for passes in (1, 0):
        graphs.record(passes)
    with torch.no_grad():
        for tensor, before in zip([x for x in vars(step.weight_state()).values() if x is not None], start):
            tensor.copy_(before)
    return graphs, step


def run(runner, config, device="cpu"):
    """Figures of five steps on samples of their own."""
    figures = []
    for number, passes in enumerate(PASSES, start=1):
        batches = [
            micro_batch(config, 10 * number + micro, num_passes=passes + 1, device=device) for micro in range(config.accumulation)
        ]
        result = runner.run(iter(batches), step=number, num_recycling_passes=passes)
        assert result.sample_ids == tuple(sample_id for batch in batches for sample_id in batch.sample_ids)
        figures.append((result.read(), result.local_terms.clone()))
    return figures


def assert_equal(found, expected):
    for (ours, our_terms), (theirs, their_terms) in zip(found, expected, strict=True):
        assert ours == theirs
        assert torch.equal(our_terms, their_terms)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replays_equal_eager_steps_to_the_last_bit(accumulation, precision):
    schedule = dataclasses.replace(tiny_config().schedule, warmup_steps=4)
    config = tiny_config(accumulation=accumulation, precision=precision, schedule=schedule)
    recorder = StandIn()
    graphs, step = new_graphs(config, recorder)
    eager = new_step(config)
    assert_equal(run(graphs, config), run(eager, config))
    assert recorder.num_replays == len(PASSES) and graphs.num_eager_steps == 0
    for name, value in vars(eager.weight_state()).items():
        assert value is None or torch.equal(value, getattr(step.weight_state(), name)), name


def test_dropout_differs_from_step_to_step():
    config = tiny_config(schedule=dataclasses.replace(tiny_config().schedule, base_learning_rate=0.0))
    graphs, _ = new_graphs(config, StandIn())
    batch = micro_batch(config, 1)
    losses = [graphs.run([batch], step=step, num_recycling_passes=0).read().loss for step in (1, 2, 3, 1)]
    assert len(set(losses)) == 3 and losses[0] == losses[3]


def test_what_fits_no_graph_is_done_eagerly_and_counted():
    config = tiny_config()
    longer = dataclasses.replace(config, data=dataclasses.replace(config.data, crop_size=9))
    recorder = StandIn()
    graphs, _ = new_graphs(config, recorder)
    eager = new_step(config)
    for step, (which, passes) in enumerate([(longer, 0), (config, 0), (longer, 1)], start=1):
        batch = micro_batch(which, step)
        found = graphs.run([batch], step=step, num_recycling_passes=passes).read()
        assert found == eager.run([batch], step=step, num_recycling_passes=passes).read()
    assert graphs.num_eager_steps == 2 and recorder.num_replays == 1


def test_released_graphs_are_replayed_no_more():
    config, recorder = tiny_config(), StandIn()
    graphs, _ = new_graphs(config, recorder)
    graphs.release()
    assert graphs.run([micro_batch(config, 1)], step=1, num_recycling_passes=0).read().is_applied
    assert recorder.num_replays == 0 and graphs.num_eager_steps == 1


def test_figures_read_late_are_those_of_their_step():
    config = tiny_config()
    graphs, _ = new_graphs(config, StandIn())
    eager = new_step(config)
    batches = [micro_batch(config, seed) for seed in (1, 2)]
    late = [graphs.run([batch], step=step, num_recycling_passes=0) for step, batch in enumerate(batches, start=1)]
    now = [eager.run([batch], step=step, num_recycling_passes=0) for step, batch in enumerate(batches, start=1)]
    assert torch.equal(late[0].local_terms, now[0].local_terms) and torch.equal(late[1].local_terms, now[1].local_terms)


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["reference", "triton"])
def test_cuda_graphs_equal_eager_steps(kernels):
    from openfold_opt.kernels.select import KernelConfig

    config = tiny_config(kernels=KernelConfig.all(kernels), device="cuda", data=dataclasses.replace(tiny_config().data, crop_size=16))
    graphs, _ = new_graphs(config, CudaRecorder(torch.device("cuda")), "cuda")
    eager = new_step(config, "cuda")
    for (ours, _), (theirs, _) in zip(run(graphs, config, "cuda"), run(eager, config, "cuda"), strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert ours.is_applied and theirs.is_applied
    assert graphs.num_eager_steps == 0


@pytest.mark.gpu
def test_a_hundred_replays_with_a_forced_collective_of_one_rank():
    import torch.distributed as dist

    store = dist.HashStore()
    dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=torch.device("cuda", 0))
    try:
        config = tiny_config(device="cuda")
        step = new_step(config, "cuda")
        compute = step.compute

        def with_collective(*args, **kwargs):
            found = compute(*args, **kwargs)
            dist.all_reduce(step.buffer.gradients)
            return found

        step.compute = with_collective
        graphs = StepGraphs(step, CudaRecorder(torch.device("cuda")), micro_batches=[micro_batch(config, 1, device="cuda")])
        graphs.rehearse(0)
        graphs.record(0)
        batch = micro_batch(config, 2, device="cuda")
        for number in range(1, 101):
            result = graphs.run([batch], step=number, num_recycling_passes=0)
        assert result.read().is_applied and graphs.num_eager_steps == 0
        graphs.release()
    finally:
        dist.destroy_process_group()
