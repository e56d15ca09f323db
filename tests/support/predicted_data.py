"""Predictions of synthetic chains with chosen confidences, in the files of a prediction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from openfold_opt.predict.chain_record import ChainRecord, write_record
from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.file_names import chain_stems
from openfold_opt.predict.structure_file import ModelFacts, structure_text
from openfold_opt.protein.reader import ShardReader

FACTS = ModelFacts(
    weights="model",
    weights_sha256="ab" * 32,
    seed=0,
    num_recycling_iterations=0,
    num_alignment_rows=8,
    templates=(),
    ptm=None,
)


def predicted(
    reader: ShardReader, chain_id: str, *, name: str = "", plddt: float | np.ndarray = 90.0
) -> ChainStructure:
    """Return the true structure of a chain as a prediction with the given confidences."""
    record = reader.structure(chain_id)
    return ChainStructure(
        name=name or chain_id,
        sequence=record.sequence,
        positions=record.all_atom_positions,
        atom_mask=record.all_atom_mask,
        plddt=np.broadcast_to(np.float32(plddt), len(record.sequence)).copy(),
    )


def write_predictions(folder: Path, structures: Iterable[ChainStructure]) -> Path:
    """Write the structure and the record of each chain."""
    folder.mkdir(parents=True, exist_ok=True)
    structures = list(structures)
    stems = chain_stems([structure.name for structure in structures], ["model"])
    record = ChainRecord(
        name="", stem="", sequence="", run_id="run", seed=0, status="finished", num_alignment_rows=8
    )
    for stem, structure in zip(stems, structures, strict=True):
        (folder / f"{stem}.cif").write_text(structure_text(structure, FACTS))
        changes = {"name": structure.name, "stem": stem, "sequence": structure.sequence}
        write_record(folder, replace(record, structure=f"{stem}.cif", **changes))
    return folder
