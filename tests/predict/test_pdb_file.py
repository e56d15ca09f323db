"""Structures in the PDB format: read back by gemmi, and refused where columns are too narrow."""

import dataclasses
import io

import biotite.structure.io.pdb
import gemmi
import numpy as np
import pytest

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.pdb_file import pdb_problem, pdb_text
from openfold_opt.protein.residue_constants import atom_types
from tests.support.fake_prediction import fake_structure


def alpha_carbons(num_residues: int, *, num_atoms: int = 1) -> ChainStructure:
    """Return a chain with the first atoms of each residue, which are N, CA, C, ..."""
    mask = np.zeros((num_residues, 37), bool)
    mask[:, 1 : num_atoms + 1] = True
    positions = np.zeros((num_residues, 37, 3), np.float32)
    positions[..., 0] = np.arange(num_residues)[:, None] % 9000
    return ChainStructure(
        name="long",
        sequence="G" * num_residues,
        positions=positions * mask[..., None],
        atom_mask=mask,
        plddt=np.full(num_residues, 87.5, np.float32),
    )


def test_atoms_confidence_and_sequence_are_read_back():
    given = fake_structure("a|b", "MKTAYIAXQRGX")
    text = pdb_text(given)
    assert {len(line) for line in text.splitlines()} == {80}
    structure = gemmi.read_pdb_string(text)
    found = np.zeros_like(given.atom_mask)
    for residue in structure[0]["A"]:
        for atom in residue:
            place = residue.seqid.num - 1, atom_types.index(atom.name)
            found[place] = True
            assert np.abs(np.array(atom.pos.tolist()) - given.positions[place]).max() < 1e-3
            assert atom.b_iso == pytest.approx(given.plddt[place[0]], abs=0.0051)
            assert atom.element.name == atom.name[0]
    assert (found == given.atom_mask).all()
    structure.setup_entities()
    assert gemmi.one_letter_code(structure.entities[0].full_sequence) == given.sequence
    assert structure.info["_struct.title"] == "a|b"


def test_the_longest_chain_of_the_format():
    given = alpha_carbons(9_999)
    assert pdb_problem(given) is None
    text = pdb_text(given)
    residues = gemmi.read_pdb_string(text)[0]["A"]
    assert len(residues) == 9_999 and residues[-1].seqid.num == 9_999
    assert residues[-1][0].pos.x == 998.0 and residues[-1][0].b_iso == 87.5
    atoms = biotite.structure.io.pdb.PDBFile.read(io.StringIO(text)).get_structure(model=1)
    assert len(atoms) == 9_999 and atoms.res_id[-1] == 9_999


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (alpha_carbons(10_000), "no PDB file: 10,000 residues and 10,000 atoms"),
        (alpha_carbons(9_091, num_atoms=11), "no PDB file: 9,091 residues and 100,001 atoms"),
    ],
)
def test_chains_that_the_format_cannot_number_are_refused(structure, message):
    problem = pdb_problem(structure)
    assert problem.startswith(message) and "at most 9,999 residues and 99,999 atoms" in problem


def test_coordinates_that_the_columns_cannot_hold_are_refused():
    structure = alpha_carbons(2)
    for value, expected in ((9_999.9, None), (10_000.5, "10,000.5"), (-1_000.5, "-1,000.5")):
        moved = dataclasses.replace(structure, positions=structure.positions.copy())
        moved.positions[1, 1, 2] = value
        problem = pdb_problem(moved)
        assert problem is None if expected is None else expected in problem


def test_a_long_title_is_continued():
    name = "n" * 150 + "ö"
    text = pdb_text(fake_structure(name, "MK"))
    assert [line[:10] for line in text.splitlines()[:3]] == [
        "TITLE     ",
        "TITLE    2",
        "TITLE    3",
    ]
    title = "".join(line[10:] for line in text.splitlines()[:3])
    assert title.strip() == "n" * 150 + r"\xf6"
