"""Confidences as JSON, in the layout of the AlphaFold database."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from openfold_opt.predict.confidence_classes import CLASSES, class_indices

MAX_RESIDUES_OF_PAE_JSON = 3000
"""Longer chains get the JSON file of the aligned error on request only: it has N_res^2 numbers."""
_NUMBERS_PER_BLOCK = 2**18


def confidence_json(plddt: np.ndarray) -> str:
    """Return the pLDDT of each residue with its category.

    plddt: [N_res], 0..100. The categories are D (below 50), L (below 70), M (below 90) and H.
    """
    scores = np.round(plddt.astype(np.float64), 2).tolist()
    content = {
        "residueNumber": list(range(1, len(scores) + 1)),
        "confidenceScore": scores,
        "confidenceCategory": [CLASSES[index].letter for index in class_indices(plddt)],
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def has_pae_json(num_residues: int, requested: bool | None) -> bool:
    """Return whether the aligned error is written as JSON. requested: None decides by length."""
    return num_residues <= MAX_RESIDUES_OF_PAE_JSON if requested is None else requested


def pae_json_blocks(pae: np.ndarray, max_pae: float) -> Iterator[str]:
    """Yield parts of the JSON text of the predicted aligned error, with one decimal.

    Args:
        pae: [N_res, N_res], angstrom; may be memory-mapped, since it is read in blocks of rows.
        max_pae: upper end of the scale, angstrom.
    """
    yield '[{"predicted_aligned_error":['
    num_rows = max(_NUMBERS_PER_BLOCK // len(pae), 1)
    for start in range(0, len(pae), num_rows):
        rows = np.round(pae[start : start + num_rows].astype(np.float64), 1).tolist()
        text = json.dumps(rows, separators=(",", ":"), allow_nan=False)
        yield ("," if start else "") + text[1:-1]
    yield f'],"max_predicted_aligned_error":{json.dumps(max_pae)}}}]'
