"""File names of chains and weights: safe on every file system, and never shared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

MAX_STEM_CHARACTERS = 120
"""Leaves space for suffixes: most file systems limit a name to 255 bytes."""
RESERVED_STEMS = ("summary", "run", "scores")
"""Stems of the files of the run itself."""


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
    """Return the stem of the files of each chain; no two chains share a file.

    The comparison ignores case, because some file systems do. Of names that give the same stem,
    the first keeps it, and the next ones get `_2`, `_3`, ...

    Args:
        names: names of the chains, in the order of the input.
        weights: names of the weights, which are part of the names of ranked files.
    """
    used = {stem.lower() for stem in RESERVED_STEMS}
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
    stems = {stem}
    if len(weights) > 1:
        ranks = range(1, len(weights) + 1)
        stems |= {ranked_stem(stem, rank, name) for rank in ranks for name in weights}
    return {name.lower() for name in stems}


def _unused(stem: str, used: set[str]) -> str:
    candidate, number = stem, 1
    while candidate.lower() in used:
        number += 1
        candidate = f"{stem}_{number}"
    return candidate
