"""Residue tables are consistent with each other and with known chemistry."""

import numpy as np
import pytest

from openfold_opt.protein import residue_constants as constants


def test_order_and_names_of_residues_and_atoms():
    assert "".join(constants.restypes) == "ARNDCQEGHILKMFPSTWYV"
    assert constants.atom_type_num == 37 and constants.atom_types[:5] == ("N", "CA", "C", "CB", "O")
    assert constants.restype_3to1["TRP"] == "W"
    assert [constants.restypes_with_x_and_gap[i] for i in constants.hhblits_to_model_order] == list(
        "ACDEFGHIKLMNPQRSTVWYX-"
    )
    assert constants.sequence_to_aatype("AXBV").tolist() == [0, 20, 20, 19]


def test_number_of_heavy_atoms_of_each_residue():
    heavy = dict(
        zip(
            "ARNDCQEGHILKMFPSTWYV",
            (5, 11, 8, 8, 6, 9, 9, 4, 10, 8, 8, 9, 8, 11, 7, 6, 7, 14, 12, 7),
            strict=True,
        )
    )
    for letter, count in heavy.items():
        row = constants.restype_order[letter]
        assert (
            constants.restype_atom14_mask[row].sum()
            == constants.restype_atom37_mask[row].sum()
            == count
        )
    assert constants.restype_atom14_mask[20].sum() == 0


def test_atom14_and_atom37_maps_are_inverse():
    for row in range(20):
        for slot in np.flatnonzero(constants.restype_atom14_mask[row]):
            assert (
                constants.restype_atom37_to_atom14[
                    row, constants.restype_atom14_to_atom37[row, slot]
                ]
                == slot
            )


def test_number_and_periodicity_of_chi_angles():
    num_chi = [0, 4, 2, 2, 1, 3, 3, 0, 2, 2, 2, 4, 3, 2, 2, 1, 1, 2, 2, 1, 0]
    assert constants.chi_angles_mask.sum(axis=1).tolist() == num_chi
    assert constants.chi_angles_atoms["LYS"][3] == ("CG", "CD", "CE", "NZ")
    assert {
        constants.restypes[i] for i in np.flatnonzero(constants.chi_pi_periodic.any(axis=1))
    } == set("DEFY")


def test_default_frames_of_existing_groups_are_rotations():
    frames = constants.restype_rigid_group_default_frame[:20].astype(np.float64)
    exists = np.concatenate([np.ones((20, 4)), constants.chi_angles_mask[:20]], axis=1).astype(bool)
    rotation = frames[exists][:, :3, :3]
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (len(rotation), 1, 1)), atol=1e-6
    )
    assert not frames[~exists].any()


def test_tables_are_read_only():
    with pytest.raises(ValueError):
        constants.restype_atom14_mask[0, 0] = 2
