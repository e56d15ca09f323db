"""The order of delivery: whichever prepared batch comes first in the stream, but never too far ahead of one that is missing.

Positions of a stream are handed out for preparation in their order and come back in any order. With the lowest position that is
not delivered yet called the *low* one, a prepared position p may be delivered while p - low <= window. So no batch is delivered more
than `window` places early or late, and with window 0 the order is the stream's own.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StreamState:
    """Which part of a stream is consumed: every position below `low`, and those in `above`."""

    low: int = 0
    above: tuple[int, ...] = ()
    """Ascending, all beyond low."""

    def __post_init__(self) -> None:
        above = tuple(self.above)
        object.__setattr__(self, "above", above)
        if self.low < 0 or list(above) != sorted(set(above)) or (above and above[0] <= self.low):
            raise ValueError(
                f"{self} is no state of a stream: expected 0 <= low < above, ascending"
            )

    @property
    def num_consumed(self) -> int:
        """Positions consumed so far."""
        return self.low + len(self.above)


class ConsumedPositions:
    """Grows a StreamState position by position."""

    def __init__(self, start: StreamState = StreamState()) -> None:
        self._low = start.low
        self._above = set(start.above)

    @property
    def low(self) -> int:
        """The lowest position that is not in the set."""
        return self._low

    def __contains__(self, position: int) -> bool:
        return position < self._low or position in self._above

    def add(self, position: int) -> None:
        """ValueError if it is there already: nothing is consumed twice."""
        if position in self:
            raise ValueError(f"position {position} of the sample stream is consumed already")
        self._above.add(position)
        while self._low in self._above:
            self._above.remove(self._low)
            self._low += 1

    def state(self) -> StreamState:
        return StreamState(low=self._low, above=tuple(sorted(self._above)))


class ReorderWindow:
    """Which position is to be prepared next, and which prepared one may be delivered.

    Args:
        window: how many places a batch may be delivered early.
        capacity: positions that may be in preparation or wait prepared, together.
        start: what is consumed already.
        end: the stream ends before this position; None: it has no end.
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
        """Every position of a stream with an end is delivered or dropped."""
        return self._end is not None and self._done.low >= self._end

    def next_to_prepare(self) -> int | None:
        """Hands out a position; None while `capacity` are outstanding or when all are handed out."""
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
        """The lowest prepared position if it may be delivered."""
        position = min(ready, default=None)
        return (
            position if position is not None and position - self._done.low <= self._window else None
        )

    def deliver(self, position: int) -> int:
        """Marks a position as delivered or dropped; returns how many places ahead of the low one it was."""
        distance = position - self._done.low
        self._done.add(position)
        self._num_outstanding -= 1
        return distance
