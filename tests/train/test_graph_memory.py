"""The nodes of graphs as counted without a device, and the memory that they take from a step."""

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
from tests.train.operator_recorder import OperatorRecorder
from tests.train.synthetic import tiny_config
from tests.train.test_step_graphs import new_graphs


@pytest.fixture(scope="module")
def config():
    """Three Evoformer blocks; all blocks are recomputed, as the estimate assumes."""
    return with_evoformer_blocks(tiny_config(recompute=True), 3)


@pytest.fixture(scope="module")
def nodes(config):
    return count_nodes(config, config.kernels)


def test_counted_nodes_are_the_operators_that_a_recording_holds(config, nodes):
    recorder = OperatorRecorder()
    new_graphs(config, recorder)
    with_iteration, without = (len(capture.calls) for capture in recorder.captures)
    # a CPU takes some operators more or fewer than a GPU; the recording also holds the update
    assert nodes.gradient == pytest.approx(without, rel=0.1)
    assert nodes.iteration == pytest.approx(with_iteration - without, rel=0.1)
    assert nodes.evaluation == nodes.iteration


def test_pieces_and_collectives_of_a_dap_group_are_nodes_too(config, nodes):
    config = dataclasses.replace(config, parallel=ParallelConfig(dap_size=2))
    spread = count_nodes(config, config.kernels)
    assert spread.gradient > 1.3 * nodes.gradient and spread.iteration > 1.2 * nodes.iteration
    # one rank evaluates a chain; the first count also sees tables that are made once
    assert spread.evaluation == pytest.approx(nodes.evaluation, rel=0.02)


def test_a_run_has_a_graph_for_each_number_of_iterations_and_each_range_of_lengths(config):
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, max_recycling_iterations=3),
        selection=dataclasses.replace(config.selection, validation_max_length=130),
    )
    counts = NodeCounts(iteration=10, gradient=100, evaluation=1)
    # three ranges of 64 residues, four iterations each
    assert counts.of_run(config) == (100 + 110 + 120 + 130) + 3 * 4


def test_memory_is_that_of_the_nodes_and_of_the_static_input(config, nodes):
    found = graph_memory_bytes(config, config.kernels)
    static = found - BYTES_PER_NODE * nodes.of_run(config)
    # chains of up to 704 residues
    assert 2**24 < static < 2**25
