"""Structures as mmCIF: gemmi reads back the same atoms, B factors and sequence."""

import gemmi
import numpy as np
import pytest

from openfold_opt.predict.structure_file import structure_text
from openfold_opt.protein.residue_constants import atom_types
from tests.support.fake_prediction import fake_prediction

SEQUENCE = "MKTAYIAXQRGX"


def text_of(name: str, sequence: str) -> str:
    prediction = fake_prediction(sequence)
    return structure_text(
        name,
        sequence,
        positions=prediction.positions,
        atom_mask=prediction.atom_mask,
        plddt=prediction.plddt,
    )


def read(text: str) -> gemmi.Structure:
    block = gemmi.cif.read_string(text).sole_block()
    return gemmi.make_structure_from_block(block)


def test_atoms_and_confidence_are_read_back():
    prediction = fake_prediction(SEQUENCE)
    structure = read(text_of("a chain", SEQUENCE))
    found = np.zeros_like(prediction.atom_mask)
    for residue in structure[0]["A"]:
        for atom in residue:
            place = residue.label_seq - 1, atom_types.index(atom.name)
            found[place] = True
            assert np.abs(np.array(atom.pos.tolist()) - prediction.positions[place]).max() < 1e-3
            assert atom.b_iso == pytest.approx(prediction.plddt[place[0]], abs=0.0051)
            assert atom.element.name == atom.name[0] and atom.occ == 1.0
    assert (found == prediction.atom_mask).all()


def test_the_sequence_has_residues_without_atoms():
    structure = read(text_of("a", SEQUENCE))
    structure.setup_entities()
    (entity,) = [e for e in structure.entities if e.entity_type == gemmi.EntityType.Polymer]
    assert gemmi.one_letter_code(entity.full_sequence) == SEQUENCE
    assert entity.full_sequence[7] == entity.full_sequence[-1] == "UNK"
    assert entity.polymer_type == gemmi.PolymerType.PeptideL
    numbers = [residue.seqid.num for residue in structure[0]["A"]]
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    block = gemmi.cif.read_string(text_of("a", SEQUENCE)).sole_block()
    (letters,) = block.find_values("_entity_poly.pdbx_seq_one_letter_code_can")
    assert "".join(gemmi.cif.as_string(letters).split()) == SEQUENCE


def test_more_residues_than_a_pdb_file_can_number():
    sequence = "MKTAYIAKQR" * 1010
    structure = read(text_of("long", sequence))
    residues = structure[0]["A"]
    assert len(residues) == len(sequence) and residues[-1].seqid.num == 10_100
    serials = [atom.serial for atom in residues[-1]]
    assert serials[-1] == 5 * 10_100


@pytest.mark.parametrize("name", ["sp|P1|X", "it's", 'a "b" c', "loop_", "data_x", "a b"])
def test_any_name_is_read_back(name):
    block = gemmi.cif.read_string(text_of(name, "MK")).sole_block()
    assert gemmi.cif.as_string(block.find_value("_struct.title")) == name


def test_the_file_is_ascii():
    block = gemmi.cif.read_string(text_of("Größe 1", "MK")).sole_block()
    assert block.name == "Gr_e_1"
    assert gemmi.cif.as_string(block.find_value("_struct.title")) == r"Gr\xf6\xdfe 1"


def test_arrays_of_another_length_are_refused():
    prediction = fake_prediction("MKT")
    with pytest.raises(ValueError, match=r"expected those of 2 residues"):
        structure_text(
            "a",
            "MK",
            positions=prediction.positions,
            atom_mask=prediction.atom_mask,
            plddt=prediction.plddt,
        )
