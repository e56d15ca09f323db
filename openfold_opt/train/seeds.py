"""Every random stream of a run, derived from its one seed."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, 0 <= result < 2**63: first bytes of a SHA-256."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
