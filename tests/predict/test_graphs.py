"""Passes as graphs: padded, replayed and reused, they equal passes without graphs."""

import dataclasses

import numpy as np
import pytest
import torch

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.predict import graphs as graphs_module
from openfold_opt.predict.device_model import DeviceModel
from openfold_opt.predict.forward import RowSinks, predict_chain
from openfold_opt.predict.forward_trace import ForwardTrace
from openfold_opt.predict.graphs import (
    KEPT_GRAPHS,
    PassGraphs,
    graph_bytes,
    graph_length,
    longest_with_graphs,
    obstacle_to_graphs,
)
from openfold_opt.predict.traced_prediction import ChainSizes
from openfold_opt.train.graphs.graph_memory import LaunchCounter
from openfold_opt.train.graphs.recorder import CaptureError, CudaRecorder
from openfold_opt.train.synthetic_features import synthetic_sample
from tests.support.operator_recorder import OperatorRecorder
from tests.support.prediction import prediction_plan, random_chain, random_model, relative_error

TOLERANCE = 1e-5
NUM_PASSES = 2


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch):
    monkeypatch.setattr(graphs_module, "RANGE_RESIDUES", 8)


@pytest.fixture(scope="module")
def model():
    return random_model()


def chain(length, *, templates=(1.0, 0.0), num_rows=4, seed=0):
    """Return a chain; num_rows: rows of the MSA that exist."""
    batch = random_chain(length, num_templates=len(templates), num_passes=NUM_PASSES)
    sample = synthetic_sample(
        {"num_passes": NUM_PASSES, "N_res": length, "N_clust": 4, "N_extra": 5, "N_templ": 2},
        seed=seed,
    )
    msa_mask = batch.msa_mask.clone()
    msa_mask[:, :, num_rows:] = 0.0
    return dataclasses.replace(
        batch,
        msa_feat=FeatureBatch.from_features(sample).msa_feat,
        msa_mask=msa_mask,
        template_mask=torch.tensor([templates]),
    )


def predict(model, batch, compute=None, *, plan=None):
    """Return the prediction and its aligned errors and distogram."""
    length = int(batch.seq_length[0])
    pairs = {"pae": np.zeros((length, length)), "distogram": np.zeros((length, length, 64))}

    def keep(name):
        return lambda start, rows: pairs[name].__setitem__(slice(start, start + len(rows)), rows)

    found = predict_chain(
        model,
        batch,
        plan or prediction_plan(),
        num_recycling_iterations=NUM_PASSES - 1,
        compute=compute,
        sinks=RowSinks(pae=keep("pae"), distogram=keep("distogram")),
    )
    return {
        "positions": found.positions,
        "plddt": found.plddt,
        "ptm": np.array(found.ptm),
        "changes": np.array(found.recycling_changes),
        **pairs,
    }


def assert_equal(found, expected, tolerance=TOLERANCE):
    for name, value in found.items():
        assert value.shape == expected[name].shape
        error = relative_error(torch.as_tensor(value), torch.as_tensor(expected[name]))
        assert error <= tolerance, (name, error)


def test_chains_of_two_ranges_equal_those_without_graphs(model):
    recorder = OperatorRecorder()
    graphs, plan = PassGraphs(model, recorder), prediction_plan(rows=5)
    chains = [
        chain(16, templates=(1.0, 1.0)),
        chain(13, num_rows=2, seed=1),
        chain(9, templates=(0.0, 0.0), seed=2),
        chain(8),
        chain(5, templates=(0.0, 1.0), num_rows=1, seed=3),
    ]
    for batch in chains:
        found = predict(model, batch, graphs.passes(batch, plan), plan=plan)
        assert_equal(found, predict(model, batch, plan=plan))
    # The first chain of each range is computed without a graph.
    assert len(recorder.captures) == 2
    assert recorder.num_replays == 3 * NUM_PASSES


def test_no_state_of_the_previous_chain_remains(model):
    graphs = PassGraphs(model, OperatorRecorder())
    first, second = chain(16, templates=(1.0, 1.0)), chain(10, num_rows=3, seed=1)
    results = [
        predict(model, batch, graphs.passes(batch, prediction_plan()))
        for batch in (first, second, first, second)
    ]
    assert_equal(results[2], results[0], tolerance=0.0)
    assert_equal(results[3], results[1], tolerance=0.0)


def test_a_failed_chain_leaves_nothing(model):
    graphs = PassGraphs(model, OperatorRecorder())
    good, bad = chain(8), chain(8)
    expected = predict(model, good, graphs.passes(good, prediction_plan()))
    bad.msa_feat.fill_(torch.nan)
    with pytest.raises(FloatingPointError):
        predict(model, bad, graphs.passes(bad, prediction_plan()))
    found = predict(model, good, graphs.passes(good, prediction_plan()))
    assert_equal(found, expected, tolerance=0.0)


def test_a_replay_is_the_only_launch_besides_copies(model):
    class CountingRecorder(OperatorRecorder):
        """Its replays compute nothing."""

        def record(self, work):
            capture = super().record(work)
            capture.calls = []
            return capture

    graphs, plan, batch = PassGraphs(model, CountingRecorder()), prediction_plan(), chain(7)
    counts = []
    for _ in range(2):
        compute = graphs.passes(batch, plan)
        with LaunchCounter() as counter:
            compute(batch.at_pass(0), None)
        counts.append(counter.count)
    # Features are cleared and copied, three tensors of the state are cleared, one is copied.
    num_copies = 2 * len(dataclasses.fields(FeatureBatch)) + 4
    assert counts[1] <= num_copies < counts[0] / 10


def test_old_shapes_are_released(model):
    recorder = OperatorRecorder()
    graphs, plan = PassGraphs(model, recorder), prediction_plan()
    batch = chain(4)
    for _ in range(2):
        graphs.passes(batch, plan)
    (capture,) = recorder.captures
    assert capture.calls
    for length in range(12, 12 + 8 * KEPT_GRAPHS, 8):
        graphs.passes(chain(length), plan)
    assert not capture.calls


def test_graphs_of_two_sets_of_weights(monkeypatch, model):
    recorder, other = OperatorRecorder(), random_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    monkeypatch.setattr(
        "openfold_opt.predict.device_model.CudaRecorder", lambda device, remedy: recorder
    )
    both, batch, plan = (model, other), chain(7), prediction_plan()
    device_model = DeviceModel(both, torch.device("cpu"), copies_weights=True)
    for index in (0, 1, 0):
        loaded = device_model.load(index)
        compute, warnings = device_model.passes(batch, plan, has_graphs=True)
        assert_equal(predict(loaded, batch, compute), predict(both[index], batch))
        assert warnings == ()
    assert len(recorder.captures) == 1 and recorder.num_replays == 2 * NUM_PASSES
    assert device_model.passes(batch, plan, has_graphs=False) == (None, ())
    assert not recorder.captures[0].calls


def test_a_failed_capture_is_reported_once(monkeypatch, model):
    class FailingRecorder(OperatorRecorder):
        def record(self, work):
            raise CaptureError("a CUDA graph could not be recorded: x.item()")

    monkeypatch.setattr(
        "openfold_opt.predict.device_model.CudaRecorder", lambda device, remedy: FailingRecorder()
    )
    batch, plan = chain(7), prediction_plan()
    device_model = DeviceModel([model], torch.device("cpu"), copies_weights=True)
    device_model.load(0)
    first, second, third = (device_model.passes(batch, plan, has_graphs=True) for _ in range(3))
    assert first[0] is not None and first[1] == ()
    assert second[0] is None and "without graphs: a CUDA graph could not" in second[1][0]
    assert third == (None, ())


def test_memory_of_the_static_tensors(model):
    sizes = ChainSizes(num_residues=16, msa_rows=6, extra_rows=5, num_templates=2, num_passes=2)
    pair_bytes = 16 * 16 * model.config.c_z * 4
    batch = chain(13)
    with ForwardTrace("cpu") as trace:
        PassGraphs(model, OperatorRecorder()).passes(batch, prediction_plan())
    planned = graph_bytes(
        model.config, sizes, pair_bytes=pair_bytes, forward_bytes=10**6, num_operators=0
    )
    pool = 10**6 - pair_bytes
    assert planned == KEPT_GRAPHS * trace.largest + pool - pair_bytes


def test_which_chains_use_graphs(monkeypatch, model):
    cuda, cpu, config = torch.device("cuda"), torch.device("cpu"), model.config
    other = dataclasses.replace(config, has_templates=False)
    assert obstacle_to_graphs(cuda, 1, [config, config]) is None
    for device, dap_size, configs, reason in (
        (cpu, 1, [config], "not a GPU"),
        (cuda, 2, [config], "2 ranks share"),
        (cuda, 1, [config, other], "different sizes"),
    ):
        obstacle = obstacle_to_graphs(device, dap_size, configs)
        assert reason in obstacle
        assert longest_with_graphs("auto", obstacle) == 0
        with pytest.raises(ValueError, match=f"{reason}.*use auto or off"):
            longest_with_graphs("on", obstacle)
    assert longest_with_graphs("off", None) == 0
    assert 0 < longest_with_graphs("auto", None) < longest_with_graphs("on", None)
    with pytest.raises(ValueError, match="graphs is 'yes'; expected one of auto, on, off"):
        longest_with_graphs("yes", None)
    monkeypatch.undo()
    assert [graph_length(length) for length in (1, 64, 65)] == [64, 64, 128]


@pytest.mark.gpu
def test_cuda_graphs_equal_eager_passes():
    device = torch.device("cuda")
    model, plan = random_model().to(device), prediction_plan(kernels="auto", device=device)
    graphs = PassGraphs(model, CudaRecorder(device))
    for batch in (chain(16), chain(13, num_rows=2, seed=1), chain(16), chain(5), chain(8)):
        found = predict(model, batch, graphs.passes(batch, plan), plan=plan)
        assert_equal(found, predict(model, batch, plan=plan), tolerance=1e-3)
    graphs.release()
