"""Calls of PyTorch: their number, size and inner loops."""

import dataclasses

import pytest
import torch

from benchmark.perf.tools.call_trace import VIEW, count_calls, grouped, num_loops, record_calls
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.step_calls import VERSIONS, narrowed, time_step_calls
from benchmark.presets import build_preset


@pytest.mark.parametrize(
    ("shapes", "loops"),
    [
        (((4, 5, 6), (4, 5, 6)), 1),
        # Three coordinates of each point times one number: a loop of three.
        (((7, 9, 3), (7, 9, 1)), 63),
        (((7, 9, 3), (3,)), 63),
        (((2, 8, 16), (8, 16)), 2),
        (((), ()), 1),
        (((0, 3),), 0),
        ((), 0),
    ],
)
def test_loops_end_where_the_tensors_advance_differently(shapes, loops):
    tensors = [torch.zeros(shape) for shape in shapes]
    assert num_loops(tensors) == loops


def test_a_transposed_operand_has_loops_of_one_dim():
    x = torch.zeros(6, 4, 5)
    assert num_loops([x, x.transpose(0, 2).contiguous().transpose(0, 2)]) == 24


def test_calls_are_counted_by_direction():
    def run():
        x = torch.ones(8, 4, requires_grad=True)
        (x.t() @ x).sum().backward()

    groups = {(group.operator, group.direction): group for group in count_calls(run)}
    product = groups["mm", "forward"]
    assert (product.calls, product.bytes, product.flops) == (1, 4 * (32 + 32 + 16), 2 * 4 * 8 * 4)
    assert groups["mm", "backward"].calls == 2
    assert groups[VIEW, "forward"].calls == 1
    assert product.seconds == 0.0


def test_a_batched_product_has_a_loop_for_each_matrix():
    def run():
        torch.ones(5, 3, 4) @ torch.ones(5, 4, 2)

    (product,) = [group for group in count_calls(run) if group.flops]
    assert (product.operator, product.loops) == ("bmm", 5)


def test_runs_with_different_calls_are_refused():
    shapes = iter([(2,), (2, 2)])

    def run():
        shape = next(shapes)
        for _ in shape:
            torch.ones(shape) * 2

    with pytest.raises(ValueError, match="expected equal runs"):
        grouped([record_calls(run) for _ in range(2)])


def test_every_channel_is_narrow():
    model = narrowed(build_preset("middle").model, 8)
    assert model.c_z == model.evoformer_stack.c_hidden_msa_attention == 8
    assert model.evoformer_stack.num_blocks == 4


def test_the_calls_of_a_step_are_those_that_are_counted_without_values():
    config = build_preset("demo_one_phase")
    data = dataclasses.replace(config.data, crop_size=8)
    config = dataclasses.replace(config, data=data, local_batch_size=1)
    steps = time_step_calls(config)
    assert [len(step.seconds) for step in steps] == [3 * each.repeats for each in VERSIONS]
    assert all(0.0 <= step.waited_share < 1.0 for step in steps)
    sizes = [sum(each.calls * each.bytes for each in step.calls) for step in steps]
    assert sizes[:4] == sorted(sizes[:4])
    measured = steps[-1].calls
    counted = count_calls(MetaStep.build(config, kernels="reference", precision="fp32").run)
    for direction in ("forward", "backward"):
        numbers = [
            sum(group.calls for group in groups if group.direction == direction)
            for groups in (measured, counted)
        ]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.02)
    sizes = [sum(group.calls * group.bytes for group in each) for each in (measured, counted)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    assert all(group.seconds > 0 for group in measured)
