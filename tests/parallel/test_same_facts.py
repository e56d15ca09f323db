"""Comparison of facts between ranks."""

import socket
import threading
from datetime import timedelta

import pytest

from openfold_opt.parallel import same_facts
from openfold_opt.parallel.same_facts import require_same_facts
from openfold_opt.parallel.store import open_store
from tests.support.gloo_ranks import free_port, launch_info


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
        info = launch_info(rank, port, world_size=len(facts) + num_missing)
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
