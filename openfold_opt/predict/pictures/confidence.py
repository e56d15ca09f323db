"""Colors of residues by their confidence."""

from __future__ import annotations

import numpy as np

from openfold_opt.predict.confidence_classes import CLASSES, class_indices


def confidence_colors(plddt: np.ndarray) -> np.ndarray:
    """Return the color of each residue: float [N_res, 3], red, green and blue from 0 to 1.

    plddt: [N_res], 0..100.
    """
    return np.array([rgb(item.color) for item in CLASSES])[class_indices(plddt)]


def rgb(color: str) -> np.ndarray:
    """Return a color such as #0053D6 as float [3], 0..1."""
    return np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255.0
