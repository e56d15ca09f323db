"""Structure files with everything that makes reading them difficult."""

import gzip

import numpy as np
import pytest

from openfold_opt.predict.comparison.structure_reader import (
    StructureError,
    read_structures,
    structure_stem,
)
from openfold_opt.protein.residue_constants import atom_order
from tests.support.structures import EXAMPLES, Atom, mmcif_text, real_chains, write_pdb

CA = atom_order["CA"]
DNA = mmcif_text([Atom(residue="DA", name="P")]).replace(
    "polypeptide(L)", "polydeoxyribonucleotide"
)


@pytest.fixture
def read(tmp_path):
    """Write a text to a file and return its chains."""

    def read_text(text, name="chain.cif"):
        path = tmp_path / name
        path.write_text(text)
        return read_structures(path)

    return read_text


def test_residues_without_atoms_stay(read):
    (chain,) = read(mmcif_text([Atom(number=2, residue="GLY", x=7.0)], sequence=["MET", "GLY"]))
    assert (chain.name, chain.sequence) == ("A", "MG")
    assert chain.has_ca.tolist() == [False, True] and chain.plddt is None
    assert chain.ca_positions[1].tolist() == [7.0, 1.0, 0.0]
    assert not chain.positions[0].any()


def test_numbers_and_insertion_codes_of_the_author_do_not_matter(read):
    atoms = [
        Atom(number=1, author_number=-3),
        Atom(number=2, author_number=52, insertion="A", residue="GLY"),
        Atom(number=3, author_number=52, insertion="B", residue="TRP"),
    ]
    (chain,) = read(mmcif_text(atoms, sequence=["ALA", "GLY", "TRP"]))
    assert chain.sequence == "AGW" and chain.has_ca.all()


@pytest.mark.parametrize("number", [1, "."])
def test_without_a_sequence_the_residues_with_atoms_are_used(read, number):
    atoms = [
        Atom(number=number, author_number=10, residue="MET"),
        Atom(number=3 if number == 1 else ".", author_number=12, insertion="A", residue="GLY"),
        Atom(number=3 if number == 1 else ".", author_number=12, insertion="A", name="C"),
    ]
    atoms[2] = Atom(**{**vars(atoms[1]), "name": "C"})
    (chain,) = read(mmcif_text(atoms))
    assert chain.sequence == "MG" and chain.atom_mask.sum() == 3


@pytest.mark.parametrize(("occupancy", "x"), [(0.6, 1.0), (0.5, 1.0), (0.4, 2.0)])
def test_the_location_with_the_highest_occupancy_is_used(read, occupancy, x):
    atoms = [
        Atom(x=1.0, alt="A", occupancy=occupancy),
        Atom(x=2.0, alt="B", occupancy=round(1.0 - occupancy, 1)),
    ]
    (chain,) = read(mmcif_text(atoms, sequence=["ALA"]))
    assert chain.positions[0, CA, 0] == x


@pytest.mark.parametrize(("occupancy", "letter"), [(0.7, "S"), (0.3, "T")])
def test_microheterogeneity(read, occupancy, letter):
    atoms = [
        Atom(residue="SER", alt="A", occupancy=occupancy, number=1),
        Atom(residue="THR", alt="B", occupancy=round(1.0 - occupancy, 1), number=1),
        Atom(residue="GLY", number=2, author_number=2),
    ]
    (chain,) = read(mmcif_text(atoms, sequence=["SER/THR", "GLY"]))
    assert chain.sequence == f"{letter}G" and chain.has_ca.all()


def test_modified_residues(read):
    names = ["MSE", "SEP", "UNK"]
    atoms = [
        Atom(residue=name, number=number, author_number=number)
        for number, name in enumerate(names, start=1)
    ]
    atoms.insert(1, Atom(residue="MSE", name="SE"))
    (chain,) = read(mmcif_text(atoms, sequence=names))
    assert chain.sequence == "MSX"
    assert chain.atom_mask[0, atom_order["SD"]]


def test_the_first_of_several_models_is_used(tmp_path):
    path = tmp_path / "models.cif"
    path.write_text(mmcif_text([Atom(x=1.0), Atom(x=2.0, model=2)], sequence=["ALA"]))
    warnings = []
    (chain,) = read_structures(path, on_warning=warnings.append)
    assert chain.positions[0, CA, 0] == 1.0
    assert warnings == [f"{path} has 2 models; the first one is used"]


def test_all_protein_chains_are_read_with_the_names_of_the_author():
    chains = read_structures(EXAMPLES / "2hhb.cif.gz")
    assert [chain.name for chain in chains] == ["A", "B", "C", "D"]
    assert [chain.num_residues for chain in chains] == [141, 146, 141, 146]


def test_pdb_has_the_same_content(tmp_path):
    (chain,) = real_chains(EXAMPLES, min_residues=45, max_residues=45)
    path = write_pdb(tmp_path / "chain.pdb", chain, first_number=-10)
    (found,) = read_structures(path)
    assert found.sequence == chain.sequence
    np.testing.assert_array_equal(found.atom_mask, chain.atom_mask)
    np.testing.assert_allclose(found.positions, chain.positions, atol=6e-4)
    text = path.read_text()
    path.write_text("SEQRES   1 A    2  MET GLY\n" + text)
    assert read_structures(path)[0].sequence == chain.sequence


def test_seqres_of_a_pdb_file_names_residues_without_atoms(tmp_path):
    path = tmp_path / "chain.pdb"
    lines = ["SEQRES   1 A    4  MET GLY TRP LEU"]
    for serial, name in enumerate(("GLY", "LEU"), start=1):
        lines.append(
            f"ATOM  {serial:5}  CA  {name} A {5 * serial:3}    {serial:8.3f}{0:8.3f}{0:8.3f}"
            "  1.00  0.00           C"
        )
    path.write_text("\n".join(lines) + "\n")
    (chain,) = read_structures(path)
    assert chain.sequence == "MGWL" and chain.has_ca.tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a structure as mmCIF or PDB"),
        (b" \n", "is empty"),
        (b"some text\n", "has no atoms"),
        (b"data_x\n_entry.id x\n", "has no atoms"),
        (b"data_x\nloop_\n_atom_site.id\n_atom_site.type_symbol\n1\n", "is not a complete mmCIF"),
        (b"\x00\x01\x02", "is not a complete mmCIF or PDB file"),
        (b"ATOM      1  CA  ALA A   1      1.0\n", "is not a complete mmCIF or PDB file"),
        (gzip.compress(b"data_x\n" * 99, mtime=0)[:-9], "is a damaged gzip file"),
        (mmcif_text([Atom(x="nan")]).encode(), "atom CA of residue 1 of chain A has the position"),
        (DNA.encode(), "has no protein chain; its chains are A"),
        (
            mmcif_text([Atom(number=3)], sequence=["ALA"]).encode(),
            "has atoms of the residues 3 to 3, but its sequence has 1 residues",
        ),
    ],
)
def test_files_that_are_no_structures(tmp_path, content, message):
    path = tmp_path / "wrong.cif"
    path.write_bytes(content)
    with pytest.raises(StructureError, match=message) as error:
        read_structures(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("1abc_A.cif", "1abc_A"),
        ("a.b.CIF.GZ", "a.b"),
        ("x.pdb.gz", "x"),
        ("x.ent", "x"),
        ("x.json", None),
    ],
)
def test_names_of_structure_files(tmp_path, name, stem):
    assert structure_stem(tmp_path / name) == stem
