"""Steps on made-up data before the clock runs: what is slow at the first time is not slow in the run, and nothing else remains of it.

Compiled kernels, cuBLAS handles and workspaces, the memory that the allocator holds, and the graphs are what stays.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.train.config import RunConfig
from openfold_opt.train.evaluation import Evaluator
from openfold_opt.train.graphs.evaluation_graphs import EvaluationGraphs, bucket_lengths
from openfold_opt.train.graphs.recorder import CudaRecorder, Recorder
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.step import MicroBatch, TrainStep
from openfold_opt.train.synthetic_features import synthetic_batch, synthetic_sample, training_sizes


def warm_up(
    config: RunConfig,
    train_step: TrainStep,
    evaluator: Evaluator,
    *,
    recorder: Recorder | None = None,
    report: Callable[[str], None],
) -> TrainStep | StepGraphs:
    """A step for each number of recycling passes, and evaluations; weights, optimizer and random state are then as before.

    Collective where ranks train together: all of them make the same steps.

    Args:
        config: of the run.
        train_step: the step.
        evaluator: of the run.
        recorder: makes the graphs if the run has any; None: CUDA's.
        report: gets a line for each thing done.

    Returns:
        What carries out the steps of the run: graphs of the step, or the step itself.

    Raises:
        CaptureError: a graph could not be recorded.
    """
    device = train_step.buffer.values.device
    runner: TrainStep | StepGraphs = train_step
    if config.cuda_graphs:
        recorder = recorder if recorder is not None else CudaRecorder(device)
        micro_batch = synthetic_micro_batch(config, device, 0)
        runner = StepGraphs(train_step, recorder, micro_batch=micro_batch)
    with _as_before(train_step):
        # most passes first: the memory it takes serves the others
        numbers = range(config.data.max_recycling_iterations, -1, -1)
        for passes in numbers:
            if isinstance(runner, StepGraphs):
                runner.warm_up_run(passes)
            else:
                count = range(config.accumulation)
                batches = (synthetic_micro_batch(config, device, n) for n in count)
                runner.run(batches, step=1, num_recycling_iterations=passes).read()
            report(f"warm-up: step with {passes} passes without gradient")
        graphs = (
            EvaluationGraphs(evaluator.compute, recorder)
            if isinstance(runner, StepGraphs)
            else None
        )
        _evaluate(config, evaluator, graphs, device=device, report=report)
        if isinstance(runner, StepGraphs):
            # Recorded graphs keep their memory from eager work, so this comes last.
            _record(runner, numbers, graphs)
            evaluator.use_graphs(graphs)
            report(f"warm-up: recorded {len(numbers)} steps and the evaluation")
    return runner


def _record(runner: StepGraphs, numbers: Iterable[int], graphs: EvaluationGraphs) -> None:
    """Record all graphs, or none if one of them fails."""
    try:
        for passes in numbers:
            runner.record(passes)
        graphs.record()
    except Exception:
        # NCCL does not shut down while a graph holds its collectives.
        runner.release()
        graphs.release()
        raise


def warm_up_evaluation(
    config: RunConfig, evaluator: Evaluator, *, report: Callable[[str], None]
) -> EvaluationGraphs | None:
    """The same for a rank that only evaluates; returns the graphs that it uses from now on, if the run has any."""
    recorder = CudaRecorder(evaluator.device) if config.cuda_graphs else None
    graphs = EvaluationGraphs(evaluator.compute, recorder) if recorder is not None else None
    _evaluate(config, evaluator, graphs, device=evaluator.device, report=report)
    if graphs is not None:
        graphs.record()
        evaluator.use_graphs(graphs)
    return graphs


def release(runner: TrainStep | StepGraphs, evaluator: Evaluator) -> None:
    """Give up what warm_up recorded, before process groups end."""
    if isinstance(runner, StepGraphs):
        runner.release()
        evaluator.release_graphs()


def synthetic_micro_batch(config: RunConfig, device: torch.device, number: int) -> MicroBatch:
    """Micro-batch `number` of a step, counted from 0, of synthetic features on the device."""
    size, num_passes = config.local_batch_size, config.data.max_recycling_iterations + 1
    features = synthetic_batch(config.data, batch_size=size, num_passes=num_passes, seed=number)
    return MicroBatch(
        features=FeatureBatch.from_features(features).to(device),
        slots=torch.arange(number * size, (number + 1) * size).to(device),
        sample_ids=("made up",) * size,
    )


def _evaluate(
    config: RunConfig,
    evaluator: Evaluator,
    graphs: EvaluationGraphs | None,
    *,
    device: torch.device,
    report: Callable[[str], None],
) -> None:
    if graphs is None:
        # kernels are compiled for multiples of 16 and for other sizes by themselves
        for length in (config.data.crop_size, config.data.crop_size + 1):
            evaluator.compute(_synthetic_chain(config, length, device))
        report("warm-up: evaluation")
        return
    longest = config.selection.validation_max_length or config.data.crop_size
    for length in graphs.warm_up_run(
        _synthetic_chain(config, length, device) for length in bucket_lengths(longest)
    ):
        report(f"warm-up: evaluation of {length} residues")


def _synthetic_chain(config: RunConfig, length: int, device: torch.device) -> FeatureBatch:
    sizes = {
        **training_sizes(config.data),
        "N_res": length,
        "num_passes": config.data.max_recycling_iterations + 1,
    }
    return FeatureBatch.from_features(synthetic_sample(sizes, seed=0)).to(device)


@contextmanager
def _as_before(train_step: TrainStep) -> Iterator[None]:
    """Puts back what a step changes, to the last bit."""
    state = train_step.weight_state()
    tensors = [x for x in vars(state).values() if x is not None] + [train_step.buffer.gradients]
    copies = [x.clone() for x in tensors]
    generators = _random_states()
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies):
                tensor.copy_(copy)
        _set_random_states(generators)


def _random_states() -> tuple[Tensor, list[Tensor], tuple, dict]:
    return (
        torch.get_rng_state(),
        torch.cuda.get_rng_state_all(),
        random.getstate(),
        np.random.get_state(legacy=False),
    )


def _set_random_states(states: tuple[Tensor, list[Tensor], tuple, dict]) -> None:
    torch.set_rng_state(states[0])
    torch.cuda.set_rng_state_all(states[1])
    random.setstate(states[2])
    np.random.set_state(states[3])
