"""Selection and compilation of parts; errors for parts that cannot be compiled."""

from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.exc import Unsupported
from torch._inductor.exc import InvalidCxxCompiler

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.losses.config import ViolationLossConfig
from openfold_opt.losses.violation import violation_loss
from openfold_opt.model.auxiliary_heads import LinearHead
from openfold_opt.model.compiled_parts import CompiledParts, check_compiled_parts
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_plans
from tests.support.loss_inputs import ideal_helix
from tests.support.synthetic_samples import tiny_config

CPU = torch.device("cpu")


def test_a_plan_compiles_nothing_by_default():
    plan, head = ExecutionPlan.reference(), LinearHead(3, 2)
    assert plan.compiled("heads", head.forward) == head.forward


def test_instances_share_the_compiled_method():
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    parts = CompiledParts(["heads"], backend=count)
    for _ in range(2):
        head, x = LinearHead(3, 2), torch.ones(4, 3)
        with torch.no_grad():
            torch.testing.assert_close(parts.apply("heads", head.forward)(x), head(x))
    assert len(graphs) == 1


def test_a_graph_break_is_an_error():
    def branch(x):
        return x if x.sum() > 0 else -x

    function = CompiledParts(["losses"], backend="eager").apply("losses", branch)
    with pytest.raises(Unsupported):
        function(torch.ones(2))


def test_cpu_kernels_cannot_be_compiled():
    kernels = KernelConfig(layer_norm="cpu", transition="cpu")
    check_compiled_parts(["losses"], kernels, CPU)
    with pytest.raises(ValueError, match="'heads', but .* CPU kernels of layer_norm; set these"):
        check_compiled_parts(["losses", "heads"], kernels, CPU)


def test_a_missing_compiler_is_named(monkeypatch):
    def missing():
        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    check_compiled_parts([], KernelConfig(), CPU)
    with pytest.raises(ValueError, match=r"compiled_parts=\('losses',\).* apt-get install g\+\+"):
        check_compiled_parts(["losses"], KernelConfig(), CPU)


@pytest.mark.compiler
def test_training_compiles_and_evaluation_does_not():
    config = tiny_config(compiled_parts=("losses", "heads"))
    train, evaluation = build_plans(config, ParallelContext.alone(), CPU)
    assert train.compiled_parts.parts == {"losses", "heads"}
    assert evaluation.compiled_parts.parts == set()


def test_tables_are_constants_of_compiled_losses():
    """Their NumPy arrays stay read-only and outside the graph."""
    truth, graphs = ideal_helix(), []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    config = ViolationLossConfig(weight=1.0)
    outputs = SimpleNamespace(sm_positions=1.5 * truth.atom14_gt_positions[:, None])
    compiled = CompiledParts(["losses"], backend=keep).apply("losses", violation_loss)
    found = compiled(outputs, truth, config)
    assert found > 0 and torch.equal(found, violation_loss(outputs, truth, config))
    (graph,) = graphs
    assert not [node for node in graph.graph.nodes if "numpy" in str(node.target)]
