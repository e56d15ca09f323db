"""Seeds for single purposes, derived from the one seed of a run."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, 0 <= result < 2**31: the first bits of a SHA-256."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
