"""Composition of backbone frames with updates in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.geometry.quaternion import quaternion_to_matrix
from openfold_opt.kernels.reference.backbone_update import backbone_update as reference
from openfold_opt.kernels.triton.backbone_update import backbone_update
from tests.support.kernel_agreement import assert_same, random


def call(function, quaternion):
    """Return the results with a gradient as a function of the inputs with a gradient."""
    rotation = quaternion_to_matrix(quaternion)

    def run(update, translation):
        return function(update, quaternion, rotation, translation)[::2]

    return run


def quaternions(*leading):
    return torch.nn.functional.normalize(random(*leading, 4), dim=-1)


@pytest.mark.parametrize("leading", [(1, 1), (2, 37), (64,)])
def test_values_and_gradients(leading):
    quaternion = quaternions(*leading)
    leaves = random(*leading, 6, seed=1), random(*leading, 3, seed=2)
    assert_same(call(backbone_update, quaternion), call(reference, quaternion), leaves)


def test_rotations_have_no_gradient():
    frames = quaternions(2, 9), quaternion_to_matrix(quaternions(2, 9)), random(2, 9, 3)
    update = random(2, 9, 6, seed=1).requires_grad_()
    found, expected = backbone_update(update, *frames), reference(update, *frames)
    assert found[0].requires_grad and found[2].requires_grad and not found[1].requires_grad
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-6)


def test_an_expanded_frame_and_a_part_of_a_tensor():
    quaternion = quaternions(3, 1).expand(3, 5, 4)

    def of_part(function):
        run = call(function, quaternion)
        return lambda update, translation: run(update[..., 1:7], translation.transpose(0, 1))

    leaves = random(3, 5, 8, seed=1), random(5, 3, 3, seed=2)
    assert_same(of_part(backbone_update), of_part(reference), leaves)


def test_one_result_is_not_used():
    quaternion, update = quaternions(6), random(6, 6, seed=1)
    for used in (0, 1):

        def gradient(function, used=used):
            leaf = update.clone().requires_grad_()
            call(function, quaternion)(leaf, random(6, 3))[used].square().mul(
                random(6, 1, seed=2)
            ).sum().backward()
            return leaf.grad

        torch.testing.assert_close(
            gradient(backbone_update), gradient(reference), rtol=1e-5, atol=1e-6
        )
