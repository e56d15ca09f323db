"""Which chain with which seed is where in the training stream, and who evaluates what: arithmetic, no state.

The global stream of samples does not depend on the number of ranks. Optimizer step s takes samples s * G .. (s + 1) * G - 1,
G = data-parallel size x local batch x accumulation; within the step, `slot` counts micro-batch, then rank, then place in the
local batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openfold_opt.loader.random_streams import Purpose, random_stream


@dataclass(frozen=True, kw_only=True)
class SampleStream:
    """The part of the global stream that one data-parallel rank takes."""

    rank: int = 0
    size: int = 1
    """Number of data-parallel ranks; the ranks of one dap group share a stream."""
    local_batch_size: int = 1
    accumulation: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size or self.local_batch_size < 1 or self.accumulation < 1:
            raise ValueError(
                f"{self} is impossible: expected 0 <= rank < size, local_batch_size and accumulation at least 1"
            )

    @property
    def global_batch_size(self) -> int:
        """Samples of an optimizer step."""
        return self.size * self.local_batch_size * self.accumulation

    def slots(self, micro: int) -> range:
        """Slots in the global batch of this rank's micro-batch `micro` (0 .. accumulation - 1)."""
        first = (micro * self.size + self.rank) * self.local_batch_size
        return range(first, first + self.local_batch_size)

    def step_of(self, position: int) -> tuple[int, int]:
        """(step, micro) of the rank's micro-batch number `position`, both counted from 0."""
        return divmod(position, self.accumulation)


class TrainingSampler:
    """Weighted sampling with replacement (AlphaFold2 supplement 1.2.5) as a pure function of the global sample number.

    Args:
        chain_ids: chains of the training set, in canonical order.
        weights: positive sampling weight of each, of any sum.
        seed: of the run, 0 or more.

    Raises:
        ValueError: no chains, another number of weights than of chains, or a weight that is not finite and positive.
    """

    def __init__(self, chain_ids: Sequence[str], weights: Sequence[float], *, seed: int) -> None:
        self.chain_ids = tuple(chain_ids)
        self.seed = seed
        values = np.asarray(weights, dtype=np.float64)
        if not self.chain_ids:
            raise ValueError(
                "the training set has no chains; check the selection by date and the training filter"
            )
        if values.shape != (len(self.chain_ids),):
            raise ValueError(
                f"found {values.size} weights for {len(self.chain_ids)} chains, expected one each"
            )
        if not (np.isfinite(values).all() and (values > 0).all()):
            bad = int(np.flatnonzero(~(np.isfinite(values) & (values > 0)))[0])
            raise ValueError(
                f"weight of chain {self.chain_ids[bad]} is {values[bad]}, expected a finite positive number"
            )
        self._cumulative = np.cumsum(values / values.sum())

    def sample(self, number: int) -> tuple[str, int]:
        """Chain id and seed (63 bits) of the global sample `number`, counted from 0."""
        rng = random_stream(self.seed, Purpose.SAMPLE, number)
        place = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        # The last sum may be a rounding error below 1.
        return self.chain_ids[min(place, len(self.chain_ids) - 1)], int(rng.integers(0, 2**63))


def num_recycling_iterations(seed: int, step: int, *, max_recycling_iterations: int = 3) -> int:
    """Extra recycling passes of an optimizer step, the same on all ranks: shuffled blocks of 0 .. max_recycling_iterations.

    Any max_recycling_iterations + 1 steps from a multiple of that number on have each count once.
    """
    block, place = divmod(step, max_recycling_iterations + 1)
    return int(
        random_stream(seed, Purpose.RECYCLING, block).permutation(max_recycling_iterations + 1)[
            place
        ]
    )
