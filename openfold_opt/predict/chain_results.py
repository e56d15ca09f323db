"""The results of one set of weights for one chain, and their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.confidence_files import confidence_json, has_pae_json, pae_json_blocks
from openfold_opt.predict.file_names import CONFIDENCE, PAE, PAE_JSON, PDB, STRUCTURE
from openfold_opt.predict.output_files import ChainFiles
from openfold_opt.predict.pdb_file import pdb_problem, pdb_text
from openfold_opt.predict.structure_file import ModelFacts, structure_text

if TYPE_CHECKING:
    from openfold_opt.predict.chain_input import ChainInput, PreparedChain
    from openfold_opt.predict.forward import Prediction
    from openfold_opt.predict.run_settings import WeightsFacts


@dataclass(frozen=True, kw_only=True, eq=False)
class ChainResult:
    """Structure and confidence of a chain from one set of weights."""

    structure: ChainStructure
    facts: ModelFacts
    max_pae: float | None
    """Upper end of the scale of the aligned error, angstrom; None if it is not predicted."""
    alignment_depth: tuple[int, ...]
    """[N_res]: rows of the alignment without a gap."""


def chain_result(
    chain: ChainInput,
    prediction: Prediction,
    *,
    weights: WeightsFacts,
    seed: int,
    prepared: PreparedChain,
) -> ChainResult:
    """Return the result of a prediction.

    Args:
        chain: the chain.
        prediction: its structure and confidence.
        weights: name and SHA-256 of the weights.
        seed: of the run.
        prepared: alignment and templates; its features are not needed.
    """
    return ChainResult(
        structure=ChainStructure(
            name=chain.name,
            sequence=chain.sequence,
            positions=np.where(prediction.atom_mask[..., None], prediction.positions, 0.0),
            atom_mask=prediction.atom_mask,
            plddt=prediction.plddt,
        ),
        facts=ModelFacts(
            weights=weights.name,
            weights_sha256=weights.sha256,
            seed=seed,
            num_recycling_iterations=prediction.num_recycling_iterations,
            num_alignment_rows=prepared.num_alignment_rows,
            templates=tuple(prepared.templates),
            ptm=prediction.ptm,
        ),
        max_pae=prediction.max_pae,
        alignment_depth=prepared.alignment_depth,
    )


def write_result(files: ChainFiles, result: ChainResult, *, pae_json: bool | None) -> list[str]:
    """Write structure and confidences, and return warnings about files that differ or are missing.

    Args:
        files: with the rows of the matrices.
        result: of one of the sets of weights.
        pae_json: whether to write the aligned error as JSON; None decides by the length.

    Raises:
        OSError: the disk is full.
        ValueError: rows of a matrix are missing.
    """
    structure, weights = result.structure, result.facts.weights
    warnings = files.close_rows(weights)
    files.write(weights, STRUCTURE, [structure_text(structure, result.facts)])
    problem = pdb_problem(structure)
    if problem is None:
        files.write(weights, PDB, [pdb_text(structure)])
    else:
        warnings.append(problem)
    files.write(weights, CONFIDENCE, [confidence_json(structure.plddt)])
    pae = files.matrix(weights, PAE)
    if pae is not None and has_pae_json(structure.num_residues, pae_json):
        files.write(weights, PAE_JSON, pae_json_blocks(pae, result.max_pae))
    return warnings
