"""The four classes of confidence of the AlphaFold database, with their colors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ConfidenceClass:
    """A range of pLDDT with its color."""

    label: str
    above: float
    """The class has the pLDDT above this value, up to the next class."""
    color: str


CLASSES = (
    ConfidenceClass(label="Very low (< 50)", above=-1.0, color="#FF7D45"),
    ConfidenceClass(label="Low (50\N{EN DASH}70)", above=50.0, color="#FFDB13"),
    ConfidenceClass(label="Confident (70\N{EN DASH}90)", above=70.0, color="#65CBF3"),
    ConfidenceClass(label="Very high (> 90)", above=90.0, color="#0053D6"),
)
"""In the order of increasing confidence."""
MAX_PLDDT = 100.0


def confidence_colors(plddt: np.ndarray) -> np.ndarray:
    """Return the color of each residue: float [N_res, 3], red, green and blue from 0 to 1.

    plddt: [N_res], 0..100.
    """
    limits = [item.above for item in CLASSES[1:]]
    colors = np.array([rgb(item.color) for item in CLASSES])
    # With side="left", a value equal to a limit is in the lower class.
    return colors[np.searchsorted(limits, plddt, side="left")]


def rgb(color: str) -> np.ndarray:
    """Return a color such as #0053D6 as float [3], 0..1."""
    return np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255.0
