"""Protein families: folds as strings of torsion classes, and sequences with these folds.

Each amino acid (letter) has fixed backbone torsions. They belong to one of four classes: H (helix),
E (strand), P (polyproline) and L (left-handed turn); grammar.py has the table. A fold is the string
of the classes of its residues. A letter may be replaced by another one of the same class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.synthesize.build import build_atoms, build_backbone
from data_prep.synthesize.grammar import (
    BLOCK_LETTERS,
    CLASS_LETTERS,
    LETTER_CLASS,
    TURN_LETTERS,
    backbone_torsions,
)
from openfold_opt.protein.residue_constants import atom_order

TURNS = {
    "HH": ("LEH", "LHEH", "PHE", "LLE"),
    "HE": ("LEPL", "LPPL", "PH", "HPH"),
    "EH": ("HPH", "EHPH", "LEHE", "PHPH"),
    "EE": ("ELEH", "LEHP", "LEEL", "HELP"),
}
"""Classes of the residues between two blocks (helices H, strands E).

All turns of two to four residues between the longest blocks were tried. These are some of those
whose backbones do not clash and that bring the blocks nearest to each other.
"""

BLOCK_LENGTHS = {"H": (5, 14), "E": (4, 8)}
"""Minimum and maximum number of residues of a helix and a strand."""
NUM_BLOCKS = (2, 4)
"""Minimum and maximum number of blocks of a chain."""
CHAIN_LENGTHS = (24, 36)
"""Minimum and maximum number of residues of a chain.

A chain of several long blocks exceeds the maximum and is drawn again, so most blocks are short and
begin at many different positions.
"""
MIN_CA_DISTANCE_ANGSTROM = 4.0
MIN_BACKBONE_DISTANCE_ANGSTROM = 2.6
"""Minimum distances of residues three or more apart in sequence: between CA atoms, and between any
of N, CA, C, O and CB. A hydrogen bond is 2.8 angstrom long."""
MAX_TRIES = 1000
"""Number of draws of a fold or a relative before an error."""
_BACKBONE = [atom_order[name] for name in ("N", "CA", "C", "O", "CB")]
TURN_TRIES = 20
"""Number of draws of turns for a set of blocks before other blocks are drawn.

With one draw, short blocks would be favored.
"""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """The fold that the members of a family have in common."""

    classes: str
    """Torsion class of each residue."""
    is_turn: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.classes)

    def letters(self, position: int) -> str:
        """Return the letters that keep the fold at a position."""
        table = TURN_LETTERS if self.is_turn[position] else BLOCK_LETTERS
        return table[self.classes[position]]


def draw_fold(random: np.random.Generator) -> Fold:
    """Draw two to four helices and strands with turns between them that do not clash.

    Raises:
        RuntimeError: no such fold was drawn, which means that the tables above are wrong.
    """
    for _ in range(MAX_TRIES):
        blocks = [
            str(block)
            for block in random.choice(
                list(BLOCK_LENGTHS), size=random.integers(*NUM_BLOCKS, endpoint=True)
            )
        ]
        lengths = [int(random.integers(*BLOCK_LENGTHS[block], endpoint=True)) for block in blocks]
        for _ in range(TURN_TRIES):
            fold = _join(blocks, lengths, random)
            if not CHAIN_LENGTHS[0] <= len(fold) <= CHAIN_LENGTHS[1]:
                # Other turns change the length little, so other blocks are drawn.
                break
            # The two sequences whose torsions differ most must both be free of clashes.
            if all(is_free_of_clashes(_extreme_sequence(fold, end)) for end in (False, True)):
                return fold
    raise RuntimeError(f"no fold without clashes in {MAX_TRIES} tries")


def _join(blocks: list[str], lengths: list[int], random: np.random.Generator) -> Fold:
    classes, is_turn = blocks[0] * lengths[0], [False] * lengths[0]
    for before, block, length in zip(blocks, blocks[1:], lengths[1:], strict=False):
        turn = str(random.choice(TURNS[before + block]))
        classes += turn + block * length
        is_turn += [True] * len(turn) + [False] * length
    return Fold(classes=classes, is_turn=tuple(is_turn))


def _extreme_sequence(fold: Fold, is_last: bool) -> str:
    """Return the first or the last letter at each position; classes are ordered by torsion."""
    return "".join(fold.letters(i)[-1 if is_last else 0] for i in range(len(fold)))


def is_free_of_clashes(sequence: str) -> bool:
    """Return whether residues three or more apart have at least the minimum distances."""
    ca = build_backbone(sequence, backbone_torsions(sequence))[:, 1]
    if _nearest(ca[:, None], np.ones((len(sequence), 1), bool)) < MIN_CA_DISTANCE_ANGSTROM:
        return False  # This cheap test rejects most candidates.
    positions, mask = build_atoms(sequence)
    return _nearest(positions[:, _BACKBONE], mask[:, _BACKBONE]) >= MIN_BACKBONE_DISTANCE_ANGSTROM


def _nearest(atoms: np.ndarray, mask: np.ndarray) -> float:
    """Return the smallest distance between atoms of residues three or more apart.

    Args:
        atoms: [N_res, n, 3].
        mask: [N_res, n].
    """
    residue = np.nonzero(mask)[0]
    points = atoms[mask]
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return float(distance[residue[None] - residue[:, None] >= 3].min(initial=np.inf))


def draw_sequence(fold: Fold, random: np.random.Generator) -> str:
    """Draw the first sequence of a family."""
    return "".join(str(random.choice(list(fold.letters(i)))) for i in range(len(fold)))


def mutate(sequence: str, fold: Fold, random: np.random.Generator, *, rate: float) -> str:
    """Redraw each residue with probability `rate` from the letters that keep the fold."""
    letters = list(sequence)
    for i in np.flatnonzero(random.random(len(letters)) < rate):
        letters[i] = str(random.choice(list(fold.letters(i))))
    return "".join(letters)


def draw_member(sequence: str, fold: Fold, random: np.random.Generator, *, rate: float) -> str:
    """Draw a relative of a sequence whose structure is free of clashes.

    Raises:
        RuntimeError: no such relative was drawn.
    """
    for _ in range(MAX_TRIES):
        member = mutate(sequence, fold, random, rate=rate)
        if is_free_of_clashes(member):
            return member
    raise RuntimeError(f"no relative without clashes in {MAX_TRIES} tries")


@dataclass(frozen=True, kw_only=True)
class EvolutionConfig:
    """Rates of the changes from a sequence to the rows of its alignment."""

    mutation_rates: tuple[float, float] = (0.1, 0.7)
    """The fraction of redrawn residues of a row is drawn between these."""
    drift_rate: float = 0.03
    """Probability that a residue becomes any letter, like an error of an alignment."""
    gap_rate: float = 0.03
    """Probability that a gap starts at a residue."""
    insertion_rate: float = 0.02
    """Probability that an insertion follows a residue."""
    max_run: int = 3
    """Maximum number of residues of a gap and of an insertion."""


def evolve_row(
    sequence: str, fold: Fold, random: np.random.Generator, config: EvolutionConfig
) -> str:
    """Draw a row of an a3m alignment to the sequence.

    Upper-case letters and '-' are columns; lower-case letters are insertions.
    """
    row = list(mutate(sequence, fold, random, rate=random.uniform(*config.mutation_rates)))
    alphabet = "".join(CLASS_LETTERS.values())
    for i in range(len(row)):
        if random.random() < config.drift_rate:
            row[i] = str(random.choice(sorted(set(alphabet))))
    for start in np.flatnonzero(random.random(len(row)) < config.gap_rate):
        length = int(random.integers(1, config.max_run + 1))
        row[start : start + length] = "-" * len(row[start : start + length])
    for i in np.flatnonzero(random.random(len(row)) < config.insertion_rate):
        inserted = random.choice(sorted(LETTER_CLASS), size=random.integers(1, config.max_run + 1))
        row[i] += "".join(inserted).lower()
    return "".join(row)
