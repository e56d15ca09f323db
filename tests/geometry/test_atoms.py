"""Atom layouts against golden features and cases small enough to see."""

import torch

from openfold_opt.geometry.atoms import (
    atom14_to_atom37,
    make_atom14_masks,
    make_atom14_positions,
    pseudo_beta,
)
from openfold_opt.protein.residue_constants import atom_order, restype_order, sequence_to_aatype
from tests.geometry.golden import golden_chains, worst


def test_golden_masks_and_positions(shared):
    for chain, truth in golden_chains(shared).items():
        atoms = (truth["aatype"], truth["all_atom_positions"], truth["all_atom_mask"])
        for name, value in make_atom14_masks(truth["aatype"]).items():
            assert worst(value, truth[name]) == 0.0, (chain, name)
        positions = make_atom14_positions(*atoms)
        for name, value in positions.items():
            mask = (
                truth[name.replace("positions", "exists")] if name.endswith("positions") else None
            )
            assert worst(value, truth[name], mask) < 1e-5, (chain, name)
        beta, mask = pseudo_beta(*atoms)
        assert worst(mask, truth["pseudo_beta_mask"]) == 0.0, chain
        assert worst(beta, truth["pseudo_beta"], mask) < 1e-5, chain


def test_atom14_to_atom37_is_the_way_back():
    aatype = torch.from_numpy(sequence_to_aatype("ARNDCQEGHILKMFPSTWYVX"))
    masks = make_atom14_masks(aatype)
    exists = masks["atom37_atom_exists"]
    positions = (
        torch.randn(21, 37, 3, generator=torch.Generator().manual_seed(0)) * exists[..., None]
    )
    packed = make_atom14_positions(aatype, positions, exists)["atom14_gt_positions"]
    back = atom14_to_atom37(packed, masks["residx_atom37_to_atom14"], exists)
    assert torch.equal(back, positions)


def test_exchangeable_atoms_swap_places():
    aatype = torch.tensor([restype_order["D"]])
    positions, mask = torch.zeros(1, 37, 3), torch.ones(1, 37)
    positions[0, atom_order["OD1"]], positions[0, atom_order["OD2"]] = 1.0, 2.0
    got = make_atom14_positions(aatype, positions, mask)
    assert got["atom14_gt_positions"][0, 6:8, 0].tolist() == [1.0, 2.0]
    assert got["atom14_alt_gt_positions"][0, 6:8, 0].tolist() == [2.0, 1.0]
    assert got["atom14_atom_is_ambiguous"][0].nonzero().flatten().tolist() == [6, 7]
