"""Structures as ModelCIF: valid by its dictionary, and read back by three other programs."""

import io

import biotite.structure.io.pdbx
import gemmi
import ihm.dictionary
import modelcif.reader
import numpy as np
import pytest

from openfold_opt.predict.structure_file import ModelFacts, structure_text
from openfold_opt.protein.residue_constants import atom_types
from tests.support.fake_prediction import fake_structure

SEQUENCE = "MKTAYIAXQRGX"
FACTS = ModelFacts(
    weights="model_1_ptm",
    weights_sha256="ab" * 32,
    seed=5,
    num_recycling_iterations=3,
    num_alignment_rows=1234,
    templates=("1abc_A", "2xyz_B"),
    ptm=0.8125,
)
NAMES = [
    "sp|P1|X",
    "it's",
    'a "b" c',
    'it\'s "b"',
    "; x",
    "#1",
    "_x",
    "loop_",
    "data_x",
    "?",
    "a\\n",
]


def text_of(name: str, sequence: str = SEQUENCE) -> str:
    return structure_text(fake_structure(name, sequence), FACTS)


def block_of(text: str) -> gemmi.cif.Block:
    return gemmi.cif.read_string(text).sole_block()


@pytest.fixture(scope="module")
def dictionary(shared) -> ihm.dictionary.Dictionary:
    with open(shared / "facts" / "mmcif_ma-core.dic", "rb") as file:
        return ihm.dictionary.read(file)


def errors_of_model_items(dictionary: ihm.dictionary.Dictionary, text: str) -> list[str]:
    """Return what the dictionary says about items `_ma_*`; it does not have the other items."""
    with pytest.raises(ihm.dictionary.ValidatorError) as caught:
        dictionary.validate(io.StringIO(text))
    paragraphs = str(caught.value).split("\n\n")
    unknown = "not defined in the dictionary: "
    found = [p for p in paragraphs if unknown not in p]
    for paragraph in (p for p in paragraphs if unknown in p):
        names = paragraph.partition(unknown)[2].split(", ")
        found += [name for name in names if name.startswith("_ma_")]
    return found


@pytest.mark.parametrize("facts", [{}, {"ptm": None, "templates": (), "refinement": "relaxed"}])
def test_all_items_of_models_are_valid(dictionary, facts):
    facts = ModelFacts(**(vars(FACTS) | facts))
    text = structure_text(fake_structure("a|b", SEQUENCE), facts)
    assert errors_of_model_items(dictionary, text) == []
    categories = {name.partition(".")[0] for name in text.split() if name.startswith("_ma_")}
    assert categories >= {
        "_ma_data",
        "_ma_data_group",
        "_ma_model_list",
        "_ma_protocol_step",
        "_ma_qa_metric",
        "_ma_qa_metric_global",
        "_ma_qa_metric_local",
        "_ma_software_group",
        "_ma_target_entity",
        "_ma_target_entity_instance",
    }


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("'Ab initio model'", "'A model'"),
        ("_ma_qa_metric.mode", "_ma_qa_metric.kind"),
        ("_ma_model_list.", "_ma_model_table."),
    ],
)
def test_wrong_items_are_found(dictionary, right, wrong):
    text = text_of("a")
    assert right in text and errors_of_model_items(dictionary, text.replace(right, wrong))


def test_atoms_and_confidence_are_read_back():
    given = fake_structure("a chain", SEQUENCE)
    structure = gemmi.make_structure_from_block(block_of(text_of("a chain")))
    found = np.zeros_like(given.atom_mask)
    for residue in structure[0]["A"]:
        for atom in residue:
            place = residue.label_seq - 1, atom_types.index(atom.name)
            found[place] = True
            assert np.abs(np.array(atom.pos.tolist()) - given.positions[place]).max() < 1e-3
            assert atom.b_iso == pytest.approx(given.plddt[place[0]], abs=0.0051)
            assert atom.element.name == atom.name[0] and atom.occ == 1.0
    assert (found == given.atom_mask).all()


def test_the_sequence_has_residues_without_atoms():
    structure = gemmi.make_structure_from_block(block_of(text_of("a")))
    structure.setup_entities()
    (entity,) = [e for e in structure.entities if e.entity_type == gemmi.EntityType.Polymer]
    assert gemmi.one_letter_code(entity.full_sequence) == SEQUENCE
    assert entity.full_sequence[7] == entity.full_sequence[-1] == "UNK"
    assert entity.polymer_type == gemmi.PolymerType.PeptideL
    numbers = [residue.seqid.num for residue in structure[0]["A"]]
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    (letters,) = block_of(text_of("a")).find_values("_entity_poly.pdbx_seq_one_letter_code_can")
    assert "".join(gemmi.cif.as_string(letters).split()) == SEQUENCE


def test_biotite_reads_the_same_atoms():
    given = fake_structure("a", SEQUENCE)
    file = biotite.structure.io.pdbx.CIFFile.read(io.StringIO(text_of("a")))
    atoms = biotite.structure.io.pdbx.get_structure(file, model=1, extra_fields=["b_factor"])
    residues, slots = atoms.res_id - 1, [atom_types.index(name) for name in atoms.atom_name]
    assert len(atoms) == given.atom_mask.sum() and given.atom_mask[residues, slots].all()
    np.testing.assert_allclose(atoms.coord, given.positions[residues, slots], atol=1e-3)
    np.testing.assert_allclose(atoms.b_factor, given.plddt[residues], atol=0.0051)


def test_the_reader_of_modelcif_finds_scores_software_and_steps():
    given = fake_structure("a", SEQUENCE)
    (system,) = modelcif.reader.read(io.StringIO(text_of("a")))
    ((model,),) = system.model_groups
    assert len(list(model.get_atoms())) == given.atom_mask.sum()
    scores = {type(m).__name__: m.value for m in model.qa_metrics if m.mode == "global"}
    assert scores == {"pLDDT": pytest.approx(given.plddt.mean(), abs=0.0051), "pTM": 0.8125}
    local = [m for m in model.qa_metrics if m.mode == "local"]
    assert [m.residue.seq_id for m in local] == list(range(1, len(SEQUENCE) + 1))
    assert [m.value for m in local] == pytest.approx(given.plddt, abs=0.0051)
    (software,) = system.software
    assert software.name == "openfold-opt"
    ((parameters,),) = system.software_groups
    assert {p.name: p.value for p in parameters.parameters} == {
        "weights": "model_1_ptm",
        "weights_sha256": "ab" * 32,
        "seed": 5,
        "num_recycling_iterations": 3,
    }
    (protocol,) = system.protocols
    assert [step.method_type for step in protocol.steps] == [
        "coevolution MSA",
        "template selection",
        "modeling",
    ]
    assert "1234" in protocol.steps[0].details
    assert protocol.steps[1].details == "Templates: 1abc_A, 2xyz_B"


def test_a_refinement_is_a_step():
    facts = ModelFacts(**(vars(FACTS) | {"refinement": "relaxed with a force field"}))
    text = structure_text(fake_structure("a", SEQUENCE), facts)
    (system,) = modelcif.reader.read(io.StringIO(text))
    assert system.protocols[0].steps[-1].details == "relaxed with a force field"


def test_more_residues_than_a_pdb_file_can_number():
    sequence = "MKTAYIAKQR" * 1010
    structure = gemmi.make_structure_from_block(block_of(text_of("long", sequence)))
    residues = structure[0]["A"]
    assert len(residues) == len(sequence) and residues[-1].seqid.num == 10_100
    assert residues[-1][-1].serial == 5 * 10_100


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_read_back(name):
    text = text_of(name, "MK")
    block = block_of(text)
    for tag in ("_entity.pdbx_description", "_ma_data.name"):
        assert gemmi.cif.as_string(block.find_values(tag)[0]) == name
    (system,) = modelcif.reader.read(io.StringIO(text))
    assert system.entities[0].description == name
    file = biotite.structure.io.pdbx.CIFFile.read(io.StringIO(text))
    assert file.block["entity"]["pdbx_description"].as_item() == name


def test_the_file_is_ascii_and_always_the_same():
    text = text_of("Größe 1", "MK")
    assert text.isascii() and text == text_of("Größe 1", "MK")
    block = block_of(text)
    assert block.name == "Gr_e_1"
    name = gemmi.cif.as_string(block.find_values("_entity.pdbx_description")[0])
    assert name == r"Gr\xf6\xdfe 1"
