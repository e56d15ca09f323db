"""Evaluation with averaged weights while a model is in training."""

import pytest
import torch

from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_model, build_train_step
from openfold_opt.train.errors import NonFiniteError
from openfold_opt.train.evaluation.evaluator import EvaluationConfig, Evaluator, lddt_ca, mean_score
from tests.support.synthetic_samples import random_features, tiny_config

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


def update_average(step):
    """Update the running average as a step does."""
    average = step.weight_average
    average.average.lerp_(step.buffer.values, 1.0 if average.num_updates == 0 else 0.1)
    average.num_updates += 1


def chains():
    return [
        (f"chain{number}", random_features(number, num_residues=7 + number)) for number in (2, 0, 1)
    ]


def test_scores_use_the_averaged_weights_and_training_weights_do_not_change(parts):
    step, evaluator = parts
    update_average(step)
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
    # Weights that change without their average do not change the scores.
    step.buffer.values.add_(
        torch.randn(step.buffer.size, generator=torch.Generator().manual_seed(0))
    )
    assert evaluator.run(Chains(chains()), WORLD) == scores
    # A changed average changes the scores.
    update_average(step)
    predicted = [evaluator.score(features) for _, features in chains()]
    assert all(0.0 <= value <= 1.0 for value in predicted)
    assert predicted != [score.lddt_ca for score in scores]


def test_evaluation_is_deterministic(parts):
    step, evaluator = parts
    update_average(step)
    assert evaluator.run(Chains(chains()), WORLD) == evaluator.run(
        Chains(reversed(chains())), WORLD
    )


def test_the_error_about_non_finite_weights_names_chains(parts):
    step, evaluator = parts
    update_average(step)
    step.weight_average.average.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="chain0"):
        evaluator.run(Chains(chains()), WORLD)


def test_lddt_of_the_true_structure_is_one_and_other_atoms_do_not_count():
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
    update_average(step)
    scores = evaluator.run(Chains(chains()), WORLD)
    assert mean_score(scores) == pytest.approx(sum(score.lddt_ca for score in scores) / 3)


def test_invalid_targets_are_refused():
    with pytest.raises(ValueError, match="target_lddt_ca"):
        EvaluationConfig(target_lddt_ca=1.5)
