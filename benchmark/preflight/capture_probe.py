"""Capture and replay a small training step on a GPU.

    python -m benchmark.preflight.capture_probe PRESET [ACCUMULATION [PHASE]]

Kernels, precision and widths are those of the preset, with one block per stack and little data, on
one GPU. The exit code is 1, with a message on stderr, if a capture fails or if the loss of a
replayed step differs from that of an eager step.
"""

from __future__ import annotations

import dataclasses
import math
import sys

import torch

from benchmark.presets import build_preset
from openfold_opt.parallel.context import ParallelConfig, ParallelContext
from openfold_opt.train.build_run import build_model, build_plans, build_train_step, resolve_device
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.recorder import CudaRecorder, Recorder
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.optim.lr_schedule import learning_rate
from openfold_opt.train.phases import find_phase
from openfold_opt.train.precision import matmul_precision
from openfold_opt.train.step import TrainStep
from openfold_opt.train.warm_up import synthetic_micro_batch

LOSS_TOLERANCE = 0.01
"""Relative tolerance; both runners start from the same weights and samples."""


def small_config(config: RunConfig) -> RunConfig:
    """Return a configuration with one block per stack and little data."""
    stacks = {
        name: dataclasses.replace(getattr(config.model, name), num_blocks=1)
        for name in ("template_pair_stack", "extra_msa_stack", "evoformer_stack")
    }
    data = dataclasses.replace(
        config.data,
        crop_size=min(config.data.crop_size, 64),
        max_msa_clusters=min(config.data.max_msa_clusters, 16),
        max_extra_msa=min(config.data.max_extra_msa, 32),
        max_recycling_iterations=1,
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **stacks),
        data=data,
        parallel=ParallelConfig(),
        local_batch_size=1,
        accumulation=min(config.accumulation, 2),
        recompute=True,
    )


def probe(config: RunConfig, device: torch.device, recorder: Recorder) -> None:
    """Compare replayed steps with eager steps, with 1 and with 0 recycling iterations.

    Raises ValueError if a step cannot be captured or if a replay differs from an eager step.
    """
    recorded, eager = _new_step(config, device), _new_step(config, device)
    graphs = StepGraphs(recorded, recorder, micro_batch=synthetic_micro_batch(config, device, 0))
    for iterations in (1, 0):
        graphs.warm_up_run(iterations)
    for iterations in (1, 0):
        graphs.record(iterations)
    _copy_state(eager, recorded)
    try:
        for iterations in (1, 0):
            _compare(config, device, graphs, eager, iterations)
    finally:
        graphs.release()


@torch.no_grad()
def _copy_state(source: TrainStep, target: TrainStep) -> None:
    """Copy the weights and the optimizer state, which the warm-up runs changed."""
    ours = vars(target.weight_state())
    for name, value in vars(source.weight_state()).items():
        if value is not None:
            ours[name].copy_(value)


def _compare(
    config: RunConfig, device: torch.device, graphs: StepGraphs, eager: TrainStep, iterations: int
) -> None:
    batches = [synthetic_micro_batch(config, device, n) for n in range(config.accumulation)]
    rate = learning_rate(config.schedule, 1)
    found, expected = (
        runner.run(batches, step=1, learning_rate=rate, num_recycling_iterations=iterations).read()
        for runner in (graphs, eager)
    )
    is_close = math.isclose(found.loss, expected.loss, rel_tol=LOSS_TOLERANCE)
    if not (found.is_applied and expected.is_applied and is_close):
        raise ValueError(
            f"a replayed step with {iterations} recycling iterations has loss {found.loss:g} and "
            f"gradient norm {found.gradient_norm:g}, an eager one {expected.loss:g} and "
            f"{expected.gradient_norm:g}; set cuda_graphs=False in the preset, and report this"
        )


def _new_step(config: RunConfig, device: torch.device) -> TrainStep:
    context = ParallelContext.alone()
    model = build_model(config, seed=1, device=device)
    plan, _ = build_plans(config, context, device)
    return build_train_step(config, model, plan=plan, context=context, seed=1)


def main() -> int:
    """Probe the preset of the command line. Return the exit code."""
    phase = sys.argv[3] if len(sys.argv) > 3 else "1"
    config = find_phase(build_preset(sys.argv[1]), phase).config
    if len(sys.argv) > 2:
        config = dataclasses.replace(config, accumulation=int(sys.argv[2]))
    config = small_config(config)
    try:
        device = resolve_device(config.device, local_rank=0)
        with matmul_precision(config.precision):
            probe(config, device, CudaRecorder(device))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
