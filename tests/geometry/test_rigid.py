"""Rigid transformations: composition, inversion, matrices and frames from points."""

import pytest
import torch

from openfold_opt.geometry.quaternion import quaternion_to_matrix
from openfold_opt.geometry.rigid import Rigid


def random_quaternions(seed, *shape):
    return torch.nn.functional.normalize(
        torch.randn(*shape, 4, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def random_rigid(seed, *shape):
    translation = torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed + 1)) * 10
    return Rigid(quaternion_to_matrix(random_quaternions(seed, *shape)), translation)


def test_compose_invert_and_apply_are_consistent():
    a, b = random_rigid(4, 6), random_rigid(5, 6)
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(
        a.compose(b).apply(points), a.apply(b.apply(points)), atol=1e-4, rtol=1e-5
    )
    torch.testing.assert_close(a.invert_apply(a.apply(points)), points, atol=1e-4, rtol=1e-5)


def test_matrix_round_trip_and_indexing():
    rigid = random_rigid(7, 3, 5)
    restored = Rigid.from_matrix4x4(rigid.to_matrix4x4())
    assert torch.equal(restored.rotation, rigid.rotation) and torch.equal(
        restored.translation, rigid.translation
    )
    assert rigid[1].rotation.shape == (5, 3, 3) and rigid[..., 2].translation.shape == (3, 3)
    assert rigid.unsqueeze(-1).rotation.shape == (3, 5, 1, 3, 3) and rigid.unsqueeze(
        0
    ).translation.shape == (1, 3, 5, 3)


def test_three_points_define_a_right_handed_frame():
    frame = Rigid.from_three_points(
        torch.tensor([-2.0, 0, 0]), torch.zeros(3), torch.tensor([1.0, 3.0, 0]), eps=0.0
    )
    torch.testing.assert_close(frame.rotation, torch.eye(3))
    # Coincident points give a degenerate frame and no NaN, also in the gradient.
    point = torch.zeros(3, requires_grad=True)
    Rigid.from_three_points(point, torch.zeros(3), torch.zeros(3)).rotation.sum().backward()
    assert torch.isfinite(point.grad).all()


def test_error_gives_the_wrong_shape():
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        Rigid(torch.zeros(3, 4), torch.zeros(3))
    with pytest.raises(ValueError, match="homogeneous"):
        Rigid.from_matrix4x4(torch.zeros(3, 3))
