"""The order of delivery: bounds, completeness and stream states."""

import random

import pytest

from openfold_opt.loader.reorder_window import ConsumedPositions, ReorderWindow, StreamState


def simulate(*, window, capacity, end, seed, start=StreamState()):
    """Deliver a stream whose batches become ready in random order; yield (position, distance)."""
    draw = random.Random(seed)
    order = ReorderWindow(window=window, capacity=capacity, start=start, end=end)
    preparing, ready = [], set()
    while not order.is_exhausted:
        while (position := order.next_to_prepare()) is not None:
            preparing.append(position)
        assert len(preparing) + len(ready) <= capacity
        position = order.choose(ready)
        if position is None or (preparing and draw.random() < 0.5):
            ready.add(preparing.pop(draw.randrange(len(preparing))))
            continue
        ready.remove(position)
        yield position, order.complete(position)


@pytest.mark.parametrize(("window", "capacity"), [(0, 1), (0, 6), (3, 6), (50, 6), (4, 30)])
def test_each_position_is_delivered_once_and_within_the_window(window, capacity):
    for seed in range(5):
        delivered = list(simulate(window=window, capacity=capacity, end=200, seed=seed))
        positions = [position for position, _ in delivered]
        assert sorted(positions) == list(range(200))
        assert all(0 <= distance <= window for _, distance in delivered)
        assert all(abs(position - index) <= window for index, position in enumerate(positions))
        assert (positions == list(range(200))) == (window == 0 or capacity == 1)


def test_slow_batch_blocks_only_positions_beyond_the_window():
    order = ReorderWindow(window=3, capacity=10)
    assert [order.next_to_prepare() for _ in range(11)] == [*range(10), None]
    ready = {1, 2, 3, 4, 5}
    for expected in (1, 2, 3):
        assert order.choose(ready) == expected
        ready.remove(expected)
        assert order.complete(expected) == expected
    assert order.choose(ready) is None
    assert order.choose(ready | {0}) == 0
    assert order.complete(0) == 0
    assert order.choose(ready) == 4


def test_resumed_stream_delivers_the_remaining_positions():
    delivered = simulate(window=8, capacity=12, end=60, seed=3)
    consumed = ConsumedPositions()
    first = []
    while len(first) < 20 or not consumed.state().above:
        first.append(next(delivered)[0])
        consumed.add(first[-1])
    state = consumed.state()
    assert state.num_consumed == len(first) < 50
    rest = [
        position for position, _ in simulate(window=8, capacity=12, end=60, seed=4, start=state)
    ]
    assert sorted(first + rest) == list(range(60))


def test_consuming_a_position_twice_is_an_error():
    consumed = ConsumedPositions(StreamState(low=4, above=(6,)))
    for position in (3, 6):
        with pytest.raises(ValueError, match=f"position {position} .* already consumed"):
            consumed.add(position)
    consumed.add(4)
    consumed.add(5)
    assert consumed.state() == StreamState(low=7)


@pytest.mark.parametrize(
    "state",
    [{"low": -1}, {"low": 3, "above": (3,)}, {"low": 1, "above": (5, 4)}, {"above": (2, 2)}],
)
def test_invalid_states_are_errors(state):
    with pytest.raises(ValueError, match="not a valid stream state"):
        StreamState(**state)
