"""The global stream of training samples: chain and seed of each sample number, without state.

The chains are those of the training set or, with a given probability, of a distillation set.

The stream does not depend on the number of ranks. Optimizer steps count from 1, samples from 0.
Step s uses the samples (s - 1) * G .. s * G - 1, where G = data-parallel size x local batch size x
accumulation. Within the step, `slot` numbers the samples by micro-batch, then rank, then index in
the local batch. In a run with several phases, steps and samples count from the start of the phase
(StreamOrigin).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openfold_opt.loader.random_streams import Purpose, random_stream

FIRST_RESERVE_SAMPLE = 2**48
"""Samples from this number on replace skipped ones in a phase with a fixed number of samples."""


@dataclass(frozen=True, kw_only=True)
class StreamOrigin:
    """The part of the global stream that a phase of a run uses."""

    steps_before: int = 0
    """Optimizer steps of the run before the phase."""
    first_sample: int = 0
    """Global number of the first sample of the phase."""
    num_steps: int | None = None
    """Steps of the phase. Its samples are then used completely, none out of order across its end.
    None: the stream is endless."""


@dataclass(frozen=True, kw_only=True)
class SampleStream:
    """The part of the global stream that one data-parallel rank reads, in one phase of a run.

    A position numbers the micro-batches of this rank from 0, the start of the phase.
    """

    rank: int = 0
    size: int = 1
    """Number of data-parallel ranks; the ranks of one DAP group share a stream."""
    local_batch_size: int = 1
    accumulation: int = 1
    origin: StreamOrigin = StreamOrigin()

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size or self.local_batch_size < 1 or self.accumulation < 1:
            raise ValueError(
                f"{self} is not valid: expected 0 <= rank < size, "
                "local_batch_size and accumulation at least 1"
            )

    @property
    def global_batch_size(self) -> int:
        """Number of samples per optimizer step."""
        return self.size * self.local_batch_size * self.accumulation

    @property
    def num_positions(self) -> int | None:
        """Number of positions of the phase; None: the stream is endless."""
        num_steps = self.origin.num_steps
        return None if num_steps is None else num_steps * self.accumulation

    def slots(self, micro: int) -> range:
        """Return the global batch slots of micro-batch 0 .. accumulation - 1 of this rank."""
        first = (micro * self.size + self.rank) * self.local_batch_size
        return range(first, first + self.local_batch_size)

    def step_of(self, position: int) -> tuple[int, int]:
        """Return the step of the run, from 1, and the micro-batch, from 0, at a position."""
        num_steps, micro = divmod(position, self.accumulation)
        return self.origin.steps_before + num_steps + 1, micro

    def sample_numbers(self, position: int) -> list[int]:
        """Return the global sample numbers, from 0, of the micro-batch at a position.

        Positions after the end of the phase replace skipped ones. Their samples belong to no phase.
        """
        num_steps, micro = divmod(position, self.accumulation)
        first = self.origin.first_sample
        if self.origin.num_steps is not None and num_steps >= self.origin.num_steps:
            first += FIRST_RESERVE_SAMPLE
        return [first + num_steps * self.global_batch_size + slot for slot in self.slots(micro)]


TRAINING_SET, DISTILLATION_SET = 0, 1
"""Numbers of the data sets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSample:
    """What determines a training sample."""

    data_set: int
    """TRAINING_SET or DISTILLATION_SET."""
    chain_id: str
    seed: int
    """63 bits; it determines every draw of the sample."""


class WeightedChains:
    """The chains of a data set with their sampling weights.

    Args:
        chain_ids: in canonical order.
        weights: positive sampling weight of each chain; need not be normalized.

    Raises:
        ValueError: there are no chains, the numbers of chains and weights differ, or a weight is
            not finite and positive.
    """

    def __init__(self, chain_ids: Sequence[str], weights: Sequence[float]) -> None:
        self.chain_ids = tuple(chain_ids)
        values = np.asarray(weights, dtype=np.float64)
        if not self.chain_ids:
            raise ValueError(
                "the training set has no chains, expected at least one; "
                "check the selection by date and the training filter"
            )
        if values.shape != (len(self.chain_ids),):
            raise ValueError(
                f"found {values.size} weights for {len(self.chain_ids)} chains, expected one each"
            )
        if not (np.isfinite(values).all() and (values > 0).all()):
            first = int(np.flatnonzero(~(np.isfinite(values) & (values > 0)))[0])
            raise ValueError(
                f"weight of chain {self.chain_ids[first]} is {values[first]}, "
                "expected a finite positive number"
            )
        self._cumulative = np.cumsum(values / values.sum())

    def choose(self, position: float) -> str:
        """Return the chain at a position, 0 to 1, of the cumulative weights."""
        index = int(np.searchsorted(self._cumulative, position, side="right"))
        # Rounding may leave the last cumulative sum below 1.
        return self.chain_ids[min(index, len(self.chain_ids) - 1)]


class TrainingSampler:
    """Weighted sampling with replacement (AlphaFold2 supplement 1.2.5), without state.

    A sample is a pure function of its global sample number. A distillation set does not change the
    draws of the samples that remain in the training set.

    Args:
        chain_ids: chains of the training set, in canonical order.
        weights: positive sampling weight of each chain; need not be normalized.
        seed: seed of the run, 0 or more.
        distilled: chains of the distillation set; None: there is none.
        distillation_probability: probability that a sample is of the distillation set.

    Raises:
        ValueError: chains or weights are not valid (see WeightedChains), or the probability is
            above 0 without a distillation set or 0 with one.
    """

    def __init__(
        self,
        chain_ids: Sequence[str],
        weights: Sequence[float],
        *,
        seed: int,
        distilled: WeightedChains | None = None,
        distillation_probability: float = 0.0,
    ) -> None:
        self.seed = seed
        self._chains = WeightedChains(chain_ids, weights)
        self._distilled = distilled
        self._distillation_probability = distillation_probability
        if (distilled is None) != (distillation_probability == 0.0):
            found = "no distillation set" if distilled is None else "a distillation set"
            raise ValueError(
                f"found {found} and distillation_probability={distillation_probability}; expected "
                "a probability above 0 with a distillation set, and 0 without one"
            )

    @property
    def has_distillation(self) -> bool:
        """Whether samples are of two data sets."""
        return self._distilled is not None

    def sample(self, number: int) -> TrainingSample:
        """Return global sample `number`, counted from 0."""
        rng = random_stream(self.seed, Purpose.SAMPLE, number)
        data_set, chains = TRAINING_SET, self._chains
        if self._distilled is not None and self._is_distilled(number):
            data_set, chains = DISTILLATION_SET, self._distilled
        chain_id = chains.choose(rng.random())
        return TrainingSample(
            data_set=data_set, chain_id=chain_id, seed=int(rng.integers(0, 2**63))
        )

    def _is_distilled(self, number: int) -> bool:
        draw = random_stream(self.seed, Purpose.DATA_SET, number).random()
        return draw < self._distillation_probability


def num_recycling_iterations(seed: int, step: int, *, max_recycling_iterations: int = 3) -> int:
    """Return the number of recycling iterations of a step, from 1. It is the same on all ranks.

    The numbers are shuffled blocks of 0 .. max_recycling_iterations: every block of
    max_recycling_iterations + 1 steps has each number once.
    """
    # Blocks count from 0: their number is part of the random key, which determines the draws.
    block, index = divmod(step - 1, max_recycling_iterations + 1)
    return int(
        random_stream(seed, Purpose.RECYCLING, block).permutation(max_recycling_iterations + 1)[
            index
        ]
    )
