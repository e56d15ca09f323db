"""Chains for tests of pictures: helices, strands, and chains whose classes of pLDDT are known."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np

from openfold_opt.predict.chain_structure import ChainStructure

CA = 1
"""Index of CA in atom37."""


def helix(num_residues: int) -> np.ndarray:
    """Return CA positions of an alpha helix along z, [n, 3]."""
    angle = np.radians(100.0) * np.arange(num_residues)
    return np.stack(
        [2.3 * np.cos(angle), 2.3 * np.sin(angle), 1.5 * np.arange(num_residues)], axis=1
    )


def strand(num_residues: int) -> np.ndarray:
    """Return CA positions of an extended strand along x, [n, 3]."""
    number = np.arange(num_residues)
    return np.stack([3.3 * number, 0.9 * (-1.0) ** number, np.zeros(num_residues)], axis=1)


def hairpin(num_residues: int) -> np.ndarray:
    """Return CA positions of two antiparallel strands with a loop between them."""
    back = strand(num_residues)[::-1] + [0.0, 0.0, 4.8]
    loop = [[3.3 * num_residues, 2.0, 0.5], [3.3 * num_residues + 1.5, 0.0, 2.4]]
    last = [[3.3 * num_residues, -2.0, 4.3]]
    return np.concatenate([strand(num_residues), loop, last, back])


def chain(ca: np.ndarray, plddt: np.ndarray | float = 80.0, name: str = "test") -> ChainStructure:
    """Return a prediction with CA atoms only. A position of NaN is a residue without atoms."""
    num_residues = len(ca)
    has_ca = np.isfinite(ca).all(axis=1)
    positions = np.zeros((num_residues, 37, 3), np.float32)
    positions[has_ca, CA] = ca[has_ca]
    mask = np.zeros((num_residues, 37), bool)
    mask[:, CA] = has_ca
    return ChainStructure(
        name=name,
        sequence="".join("A" if known else "X" for known in has_ca),
        positions=positions,
        atom_mask=mask,
        plddt=np.broadcast_to(np.float32(plddt), num_residues).copy(),
    )


def pixels_of(png: bytes) -> np.ndarray:
    """Return the pixels of a picture, float [height, width, 3], 0..1."""
    return matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]


def part(pixels: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the pixels in a box of left, bottom, width and height, as fractions of the picture."""
    height, width = pixels.shape[:2]
    left, bottom, right, top = box[0], box[1], box[0] + box[2], box[1] + box[3]
    rows = slice(round((1.0 - top) * height), round((1.0 - bottom) * height))
    return pixels[rows, round(left * width) : round(right * width)]
