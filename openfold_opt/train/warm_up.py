"""Warm-up before the timed part of a run: steps and evaluations on synthetic data.

It compiles kernels, creates cuBLAS handles and workspaces, fills the caching allocator and captures
CUDA graphs. It leaves weights, optimizer and random states unchanged.
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
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.graphs.evaluation_graphs import EvaluationGraphs, lengths_to_capture
from openfold_opt.train.graphs.recorder import CudaRecorder, Recorder
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.optim.lr_schedule import learning_rate
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
    """Run a step for each number of recycling iterations, and evaluations, on synthetic data.

    Weights, optimizer and random states are unchanged afterward. This is a collective operation of
    all training ranks.

    Args:
        config: configuration of the run.
        train_step: training step of the run.
        evaluator: evaluator of the run.
        recorder: captures the graphs if the run uses them; None: CudaRecorder.
        report: receives a line for each finished part.

    Returns:
        The object that runs the steps: graphs of the step, or the step itself.

    Raises:
        CaptureError: a graph could not be captured.
    """
    device = train_step.buffer.values.device
    runner: TrainStep | StepGraphs = train_step
    graphs: EvaluationGraphs | None = None
    if config.cuda_graphs:
        recorder = recorder if recorder is not None else CudaRecorder(device)
        micro_batch = synthetic_micro_batch(config, device, 0)
        runner = StepGraphs(train_step, recorder, micro_batch=micro_batch)
        graphs = EvaluationGraphs(evaluator.compute, recorder)
    with _restore_state(train_step):
        # Most iterations first: the others can reuse their memory.
        numbers = range(config.data.max_recycling_iterations, -1, -1)
        for number in numbers:
            if isinstance(runner, StepGraphs):
                runner.warm_up_run(number)
            else:
                micro_batches = (
                    synthetic_micro_batch(config, device, n) for n in range(config.accumulation)
                )
                runner.run(
                    micro_batches,
                    step=1,
                    learning_rate=learning_rate(config.schedule, 1),
                    num_recycling_iterations=number,
                ).read()
            report(f"warm-up: step with {number} recycling iterations")
        _evaluate(config, evaluator, graphs, device=device, report=report)
        if isinstance(runner, StepGraphs) and graphs is not None:
            # Captured graphs do not share their memory with eager work, so capture last.
            _record(runner, numbers, graphs)
            evaluator.use_graphs(graphs)
            report(f"warm-up: captured {len(numbers)} steps and the evaluation")
    return runner


def _record(runner: StepGraphs, numbers: Iterable[int], graphs: EvaluationGraphs) -> None:
    """Capture all graphs. If one capture fails, release all of them."""
    try:
        for number in numbers:
            runner.record(number)
        graphs.record()
    except Exception:
        # NCCL does not shut down while a graph holds its collectives.
        runner.release()
        graphs.release()
        raise


def warm_up_evaluation(
    config: RunConfig, evaluator: Evaluator, *, report: Callable[[str], None]
) -> EvaluationGraphs | None:
    """Warm up a rank that only evaluates. Return its graphs, or None if the run has none."""
    recorder = CudaRecorder(evaluator.device) if config.cuda_graphs else None
    graphs = EvaluationGraphs(evaluator.compute, recorder) if recorder is not None else None
    _evaluate(config, evaluator, graphs, device=evaluator.device, report=report)
    if graphs is not None:
        graphs.record()
        evaluator.use_graphs(graphs)
    return graphs


def release(runner: TrainStep | StepGraphs, evaluator: Evaluator) -> None:
    """Release the graphs that warm_up captured. Call this before process groups are destroyed."""
    if isinstance(runner, StepGraphs):
        runner.release()
        evaluator.release_graphs()


def synthetic_micro_batch(config: RunConfig, device: torch.device, number: int) -> MicroBatch:
    """Return synthetic micro-batch `number` of a step, counted from 0, on the device."""
    size, num_passes = config.local_batch_size, config.data.max_recycling_iterations + 1
    features = synthetic_batch(config.data, batch_size=size, num_passes=num_passes, seed=number)
    return MicroBatch(
        features=FeatureBatch.from_features(features).to(device),
        slots=torch.arange(number * size, (number + 1) * size).to(device),
        sample_ids=("synthetic",) * size,
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
        # Kernels are compiled separately for multiples of 16 and for other sizes.
        for length in (config.data.crop_size, config.data.crop_size + 1):
            evaluator.compute(_synthetic_chain(config, length, device))
        report("warm-up: evaluation")
        return
    longest = config.selection.validation_max_length or config.data.crop_size
    for length in graphs.warm_up_run(
        _synthetic_chain(config, length, device) for length in lengths_to_capture(longest)
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
def _restore_state(train_step: TrainStep) -> Iterator[None]:
    """Restore everything that a step changes, and the random states, on exit."""
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
