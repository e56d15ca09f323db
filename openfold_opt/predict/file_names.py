"""File names of chains and weights: safe on every file system, and never shared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

MAX_STEM_CHARACTERS = 120
"""Leaves space for suffixes: most file systems limit a name to 255 bytes."""
RESERVED_STEMS = ("summary", "run", "scores", "report")
"""Stems of the files of the run itself."""
RECORD_SUFFIX = ".json"
TEMPORARY_SUFFIX = ".tmp"
STRUCTURE, PDB, CONFIDENCE = "structure", "pdb", "confidence"
PAE, PAE_JSON, DISTOGRAM = "pae", "pae_json", "distogram"
SINGLE, PAIR = "single", "pair"
RELAXED, RELAXED_PDB = "relaxed", "relaxed_pdb"
PICTURE, SUPERPOSITION = "picture", "superposition"
"""Kinds of files of a chain."""
SUFFIXES = {
    STRUCTURE: ".cif",
    PDB: ".pdb",
    CONFIDENCE: "_confidence.json",
    PAE: "_pae.npz",
    PAE_JSON: "_predicted_aligned_error.json",
    DISTOGRAM: "_distogram.npy",
    SINGLE: "_single.npy",
    PAIR: "_pair.npy",
    RELAXED: "_relaxed.cif",
    RELAXED_PDB: "_relaxed.pdb",
    PICTURE: ".png",
    SUPERPOSITION: "_superposed.png",
}
"""End of the name of each kind of file."""
_EXTENSIONS = {
    longer.removesuffix(shorter)
    for longer in SUFFIXES.values()
    for shorter in (RECORD_SUFFIX, *SUFFIXES.values())
    if longer.endswith(shorter) and longer != shorter
}
KINDS_OF_THE_BEST = (STRUCTURE, PDB, RELAXED, RELAXED_PDB, PICTURE)
"""With several weights, the best file of these kinds has a copy without rank in its name."""


def safe_stem(name: str) -> str:
    """Return a file name without suffix that is similar to a name.

    Letters, digits, `.`, `_`, `+` and `-` stay; every run of other characters becomes `_`.
    """
    stem = re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._-")
    return stem[:MAX_STEM_CHARACTERS].rstrip("._-") or "chain"


def weights_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return a short unique name for each weights file or run directory, from its file name."""
    names: list[str] = []
    for path in paths:
        resolved = path.resolve()
        # A run directory may be called v1.5; only files have a suffix to remove.
        stem = safe_stem(resolved.name if resolved.is_dir() else resolved.stem)
        stem = stem.removeprefix("params_")
        names.append(_unused(stem, {name.lower() for name in names}))
    return tuple(names)


def chain_stems(names: Sequence[str], weights: Sequence[str]) -> tuple[str, ...]:
    """Return the stem of the files of each chain; no two chains share a file of any kind.

    The comparison ignores case, because some file systems do. Of names that give the same stem,
    the first keeps it, and the next ones get `_2`, `_3`, ...

    Args:
        names: names of the chains, in the order of the input.
        weights: names of the weights, which are part of the names of ranked files.
    """
    used = set(RESERVED_STEMS)
    stems = []
    for name in names:
        stem, number = safe_stem(name), 1
        while used & (stems_of_chain := _stems_of_chain(stem, weights)):
            number += 1
            stem = f"{safe_stem(name)}_{number}"
        used |= stems_of_chain
        stems.append(stem)
    return tuple(stems)


def ranked_stem(stem: str, rank: int, weights: str) -> str:
    """Return the stem of a file of one of several weights. rank: 1 is the best."""
    return f"{stem}_rank_{rank}_{weights}"


def _stems_of_chain(stem: str, weights: Sequence[str]) -> set[str]:
    """Return the stems, in lower case, that no other chain may have.

    Two chains share a file if their stems are equal, or if the suffixes of two kinds of files end
    equally and the rest of one suffix makes the stems equal: `x` has x_confidence.json, which is
    the record of a chain `x_confidence`.
    """
    stems = {stem}
    if len(weights) > 1:
        ranks = range(1, len(weights) + 1)
        stems |= {ranked_stem(stem, rank, name) for rank in ranks for name in weights}
    return {(name + extension).lower() for name in stems for extension in ("", *_EXTENSIONS)}


def _unused(stem: str, used: set[str]) -> str:
    candidate, number = stem, 1
    while candidate.lower() in used:
        number += 1
        candidate = f"{stem}_{number}"
    return candidate
