"""Warm-up changes no result: a run with it is bit-equal to a run without it."""

import dataclasses
import gc
import random

import numpy as np
import pytest
import torch

from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_plans
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.process_memory import paused_garbage_collection
from openfold_opt.train.warm_up import warm_up
from tests.support.devices import DEVICES
from tests.support.recording_observer import train
from tests.support.synthetic_samples import LEARNING_RATE, tiny_config
from tests.support.tiny_steps import FakeRecorder, as_if_on_a_gpu, micro_batch, new_step


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("has_graphs", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_warm_up_restores_weights_and_random_states(has_graphs, precision, device):
    config = tiny_config(precision=precision, device=device)
    config = dataclasses.replace(
        config, selection=dataclasses.replace(config.selection, validation_max_length=60)
    )
    config = as_if_on_a_gpu(config) if has_graphs else config
    step = new_step(config, device)
    batch = micro_batch(config, 5, device=device)
    step.run([batch], step=1, learning_rate=LEARNING_RATE, num_recycling_iterations=1).read()
    before = {
        name: None if x is None else x.clone() for name, x in vars(step.weight_state()).items()
    }
    numbers = (
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(legacy=False)["state"]["key"].copy(),
    )
    on_gpu = torch.cuda.get_rng_state_all()
    _, plan = build_plans(config, ParallelContext.alone(), torch.device(device))
    lines = []
    # None: CudaRecorder.
    recorder = FakeRecorder() if device == "cpu" else None
    evaluator = Evaluator(step.model, step.weight_average.parameters(), plan=plan)
    runner = warm_up(config, step, evaluator, recorder=recorder, report=lines.append)
    assert isinstance(runner, StepGraphs) == has_graphs
    assert lines[:2] == [f"warm-up: step with {k} recycling iterations" for k in (1, 0)]
    with_graphs = [
        "warm-up: evaluation of 64 residues",
        "warm-up: captured 2 steps and the evaluation",
    ]
    assert lines[2:] == (with_graphs if has_graphs else ["warm-up: evaluation"])
    for name, value in vars(step.weight_state()).items():
        assert value is before[name] is None or torch.equal(value, before[name]), name
    assert torch.equal(torch.get_rng_state(), numbers[0]) and random.getstate() == numbers[1]
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numbers[2])
    assert all(map(torch.equal, torch.cuda.get_rng_state_all(), on_gpu))
    if has_graphs:
        runner.release()
        evaluator.release_graphs()


def test_a_run_with_warm_up_equals_one_without(tmp_path):
    reports = []
    for name in (True, False):
        _, recorder = train(tiny_config(warm_up=name), tmp_path / str(name))
        reports.append(
            [(report.step, report.loss, report.gradient_norm) for report in recorder.steps]
        )
        assert ("preparing" in recorder.names) == name
        if name:
            assert (
                recorder.names.index("preparing")
                < recorder.names.index("init_stop")
                < recorder.names.index("run_start")
            )
    assert reports[0] == reports[1]


def test_graphs_without_warm_up_or_gpu_are_refused():
    for changes in ({"device": "cpu"}, {"device": "cuda", "warm_up": False}):
        with pytest.raises(ValueError, match="cuda_graphs=True requires warm_up=True"):
            tiny_config(cuda_graphs=True, **changes)


def test_garbage_collection_is_disabled_while_paused():
    with paused_garbage_collection():
        assert not gc.isenabled() and gc.get_freeze_count() > 0
    assert gc.isenabled() and gc.get_freeze_count() == 0


@pytest.mark.parametrize("recompute", [False, True])
def test_steps_leave_no_reference_cycles_with_tensors(recompute):
    config = tiny_config(recompute=recompute)
    step = new_step(config)
    step.run(
        [micro_batch(config, 1)], step=1, learning_rate=LEARNING_RATE, num_recycling_iterations=0
    ).read()
    with paused_garbage_collection():
        step.run(
            [micro_batch(config, 1)],
            step=2,
            learning_rate=LEARNING_RATE,
            num_recycling_iterations=0,
        ).read()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            held = [x for x in gc.garbage if isinstance(x, torch.Tensor) and x.numel() > 100]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    assert not held
