"""Frame aligned point error agrees with loops over frames and points."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from openfold_opt.geometry.quaternion import quaternion_to_matrix
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.losses.config import FapeLossConfig
from openfold_opt.losses.fape import (
    aligned_point_distance,
    backbone_fape,
    fape_loss,
    mean_over_pairs,
    sidechain_fape,
)
from openfold_opt.losses.renaming import RenamedTruth

CONFIG = FapeLossConfig()


def random_frames(generator, *shape):
    quaternion = torch.randn(*shape, 4, generator=generator)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return quaternion, torch.randn(*shape, 3, generator=generator) * 8


def make_backbone(seed=0, *, batch=2, blocks=3, residues=7):
    generator = torch.Generator().manual_seed(seed)
    quaternion, translation = random_frames(generator, batch, blocks, residues)
    true_quaternion, true_translation = random_frames(generator, batch, residues)
    truth = Rigid(quaternion_to_matrix(true_quaternion), true_translation)
    mask = (torch.rand(batch, residues, generator=generator) < 0.8).float()
    outputs = SimpleNamespace(sm_frames=torch.cat([quaternion, translation], dim=-1))
    features = SimpleNamespace(
        backbone_rigid_tensor=truth.to_matrix4x4(),
        backbone_rigid_mask=mask,
        use_clamped_fape=torch.tensor([1.0, 0.0]),
    )
    return outputs, features


def looped_backbone(outputs, features, sample):
    """Compute Algorithm 28 for one pair at a time, averaged over blocks."""
    frames, mask = outputs.sm_frames[sample], features.backbone_rigid_mask[sample].numpy()
    truth = features.backbone_rigid_tensor[sample].numpy().astype(np.float64)
    errors = []
    for block in frames:
        rotation = quaternion_to_matrix(block[:, :4]).numpy().astype(np.float64)
        position = block[:, 4:].numpy().astype(np.float64)
        total = 0.0
        for i in np.flatnonzero(mask):
            for j in np.flatnonzero(mask):
                predicted = rotation[i].T @ (position[j] - position[i])
                true = truth[i, :3, :3].T @ (truth[j, :3, 3] - truth[i, :3, 3])
                distance = np.sqrt(((predicted - true) ** 2).sum() + CONFIG.eps)
                total += (
                    min(distance, 10.0) if features.use_clamped_fape[sample] else distance
                ) / 10.0
        errors.append(total / (mask.sum() + CONFIG.eps) ** 2)
    return np.mean(errors)


def test_backbone_fape_equals_the_loops_with_and_without_clamping():
    outputs, features = make_backbone()
    fape = backbone_fape(outputs, features, CONFIG)
    for sample in range(2):
        assert float(fape[sample]) == pytest.approx(
            looped_backbone(outputs, features, sample), rel=1e-5
        )


def test_fape_is_invariant_under_rigid_motion_of_the_prediction():
    outputs, features = make_backbone(1)
    motion = torch.tensor([0.5, 0.5, -0.5, 0.5])
    rotation = quaternion_to_matrix(motion)
    w, v = outputs.sm_frames[..., :1], outputs.sm_frames[..., 1:4]
    moved_frames = torch.cat(
        [
            motion[0] * w - (motion[1:] * v).sum(-1, keepdim=True),
            motion[0] * v + motion[1:] * w + torch.linalg.cross(motion[1:].expand_as(v), v),
            outputs.sm_frames[..., 4:] @ rotation.T + torch.tensor([1.0, 2.0, 3.0]),
        ],
        dim=-1,
    )
    moved = SimpleNamespace(sm_frames=moved_frames)
    torch.testing.assert_close(
        backbone_fape(moved, features, CONFIG), backbone_fape(outputs, features, CONFIG)
    )


def test_distance_of_a_perfect_prediction_is_the_root_of_eps():
    _, features = make_backbone(2)
    truth = Rigid.from_matrix4x4(features.backbone_rigid_tensor)
    distance = aligned_point_distance(
        (truth, truth), (truth.translation, truth.translation), eps=1e-4
    )
    torch.testing.assert_close(distance, torch.full_like(distance, 1e-2), atol=1e-4, rtol=0)


def test_gradients_are_finite_for_coincident_points():
    points = torch.zeros(1, 4, 3, requires_grad=True)
    frames = Rigid.identity((1, 4), dtype=torch.float32, device="cpu")
    distance = aligned_point_distance((frames, frames), (points, torch.zeros(1, 4, 3)), eps=1e-4)
    distance.sum().backward()
    assert torch.isfinite(points.grad).all()


def test_masked_frames_and_points_are_ignored():
    error = torch.tensor([[[1.0, 50.0], [50.0, 50.0]]])
    mask = torch.tensor([[1.0, 0.0]])
    assert float(mean_over_pairs(error, mask, mask, eps=0.0)) == 1.0


def make_sidechains(seed=5, *, residues=3):
    """Return outputs, features and truth of two samples with missing groups and atoms."""
    generator = torch.Generator().manual_seed(seed)

    def frames(*shape):
        quaternion, translation = random_frames(generator, *shape)
        return Rigid(quaternion_to_matrix(quaternion), translation).to_matrix4x4()

    def points(*shape):
        return torch.randn(*shape, 3, generator=generator) * 6

    def mask(*shape):
        return (torch.rand(*shape, generator=generator) < 0.5).float()

    outputs, features = make_backbone(seed, residues=residues)
    outputs.sm_sidechain_frames, outputs.sm_positions = (
        frames(2, 3, residues, 8),
        points(2, 3, residues, 14),
    )
    features.rigidgroups_gt_exists = mask(2, residues, 8)
    return (
        outputs,
        features,
        RenamedTruth(points(2, residues, 14), mask(2, residues, 14), frames(2, residues, 8)),
    )


def looped_sidechain(outputs, features, truth, sample):
    """Compute the error of every atom in every group frame of the last block.

    The error is always clamped, independently of use_clamped_fape.
    """
    predicted_frames = outputs.sm_sidechain_frames[sample, -1].double().reshape(-1, 4, 4).numpy()
    true_frames = truth.rigid_group_frames[sample].double().reshape(-1, 4, 4).numpy()
    predicted = outputs.sm_positions[sample, -1].double().reshape(-1, 3).numpy()
    true = truth.atom14_positions[sample].double().reshape(-1, 3).numpy()
    groups = np.flatnonzero(features.rigidgroups_gt_exists[sample])
    atoms = np.flatnonzero(truth.atom14_exists[sample])
    total = 0.0
    for i in groups:
        for j in atoms:
            a = predicted_frames[i, :3, :3].T @ (predicted[j] - predicted_frames[i, :3, 3])
            b = true_frames[i, :3, :3].T @ (true[j] - true_frames[i, :3, 3])
            total += min(np.sqrt(((a - b) ** 2).sum() + CONFIG.eps), 10.0) / 10.0
    return total / (len(groups) + CONFIG.eps) / (len(atoms) + CONFIG.eps)


def test_sidechain_fape_equals_the_loops_and_is_always_clamped():
    outputs, features, truth = make_sidechains()
    sidechain, total = (
        sidechain_fape(outputs, features, truth, CONFIG),
        fape_loss(outputs, features, truth, CONFIG),
    )
    for sample in range(2):
        expected = looped_sidechain(outputs, features, truth, sample)
        assert float(sidechain[sample]) == pytest.approx(expected, rel=1e-5)
        assert float(total[sample]) == pytest.approx(
            0.5 * expected + 0.5 * looped_backbone(outputs, features, sample), rel=1e-5
        )
