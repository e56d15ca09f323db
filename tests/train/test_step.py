"""TrainStep on a toy model: equations, batch splits, and values that are not finite."""

import copy
import dataclasses
import math

import pytest
import torch

from tests.support.gloo_ranks import run_on_ranks
from tests.support.toy_model import (
    LEARNING_RATE,
    ToyModel,
    micro_batch,
    toy_loss,
    toy_samples,
    toy_step,
)

NAN = float("nan")


def run_steps(step_object, num_steps, split, *, rank=0, size=1, num_samples=4):
    """Train on global batches of 4, of which this rank uses its part in `split` micro-batches."""
    metrics = []
    share = num_samples // (split * size)
    for step in range(1, num_steps + 1):
        features = toy_samples(step, num_samples)
        firsts = [(micro * size + rank) * share for micro in range(split)]
        batches = [micro_batch(features, first, first + share) for first in firsts]
        metrics.append(
            step_object.run(
                batches,
                step=step,
                learning_rate=LEARNING_RATE,
                num_recycling_iterations=(step - 1) % 3,
            ).read()
        )
    return metrics


def test_steps_equal_those_of_plain_pytorch():
    ours = toy_step()
    model = copy.deepcopy(ours.model)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-6)
    average = None
    for metrics in run_steps(ours, 6, 1):
        batch = micro_batch(toy_samples(metrics.step, 4), 0, 4).features
        passes = (metrics.step - 1) % 3
        terms = toy_loss(model(batch, None, num_recycling_iterations=passes), batch.at_pass(passes))
        adam.zero_grad()
        terms.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        adam.step()
        values = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        average = values if average is None else average + 0.1 * (values - average)
        assert metrics.loss == pytest.approx(terms.loss.item(), rel=1e-5)
        assert metrics.gradient_norm == pytest.approx(norm.item(), rel=1e-5)
        assert metrics.terms["error"] == pytest.approx(terms.terms["error"].mean().item(), rel=1e-5)
        assert metrics.is_applied and metrics.num_recycling_iterations == passes
    trained = torch.cat([parameter.detach().flatten() for parameter in ours.model.parameters()])
    torch.testing.assert_close(trained, values, rtol=1e-5, atol=1e-6)
    averaged = torch.cat([value.flatten() for value in ours.weight_average.parameters().values()])
    torch.testing.assert_close(averaged, average, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("split", [2, 4])
def test_accumulated_micro_batches_equal_one_batch(split):
    whole = run_steps(toy_step(), 10, 1)
    parts = run_steps(toy_step(accumulation=split), 10, split)
    for one, other in zip(whole, parts, strict=True):
        assert other.loss == pytest.approx(one.loss, abs=1e-5)
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)


def two_rank_body(context, split):
    step = toy_step(accumulation=split, context=context)
    metrics = run_steps(step, 10, split, rank=context.data.rank, size=context.data.size)
    return [
        (item.loss, item.gradient_norm, item.terms["error"]) for item in metrics
    ], step.buffer.values.tolist()


@pytest.mark.parametrize("split", [1, 2])
def test_two_ranks_equal_one(split):
    single = toy_step()
    whole = run_steps(single, 10, 1)
    (first, first_weights), (second, second_weights) = run_on_ranks(two_rank_body, 2, split)
    assert first == second and first_weights == second_weights
    for one, (loss, norm, error) in zip(whole, first, strict=True):
        assert loss == pytest.approx(one.loss, abs=1e-5)
        assert norm == pytest.approx(one.gradient_norm, rel=1e-4)
        assert error == pytest.approx(one.terms["error"], abs=1e-5)
    assert first_weights == pytest.approx(single.buffer.values.tolist(), abs=1e-5)


def state_of(step):
    return [
        x.clone()
        for x in (
            step.buffer.values,
            step.optimizer.exp_avg,
            step.optimizer.exp_avg_sq,
            step.optimizer.num_steps,
            step.weight_average.average,
            step.weight_average.num_updates,
        )
    ]


def non_finite_batch(step, sample, value):
    features = toy_samples(step, 4)
    features.y[sample] = value
    return features


@pytest.mark.parametrize("value", [NAN, math.inf])
@pytest.mark.parametrize("step", [1, 4])
def test_a_loss_that_is_not_finite_changes_no_weight(value, step):
    ours = toy_step()
    run_steps(ours, step - 1, 1)
    before = state_of(ours)
    result = ours.run(
        [micro_batch(non_finite_batch(step, 2, value), 0, 4)],
        step=step,
        learning_rate=LEARNING_RATE,
        num_recycling_iterations=0,
    )
    metrics = result.read()
    assert not metrics.is_applied
    assert all(torch.equal(old, new) for old, new in zip(before, state_of(ours), strict=True))
    weighted = result.local_terms[:, -1]
    assert [bool(torch.isfinite(value)) for value in weighted] == [True, True, False, True]
    next_metrics = ours.run(
        [micro_batch(toy_samples(step, 4), 0, 4)],
        step=step,
        learning_rate=LEARNING_RATE,
        num_recycling_iterations=0,
    ).read()
    assert next_metrics.is_applied and not torch.equal(before[0], ours.buffer.values)


def test_a_gradient_that_is_not_finite_changes_no_weight():
    ours = toy_step()
    run_steps(ours, 2, 1)
    before = state_of(ours)
    hook = ours.model.outer.weight.register_hook(lambda gradient: gradient * math.inf)
    metrics = ours.run(
        [micro_batch(toy_samples(3, 4), 0, 4)],
        step=3,
        learning_rate=LEARNING_RATE,
        num_recycling_iterations=0,
    ).read()
    hook.remove()
    assert math.isfinite(metrics.loss) and not metrics.is_applied
    assert all(torch.equal(old, new) for old, new in zip(before, state_of(ours), strict=True))


def test_a_term_of_weight_zero_need_not_be_finite():
    ours = toy_step()
    features = toy_samples(1, 4)
    features.x[1, 0, 0] = -1.0
    metrics = ours.run(
        [micro_batch(features, 0, 4)],
        step=1,
        learning_rate=LEARNING_RATE,
        num_recycling_iterations=0,
    ).read()
    assert math.isnan(metrics.terms["idle"]) and metrics.is_applied


def non_finite_on_one_rank(context):
    step = toy_step(context=context)
    features = non_finite_batch(1, 3, NAN)
    share = micro_batch(features, 2 * context.data.rank, 2 * context.data.rank + 2)
    before = step.buffer.values.clone()
    metrics = step.run(
        [share], step=1, learning_rate=LEARNING_RATE, num_recycling_iterations=0
    ).read()
    return metrics.is_applied, torch.equal(before, step.buffer.values)


def test_a_loss_that_is_not_finite_on_one_rank_skips_the_step_on_all():
    assert run_on_ranks(non_finite_on_one_rank, 2) == [(False, True), (False, True)]


def test_a_wrong_number_of_micro_batches_is_an_error():
    with pytest.raises(ValueError, match="step 1 got 1 micro-batches, expected 2"):
        toy_step(accumulation=2).run(
            [micro_batch(toy_samples(1, 4), 0, 4)],
            step=1,
            learning_rate=LEARNING_RATE,
            num_recycling_iterations=0,
        )


def test_the_toy_has_several_parameters():
    assert sum(parameter.numel() for parameter in ToyModel().parameters()) == 36


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_the_loss_uses_the_features_of_the_last_pass(passes):
    features = toy_samples(1, 4)
    metrics = (
        toy_step()
        .run(
            [micro_batch(features, 0, 4)],
            step=1,
            learning_rate=LEARNING_RATE,
            num_recycling_iterations=passes,
        )
        .read()
    )
    assert metrics.terms["idle"] == pytest.approx(
        features.x[:, passes, 0].log().mean().item(), rel=1e-5
    )


def test_dropout_gets_the_step_and_the_slots():
    step = toy_step(accumulation=2)
    step.dropout_seed = 77
    states = []

    class RecordingModel(ToyModel):
        def forward(self, batch, plan, *, num_recycling_iterations, dropout=None):
            states.append((dropout.seed, dropout.step, dropout.slots.tolist()))
            return super().forward(batch, plan, num_recycling_iterations=num_recycling_iterations)

    step.model.__class__ = RecordingModel
    run_steps(step, 2, 2)
    assert states == [(77, 1, [0, 1]), (77, 1, [2, 3]), (77, 2, [0, 1]), (77, 2, [2, 3])]


@pytest.mark.parametrize("non_finite", [0, 1])
def test_a_sample_that_is_not_finite_in_any_micro_batch_skips_the_step(non_finite):
    """Its differentiated loss and its gradient are finite: only the flag shows it."""
    calls = iter(range(2))

    def loss(outputs, batch):
        terms = toy_loss(outputs, batch)
        return (
            dataclasses.replace(terms, weighted_total=terms.weighted_total * NAN)
            if next(calls) == non_finite
            else terms
        )

    step = toy_step(accumulation=2, loss=loss)
    before = step.buffer.values.clone()
    (metrics,) = run_steps(step, 1, 2)
    assert (
        math.isfinite(metrics.loss)
        and math.isfinite(metrics.gradient_norm)
        and not metrics.is_applied
    )
    assert torch.equal(step.buffer.values, before)
