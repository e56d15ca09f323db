"""Gradients averaged behind the backward pass are those averaged after it, to the last bit."""

import pytest
import torch
from torch import nn

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.parallel.gradients import GradientReducer, average_gradients
from tests.parallel.gloo_ranks import run_on_ranks

SIZES = (3, 40, 5, 7, 60)


class Chain(nn.Module):
    """One parameter after the other; the third is used twice, and the last but one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = torch.zeros(sum(SIZES) + 4)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.linspace(0.1, 1.0, size)) for size in SIZES
        )
        start = 0
        self.places = {}
        for weight in self.weights:
            weight.grad = self.flat[start : start + weight.numel()].view(weight.shape)
            self.places[weight] = start
            start += weight.numel()

    def forward(self, x: float) -> torch.Tensor:
        first, second, third, _, last = self.weights
        return (
            x * first.sum() * second.square().sum() * third.sum() + third.square().sum()
        ) * last.sum()


def reduced(context: ParallelContext, overlaps: bool, is_declared: bool) -> dict:
    """Two micro-batches, of which the second one sends.

    is_declared: the reducer knows of the parameter without a gradient.
    """
    model, collected = Chain(), []
    reducer = GradientReducer(
        model.flat,
        model.places,
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
    sent_early = len(collected)
    plain = model.flat.clone() if not overlaps else None
    square_sum = reducer.finish(sum(SIZES))
    if plain is not None:
        average_gradients(plain, context.training_ranks, bucket_bytes=2**20)
        assert torch.equal(plain, model.flat)
    return {
        "flat": model.flat.tolist(),
        "squares": (square_sum.item(), model.flat[: sum(SIZES)].double().square().sum().item()),
        "early": sent_early,
        "pieces": [(chunk.start, chunk.stop) for chunk in reducer.chunks],
    }


def all_ways(context: ParallelContext) -> list[dict]:
    return [reduced(context, *way) for way in ((True, False), (False, False), (True, True))]


def test_buckets_go_as_they_are_filled_and_change_no_bit():
    for behind, after, declared in run_on_ranks(all_ways, 2):
        assert behind["flat"] == after["flat"] == declared["flat"]
        # cut from the end, each at least as large as asked for; the riders are with the last parameter
        assert behind["pieces"] == [(55, 119), (3, 55), (0, 3)]
        # an unused parameter that was not declared holds up its bucket and those behind it
        assert (behind["early"], after["early"], declared["early"]) == (1, 0, 3)
        for squares, expected in (behind["squares"], after["squares"], declared["squares"]):
            assert abs(squares - expected) < 1e-10 * expected


def test_a_gradient_of_a_parameter_declared_without_one_is_an_error():
    model = Chain()
    reducer = GradientReducer(
        model.flat,
        model.places,
        AxisGroup.fake("training", size=2),
        bucket_bytes=2**20,
        overlaps=True,
        collect=lambda chunk: None,
        without_gradient=[model.weights[4]],
    )
    reducer.prepare_for_backward()
    with pytest.raises(RuntimeError, match=r"shape \(60,\) got a gradient but was declared"):
        model(1.0).backward()


def test_one_rank_has_nothing_to_do():
    model = Chain()
    reducer = GradientReducer(
        model.flat,
        model.places,
        AxisGroup.single("training"),
        bucket_bytes=4,
        overlaps=True,
        collect=lambda chunk: None,
    )
    reducer.prepare_for_backward()
    model(1.0).backward()
    before = model.flat.clone()
    assert reducer.finish(sum(SIZES)) is None and torch.equal(model.flat, before)
