"""Writer of small raw files for tests: two entries with a short chain, alignments and hits."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]

THREE = dict(
    zip(
        "ARNDCQEGHILKMFPSTWYV",
        "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split(),
    )
)
SEQUENCE_1ABC = "MKTAYIAKQRQISFVKSHFSRQ"
SEQUENCE_2ABC = "GSHMKTAYIAKQRQLSFVKSHFSRQDDL"


def cif_text(
    pdb_id: str,
    sequence: str,
    *,
    date: str = "2001-02-03",
    extra_rows: str = "",
    monomer_type: str = "'L-peptide linking'",
) -> str:
    """Return an entry with one chain A. extra_rows is appended to `_atom_site`."""
    names = [THREE[letter] for letter in sequence]
    sequence_rows = "\n".join(f"1 {i} {name}" for i, name in enumerate(names, start=1))
    component_rows = "\n".join(f"{name} {monomer_type}" for name in sorted(set(names)))
    atoms = []
    for i, name in enumerate(names, start=1):
        for j, atom in enumerate(("N", "CA", "C", "O")):
            atoms.append(
                f"ATOM {len(atoms) + 1} {atom[0]} {atom} . {name} A {i} ? "
                f"{3.8 * i + j:.3f} {j}.125 1.000 1.00 20.0 {i} A 1"
            )
    return (
        f"""data_{pdb_id.upper()}
_entry.id {pdb_id.upper()}
_exptl.method 'X-RAY DIFFRACTION'
_refine.ls_d_res_high 2.10
loop_
_pdbx_audit_revision_history.ordinal
_pdbx_audit_revision_history.revision_date
1 {date}
2 2011-07-13
loop_
_struct_asym.id
_struct_asym.entity_id
A 1
loop_
_entity_poly_seq.entity_id
_entity_poly_seq.num
_entity_poly_seq.mon_id
{sequence_rows}
loop_
_chem_comp.id
_chem_comp.type
{component_rows}
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.pdbx_PDB_ins_code
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
"""
        + "\n".join(atoms)
        + "\n"
        + extra_rows
    )


def hhr_text(query: str, hits: list[tuple[str, str, str, float]]) -> str:
    """Return an .hhr file with hits (name, aligned query, aligned hit, sum_probs).

    Query and hits start at residue 1.
    """
    lines = [
        "Query         q",
        f"Match_columns {len(query)}",
        "",
        " No Hit                             Prob E-value",
    ]
    lines += [f"{i:3d} {name}  99.0" for i, (name, *_) in enumerate(hits, start=1)]
    lines.append("")
    for i, (name, q, t, sum_probs) in enumerate(hits, start=1):
        columns = sum(a != "-" and b != "-" for a, b in zip(q, t))
        lines += [f"No {i}", f">{name} synthetic"]
        lines.append(
            f"Probab=99.00  E-value=1e-20  Score=100.00  Aligned_cols={columns}  "
            f"Identities=90%  Similarity=1.500  Sum_probs={sum_probs}  Template_Neff=5.000"
        )
        for letter, row in (("Q", q), ("T", t)):
            length = len(row.replace("-", ""))
            lines.append(f"{letter} {'x':<14} {1:4d} {row} {length:4d} ({length})")
        lines.append("")
    return "\n".join(lines) + "\n"


def write_entry(root: Path, pdb_id: str, contents: str) -> Path:
    path = root / "pdb_mmcif" / "raw" / pdb_id[1:3] / f"{pdb_id}.cif.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(contents.encode(), mtime=0))
    return path


def write_alignment(root: Path, chain_id: str, name: str, contents: str) -> Path:
    path = (
        root
        / "open_protein_set"
        / "pdb"
        / chain_id
        / ("hhr" if name.endswith(".hhr") else "a3m")
        / name
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(contents)
    return path


def write_raw_data(root: Path) -> Path:
    """Write two valid entries with their alignments, hits and tables."""
    write_entry(root, "1abc", cif_text("1abc", SEQUENCE_1ABC))
    write_entry(root, "2abc", cif_text("2abc", SEQUENCE_2ABC, date="2000-01-01"))
    (root / "pdb_mmcif" / "clusters-by-entity-40.txt").write_text("9XYZ_1\n1ABC_1 2ABC_1\n")
    (root / "pdb_mmcif" / "obsolete.dat").write_text(
        " LIST OF OBSOLETE COORDINATE ENTRIES AND SUCCESSORS\n"
    )
    other = SEQUENCE_1ABC.replace("Q", "E", 1)
    write_alignment(
        root, "1abc_A", "uniref90_hits.a3m", f">q\n{SEQUENCE_1ABC}\n>s\n{other[:5]}aa{other[5:]}\n"
    )
    write_alignment(
        root,
        "1abc_A",
        "pdb70_hits.hhr",
        hhr_text(SEQUENCE_1ABC, [("2ABC_A", SEQUENCE_1ABC[:20], SEQUENCE_2ABC[3:23], 19.5)]),
    )
    write_alignment(root, "2abc_A", "mgnify_hits.a3m", f">q\n{SEQUENCE_2ABC}\n")
    (root / "open_protein_set" / "duplicate_pdb_chains.txt").write_text("1abc_A\n2abc_A\n")
    return root


def convert_arguments(root: Path, out: Path, *options: str) -> list[str]:
    return [
        "convert",
        "--pdb-mmcif",
        str(root / "pdb_mmcif"),
        "--open-protein-set",
        str(root / "open_protein_set"),
        "--out",
        str(out),
        *options,
    ]


def run_convert(raw: Path, out: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    """Run `convert` as a subprocess with this environment."""
    command = [sys.executable, "-m", "data_prep", *convert_arguments(raw, out)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=env)
