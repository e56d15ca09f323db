"""Scores of captured graphs, with padding, against scores without graphs and padding."""

import pytest
import torch

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_plans
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.graphs import evaluation_graphs
from openfold_opt.train.graphs.evaluation_graphs import EvaluationGraphs, lengths_to_capture
from openfold_opt.train.graphs.recorder import CudaRecorder
from openfold_opt.train.synthetic_features import synthetic_sample, training_sizes
from tests.support.synthetic_samples import LEARNING_RATE, tiny_config
from tests.support.tiny_steps import FakeRecorder, micro_batch, new_step


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch):
    monkeypatch.setattr(evaluation_graphs, "RANGE_RESIDUES", 8)


def chain(config, length, seed, *, num_passes=2):
    return synthetic_sample(
        {**training_sizes(config.data), "N_res": length, "num_passes": num_passes}, seed=seed
    )


def new_evaluator(config, device="cpu"):
    """Return an evaluator of weights after two steps, so that their average is not zero."""
    step = new_step(config, device)
    for number in (1, 2):
        step.run(
            [micro_batch(config, number, device=device)],
            step=number,
            learning_rate=LEARNING_RATE,
            num_recycling_iterations=0,
        ).read()
    _, plan = build_plans(config, ParallelContext.alone(), torch.device(device))
    return Evaluator(step.model, step.weight_average.parameters(), plan=plan)


def with_graphs(config, recorder, device="cpu"):
    evaluator = new_evaluator(config, device)
    graphs = EvaluationGraphs(evaluator.compute, recorder)
    batches = (
        FeatureBatch.from_features(chain(config, length, 99)).to(device)
        for length in lengths_to_capture(16)
    )
    assert list(graphs.warm_up_run(batches)) == [16, 8]
    graphs.record()
    evaluator.use_graphs(graphs)
    return evaluator


def test_lengths_of_the_benchmark(monkeypatch):
    monkeypatch.undo()
    assert lengths_to_capture(700) == [704, 640, 576, 512, 448, 384, 320, 256, 192, 128, 64]
    assert lengths_to_capture(64) == [64] and lengths_to_capture(1) == [64]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_with_padding_equal_those_without(precision):
    config = tiny_config(precision=precision)
    recorder = FakeRecorder()
    replayed, eager = with_graphs(config, recorder), new_evaluator(config)
    # A long chain comes before short ones: its data in the static input must not count.
    for seed, length in enumerate((16, 9, 8, 5, 16, 3)):
        features = chain(config, length, seed)
        found, expected = replayed.score(features), eager.score(features)
        tolerance = 1e-6 if length in (8, 16) or precision == "fp32" else 0.02
        assert found == pytest.approx(expected, abs=tolerance), length
    assert recorder.num_replays == 6


def test_released_graphs_are_not_replayed():
    config, recorder = tiny_config(), FakeRecorder()
    evaluator = with_graphs(config, recorder)
    evaluator.release_graphs()
    features = chain(config, 8, 1)
    assert (
        evaluator.score(features) == new_evaluator(config).score(features)
        and recorder.num_replays == 0
    )


def test_a_chain_that_fits_no_graph_is_scored_without_one():
    config = tiny_config()
    recorder = FakeRecorder()
    replayed, eager = with_graphs(config, recorder), new_evaluator(config)
    for features in (chain(config, 17, 1), chain(config, 8, 1, num_passes=1)):
        assert replayed.score(features) == eager.score(features)
    assert recorder.num_replays == 0


@pytest.mark.gpu
def test_cuda_graphs_give_the_same_scores():
    config = tiny_config(device="cuda")
    replayed, eager = (
        with_graphs(config, CudaRecorder(torch.device("cuda")), "cuda"),
        new_evaluator(config, "cuda"),
    )
    for seed, length in enumerate((16, 9, 8, 5)):
        features = chain(config, length, seed)
        assert replayed.score(features) == pytest.approx(eager.score(features), abs=1e-3)
