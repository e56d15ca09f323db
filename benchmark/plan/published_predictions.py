"""Published times and memory of predictions, to check models of them.

Sources are named with each table. All were read on 2026-11-29.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Model = Literal["alphafold2", "alphafold3"]
Term = Literal["overhead", "work", "unaligned cubic", "quadratic", "cubic"]
"""A part of the time with one fitted number:

    overhead         seconds, independent of the length
    work             all matrix work
    unaligned cubic  the cubic work of lengths that are no multiple of 8, in addition
    quadratic        matrix work that is not cubic
    cubic            matrix work of triangle multiplication and triangle attention
"""


@dataclass(frozen=True, kw_only=True)
class PublishedTimes:
    """Seconds of predictions by length on one kind of GPU."""

    name: str
    gpu: str
    model: Model
    seconds: Mapping[int, float]
    """Residues or tokens -> seconds."""
    terms: tuple[Term, ...]
    """What is fitted."""
    source: str
    fit_lengths: tuple[int, int] | None = None
    """Shortest and longest length of the fit; None: all."""
    note: str = ""
    """Why times deviate, if it is known."""

    def fitted(self) -> dict[int, float]:
        """Return the times of the fit."""
        low, high = self.fit_lengths or (min(self.seconds), max(self.seconds))
        return {n: seconds for n, seconds in self.seconds.items() if low <= n <= high}

    def longer(self) -> dict[int, float]:
        """Return the times of lengths above those of the fit, which it has not seen."""
        high = max(self.fitted())
        return {n: seconds for n, seconds in self.seconds.items() if n > high}


ALPHAFOLD2_A100 = PublishedTimes(
    name="AlphaFold2",
    gpu="1 x A100",
    model="alphafold2",
    seconds={
        100: 4.9,
        200: 7.7,
        300: 13,
        400: 18,
        500: 29,
        600: 36,
        700: 53,
        800: 60,
        900: 91,
        1000: 96,
        1100: 140,
        1500: 280,
        2000: 450,
        2500: 969,
        3000: 1240,
        3500: 2465,
        4000: 5660,
        4500: 12475,
        5000: 18824,
    },
    terms=("overhead", "work", "unaligned cubic"),
    fit_lengths=(200, 3000),
    source="google-deepmind/alphafold, README: one model, without MSA and compile time",
    note=(
        "unified memory: float32 pairs take 4.6 GB at 3,000 residues, and the peak is about 13 "
        "times as large (60 GB, hpc-ai.com): 82 GB at 3,500, 107 GB at 4,000"
    ),
)
PUBLISHED_TIMES = (
    ALPHAFOLD2_A100,
    PublishedTimes(
        name="AlphaFold3",
        gpu="1 x A100 80 GB",
        model="alphafold3",
        seconds={1024: 62, 2048: 275, 3072: 703, 4096: 1434, 5120: 2547},
        terms=("quadratic", "cubic"),
        source="google-deepmind/alphafold3, docs/performance.md",
    ),
    PublishedTimes(
        name="AlphaFold3",
        gpu="1 x H100 80 GB",
        model="alphafold3",
        seconds={1024: 34, 2048: 144, 3072: 367, 4096: 774, 5120: 1416},
        terms=("quadratic", "cubic"),
        source="google-deepmind/alphafold3, docs/performance.md",
    ),
    PublishedTimes(
        name="AlphaFold3",
        gpu="16 x A100 40 GB, GPU-seconds",
        model="alphafold3",
        seconds={1024: 352, 2048: 1136, 3072: 2016, 4096: 3648, 5120: 5552},
        terms=("quadratic", "cubic"),
        source="google-deepmind/alphafold3, docs/performance.md",
    ),
    PublishedTimes(
        name="NVIDIA NIM OpenFold2 1.0.0",
        gpu="1 x H100 80 GB",
        model="alphafold2",
        seconds={98: 5.31, 304: 10.2, 562: 19.6, 914: 41.2},
        terms=("overhead", "work"),
        source="docs.nvidia.com, performance of the OpenFold2 NIM",
        note="the number of models of a request is not stated",
    ),
    PublishedTimes(
        name="NVIDIA NIM OpenFold2 1.1.0",
        gpu="1 x H100 80 GB",
        model="alphafold2",
        seconds={98: 4.33, 304: 7.73, 562: 19.36, 914: 41.19},
        terms=("overhead", "work"),
        source="docs.nvidia.com, performance of the OpenFold2 NIM",
        note="only the two shortest lengths are faster than in 1.0.0, so one rate fits worse",
    ),
    PublishedTimes(
        name="Protenix",
        gpu="1 x A100 80 GB",
        model="alphafold3",
        seconds={500: 17, 1000: 59, 2000: 226, 3000: 935, 4000: 1424},
        terms=("quadratic", "cubic"),
        fit_lengths=(500, 2000),
        source="Protenix, docs/training_inference_instructions.md",
        note="from 3,000 tokens on it computes in chunks: its memory falls from 66.6 to 60.8 GB",
    ),
)


@dataclass(frozen=True, kw_only=True)
class PublishedMemory:
    """Two published peaks of one program, of which the first predicts the second.

    The peak is a constant and a multiple of U, the bytes of the pair representation.
    """

    name: str
    known: Mapping[int, float]
    """Residues -> GB. With one entry, the constant is 0."""
    known_bytes: int
    """Bytes of an element."""
    length: int
    """Residues whose peak is predicted."""
    length_bytes: int
    found: float
    """Published peak in GB, or the memory of the GPU if this is the longest chain."""
    source: str


PUBLISHED_MEMORY = (
    PublishedMemory(
        name="FastFold, 1 x A100 80 GB: longest chain in float32 from bf16",
        known={10000: 61.0},
        known_bytes=2,
        length=8000,
        length_bytes=4,
        found=80.0,
        source="FastFold, README",
    ),
    PublishedMemory(
        name="Protenix, 1 x A100 80 GB",
        known={500: 6.1, 1000: 18.2},
        known_bytes=4,
        length=2000,
        length_bytes=4,
        found=66.6,
        source="Protenix, docs/training_inference_instructions.md",
    ),
)
