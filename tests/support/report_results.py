"""An output directory of a prediction, written by hand, with structures that can be drawn."""

import json
import re
import zlib
from pathlib import Path

import gemmi
import numpy as np

from openfold_opt.predict.chain_record import SCHEMA_VERSION as RECORD_VERSION
from openfold_opt.predict.summary import SCHEMA_VERSION as SUMMARY_VERSION

LETTERS = "ARNDCQEGHILKMFPSTWYV"
GIB = 2**30


def helix(num_residues: int) -> np.ndarray:
    """Return N, CA, C and O [num_residues, 4, 3] of a helix along the x axis, in angstrom."""
    # Radius, angle and height of each atom relative to the residue.
    atoms = np.array([(1.55, -28, -0.9), (2.28, 0, 0), (1.66, 26, 1.1), (2.0, 22, 2.3)])
    angles = np.deg2rad(atoms[:, 1] + 100 * np.arange(num_residues)[:, None])
    x = atoms[:, 2] + 1.5 * np.arange(num_residues)[:, None]
    return np.stack([x, atoms[:, 0] * np.cos(angles), atoms[:, 0] * np.sin(angles)], axis=-1)


def structure_text(sequence: str, plddt: np.ndarray) -> str:
    """Return an mmCIF file of a helix."""
    model, chain = gemmi.Model(1), gemmi.Chain("A")
    three_letters = gemmi.expand_one_letter_sequence(sequence, gemmi.ResidueKind.AA)
    for number, (name, atoms) in enumerate(zip(three_letters, helix(len(sequence))), start=1):
        residue = gemmi.Residue()
        residue.name, residue.seqid, residue.label_seq = name, gemmi.SeqId(number, " "), number
        residue.subchain, residue.entity_id = "A", "1"
        for atom_name, position in zip(("N", "CA", "C", "O"), atoms):
            atom = gemmi.Atom()
            atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
            atom.pos, atom.b_iso = gemmi.Position(*position), plddt[number - 1]
            residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure = gemmi.Structure()
    structure.add_model(model)
    entity = gemmi.Entity("1")
    entity.entity_type, entity.polymer_type = gemmi.EntityType.Polymer, gemmi.PolymerType.PeptideL
    entity.full_sequence, entity.subchains = three_letters, ["A"]
    structure.entities.append(entity)
    groups = gemmi.MmcifOutputGroups(True, cell=False, symmetry=False)
    text = structure.make_mmcif_document(groups).as_string()
    # gemmi leaves the type of the residues open. Mol* draws no cartoon then.
    return re.sub(r"^([A-Z]{3}) \.$", r"\1 'L-peptide linking'", text, flags=re.MULTILINE)


def pae_matrix(num_residues: int, number: int) -> np.ndarray:
    """Return float16 [num_residues, num_residues], not symmetric, 0.25 to 31 angstrom."""
    i = np.arange(num_residues)
    distance = np.abs(i[:, None] - i) / num_residues
    values = 0.25 + 30 * distance**0.7 + 0.7 * np.sin(i + number)[:, None] ** 2
    return values.clip(0.25, 31).astype(np.float16)


def png(width: int = 40, height: int = 30) -> bytes:
    """Return a picture of one color."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return len(data).to_bytes(4, "big") + kind + data + crc.to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    pixels = (b"\0" + b"\x20\x60\xc0" * width) * height
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(pixels), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks.items())


def write_chain(folder: Path, name: str, stem: str, *, number: int, num_residues: int) -> dict:
    """Write the files of a finished chain, and return its record."""
    rng = np.random.default_rng(number)
    sequence = "".join(rng.choice(list(LETTERS), num_residues))
    plddt = (70 + 28 * np.sin(np.arange(num_residues) / 9 + number)).round(2)
    contents = {
        f"{stem}.cif": structure_text(sequence, plddt).encode(),
        f"{stem}.png": png(),
    }
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    np.savez(folder / f"{stem}_pae.npz", pae=pae_matrix(num_residues, number))
    files = {"structure": f"{stem}.cif", "picture": f"{stem}.png", "pae": f"{stem}_pae.npz"}
    model = {
        "rank": 1,
        "weights": "w_ptm",
        "mean_plddt": round(float(plddt.mean()), 4),
        "ptm": round(0.5 + 0.4 * float(np.sin(number)), 4),
        "max_pae": 31.75,
        "num_recycling_iterations": 3,
        "recycling_changes": [3.0, 1.0, 0.25],
        "seconds": 2.5 + number,
        "peak_bytes": GIB,
        "planned_peak_bytes": 2 * GIB,
        "plddt": plddt.tolist(),
        "files": files,
    }
    return record(
        name,
        stem,
        sequence=sequence,
        status="finished",
        num_alignment_rows=100 + number,
        templates=["1abc_A"],
        structure=f"{stem}.cif",
        models=[model],
        file_bytes={file: (folder / file).stat().st_size for file in files.values()},
        alignment_depth=[100 - index % 37 for index in range(num_residues)],
    )


def add_weights(content: dict, name: str) -> None:
    """Add a second set of weights to the record of a chain: same structure, no PAE."""
    model = content["models"][0]
    files = {"structure": model["files"]["structure"]}
    second = {"rank": 2, "weights": name, "ptm": None, "max_pae": None, "files": files}
    content["models"].append(model | second)


def add_relaxation(folder: Path, content: dict) -> None:
    """Add a relaxed structure, which is the predicted one, to the record of a chain."""
    model = content["models"][0]
    model["files"]["relaxed"] = f"{content['stem']}_relaxed.cif"
    text = (folder / model["files"]["structure"]).read_text()
    (folder / model["files"]["relaxed"]).write_text(text)
    counts = {"clashes_before": 8, "clashes_after": 0, "bonds_before": 3, "bonds_after": 1}
    model["relaxation"] = {"status": "relaxed", "message": None, "max_ca_shift": 0.403} | counts


def write_scores(folder: Path, content: dict) -> None:
    """Write scores.json with one chain."""
    num_residues = len(content["sequence"])
    scores = {
        "truth": "1abc.cif",
        "truth_chain": "B",
        "lddt_ca": 0.8124,
        "lddt_all_atom": 0.75,
        "rmsd_ca": 2.345,
        "gdt_ts": 0.7,
        "tm_score": 0.9051,
        "num_matched": num_residues - 1,
        "lddt_ca_per_residue": [None, *[0.8] * (num_residues - 1)],
        "picture": content["models"][0]["files"]["picture"],
    }
    document = {"schema_version": 1, "chains": {content["stem"]: scores}, "failures": {}}
    (folder / "scores.json").write_text(json.dumps(document))


def record(name: str, stem: str, **changes: object) -> dict:
    """Return the record of a chain without results."""
    return {
        "schema_version": RECORD_VERSION,
        "name": name,
        "stem": stem,
        "sequence": "",
        "run_id": "0123456789abcdef",
        "status": "failed",
        "warnings": [],
        "num_alignment_rows": None,
        "alignment_depth": [],
        "templates": [],
        "plan": {"peak_bytes": 2 * GIB, "usable_bytes": 8 * GIB, "estimated_seconds": 4.0},
        "feature_seconds": 0.5,
        "structure": None,
        "models": [],
        "file_bytes": None,
        "error": None,
    } | changes


def write_results(folder: Path, records: list[dict]) -> Path:
    """Write the records and summary.json, and return the directory."""
    for content in records:
        (folder / f"{content['stem']}.json").write_text(json.dumps(content))
    setting = {"value": 3, "origin": "default"}
    summary = {
        "schema_version": SUMMARY_VERSION,
        "identity": {"seed": 0},
        "settings": {"seed": {"value": 0, "origin": "option"}, "save_pae": setting},
        "weights": [
            {
                "name": "w_ptm",
                "path": "/weights/w_ptm.npz",
                "kind": "AlphaFold parameters",
                "sha256": "ab" * 32,
                "settings": {"max_extra_msa": {"value": 1024, "origin": "weights"}},
            }
        ],
        "device": "cpu",
        "versions": {"python": "3.11", "torch": "2.13.0"},
        "pending": [],
        "chains": [{"name": content["name"], "stem": content["stem"]} for content in records],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
