"""Random streams: every draw of the loader comes from a generator named by (seed, purpose, indices).

No generator is shared between purposes, so a change to one transform never changes the draws of another, and nothing needs to
be saved to resume. The streams are ours; only the distributions are the benchmark's.
"""

import enum
import hashlib

import numpy as np


class Purpose(enum.IntEnum):
    """What a stream is for; the numbers are part of what makes a run reproducible and are never reused."""

    SAMPLE = 0
    RECYCLING = 1
    CROP = 2
    TEMPLATE_ORDER = 3
    TEMPLATE_SUBSET = 4
    CLAMPED_FAPE = 5
    MSA_ROWS = 6
    MSA_MASKING = 7


def random_stream(seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    """The generator of `purpose` (and of a pass, a sample number, ...) under a seed of 0 or more."""
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(int(purpose), *indices)))
    )


def evaluation_seed(chain_id: str) -> int:
    """Seed of a chain in evaluation, 63 bits, from its id alone: the same in every run, on every rank and at every step."""
    return int.from_bytes(hashlib.sha256(chain_id.encode()).digest()[:8], "little") >> 1
