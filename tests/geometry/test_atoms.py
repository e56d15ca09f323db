"""Atom layouts agree with golden features and small examples."""

import torch

from openfold_opt.geometry.atoms import (
    atom14_to_atom37,
    make_atom14_masks,
    make_atom14_positions,
    pseudo_beta,
)
from openfold_opt.protein.residue_constants import atom_order, restype_order, sequence_to_aatype
from tests.support.golden_transforms import golden_chains, max_error


def test_golden_masks_and_positions(shared):
    for chain, truth in golden_chains(shared).items():
        atoms = (truth["aatype"], truth["all_atom_positions"], truth["all_atom_mask"])
        for name, value in make_atom14_masks(truth["aatype"]).items():
            assert max_error(value, truth[name]) == 0.0, (chain, name)
        positions = make_atom14_positions(*atoms)
        for name, value in positions.items():
            mask = (
                truth[name.replace("positions", "exists")] if name.endswith("positions") else None
            )
            assert max_error(value, truth[name], mask) < 1e-5, (chain, name)
        beta, mask = pseudo_beta(*atoms)
        assert max_error(mask, truth["pseudo_beta_mask"]) == 0.0, chain
        assert max_error(beta, truth["pseudo_beta"], mask) < 1e-5, chain


def test_atom14_to_atom37_inverts_make_atom14_positions():
    aatype = torch.from_numpy(sequence_to_aatype("ARNDCQEGHILKMFPSTWYVX"))
    masks = make_atom14_masks(aatype)
    exists = masks["atom37_atom_exists"]
    positions = (
        torch.randn(21, 37, 3, generator=torch.Generator().manual_seed(0)) * exists[..., None]
    )
    packed = make_atom14_positions(aatype, positions, exists)["atom14_gt_positions"]
    back = atom14_to_atom37(packed, masks["residx_atom37_to_atom14"], exists)
    assert torch.equal(back, positions)


def test_ambiguous_atoms_are_swapped_in_the_alternative_positions():
    aatype = torch.tensor([restype_order["D"]])
    positions, mask = torch.zeros(1, 37, 3), torch.ones(1, 37)
    positions[0, atom_order["OD1"]], positions[0, atom_order["OD2"]] = 1.0, 2.0
    got = make_atom14_positions(aatype, positions, mask)
    assert got["atom14_gt_positions"][0, 6:8, 0].tolist() == [1.0, 2.0]
    assert got["atom14_alt_gt_positions"][0, 6:8, 0].tolist() == [2.0, 1.0]
    assert got["atom14_atom_is_ambiguous"][0].nonzero().flatten().tolist() == [6, 7]
