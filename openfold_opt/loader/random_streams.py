"""Random streams: every draw of the loader uses a generator derived from (seed, purpose, indices).

No generator is shared between purposes, so a change to one transform never changes the draws of
another, and no generator state needs to be saved to resume. The distributions are those of the
MLCommons reference; the random streams are not.
"""

import enum
import hashlib

import numpy as np


class Purpose(enum.IntEnum):
    """Purpose of a stream. The numbers determine the draws: never change or reuse one."""

    SAMPLE = 0
    RECYCLING = 1
    CROP = 2
    TEMPLATE_ORDER = 3
    TEMPLATE_SUBSET = 4
    CLAMPED_FAPE = 5
    MSA_ROWS = 6
    MSA_MASKING = 7
    DATA_SET = 8
    DISTILLATION_ROWS = 9


def random_stream(seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    """Return the generator for a purpose and indices (a pass, a sample number, ...).

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(int(purpose), *indices)))
    )


def evaluation_seed(chain_id: str) -> int:
    """Return the evaluation seed of a chain, 63 bits.

    It depends only on the id: it is the same in every run, on every rank and at every step.
    """
    return int.from_bytes(hashlib.sha256(chain_id.encode()).digest()[:8], "little") >> 1


def prediction_seed(name: str, *, seed: int) -> int:
    """Return the seed of a chain in a prediction, 63 bits. It depends only on name and seed.

    Seed 0 gives the evaluation seed of the chain.

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    # A name has no NUL, so that no other name and seed give the same text.
    return evaluation_seed(f"{name}\0{seed}" if seed else name)
