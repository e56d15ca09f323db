"""The grammar by which a synthetic sequence determines its structure.

Each letter has fixed backbone and side-chain torsions. The twenty letters fall into four classes of
the Ramachandran map. Letters of one class differ by a few degrees, so a mutation within a class
moves the structure slightly, and a mutation between classes changes the fold.

    H  right-handed helix   A E K L M Q R D S
    E  extended strand      V I T Y F W
    P  polyproline          P C H
    L  left-handed turn     G N
"""

from __future__ import annotations

import numpy as np

CLASS_TORSIONS_DEGREES = {
    "H": (-63.0, -42.0),
    "E": (-118.0, 132.0),
    "P": (-72.0, 148.0),
    "L": (58.0, 42.0),
}
"""Maps a class to phi and psi in the middle of its region."""

CLASS_LETTERS = {"H": "AEKLMQRDS", "E": "VITYFW", "P": "PCH", "L": "GN"}
LETTER_CLASS = {letter: name for name, letters in CLASS_LETTERS.items() for letter in letters}

BLOCK_LETTERS = {"H": "AEKLMQR", "E": "VITYFW"}
"""Letters of helices and strands. D and S are the helical letters of turns."""
TURN_LETTERS = {"H": "DS", "E": "VT", "P": "PCH", "L": "GN"}

LETTER_SPREAD_DEGREES = 4.0
"""Letters of a class are spread evenly from this far below its middle to this far above it."""

_ROTAMERS_DEGREES = (-65.0, 180.0, 180.0, 180.0)
"""chi1 to chi4 of residues without values of their own."""


def backbone_torsions(sequence: str) -> np.ndarray:
    """Return phi and psi of every residue: float64 [N_res, 2] degrees.

    phi increases and psi decreases along the letters of a class, so that helices and strands stay
    straight.
    """
    torsions = np.empty((len(sequence), 2))
    for i, letter in enumerate(sequence):
        name = LETTER_CLASS[letter]
        letters = CLASS_LETTERS[name]
        offset = 2.0 * letters.index(letter) / max(len(letters) - 1, 1) - 1.0
        phi, psi = CLASS_TORSIONS_DEGREES[name]
        torsions[i] = phi + LETTER_SPREAD_DEGREES * offset, psi - LETTER_SPREAD_DEGREES * offset
    return torsions


def chi_torsions(sequence: str) -> np.ndarray:
    """Return chi1 to chi4 of every residue: float64 [N_res, 4] degrees.

    They are those of a common rotamer of this residue type.
    """
    chi = np.tile(np.array(_ROTAMERS_DEGREES), (len(sequence), 1))
    for i, letter in enumerate(sequence):
        if letter in "VIT":
            chi[i, 0] = 175.0 if letter == "V" else -60.0
        elif letter in "FYWH":
            chi[i, 1] = 90.0
        elif letter == "P":
            chi[i, :2] = 28.0, -36.0
        elif letter in "DN":
            chi[i, 1] = -20.0
    return chi
