"""Quaternions represent rotations."""

import torch

from openfold_opt.geometry.quaternion import quaternion_to_matrix


def random_quaternions(seed, *shape):
    return torch.nn.functional.normalize(
        torch.randn(*shape, 4, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def test_quaternion_matrices_are_rotations():
    matrix = quaternion_to_matrix(random_quaternions(0, 50))
    torch.testing.assert_close(
        matrix @ matrix.transpose(-1, -2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(50))


def test_rotation_by_90_degrees_about_z():
    q = torch.tensor([0.5**0.5, 0.0, 0.0, 0.5**0.5])
    torch.testing.assert_close(
        quaternion_to_matrix(q) @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1.0, 0.0])
    )


def test_any_leading_dims_are_allowed():
    q = random_quaternions(4, 2, 3, 5)
    assert torch.equal(quaternion_to_matrix(q)[1, 2], quaternion_to_matrix(q[1, 2]))
    assert quaternion_to_matrix(q[0, 0, 0]).shape == (3, 3)
