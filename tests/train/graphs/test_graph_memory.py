"""Numbers of graph nodes, counted without a device, and the memory estimate."""

import dataclasses

import pytest

from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.graphs.graph_memory import (
    BYTES_PER_NODE,
    NodeCounts,
    count_nodes,
    graph_memory_bytes,
    with_evoformer_blocks,
)
from tests.support.operator_recorder import OperatorRecorder
from tests.support.synthetic_samples import tiny_config
from tests.support.tiny_steps import new_graphs


@pytest.fixture(scope="module")
def config():
    """Return a configuration with three Evoformer blocks, all recomputed as in the estimate."""
    return with_evoformer_blocks(tiny_config(recompute=True), 3)


@pytest.fixture(scope="module")
def nodes(config):
    return count_nodes(config, config.kernels)


def test_counted_nodes_are_the_operators_of_a_recording(config, nodes):
    recorder = OperatorRecorder()
    new_graphs(config, recorder)
    with_iteration, without = (len(capture.calls) for capture in recorder.captures)
    # CPU and GPU differ in some operators, and the recording also contains the update.
    assert nodes.gradient == pytest.approx(without, rel=0.1)
    assert nodes.iteration == pytest.approx(with_iteration - without, rel=0.1)
    # The evaluated model concatenates parameters that are joined in training.
    assert nodes.iteration < nodes.evaluation < 1.2 * nodes.iteration


def test_chunks_and_collectives_of_a_dap_group_are_nodes(config, nodes):
    parallel = ParallelConfig(dap_size=2, dap_min_chunk_bytes=0)
    config = dataclasses.replace(config, parallel=parallel)
    sharded = count_nodes(config, config.kernels)
    whole = count_nodes(
        dataclasses.replace(config, parallel=ParallelConfig(dap_size=2)), config.kernels
    )
    assert nodes.gradient < whole.gradient < sharded.gradient
    assert sharded.gradient > 1.3 * nodes.gradient and sharded.iteration > 1.2 * nodes.iteration
    # One rank evaluates a chain. The first count also includes tables that are created once.
    assert sharded.evaluation == pytest.approx(nodes.evaluation, rel=0.02)


def test_a_run_has_a_graph_for_each_number_of_iterations_and_each_range_of_lengths(config):
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, max_recycling_iterations=3),
        selection=dataclasses.replace(config.selection, validation_max_length=130),
    )
    counts = NodeCounts(iteration=10, gradient=100, evaluation=1)
    # Three ranges of 64 residues, with four iterations each.
    assert counts.of_run(config) == (100 + 110 + 120 + 130) + 3 * 4


def test_memory_is_that_of_nodes_and_static_inputs(config, nodes):
    total = graph_memory_bytes(config, config.kernels)
    static = total - BYTES_PER_NODE * nodes.of_run(config)
    # Static inputs for chains of up to 704 residues.
    assert 2**24 < static < 2**25
