"""Compiled parts make no host crossing, so that a CUDA graph of the step can contain them.

Checked on the fake device: each part is traced to operators, forward and backward, without a graph
break, and these run within a complete step of two DAP ranks with Triton kernels in bf16.
TorchInductor would fuse the same operators.
"""

import dataclasses

import pytest
from torch._dynamo.backends.common import aot_autograd

from openfold_opt.model.auxiliary_heads import AuxiliaryHeads
from openfold_opt.model.compiled_parts import COMPILED_PARTS, CompiledParts
from tests.support.fake_device import FakeDeviceProcess
from tests.support.host_crossings import find_host_crossings
from tests.train.test_step_on_fake_device import (
    Case,
    compute_step,
    load_tables,
    plan_of,
)

CASE = Case(kernels="triton", precision="bf16", dap_size=2, num_recomputed_blocks=1)


class WatchingBackend:
    """Runs the operators of compiled functions, and collects their host crossings."""

    def __init__(self):
        self.crossings = []
        self.num_operators = 0
        self.backend = aot_autograd(fw_compiler=self.compile, bw_compiler=self.compile)

    def __call__(self, graph, inputs):
        return self.backend(graph, inputs)

    def compile(self, graph, inputs):
        self.num_operators += sum(node.op == "call_function" for node in graph.graph.nodes)

        def run(args):
            results = []
            self.crossings += find_host_crossings(lambda: results.append(graph(*args)))
            return results[0]

        run._boxed_call = True
        return run


def run_step(device, part):
    """Return the number of operators of a compiled part, and the host crossings of its code."""
    load_tables(device)
    backend = WatchingBackend()
    plan = dataclasses.replace(
        plan_of(device, CASE), compiled_parts=CompiledParts([part], backend=backend)
    )
    compute_step(device, CASE, 1, plan=plan)()
    return backend.num_operators, list(map(str, backend.crossings))


def run_step_with_copies(device):
    """Return the crossings of compiled heads that copy a tensor to the host and back."""

    def predict(self, sm_single, plan):
        logits = self.plddt(sm_single, plan)
        return logits, logits.detach().cpu().to(logits.device).sum(-1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AuxiliaryHeads, "_predict_lddt", predict)
        return run_step(device, "heads")[1]


@pytest.fixture(scope="module")
def process():
    with FakeDeviceProcess() as process:
        yield process


@pytest.mark.parametrize("part", COMPILED_PARTS)
def test_a_compiled_part_needs_no_host(process, part):
    num_operators, crossings = process.run(run_step, part)
    assert num_operators > 0 and crossings == []


def test_copies_in_compiled_heads_are_found(process):
    crossings = process.run(run_step_with_copies)
    assert any("aten::_to_copy between host and device" in crossing for crossing in crossings)
