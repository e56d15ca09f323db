"""Gradients averaged during the backward pass are bit-identical to those averaged after it."""

import pytest
import torch
from torch import nn

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.parallel.gradients import GradientReducer, average_gradients
from tests.support.gloo_ranks import run_on_ranks

SIZES = (3, 40, 5, 7, 60)


class Chain(nn.Module):
    """A chain of parameters; the third is used twice and the fourth is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = torch.zeros(sum(SIZES) + 4)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.linspace(0.1, 1.0, size)) for size in SIZES
        )
        start = 0
        self.offsets = {}
        for weight in self.weights:
            weight.grad = self.flat[start : start + weight.numel()].view(weight.shape)
            self.offsets[weight] = start
            start += weight.numel()

    def forward(self, x: float) -> torch.Tensor:
        first, second, third, _, last = self.weights
        return (
            x * first.sum() * second.square().sum() * third.sum() + third.square().sum()
        ) * last.sum()


def reduced(context: ParallelContext, overlaps: bool, is_declared: bool) -> dict:
    """Reduce the gradients of two micro-batches during the backward pass of the second one.

    is_declared: whether the unused parameter is declared as one without a gradient.
    """
    model, collected = Chain(), []
    reducer = GradientReducer(
        model.flat,
        model.offsets,
        context.training_ranks,
        bucket_bytes=4 * 32,
        overlaps=overlaps,
        collect=collected.append,
        without_gradient=[model.weights[3]] if is_declared else [],
    )
    rank = context.training_ranks.rank
    model(1.0 + rank).backward()
    model.flat[-4:] = torch.arange(4.0) * rank
    reducer.prepare_for_backward()
    model(0.5).backward()
    num_early = len(collected)
    local = model.flat.clone() if not overlaps else None
    square_sum = reducer.finish(sum(SIZES))
    if local is not None:
        average_gradients(local, context.training_ranks, bucket_bytes=2**20)
        assert torch.equal(local, model.flat)
    return {
        "flat": model.flat.tolist(),
        "squares": (square_sum.item(), model.flat[: sum(SIZES)].double().square().sum().item()),
        "num_early": num_early,
        "buckets": [(bucket.start, bucket.stop) for bucket in reducer.buckets],
    }


def reduce_with_all_options(context: ParallelContext) -> list[dict]:
    options = ((True, False), (False, False), (True, True))
    return [reduced(context, *option) for option in options]


def test_buckets_are_reduced_when_full_and_the_result_is_bit_identical():
    for during, after, declared in run_on_ranks(reduce_with_all_options, 2):
        assert during["flat"] == after["flat"] == declared["flat"]
        # Buckets are cut from the end and have at least the requested size. The first one also
        # contains the elements after the parameters.
        assert during["buckets"] == [(55, 119), (3, 55), (0, 3)]
        # An unused parameter that was not declared delays its bucket and the following ones.
        assert (during["num_early"], after["num_early"], declared["num_early"]) == (1, 0, 3)
        for squares, expected in (during["squares"], after["squares"], declared["squares"]):
            assert abs(squares - expected) < 1e-10 * expected


def test_a_gradient_of_a_parameter_declared_without_one_is_an_error():
    model = Chain()
    reducer = GradientReducer(
        model.flat,
        model.offsets,
        AxisGroup.fake("training", size=2),
        bucket_bytes=2**20,
        overlaps=True,
        collect=lambda chunk: None,
        without_gradient=[model.weights[4]],
    )
    reducer.prepare_for_backward()
    with pytest.raises(RuntimeError, match=r"shape \(60,\) got a gradient but was declared"):
        model(1.0).backward()


def test_a_single_rank_does_nothing():
    model = Chain()
    reducer = GradientReducer(
        model.flat,
        model.offsets,
        AxisGroup.single("training"),
        bucket_bytes=4,
        overlaps=True,
        collect=lambda chunk: None,
    )
    reducer.prepare_for_backward()
    model(1.0).backward()
    before = model.flat.clone()
    assert reducer.finish(sum(SIZES)) is None and torch.equal(model.flat, before)
