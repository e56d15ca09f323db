"""Waiting for other ranks: results, errors, timeouts, signals, and comparison of facts."""

import os
import signal
import socket
import threading
from datetime import timedelta

import pytest

from openfold_opt.parallel import same_facts, waiting
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.parallel.same_facts import require_same_facts
from openfold_opt.parallel.store import connect_store, open_store, read_keys
from openfold_opt.parallel.waiting import wait_interruptibly
from tests.support.gloo_ranks import free_port

SHORT = timedelta(seconds=0.6)


def fail(wait):
    raise OSError("disk full")


def block(wait):
    wait.target = "rank 5"
    wait.is_over.wait(60)


def test_results_and_errors_are_passed_on():
    assert wait_interruptibly(lambda wait: 7, who="rank 0", timeout_seconds=60) == 7
    with pytest.raises(OSError, match="disk full"):
        wait_interruptibly(fail, who="rank 0", timeout_seconds=60)


def test_messages_say_what_a_rank_waits_for(monkeypatch, capfd):
    monkeypatch.setattr(waiting, "REPORT_SECONDS", 0.1)
    threads = threading.active_count()
    with pytest.raises(TimeoutError, match=r"rank 0 waited .* for rank 5"):
        wait_interruptibly(block, who="rank 0", timeout_seconds=0.5)
    assert threading.active_count() == threads
    assert "rank 0 waits for rank 5 (0 s so far, at most 0 s)" in capfd.readouterr().err


def test_an_interrupt_ends_the_wait():
    # The background jobs of a shell start with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            wait_interruptibly(block, who="rank 0", timeout_seconds=60)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def launch(rank: int, port: int, **changes) -> LaunchInfo:
    return LaunchInfo(
        **(
            {
                "rank": rank,
                "world_size": 3,
                "local_rank": rank,
                "ranks_per_node": 3,
                "master_port": port,
            }
            | changes
        )
    )


def test_an_error_names_the_ranks_of_missing_keys():
    first = launch(0, free_port())
    store = open_store(first, timeout=SHORT)
    store.set("answer/1", "here")
    assert read_keys(store, {"answer/1": 1}, first, timeout=SHORT) == {"answer/1": b"here"}
    with pytest.raises(
        ValueError, match=rf"for rank 2 at 127.0.0.1:{first.master_port}; start all 3 ranks"
    ):
        read_keys(store, {"answer/1": 1, "answer/2": 2}, first, timeout=SHORT)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1", "Connection refused"),
        ("no-such-host.invalid", "no-such-host.invalid cannot be resolved; correct MASTER_ADDR"),
    ],
)
def test_an_unreachable_store_is_an_error(address, message):
    with pytest.raises(ValueError, match=f"rank 1 cannot reach the store at {address}:.*{message}"):
        connect_store(launch(1, free_port(), master_address=address), timeout=SHORT)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_a_store_at_an_ipv6_address():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    first = launch(0, free_port(), master_address="::1")
    store = open_store(first, timeout=timedelta(seconds=30))
    other = connect_store(
        launch(1, first.master_port, master_address="::1"), timeout=timedelta(seconds=30)
    )
    other.set("key", "value")
    assert store.get("key") == b"value"


def compare(
    facts: list[dict[str, str]],
    problems: list[str | None],
    *,
    num_missing: int = 0,
    seconds: float = 60,
) -> list[str]:
    """Compare facts on several ranks and return the error of each rank; "" without error.

    num_missing: number of additional ranks that never start.
    """
    port, errors = free_port(), [""] * len(facts)
    timeout = timedelta(seconds=seconds)
    stores = []

    def one_rank(rank: int) -> None:
        info = launch(rank, port, world_size=len(facts) + num_missing)
        store = open_store(info, timeout=timeout)
        stores.append(store)
        try:
            require_same_facts(facts[rank], store, info, timeout=timeout, problem=problems[rank])
        except ValueError as error:
            errors[rank] = str(error)

    threads = [threading.Thread(target=one_rank, args=(rank,)) for rank in range(len(facts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_ranks_with_the_same_facts_agree():
    assert compare([{"a": "1", "b": "2"}] * 3, [None] * 3) == ["", "", ""]


def test_every_rank_reports_every_difference():
    errors = compare([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"a": "1"}], [None] * 3)
    assert errors[0] == errors[1] == errors[2]
    host = socket.gethostname()
    assert f"b is 2 on rank 0 on {host}, 3 on rank 1 on {host}" in errors[0]
    assert f"b is 2 on rank 0 on {host}, nothing on rank 2 on {host}" in errors[0]
    assert "a is" not in errors[0]


@pytest.mark.parametrize("rank", [0, 2])
def test_every_rank_reports_a_problem_of_one_rank(rank):
    problems = [None] * 3
    problems[rank] = "the data directory is empty"
    errors = compare([{"a": "1"}] * 3, problems)
    assert errors == [f"rank {rank} on {socket.gethostname()}: the data directory is empty"] * 3


def test_every_rank_reports_a_missing_rank(monkeypatch):
    monkeypatch.setattr(same_facts, "ACKNOWLEDGE_SECONDS", 2.0)
    errors = compare([{"a": "1"}] * 2, [None] * 2, num_missing=1, seconds=2)
    assert errors[0] == errors[1] and "waited 2 s for rank 2 at" in errors[0]
