"""The rules of the mmCIF parser on synthetic entries."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.errors import EntryRejected, FaultyEntry
from data_prep.parsers.mmcif import parse_mmcif
from openfold_opt.protein.residue_constants import atom_order
from tests.support import raw_data


@pytest.fixture
def parse(tmp_path):
    def parse_text(text: str):
        return parse_mmcif(raw_data.write_entry(tmp_path, "1abc", text))

    return parse_text


def entry(sequence="AG", rows: str = "", **options) -> str:
    return raw_data.cif_text("1abc", sequence, extra_rows=rows, **options)


def atom(
    serial,
    name,
    residue,
    number,
    *,
    altloc=".",
    occupancy=1.0,
    x=0.0,
    group="ATOM",
    author=None,
    model=1,
    chain="A",
) -> str:
    return (
        f"{group} {serial} {name[0]} {name} {altloc} {residue} {chain} {number} ? {x} 0 0 "
        f"{occupancy} 20.0 {author or number} {chain} {model}\n"
    )


def x_of(chain, residue, name):
    return chain.positions[residue, atom_order[name], 0]


def test_simple_entry(parse):
    parsed = parse(entry())
    assert (parsed.pdb_id, parsed.release_date, parsed.resolution, parsed.method) == (
        "1abc",
        "2001-02-03",
        2.1,
        "X-RAY DIFFRACTION",
    )
    (chain,) = parsed.chains
    assert (chain.author_chain_id, chain.sequence, chain.entity_keys) == ("A", "AG", ("1ABC_1",))
    assert chain.mask.sum() == 8 and chain.positions.dtype == np.float32


def test_alternative_locations_are_chosen_atom_by_atom(parse):
    rows = atom(20, "CB", "ALA", 1, altloc="A", occupancy=0.4, x=1) + atom(
        21, "CB", "ALA", 1, altloc="B", occupancy=0.6, x=2
    )
    rows += atom(22, "OXT", "ALA", 1, altloc="A", occupancy=0.5, x=1) + atom(
        23, "OXT", "ALA", 1, altloc="B", occupancy=0.5, x=2
    )
    (chain,) = parse(entry("A", rows)).chains
    assert x_of(chain, 0, "CB") == 2 and x_of(chain, 0, "OXT") == 1


def test_record_with_altloc_after_one_without_wins_a_tie(parse):
    text = entry("A", atom(20, "CB", "ALA", 1, x=1) + atom(21, "CB", "ALA", 1, altloc="B", x=2))
    assert x_of(parse(text).chains[0], 0, "CB") == 2


def test_last_of_two_residue_names_at_a_position_wins(parse):
    rows = "".join(
        atom(30 + i, name, residue, 3, altloc=altloc, occupancy=occupancy, x=x)
        for i, (name, residue, altloc, occupancy, x) in enumerate(
            [
                ("CA", "SER", "A", 0.9, 1),
                ("OG", "SER", "A", 0.9, 1),
                ("CA", "CYS", "B", 0.1, 2),
                ("SG", "CYS", "B", 0.1, 2),
            ]
        )
    )
    text = (
        entry("AG", rows)
        .replace("1 2 GLY\n", "1 2 GLY\n1 3 SER\n")
        .replace("GLY 'L-pep", "SER 'L-peptide linking'\nGLY 'L-pep")
    )
    (chain,) = parse(text).chains
    assert chain.sequence == "AGS" and x_of(chain, 2, "CA") == 2 and x_of(chain, 2, "SG") == 2
    assert not chain.mask[2, atom_order["OG"]]
    interleaved = text + atom(40, "CB", "SER", 3, altloc="A", x=1)
    with pytest.raises(EntryRejected, match="interleaved"):
        parse(interleaved)


def test_selenium_of_mse_and_hydrogens(parse):
    rows = atom(20, "SE", "MSE", 3, group="HETATM", x=5) + atom(
        21, "HA", "MSE", 3, group="HETATM", x=6
    )
    text = entry("AG", rows).replace("1 2 GLY\n", "1 2 GLY\n1 3 MSE\n")
    (chain,) = parse(text).chains
    assert chain.sequence == "AGM" and x_of(chain, 2, "SD") == 5 and chain.mask[2].sum() == 1


def test_missing_residue_is_masked_and_zero(parse):
    text = "".join(
        line for line in entry("AGA").splitlines(keepends=True) if " GLY A 2 " not in line
    )
    (chain,) = parse(text).chains
    assert (
        chain.sequence == "AGA"
        and not chain.mask[1].any()
        and not chain.positions[1].any()
        and chain.mask[2].any()
    )


def test_first_model_gives_coordinates(parse):
    text = entry(
        "A",
        "".join(
            atom(50 + i, name, "ALA", 1, x=99, model=2)
            for i, name in enumerate(("N", "CA", "C", "O"))
        ),
    )
    assert parse(text).chains[0].positions.max() < 50


def test_model_number_one_is_required(parse):
    text = "".join(
        line.rstrip("1\n") + "2\n" if line.startswith("ATOM") else line
        for line in entry().splitlines(keepends=True)
    )
    with pytest.raises(EntryRejected, match="no atoms in model 1"):
        parse(text)


@pytest.mark.parametrize(
    ("original", "replacement", "resolution"),
    [
        (
            "_refine.ls_d_res_high 2.10",
            "_refine.ls_d_res_high ?\n_reflns.d_resolution_high 1.5",
            None,
        ),
        ("_refine.ls_d_res_high 2.10", "_reflns.d_resolution_high 1.5", 1.5),
        ("_refine.ls_d_res_high 2.10", "loop_\n_refine.ls_d_res_high\n1.5\n2.5\n.", 2.5),
        (
            "_refine.ls_d_res_high 2.10",
            "_em_3d_reconstruction.resolution 3.2\n_reflns.d_resolution_high 1.5",
            3.2,
        ),
        ("_refine.ls_d_res_high 2.10\n", "", None),
    ],
)
def test_resolution(parse, original, replacement, resolution):
    assert parse(entry().replace(original, replacement)).resolution == resolution


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (atom(20, "CA", "ALA", 1), "atom CA comes twice"),
        (atom(20, "CB", "ALA", "."), "auth_seq_id"),
        (atom(20, "CB", "ALA", ".", author=1), "label_seq_id"),
        (atom(20, "CB", "ALA", 9), "outside of its sequence"),
        (atom(20, "CB", "SER", 1, altloc="B"), "point mutation"),
    ],
)
def test_errors_reject_the_entry(parse, rows, reason):
    with pytest.raises(EntryRejected, match=reason):
        parse(entry("AG", rows))


@pytest.mark.parametrize("x", ["nan", "inf", "-inf", "1e39"])
def test_a_coordinate_that_is_not_finite_is_faulty(parse, x):
    with pytest.raises(FaultyEntry, match=f"_atom_site.Cartn_x is '{x}', expected a finite number"):
        parse(entry("AG", atom(20, "CB", "ALA", 1, x=x)))


def test_two_polymers_under_one_author_chain(parse):
    text = entry().replace("\nA 1\nloop_", "\nA 1\nB 1\nloop_")
    with pytest.raises(EntryRejected, match="chain B has no atoms"):
        parse(text)
    both = text + "ATOM 90 N N . ALA B 1 ? 0 0 0 1.00 20.0 901 A 1\n"
    with pytest.raises(EntryRejected, match="two protein polymers"):
        parse(both)


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2001-2-3", "2001-02-03"),
        ("2001-02-03", "2001-02-03"),
        ("2011-12-31", "2011-07-13"),
        ("1900-01-01", "1900-01-01"),
    ],
)
def test_dates_are_stored_as_iso_dates(parse, date, expected):
    assert parse(entry(date=date)).release_date == expected


@pytest.mark.parametrize("date", ["0001-01-01", "1899-12-31"])
def test_impossible_years_are_faulty(parse, date):
    with pytest.raises(FaultyEntry, match=f"revision date '{date}', expected 1900 or later"):
        parse(entry(date=date))


@pytest.mark.parametrize("date", ["?", "2001-13-01", "2001-02-30", "2001", "'3 Feb 2001'"])
def test_text_that_is_not_a_date_rejects_the_entry(parse, date):
    with pytest.raises(EntryRejected, match="is not a date"):
        parse(entry(date=date))


def without_types(text: str, polymer_type: str = "'polypeptide(L)'") -> str:
    start, end = text.index("loop_\n_chem_comp.id"), text.index("loop_\n_atom_site.group_PDB")
    return (
        text[:start] + f"_entity_poly.entity_id 1\n_entity_poly.type {polymer_type}\n" + text[end:]
    )


def parse_own(tmp_path, text: str, name: str = "1abc.cif"):
    (tmp_path / name).write_text(text)
    return parse_mmcif(tmp_path / name, own_data=True)


def test_own_data_without_types_of_monomers(parse, tmp_path):
    text = without_types(entry("AGS"))
    with pytest.raises(EntryRejected, match="mmCIF has no _chem_comp.id"):
        parse(text)
    assert parse_own(tmp_path, text).chains[0].sequence == "AGS"
    unknown = entry("AGS", monomer_type="?").replace(
        "loop_\n_chem_comp.id",
        "_entity_poly.entity_id 1\n_entity_poly.type 'polypeptide(L)'\nloop_\n_chem_comp.id",
    )
    assert parse_own(tmp_path, unknown).chains[0].sequence == "AGS"
    with pytest.raises(EntryRejected, match="no protein"):
        parse_own(tmp_path, without_types(entry("AGS"), "polyribonucleotide"))


def test_the_type_column_alone_may_be_missing(parse, tmp_path):
    text = entry("AGS")
    start, end = text.index("loop_\n_chem_comp.id"), text.index("loop_\n_atom_site.group_PDB")
    text = (
        text[:start]
        + "loop_\n_chem_comp.id\nALA\nGLY\nSER\n"
        + "_entity_poly.entity_id 1\n_entity_poly.type 'polypeptide(L)'\n"
        + text[end:]
    )
    with pytest.raises(EntryRejected, match="mmCIF has no _chem_comp.type"):
        parse(text)
    assert parse_own(tmp_path, text).chains[0].sequence == "AGS"


def test_ids_of_own_data(tmp_path):
    text = entry().replace("_entry.id 1ABC", "_entry.id MY-PROTEIN2")
    assert parse_own(tmp_path, text, "my-protein2.cif").pdb_id == "my-protein2"
    (tmp_path / "my-protein2.cif").write_text(text)
    with pytest.raises(EntryRejected, match="id 'my-protein2' has 11 characters, expected 4"):
        parse_mmcif(tmp_path / "my-protein2.cif")
    with pytest.raises(
        EntryRejected, match="id 'my_protein', expected letters, digits and hyphens"
    ):
        parse_own(tmp_path, text, "my_protein.cif")


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("X-RAY", "R\xd6NTGEN").encode("latin-1"),
    ],
)
def test_other_encodings_are_faulty(tmp_path, encode):
    (tmp_path / "1abc.cif").write_bytes(encode(entry()))
    with pytest.raises(FaultyEntry):
        parse_mmcif(tmp_path / "1abc.cif")


def test_letters_outside_ascii_and_other_line_ends(tmp_path):
    (tmp_path / "1abc.cif").write_bytes(
        entry().replace("\n", "\r\n").replace("X-RAY", "R\xd6NTGEN").encode()
    )
    assert parse_mmcif(tmp_path / "1abc.cif").method == "R\xd6NTGEN DIFFRACTION"


def anisotropy(value: str, columns=("11", "12", "13", "22", "23", "33")) -> str:
    tags = "".join(f"_atom_site_anisotrop.U[{i}][{j}]\n" for i, j in columns)
    return f"loop_\n_atom_site_anisotrop.id\n{tags}1 {value}{' 0.1' * (len(columns) - 1)}\n"


def test_anisotropy_that_is_not_a_number_rejects_the_entry(parse):
    assert parse(entry() + anisotropy("0.2")).chains
    with pytest.raises(EntryRejected, match="could not convert string to float: '[?]'"):
        parse(entry() + anisotropy("?"))
    # If a column is missing, the benchmark reads none of the six columns.
    assert parse(entry() + anisotropy("?", columns=("11", "12"))).chains
