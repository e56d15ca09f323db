"""Sharing of batches in a DAP group: one preparation, and errors on all ranks."""

import dataclasses
import os
import pathlib
import threading
import time

import numpy as np
import pytest

from openfold_opt.loader import node_sharing
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.node_sharing import SharedDeliveries
from openfold_opt.loader.retry_policy import LoaderError
from openfold_opt.loader.workers import WorkerStream
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import gather_objects
from tests.support.gloo_ranks import run_on_ranks


@dataclasses.dataclass(frozen=True)
class LoggingTask:
    """Creates a file for each preparation, takes longer for some positions, and fails at one."""

    log: str
    fails_at: int = -1

    def __call__(self, position):
        pathlib.Path(self.log, f"{position}-{os.getpid()}").touch()
        if position == self.fails_at:
            raise KeyError("no such chain")
        time.sleep(0.05 * (position % 3 == 0))
        return f"batch {position}", {"x": np.full(1000, position)}

    def describe(self, position):
        return f"sample {position}"


def take(context, log, window, fails_at, count):
    config = LoaderConfig(
        num_workers=2, prefetch_per_worker=4, window=window, max_attempts=1, start_method="fork"
    )

    def make():
        return WorkerStream(LoggingTask(log, fails_at), config=config)

    shared = SharedDeliveries(make, axis=context.dap, window=window, timeout_seconds=30.0)
    found, error = [], ""
    try:
        for _ in range(count):
            delivery = next(shared)
            assert (delivery.arrays["x"] == delivery.position).all()
            found.append((delivery.position, delivery.description, delivery.reorder_distance))
    except LoaderError as caught:
        error = str(caught)
    shared.close()
    return found, error


@pytest.mark.parametrize("window", [0, 6])
def test_all_ranks_receive_the_same_batches_which_are_prepared_once(tmp_path, window):
    results = run_on_ranks(take, 3, str(tmp_path), window, -1, 20, dap_size=3)
    assert results[0] == results[1] == results[2]
    found, error = results[0]
    assert len({position for position, _, _ in found}) == 20 and not error
    prepared = [int(path.name.split("-")[0]) for path in tmp_path.iterdir()]
    assert len(prepared) == len(set(prepared))


def test_error_of_the_first_rank_is_raised_on_all_ranks(tmp_path):
    for found, error in run_on_ranks(take, 2, str(tmp_path), 0, 5, 20, dap_size=2):
        assert [position for position, _, _ in found] == [0, 1, 2, 3, 4]
        assert "sample 5" in error and "no such chain" in error


def leave_early(context, log):
    shared = SharedDeliveries(
        lambda: WorkerStream(LoggingTask(log), config=LoaderConfig(num_workers=0)),
        axis=context.dap,
        window=0,
        timeout_seconds=30.0,
    )
    next(shared)
    if context.dap.rank == 0:
        shared.close()
        return ""
    with pytest.raises(LoaderError) as caught:
        next(shared)
    return str(caught.value)


def test_other_ranks_get_an_error_if_the_first_rank_is_gone(tmp_path):
    assert "is gone" in run_on_ranks(leave_early, 2, str(tmp_path), dap_size=2)[1]


def refuse(context):
    node_sharing.node_name = lambda: f"node {context.dap.rank}"
    with pytest.raises(ValueError, match="spans 2 nodes and LoaderConfig.window is 3"):
        SharedDeliveries(lambda: iter(()), axis=context.dap, window=3, timeout_seconds=1.0)
    return True


def test_group_that_spans_nodes_requires_strict_order():
    assert run_on_ranks(refuse, 2, dap_size=2) == [True, True]


def test_single_rank_receives_its_own_deliveries(tmp_path):
    with WorkerStream(
        LoggingTask(str(tmp_path)), config=LoaderConfig(num_workers=0), end=3
    ) as stream:
        shared = SharedDeliveries(
            lambda: stream, axis=AxisGroup.single("dap"), window=0, timeout_seconds=1.0
        )
        assert [delivery.position for delivery in shared] == [0, 1, 2]


def close_while_waiting(context, log):
    """Close the second rank while one of its threads waits; the first rank never sends."""

    def make():
        return WorkerStream(LoggingTask(log), config=LoaderConfig(num_workers=0))

    shared = SharedDeliveries(make, axis=context.dap, window=0, timeout_seconds=60.0)
    if context.dap.rank == 0:
        gather_objects(None, context.dap)
        shared.close()
        return ""
    caught = []

    def wait():
        try:
            next(shared)
        except LoaderError as error:
            caught.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    shared.close()
    thread.join(10)
    gather_objects(None, context.dap)
    return caught[0] if caught and not thread.is_alive() else "still waiting"


def test_close_wakes_a_waiting_thread(tmp_path):
    assert "is gone" in run_on_ranks(close_while_waiting, 2, str(tmp_path), dap_size=2)[1]
