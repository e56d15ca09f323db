"""Composition of backbone frames with updates: the reference."""

import torch

from openfold_opt.geometry.quaternion import quaternion_to_matrix
from openfold_opt.kernels.reference.backbone_update import backbone_update
from tests.support.kernel_agreement import random


def frames(*leading):
    """Return random unit quaternions, their rotations, and translations."""
    quaternion = torch.nn.functional.normalize(random(*leading, 4), dim=-1)
    return quaternion, quaternion_to_matrix(quaternion), random(*leading, 3, seed=1)


def test_the_update_is_applied_before_the_frame():
    """The new rotation is the old one times that of 1 + bi + cj + dk."""
    quaternion, rotation, translation = frames(2, 7)
    update = random(2, 7, 6, seed=2)
    step = torch.cat([torch.ones_like(update[..., :1]), update[..., :3]], dim=-1)
    new_quaternion, new_rotation, new_translation = backbone_update(
        update, quaternion, rotation, translation
    )
    expected = rotation @ quaternion_to_matrix(torch.nn.functional.normalize(step, dim=-1))
    torch.testing.assert_close(new_rotation, expected, rtol=0, atol=1e-5)
    assert torch.equal(new_rotation, quaternion_to_matrix(new_quaternion))
    moved = (rotation @ update[..., 3:, None])[..., 0] + translation
    torch.testing.assert_close(new_translation, moved)


def test_no_update_keeps_the_frame():
    old = frames(5)
    for new, expected in zip(backbone_update(0.0 * random(5, 6), *old), old, strict=True):
        torch.testing.assert_close(new, expected, rtol=0, atol=1e-6)


def test_no_gradient_flows_through_rotations():
    quaternion, rotation, translation = (x.requires_grad_() for x in frames(4))
    update = random(4, 6, seed=2).requires_grad_()
    results = backbone_update(update, quaternion, rotation, translation)
    assert not results[1].requires_grad
    (results[0].square() * random(4, 4, seed=3)).sum().add(results[2].sum()).backward()
    assert quaternion.grad is None and rotation.grad is None
    assert torch.equal(translation.grad, torch.ones_like(translation))
    assert update.grad.abs().amin() > 0.0
