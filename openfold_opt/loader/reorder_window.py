"""The order of delivery: the lowest prepared position, within a window after the first missing one.

Positions of a stream are assigned for preparation in order and become ready in any order. Let *low*
be the lowest position that is not delivered yet. A prepared position p may be delivered while
p - low <= window. So no batch is delivered more than `window` positions early or late, and with
window 0 batches are delivered in the order of the stream.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StreamState:
    """The consumed part of a stream: all positions below `low`, and those in `above`."""

    low: int = 0
    above: tuple[int, ...] = ()
    """Ascending; all larger than low."""

    def __post_init__(self) -> None:
        above = tuple(self.above)
        object.__setattr__(self, "above", above)
        if self.low < 0 or list(above) != sorted(set(above)) or (above and above[0] <= self.low):
            raise ValueError(
                f"{self} is not a valid stream state: expected 0 <= low < above, ascending"
            )

    @property
    def num_consumed(self) -> int:
        """Number of positions consumed so far."""
        return self.low + len(self.above)


class ConsumedPositions:
    """A set of consumed positions; a mutable StreamState."""

    def __init__(self, start: StreamState = StreamState()) -> None:
        self._low = start.low
        self._above = set(start.above)

    @property
    def low(self) -> int:
        """Lowest position that is not in the set."""
        return self._low

    def __contains__(self, position: int) -> bool:
        return position < self._low or position in self._above

    def add(self, position: int) -> None:
        """Add a position. Raises ValueError if it is already in the set."""
        if position in self:
            raise ValueError(
                f"position {position} of the sample stream is already consumed, "
                "expected each position to be consumed once"
            )
        self._above.add(position)
        while self._low in self._above:
            self._above.remove(self._low)
            self._low += 1

    def state(self) -> StreamState:
        return StreamState(low=self._low, above=tuple(sorted(self._above)))


class ReorderWindow:
    """Selects the next position to prepare and the next prepared position to deliver.

    Args:
        window: number of positions by which a batch may be delivered early.
        capacity: maximum number of positions that are in preparation or prepared.
        start: the part of the stream that is already consumed.
        end: the stream ends before this position, plus the number of dropped ones; None: the
            stream is endless.
    """

    def __init__(
        self,
        *,
        window: int,
        capacity: int,
        start: StreamState = StreamState(),
        end: int | None = None,
    ) -> None:
        self._window = window
        self._capacity = capacity
        self._end = end
        self._done = ConsumedPositions(start)
        self._next = start.low
        self._num_outstanding = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether every position of a finite stream is delivered or dropped."""
        return self._end is not None and self._done.low >= self._end

    def next_to_prepare(self) -> int | None:
        """Return the next position, or None if `capacity` are outstanding or all are assigned."""
        while self._next in self._done:
            self._next += 1
        if self._num_outstanding >= self._capacity or (
            self._end is not None and self._next >= self._end
        ):
            return None
        position = self._next
        self._next += 1
        self._num_outstanding += 1
        return position

    def choose(self, ready: Iterable[int]) -> int | None:
        """Return the lowest prepared position if it may be delivered, else None."""
        position = min(ready, default=None)
        return (
            position if position is not None and position - self._done.low <= self._window else None
        )

    def complete(self, position: int) -> int:
        """Mark a position as delivered; return its distance from the low position."""
        distance = position - self._done.low
        self._done.add(position)
        self._num_outstanding -= 1
        return distance

    def drop(self, position: int) -> None:
        """Mark a position as skipped. A finite stream gets a further position instead."""
        self.complete(position)
        if self._end is not None:
            self._end += 1
