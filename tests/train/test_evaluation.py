"""Evaluation with averaged weights beside a model in training."""

import pytest
import torch

from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_model, build_train_step
from openfold_opt.train.evaluation import EvaluationConfig, Evaluator, lddt_ca, mean_score
from openfold_opt.train.training_interval import NonFiniteError
from tests.train.synthetic import random_features, tiny_config

WORLD = AxisGroup.single("world")


class Chains:
    """Implements ChainSource."""

    def __init__(self, chains):
        self._chains = list(chains)

    def evaluation_chains(self, *, device, together):
        return [] if together else self._chains


@pytest.fixture
def parts():
    config = tiny_config()
    model = build_model(config, seed=1, device=torch.device("cpu"))
    plan = ExecutionPlan.reference()
    step = build_train_step(config, model, plan=plan, context=ParallelContext.alone(), seed=1)
    return step, Evaluator(model, step.weight_average.parameters(), plan=plan)


def average_now(step):
    """What a step does to the running average."""
    average = step.weight_average
    average.average.lerp_(step.buffer.values, 1.0 if average.num_updates == 0 else 0.1)
    average.num_updates += 1


def chains():
    return [
        (f"chain{number}", random_features(number, num_residues=7 + number)) for number in (2, 0, 1)
    ]


def test_scores_are_those_of_the_averaged_weights_and_training_weights_stay(parts):
    step, evaluator = parts
    average_now(step)
    before = step.buffer.values.clone()
    scores = evaluator.run(Chains(chains()), WORLD)
    assert [(score.chain_id, score.num_residues) for score in scores] == [
        ("chain0", 7),
        ("chain1", 8),
        ("chain2", 9),
    ]
    assert torch.equal(step.buffer.values, before)
    assert step.model.training and all(
        parameter.requires_grad for parameter in step.model.parameters()
    )
    # weights that move without their average change nothing ...
    step.buffer.values.add_(
        torch.randn(step.buffer.size, generator=torch.Generator().manual_seed(0))
    )
    assert evaluator.run(Chains(chains()), WORLD) == scores
    # ... and the average is seen at once
    average_now(step)
    predicted = [evaluator.score(features) for _, features in chains()]
    assert all(0.0 <= value <= 1.0 for value in predicted)
    assert predicted != [score.lddt_ca for score in scores]


def test_evaluation_is_repeatable_and_without_dropout(parts):
    step, evaluator = parts
    average_now(step)
    assert evaluator.run(Chains(chains()), WORLD) == evaluator.run(
        Chains(reversed(chains())), WORLD
    )


def test_weights_that_are_not_finite_are_an_error_that_names_chains(parts):
    step, evaluator = parts
    average_now(step)
    step.weight_average.average.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="chain0"):
        evaluator.run(Chains(chains()), WORLD)


def test_lddt_of_the_truth_is_one_and_other_atoms_do_not_count():
    truth = random_features(5)
    positions, mask = truth["all_atom_positions"], truth["all_atom_mask"]
    assert lddt_ca(positions, positions, mask).tolist() == pytest.approx([1.0])
    others = positions.clone()
    others[:, :, 2:] += 50.0
    assert lddt_ca(others, positions, mask).tolist() == pytest.approx([1.0])
    others[:, :, 1] *= 3.0
    assert lddt_ca(others, positions, mask).item() < 0.5


def test_the_mean_counts_chains_not_residues(parts):
    step, evaluator = parts
    average_now(step)
    scores = evaluator.run(Chains(chains()), WORLD)
    assert mean_score(scores) == pytest.approx(sum(score.lddt_ca for score in scores) / 3)


def test_impossible_targets_are_refused():
    with pytest.raises(ValueError, match="target_lddt_ca"):
        EvaluationConfig(target_lddt_ca=1.5)
