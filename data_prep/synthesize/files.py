"""Writers of synthetic chains as mmCIF, a3m and hhr files."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from openfold_opt.protein.residue_constants import atom_types, restype_1to3

AUTHOR_CHAIN = "A"
_HHR_WIDTH = 80
"""Letters of a line of an alignment block."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """An entry with one chain."""

    pdb_id: str
    """Lower case."""
    release_date: str
    """ISO date."""
    sequence: str
    positions: np.ndarray
    """float32 [N_res, 37, 3], angstrom."""
    mask: np.ndarray
    """bool [N_res, 37]."""

    @property
    def chain_id(self) -> str:
        return f"{self.pdb_id}_{AUTHOR_CHAIN}"


def write_mmcif(chain: Chain, folder: Path, *, resolution_angstrom: float = 1.5) -> None:
    """Write folder/<two middle letters>/<id>.cif.gz. The same chain gives the same bytes."""
    entry = chain.pdb_id.upper()
    block = gemmi.cif.Block(entry)
    block.set_pair("_entry.id", entry)
    block.set_pair("_exptl.method", gemmi.cif.quote("THEORETICAL MODEL"))
    block.set_pair("_refine.ls_d_res_high", f"{resolution_angstrom:.2f}")
    block.init_loop("_pdbx_audit_revision_history.", ["ordinal", "revision_date"]).add_row(
        ["1", chain.release_date]
    )
    block.init_loop("_entity.", ["id", "type"]).add_row(["1", "polymer"])
    block.init_loop("_struct_asym.", ["id", "entity_id"]).add_row([AUTHOR_CHAIN, "1"])
    components = block.init_loop("_chem_comp.", ["id", "type"])
    residues = [restype_1to3[letter] for letter in chain.sequence]
    for residue in sorted(set(residues)):
        components.add_row(
            [
                residue,
                gemmi.cif.quote("peptide linking" if residue == "GLY" else "L-peptide linking"),
            ]
        )
    sequence = block.init_loop("_entity_poly_seq.", ["entity_id", "num", "mon_id"])
    for number, residue in enumerate(residues, start=1):
        sequence.add_row(["1", str(number), residue])
    _add_atoms(block, chain, residues)
    document = gemmi.cif.Document()
    document.add_copied_block(block)
    target = folder / chain.pdb_id[1:3] / f"{chain.pdb_id}.cif.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    # The gzip header has no time, so that the same chain gives the same bytes.
    target.write_bytes(gzip.compress(document.as_string().encode(), mtime=0))


_ATOM_SITE_COLUMNS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id "
    "label_entity_id label_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy "
    "B_iso_or_equiv auth_seq_id auth_comp_id auth_asym_id auth_atom_id pdbx_PDB_model_num"
).split()


def _add_atoms(block: gemmi.cif.Block, chain: Chain, residues: list[str]) -> None:
    loop = block.init_loop("_atom_site.", _ATOM_SITE_COLUMNS)
    for serial, (residue, atom) in enumerate(np.argwhere(chain.mask), start=1):
        name, component, number = atom_types[atom], residues[residue], str(residue + 1)
        xyz = [f"{value:.3f}" for value in chain.positions[residue, atom]]
        loop.add_row(
            [
                "ATOM",
                str(serial),
                name[0],
                name,
                ".",
                component,
                AUTHOR_CHAIN,
                "1",
                number,
                "?",
                *xyz,
                "1.00",
                "20.00",
            ]
            + [number, component, AUTHOR_CHAIN, name, "1"]
        )


def write_a3m(rows: list[tuple[str, str]], path: Path) -> None:
    """Write an alignment from pairs of name and aligned row, the query first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f">{name}\n{row}\n" for name, row in rows))


def write_hhr(query: Chain, hits: list[Chain], path: Path) -> None:
    """Write hits that have the length of the query and align to all of it without gaps.

    They are ordered by decreasing identity.
    """
    ranked = sorted(hits, key=lambda hit: -_identity(query, hit))
    length = len(query.sequence)
    lines = [
        f"Query         {query.pdb_id.upper()}_{AUTHOR_CHAIN} synthetic chain",
        f"Match_columns {length}",
        f"No_of_seqs    1 out of {len(hits)}",
        "Command       data_prep synthesize",
        "",
        " No Hit                             Prob E-value P-value  Score    SS Cols Query HMM  "
        "Template HMM",
    ]
    for number, hit in enumerate(ranked, start=1):
        name = f"{hit.pdb_id.upper()}_{AUTHOR_CHAIN} synthetic chain"
        span = f"1-{length}"
        lines.append(
            f"{number:3d} {name:30.30s} 100.0 1.0E-20 1.0E-22  100.0   0.0 {length:4d} "
            f"{span:>9s} {span:>9s} ({length})"
        )
    for number, hit in enumerate(ranked, start=1):
        lines += ["", f"No {number}", *_hit_lines(query, hit)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n\n")


def _identity(query: Chain, hit: Chain) -> float:
    return float(np.mean([a == b for a, b in zip(query.sequence, hit.sequence, strict=True)]))


def _hit_lines(query: Chain, hit: Chain) -> list[str]:
    length, identity = len(query.sequence), _identity(query, hit)
    lines = [
        f">{hit.pdb_id.upper()}_{AUTHOR_CHAIN} synthetic chain",
        f"Probab=100.00  E-value=1e-20  Score=100.00  Aligned_cols={length}  "
        f"Identities={identity:.0%}  Similarity=1.000  Sum_probs={length * identity:.1f}  "
        "Template_Neff=1.000",
    ]
    for start in range(0, length, _HHR_WIDTH):
        end = min(start + _HHR_WIDTH, length)
        lines.append("")
        for letter, chain in (("Q", query), ("T", hit)):
            name = f"{chain.pdb_id.upper()}_{AUTHOR_CHAIN}"
            lines.append(
                f"{letter} {name:15s}{start + 1:4d} {chain.sequence[start:end]} {end:4d} ({length})"
            )
    lines.append("")
    return lines
