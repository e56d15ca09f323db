"""Clipping per sample, compared with autograd, clipping and Adam of plain PyTorch."""

import copy
import dataclasses
import math

import pytest
import torch

from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.train.config import RunConfig
from openfold_opt.train.optim.adam import OptimizerConfig
from tests.support.gloo_ranks import run_on_ranks
from tests.support.operator_recorder import OperatorRecorder
from tests.support.synthetic_samples import tiny_config
from tests.support.tiny_steps import micro_batch as tiny_batch
from tests.support.tiny_steps import new_graphs, new_step
from tests.support.toy_model import (
    LEARNING_RATE,
    ToyModel,
    micro_batch,
    toy_loss,
    toy_samples,
    toy_step,
)

CLIP_NORM = 2.0
"""Some samples of the toy model have a larger gradient, and others a smaller one."""
NUM_STEPS = 4


def plain_steps(model, loss_of, num_steps, num_samples, *, clip_norm):
    """Train by per-sample autograd, clipping, mean and Adam of PyTorch.

    loss_of: (model, step, sample) -> differentiable loss. Returns the norms of the samples by step.
    """
    parameters = list(model.parameters())
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=1e-6)
    norms = []
    for step in range(1, num_steps + 1):
        clipped = []
        norms.append([])
        for sample in range(num_samples):
            adam.zero_grad()
            loss_of(model, step, sample).backward()
            norms[-1].append(torch.nn.utils.clip_grad_norm_(parameters, clip_norm).item())
            clipped.append([None if p.grad is None else p.grad.clone() for p in parameters])
        for parameter, *gradients in zip(parameters, *clipped, strict=True):
            if gradients[0] is not None:
                parameter.grad = torch.stack(gradients).mean(0)
        adam.step()
    return norms


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def plain_toy(num_samples):
    """Return the weights and the norms of the samples after some steps."""

    def loss_of(model, step, sample):
        features = micro_batch(toy_samples(step, num_samples), sample, sample + 1).features
        outputs = model(features, None, num_recycling_iterations=0)
        return toy_loss(outputs, features.at_pass(0)).loss

    torch.manual_seed(0)
    model = ToyModel()
    norms = plain_steps(model, loss_of, NUM_STEPS, num_samples, clip_norm=CLIP_NORM)
    return flat(model), norms


def run_toy(step_object, *, num_samples, rank=0, size=1):
    """Run steps on the samples rank, rank + size, ... of each global batch. Return the metrics."""
    metrics = []
    for step in range(1, NUM_STEPS + 1):
        features = toy_samples(step, num_samples)
        result = step_object.run(
            [micro_batch(features, first, first + 1) for first in range(rank, num_samples, size)],
            step=step,
            learning_rate=LEARNING_RATE,
            num_recycling_iterations=0,
        )
        metrics.append(result.read())
    return metrics


def assert_like_plain(weights, reported_norms, *, num_samples):
    expected, norms = plain_toy(num_samples)
    torch.testing.assert_close(torch.as_tensor(weights), expected, rtol=1e-5, atol=1e-6)
    for reported, of_samples in zip(reported_norms, norms, strict=True):
        assert reported == pytest.approx(sum(of_samples) / num_samples, rel=1e-5)
    all_norms = sum(norms, [])
    assert min(all_norms) < CLIP_NORM < max(all_norms)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_one_rank_equals_plain_pytorch(accumulation):
    step = toy_step(accumulation=accumulation, clip_norm=CLIP_NORM, clip_per="sample")
    metrics = run_toy(step, num_samples=accumulation)
    norms = [each.gradient_norm for each in metrics]
    if accumulation == 1:
        # One sample is the whole batch, so both ways of clipping agree.
        whole = toy_step(clip_norm=CLIP_NORM)
        assert norms == pytest.approx([x.gradient_norm for x in run_toy(whole, num_samples=1)])
        torch.testing.assert_close(flat(step.model), flat(whole.model), rtol=1e-5, atol=1e-6)
    else:
        assert_like_plain(flat(step.model), norms, num_samples=accumulation)


def test_clipping_per_sample_differs_from_clipping_the_batch():
    sample = toy_step(accumulation=3, clip_norm=CLIP_NORM, clip_per="sample")
    batch = toy_step(accumulation=3, clip_norm=CLIP_NORM)
    for step in (sample, batch):
        run_toy(step, num_samples=3)
    assert (flat(sample.model) - flat(batch.model)).abs().max() > 1e-3


def data_rank_body(context):
    step = toy_step(accumulation=2, clip_norm=CLIP_NORM, clip_per="sample", context=context)
    metrics = run_toy(step, num_samples=4, rank=context.data.rank, size=context.data.size)
    return flat(step.model).tolist(), [each.gradient_norm for each in metrics]


def test_two_data_ranks_with_two_micro_batches_equal_plain_pytorch():
    first, second = run_on_ranks(data_rank_body, 2)
    assert first == second
    assert_like_plain(*first, num_samples=4)


def tiny(**changes) -> RunConfig:
    """Return the tiny AlphaFold model without dropout, clipped per sample."""
    optimizer = OptimizerConfig(clip_norm=changes.pop("clip_norm", 1.0), clip_per="sample")
    return tiny_config(
        optimizer=optimizer, local_batch_size=1, use_dropout=False, recompute=False, **changes
    )


def run_tiny(step, config, *, num_steps=2):
    norms = []
    for number in range(1, num_steps + 1):
        batches = [tiny_batch(config, 10 * number + i) for i in range(config.accumulation)]
        result = step.run(
            batches, step=number, learning_rate=LEARNING_RATE, num_recycling_iterations=0
        )
        norms.append(result.read().gradient_norm)
    return norms


def dap_body(context, clip_norm):
    config = tiny(accumulation=2, clip_norm=clip_norm)
    config = dataclasses.replace(
        config, parallel=dataclasses.replace(config.parallel, dap_size=context.dap.size)
    )
    step = new_step(config, context=context)
    return run_tiny(step, config), flat(step.model).tolist()


def test_a_dap_group_clips_the_whole_gradient_of_a_sample():
    config = tiny(accumulation=2)
    model = copy.deepcopy(new_step(config).model)

    def loss_of(model, step, sample):
        features = tiny_batch(config, 10 * step + sample).features
        outputs = model(
            features, ExecutionPlan.reference(), num_recycling_iterations=0, dropout=None
        )
        return AlphaFoldLoss(config.loss)(outputs, features.at_pass(0)).loss

    # The smallest norm of the first step, so that one of its samples is clipped.
    clip_norm = 1.01 * min(plain_steps(copy.deepcopy(model), loss_of, 1, 2, clip_norm=1.0)[0])
    plain_norms = plain_steps(model, loss_of, 2, 2, clip_norm=clip_norm)
    (norms, weights), second = run_on_ranks(dap_body, 2, clip_norm, dap_size=2)
    assert (norms, weights) == second
    assert norms == pytest.approx([sum(each) / 2 for each in plain_norms], rel=1e-4)
    # Adam divides by the root of the squared gradient, which amplifies rounding near zero.
    difference = torch.tensor(weights) - flat(model)
    assert difference.norm() < 1e-2 * 2 * LEARNING_RATE * math.sqrt(len(difference))


def bf16_gradient(config, samples):
    """Return the averaged gradient of a step, before Adam, and that of each sample."""
    step = new_step(config)
    step.run(samples, step=1, learning_rate=0.0, num_recycling_iterations=0)
    averaged = step.buffer.gradients[: step.buffer.size].clone()
    alone = new_step(dataclasses.replace(config, optimizer=OptimizerConfig(), accumulation=1))
    gradients = []
    for sample in samples:
        alone.buffer.zero_gradients()
        alone.run([sample], step=1, learning_rate=0.0, num_recycling_iterations=0)
        gradients.append(alone.buffer.gradients[: alone.buffer.size].clone())
    return averaged, gradients


def test_low_precision_gradients_are_clipped_per_sample():
    config = tiny(precision="bf16", accumulation=3)
    config = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, clip_norm=0.1)
    )
    samples = [tiny_batch(config, number) for number in range(3)]
    averaged, gradients = bf16_gradient(config, samples)
    # The reference kernel of a batch of one sample leaves the clipped gradient in the buffer.
    assert all(each.norm().item() == pytest.approx(0.1, rel=1e-4) for each in gradients)
    torch.testing.assert_close(averaged, sum(gradients) / 3, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_sample_that_is_not_finite_skips_the_whole_step(broken):
    step = toy_step(accumulation=3, clip_norm=CLIP_NORM, clip_per="sample")
    before = [x.clone() for x in vars(step.weight_state()).values() if x is not None]
    features = toy_samples(1, 3)
    features.y[broken] = math.nan
    metrics = step.run(
        [micro_batch(features, n, n + 1) for n in range(3)],
        step=1,
        learning_rate=LEARNING_RATE,
        num_recycling_iterations=0,
    ).read()
    assert not metrics.is_applied
    after = [x for x in vars(step.weight_state()).values() if x is not None]
    assert all(map(torch.equal, before, after))
    # Nothing of the skipped step remains.
    metrics = run_toy(step, num_samples=3)
    assert all(each.is_applied for each in metrics)
    expected, _ = plain_toy(3)
    torch.testing.assert_close(flat(step.model), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [math.inf, 3e38])
def test_a_norm_that_is_not_finite_skips_the_step(value):
    """Elements of 3e38 are finite, but their norm is not, and scaled by zero they would vanish."""
    step = toy_step(accumulation=2, clip_norm=CLIP_NORM, clip_per="sample")
    before = step.buffer.values.clone()
    features = toy_samples(1, 2)
    calls = iter((1.0, value))
    hook = step.model.outer.weight.register_hook(lambda x: torch.full_like(x, next(calls)))
    metrics = step.run(
        [micro_batch(features, n, n + 1) for n in range(2)],
        step=1,
        learning_rate=LEARNING_RATE,
        num_recycling_iterations=0,
    ).read()
    hook.remove()
    assert math.isfinite(metrics.loss) and not metrics.is_applied
    assert torch.equal(before, step.buffer.values)


def broken_rank_body(context):
    step = toy_step(accumulation=2, clip_norm=CLIP_NORM, clip_per="sample", context=context)
    features = toy_samples(1, 4)
    features.y[3] = math.nan
    before = step.buffer.values.clone()
    metrics = step.run(
        [micro_batch(features, n, n + 1) for n in range(context.data.rank, 4, 2)],
        step=1,
        learning_rate=LEARNING_RATE,
        num_recycling_iterations=0,
    ).read()
    return metrics.is_applied, torch.equal(before, step.buffer.values)


def test_a_sample_of_one_rank_that_is_not_finite_skips_the_step_on_all():
    assert run_on_ranks(broken_rank_body, 2) == [(False, True), (False, True)]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_replayed_graphs_equal_eager_steps(accumulation):
    config = tiny(accumulation=accumulation, precision="bf16", clip_norm=0.1)
    graphs, replayed = new_graphs(config, OperatorRecorder())
    eager = new_step(config)
    assert run_tiny(graphs, config) == run_tiny(eager, config)
    assert torch.equal(replayed.buffer.values, eager.buffer.values)


def test_several_samples_in_a_micro_batch_are_refused():
    message = "set local_batch_size=1 .accumulation keeps the global batch., or optimizer.clip_per"
    with pytest.raises(ValueError, match=message):
        tiny_config(optimizer=OptimizerConfig(clip_per="sample"), local_batch_size=2)
    with pytest.raises(ValueError, match="with 2 samples in a micro-batch: one backward pass"):
        toy_step(clip_per="sample").run(
            [micro_batch(toy_samples(1, 2), 0, 2)],
            step=1,
            learning_rate=LEARNING_RATE,
            num_recycling_iterations=0,
        )
    with pytest.raises(ValueError, match="clip_per='rank': expected one of batch, sample"):
        OptimizerConfig(clip_per="rank")
