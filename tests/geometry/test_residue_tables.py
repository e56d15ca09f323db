"""Table lookup: rows, caching on the device, and the check for read-only tables."""

import numpy as np
import pytest
import torch

from openfold_opt.geometry.frames import (
    frames_and_literature_positions_to_atom14,
    torsion_angles_to_frames,
)
from openfold_opt.geometry.residue_tables import constant_when_traced, lookup
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.protein.residue_constants import (
    read_only,
    restype_atom14_mask,
    restype_atom14_to_atom37,
)
from tests.support.host_constants import HostConstants


def test_lookup_returns_rows_with_the_dtype_of_the_table():
    aatype = torch.tensor([[0, 19], [20, 21]])
    rows = lookup(restype_atom14_to_atom37, aatype)
    assert rows.dtype == torch.int64 and rows.shape == (2, 2, 14)
    np.testing.assert_array_equal(rows.numpy(), restype_atom14_to_atom37[[[0, 19], [20, 20]]])


def test_cache_distinguishes_tables_of_equal_shape():
    for value in range(5):
        table = read_only(np.full((21, 3), float(value), np.float32))
        assert (lookup(table, torch.tensor([4])) == value).all()
        del table


def test_each_table_is_copied_from_the_host_once():
    table, aatype = read_only(np.ones((21, 2), np.float32)), torch.tensor([3, 4])
    with HostConstants() as constants:
        lookup(table, aatype)
    assert constants.count == 1
    with HostConstants() as constants:
        lookup(table, aatype)
    assert constants.count == 0


def test_atoms_from_torsions_copy_nothing_from_the_host():
    aatype = torch.arange(20)
    angles = torch.nn.functional.normalize(torch.ones(20, 7, 2), dim=-1)
    backbone = Rigid.identity((20,), dtype=torch.float32, device="cpu")

    def build():
        frames = torsion_angles_to_frames(backbone, angles, aatype)
        return frames.to_matrix4x4(), frames_and_literature_positions_to_atom14(frames, aatype)

    build()
    with HostConstants() as constants:
        build()
    assert constants.count == 0


def test_writeable_table_is_an_error():
    with pytest.raises(ValueError, match="setflags"):
        lookup(restype_atom14_mask.copy(), torch.tensor([0]))


def test_a_constant_is_marked_as_pytorch_does():
    def found():
        return 1

    def expected():
        return 1

    assert vars(constant_when_traced(found))
    assert vars(found) == vars(torch.compiler.assume_constant_result(expected))
