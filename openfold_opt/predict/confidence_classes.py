"""The four classes of confidence of the AlphaFold database: limits, letters and colors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ConfidenceClass:
    """A range of pLDDT."""

    letter: str
    """The category in NAME_confidence.json."""
    label: str
    lowest: float
    """The class has the pLDDT from this value on, up to the next class."""
    color: str


CLASSES = (
    ConfidenceClass(letter="D", label="Very low (< 50)", lowest=0.0, color="#FF7D45"),
    ConfidenceClass(letter="L", label="Low (50\N{EN DASH}70)", lowest=50.0, color="#FFDB13"),
    ConfidenceClass(letter="M", label="Confident (70\N{EN DASH}90)", lowest=70.0, color="#65CBF3"),
    ConfidenceClass(letter="H", label="Very high (> 90)", lowest=90.0, color="#0053D6"),
)
"""In the order of increasing confidence. report/chain_table.js has the same limits and colors."""
MAX_PLDDT = 100.0


def class_indices(plddt: np.ndarray) -> np.ndarray:
    """Return the index in CLASSES of each residue: int [N_res].

    plddt: [N_res], 0..100. It is rounded to two decimals, as in all files.
    """
    limits = [item.lowest for item in CLASSES[1:]]
    rounded = np.round(plddt.astype(np.float64), 2)
    return np.searchsorted(limits, rounded, side="right")
