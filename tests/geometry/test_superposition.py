"""Superposition and metrics agree with golden values and known rigid motions."""

import json

import numpy as np
import pytest
import torch

from openfold_opt.geometry.quaternion import quaternion_to_matrix
from openfold_opt.geometry.superposition import (
    GDT_HA_THRESHOLDS_ANGSTROM,
    GDT_TS_THRESHOLDS_ANGSTROM,
    drmsd,
    gdt,
    rmsd,
    superimpose,
)
from openfold_opt.losses.lddt import lddt

CA = 1


def test_superposition_inverts_a_rigid_motion():
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(2, 30, 3, generator=generator) * 10
    rotation, _ = torch.linalg.qr(torch.randn(2, 3, 3, generator=generator))
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    moved = target @ rotation + torch.tensor([5.0, -40.0, 2.0])
    fitted, error = superimpose(moved, target, torch.ones(2, 30))
    torch.testing.assert_close(fitted, target, atol=1e-4, rtol=0)
    assert float(error.max()) < 1e-4


def test_superposition_does_not_reflect():
    target = torch.randn(30, 3, generator=torch.Generator().manual_seed(4)) * 10
    mirrored = target * torch.tensor([1.0, 1.0, -1.0])
    fitted, error = superimpose(mirrored, target, torch.ones(30))
    assert float(error) > 1.0
    # None of many small and large rotations of the result fits better.
    generator = torch.Generator().manual_seed(6)
    size = torch.logspace(-3, 1, 500)[:, None]
    quaternion = torch.cat(
        [torch.ones(500, 1), torch.randn(500, 3, generator=generator) * size], dim=-1
    )
    rotations = quaternion_to_matrix(torch.nn.functional.normalize(quaternion, dim=-1))
    center = target.mean(0)
    rotated = (fitted - center) @ rotations + center
    assert float(rmsd(rotated, target, torch.ones(30)).min()) > float(error) - 1e-5


def test_masked_points_are_ignored():
    target = torch.randn(12, 3, generator=torch.Generator().manual_seed(5))
    broken = target.clone()
    broken[7:] += 100.0
    mask = (torch.arange(12) < 7).float()
    _, error = superimpose(broken, target, mask)
    assert float(error) < 1e-5
    assert float(rmsd(broken, target, mask)) == 0.0


def test_gdt_is_the_mean_over_thresholds():
    true = torch.zeros(4, 3)
    predicted = torch.tensor([[0.4, 0, 0], [1.5, 0, 0], [3.0, 0, 0], [9.0, 0, 0]])
    mask = torch.ones(4)
    assert float(
        gdt(predicted, true, mask, thresholds_angstrom=GDT_TS_THRESHOLDS_ANGSTROM)
    ) == pytest.approx(9 / 16)
    assert float(
        gdt(predicted, true, mask, thresholds_angstrom=GDT_HA_THRESHOLDS_ANGSTROM)
    ) == pytest.approx(7 / 16)


def test_golden_metrics(shared):
    expected = json.loads((shared / "golden/data/metrics.json").read_text())
    predictions = np.load(shared / "golden/data/metrics_predicted.npz")
    structures = np.load(shared / "golden/data/structures.npz")
    assert expected
    for name, metrics in expected.items():
        chain = name.split("/")[0]
        true = torch.from_numpy(structures[f"{chain}/all_atom_positions"][:, CA])
        mask = torch.from_numpy(structures[f"{chain}/all_atom_mask"][:, CA]).float()
        predicted = torch.from_numpy(predictions[name][:, CA])
        fitted, error = superimpose(predicted, true, mask)
        computed = {
            "lddt_ca": lddt(predicted, true, mask, per_residue=False),
            "gdt_ts": gdt(fitted, true, mask, thresholds_angstrom=GDT_TS_THRESHOLDS_ANGSTROM),
            "gdt_ha": gdt(fitted, true, mask, thresholds_angstrom=GDT_HA_THRESHOLDS_ANGSTROM),
            "alignment_rmsd": error,
            "drmsd_ca": drmsd(predicted, true, mask),
        }
        assert float(computed["lddt_ca"]) == pytest.approx(metrics["lddt_ca"], abs=1e-5), name
        # With float32 coordinates, values that should be zero are a few microangstrom.
        for key in ("gdt_ts", "gdt_ha", "alignment_rmsd", "drmsd_ca"):
            assert float(computed[key]) == pytest.approx(metrics[key], rel=1e-3, abs=1e-4), (
                name,
                key,
            )
