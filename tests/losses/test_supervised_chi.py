"""Losses of chi angles and of the norm of angle vectors."""

from types import SimpleNamespace

import pytest
import torch

from openfold_opt.losses.config import SupervisedChiLossConfig
from openfold_opt.losses.supervised_chi import supervised_chi_loss
from tests.support.loss_inputs import SEQUENCE


def chi_outputs(sin_cos, scale=1.0):
    angles = sin_cos[:, None]
    return SimpleNamespace(sm_angles=angles, sm_unnormalized_angles=angles * scale)


def test_chi_loss_of_the_truth_is_zero_also_for_pi_periodic_rotations(truth):
    config = SupervisedChiLossConfig(angle_norm_weight=0.0)
    predicted = truth.sin_cos.clone()
    assert float(supervised_chi_loss(chi_outputs(predicted), truth, config)) == pytest.approx(
        0.0, abs=1e-6
    )
    aspartate = SEQUENCE.index("D")
    predicted[:, aspartate, 4] *= -1.0
    assert float(supervised_chi_loss(chi_outputs(predicted), truth, config)) == pytest.approx(
        0.0, abs=1e-6
    )
    # chi1 is not periodic in pi.
    predicted[:, aspartate, 3] *= -1.0
    num_angles = float(truth.chi_mask.sum())
    assert float(supervised_chi_loss(chi_outputs(predicted), truth, config)) == pytest.approx(
        0.5 * 4.0 / num_angles, rel=1e-3
    )


def test_angle_norm_loss_of_unnormalized_vectors(truth):
    config = SupervisedChiLossConfig(chi_weight=0.0)
    unit = torch.nn.functional.normalize(torch.ones(1, len(SEQUENCE), 7, 2), dim=-1)
    assert float(supervised_chi_loss(chi_outputs(unit, 3.0), truth, config)) == pytest.approx(
        0.01 * 2.0, rel=1e-3
    )
