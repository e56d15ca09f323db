"""Quaternions: the rules of rotations."""

import torch

from openfold_opt.geometry.quaternion import (
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_multiply_by_vector,
    quaternion_to_matrix,
)


def random_quaternions(seed, *shape):
    return torch.nn.functional.normalize(torch.randn(*shape, 4, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_quaternions_are_rotations_and_multiply_as_they_do():
    p, q = random_quaternions(0, 50), random_quaternions(1, 50)
    matrix = quaternion_to_matrix(p)
    torch.testing.assert_close(matrix @ matrix.transpose(-1, -2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(50))
    product = quaternion_to_matrix(quaternion_multiply(p, q))
    torch.testing.assert_close(product, matrix @ quaternion_to_matrix(q), atol=1e-5, rtol=0)
    v = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    pure = torch.cat([torch.zeros(50, 1), v], dim=-1)
    torch.testing.assert_close(quaternion_multiply_by_vector(p, v), quaternion_multiply(p, pure))


def test_a_quarter_turn_about_z():
    q = torch.tensor([0.5**0.5, 0.0, 0.0, 0.5**0.5])
    torch.testing.assert_close(quaternion_to_matrix(q) @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1.0, 0.0]))


def test_matrix_to_quaternion_also_for_half_turns():
    q = torch.cat([random_quaternions(3, 40), torch.eye(4)])
    q = torch.where(q[:, :1] < 0, -q, q)
    torch.testing.assert_close(matrix_to_quaternion(quaternion_to_matrix(q)), q, atol=1e-5, rtol=0)


def test_leading_dims_are_free():
    q = random_quaternions(4, 2, 3, 5)
    assert torch.equal(quaternion_to_matrix(q)[1, 2], quaternion_to_matrix(q[1, 2]))
    assert quaternion_to_matrix(q[0, 0, 0]).shape == (3, 3)
