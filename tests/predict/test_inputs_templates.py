"""Templates of a prediction: which are used, and what is said about those that are not."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import gemmi
import pytest

from openfold_opt.predict.chain_input import InputError
from openfold_opt.predict.inputs import prepare_chain, read_chains
from openfold_opt.predict.template_choice import template_warnings
from tests.support.prediction_inputs import settings, write_fasta


@pytest.fixture
def case(synthetic, tmp_path):
    return Case(synthetic, tmp_path)


class Case:
    """A chain that has one hit, on the other chain of its family, which is at `structure`."""

    def __init__(self, data, folder: Path) -> None:
        self.template, self.name = data.chain_ids()[:2]
        self.pdb_id = self.template.split("_")[0]
        self.query = data.sequence(self.name)
        self.fasta = write_fasta(folder / "x.fasta", {self.name: self.query})
        self.alignments = folder / "alignments" / self.name
        self.alignments.mkdir(parents=True)
        self.msa = self.alignments / "uniref90_hits.a3m"
        self.msa.write_text(f">q\n{self.query}\n")
        self.hits = self.alignments / "pdb70_hits.hhr"
        shutil.copy(data.hits_path(self.name), self.hits)
        self.structures = folder / "structures"
        self.structure = self.structures / self.pdb_id[1:3] / f"{self.pdb_id}.cif.gz"
        self.structure.parent.mkdir(parents=True)
        raw = data.structures / "raw"
        shutil.copy(raw / self.pdb_id[1:3] / f"{self.pdb_id}.cif.gz", self.structure)
        own_id = self.name.split("_")[0]
        self.own_structure = raw / own_id[1:3] / f"{own_id}.cif.gz"

    def chain(self, **options):
        arguments = {"template_structures": self.structures, **options}
        alignments = [self.alignments.parent]
        (chain,), failures = read_chains([self.fasta], alignments=alignments, **arguments)
        assert failures == [] and chain.warnings == ()
        return chain

    def prepare(self, **changes):
        return prepare_chain(self.chain(), settings(**changes))


def test_a_template_in_a_folder_is_used(case):
    prepared = case.prepare(excluded_templates=frozenset({case.name.split("_")[0]}))
    assert prepared.templates == (case.template,) and prepared.warnings == ()
    assert prepared.features().template_mask.tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize("form", ["flat", "upper case", "raw", "plain"])
def test_structures_in_every_layout_are_found(case, form):
    plain = gzip.decompress(case.structure.read_bytes())
    case.structure.unlink()
    folder = case.structures
    if form == "flat":
        (folder / f"{case.pdb_id}.cif").write_bytes(plain)
    elif form == "upper case":
        (folder / f"{case.pdb_id.upper()}.cif").write_bytes(plain)
    elif form == "raw":
        (folder / "raw").mkdir()
        (folder / "raw" / f"{case.pdb_id}.cif.gz").write_bytes(gzip.compress(plain))
    else:
        (folder / case.pdb_id[1:3] / f"{case.pdb_id}.cif").write_bytes(plain)
    assert case.prepare().templates == (case.template,)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_template_date": "2021-09-19"},
        {"excluded_templates": frozenset({"CHAIN"})},
        {"excluded_templates": frozenset({"ENTRY"})},
        {"max_templates": 0},
    ],
)
def test_templates_that_are_not_allowed(case, changes):
    if "excluded_templates" in changes:
        (kind,) = changes["excluded_templates"]
        excluded = {"CHAIN": case.template, "ENTRY": case.pdb_id.upper()}[kind]
        changes = {"excluded_templates": frozenset({excluded})}
    prepared = case.prepare(**changes)
    assert prepared.templates == ()
    assert not prepared.features().template_mask.any()


def test_the_last_allowed_date_is_included(case):
    assert case.prepare(max_template_date="2021-09-20").templates == (case.template,)


def test_a_missing_structure_gives_a_warning(case):
    case.structure.unlink()
    prepared = case.prepare()
    assert prepared.templates == ()
    (warning,) = prepared.warnings
    assert warning.startswith("1 template hit is not used as templates: no file ")
    assert f"no file {case.pdb_id}.cif.gz or {case.pdb_id}.cif in {case.structures}" in warning
    excluded = case.prepare(excluded_templates=frozenset({case.pdb_id}))
    assert excluded.warnings == ()


def test_a_damaged_structure_gives_a_warning(case):
    case.structure.write_bytes(b"no gzip")
    prepared = case.prepare()
    assert prepared.templates == () and "damaged file" in prepared.warnings[0]


def test_an_obsolete_entry_is_replaced_by_its_successor(case):
    text = case.hits.read_text().replace(case.pdb_id.upper(), "1OLD")
    case.hits.write_text(text)
    assert "no file 1old.cif.gz" in case.prepare().warnings[0]
    line = f"OBSLTE    26-SEP-06 1OLD     {case.pdb_id.upper()} 2OWI\n"
    (case.structures / "obsolete.dat").write_text(line)
    prepared = case.prepare()
    assert prepared.templates == (case.template,) and prepared.warnings == ()


def test_a_template_that_is_the_query_gives_a_warning(case):
    # The hit has one letter more than the query, so that the filter of copies does not see it.
    document = gemmi.cif.read_string(gzip.decompress(case.own_structure.read_bytes()))
    (case.structures / case.own_structure.name).write_bytes(
        gzip.compress(document.as_string().encode())
    )
    own_id, length = case.name.split("_")[0], len(case.query)
    changed = case.query[:-1] + ("A" if case.query[-1] != "A" else "G")
    lines = [
        "Query q",
        "Command hhsearch",
        "",
        "No 1",
        f">{own_id.upper()}_A itself",
        f"Probab=100.00  E-value=1e-20  Score=1  Aligned_cols={length}  Sum_probs=99.0",
        f"Q query            1 {case.query} {length:4d} ({length})",
        f"T template         1 {changed} {length:4d} ({length})",
        "",
    ]
    case.hits.write_text("\n".join(lines))
    prepared = case.prepare()
    assert prepared.templates == (case.name,)
    (warning,) = prepared.warnings
    assert f"template {case.name} (released 2021-12-01) is the query itself: it covers" in warning
    assert f"exclude template {own_id}" in warning


def test_templates_for_weights_without_them(case):
    chain = case.chain()
    prepared = prepare_chain(chain, settings(use_templates=False))
    assert prepared.templates == () and "these weights use no templates" in prepared.warnings[0]
    assert prepared.features().template_aatype.shape[1] == 0
    assert template_warnings(chain, settings()) == ()


def test_hits_without_structures_and_structures_without_hits(case):
    alone = case.chain(template_structures=None)
    prepared = prepare_chain(alone, settings())
    assert prepared.templates == ()
    assert f"the template hits in {case.hits} are not used" in prepared.warnings[0]
    without = prepare_chain(alone, settings(use_templates=False)).warnings
    assert "no folder of template structures is given" in without[0]
    case.hits.unlink()
    assert "has no .hhr file" in case.prepare().warnings[0]


def test_faulty_hits_and_folders(case, tmp_path):
    case.hits.write_text("\n".join(case.hits.read_text().splitlines()[:8]))
    with pytest.raises(InputError, match="pdb70_hits.hhr:8: cut short: its table lists 2 hits"):
        case.prepare()
    for wrong, message in [
        (tmp_path / "nowhere", "nowhere, but it does not exist"),
        (case.fasta, "x.fasta, but it is a file"),
    ]:
        with pytest.raises(InputError, match=message):
            read_chains([case.fasta], template_structures=wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty is empty"):
        read_chains([case.fasta], template_structures=tmp_path / "empty")
