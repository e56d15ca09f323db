"""A pass makes no host crossing, so that a CUDA graph can capture it. Needs no GPU."""

import dataclasses

import pytest

from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.predict.forward import compute_pass
from openfold_opt.predict.graphs import PassGraphs
from openfold_opt.train.precision import low_precision_names
from tests.support.fake_device import FakeDeviceProcess
from tests.support.host_crossings import find_host_crossings
from tests.support.prediction import prediction_plan, random_chain
from tests.support.tiny_model import tiny_model


@pytest.fixture(scope="module")
def process():
    with FakeDeviceProcess() as process:
        yield process


class CrossingRecorder:
    """Implements Recorder: a capture keeps the host crossings of the work, a replay only counts."""

    def __init__(self):
        self.crossings, self.num_captures, self.num_warm_ups, self.num_replays = [], 0, 0, 0

    def warm_up_run(self, work):
        self.num_warm_ups += 1
        work()

    def record(self, work):
        self.num_captures += 1
        self.crossings += map(str, find_host_crossings(work))
        return self

    def replay(self):
        self.num_replays += 1

    def reset(self):
        pass


def model_on(device, precision):
    """Return a model with one block of each stack: all blocks of a stack run the same code."""
    config = tiny_model()
    evoformer = dataclasses.replace(config.evoformer_stack, num_blocks=1)
    with device:
        model = AlphaFold(dataclasses.replace(config, evoformer_stack=evoformer), seed=None).eval()
    for name in low_precision_names(model, precision):
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.bfloat16()
    return model


def chain(length):
    return random_chain(length, num_templates=1, num_passes=2)


def predict_two_chains(device):
    """Compute the first pass of a chain, and both passes of another one of the same range.

    Returns the counts and the crossings of the recorder.
    """
    recorder, plan = CrossingRecorder(), prediction_plan(kernels="triton", device=device)
    graphs = PassGraphs(model_on(device, "bf16"), recorder)
    first, second = chain(5), chain(7)
    graphs.passes(first, plan)(first.at_pass(0), None)
    compute = graphs.passes(second, plan)
    result = compute(second.at_pass(0), None)
    compute(second.at_pass(1), result.previous())
    counts = recorder.num_captures, recorder.num_warm_ups, recorder.num_replays
    return counts, recorder.crossings


def crossings_of_a_pass_without_graphs(device):
    model, plan = model_on(device, "fp32"), prediction_plan(device=device)
    features = chain(5).at_pass(0).to(device)
    return list(map(str, find_host_crossings(lambda: compute_pass(model, features, None, plan))))


def test_a_captured_pass_needs_no_host(process):
    counts, crossings = process.run(predict_two_chains)
    assert crossings == []
    assert counts == (1, 1, 2)


def test_a_pass_that_skips_templates_needs_the_host(process):
    (crossing,) = process.run(crossings_of_a_pass_without_graphs)
    assert "openfold_opt/predict/schedule/templates.py" in crossing
