"""The store: keys, addresses and errors."""

import socket
from datetime import timedelta

import pytest

from openfold_opt.parallel.store import connect_store, open_store, read_keys
from tests.support.gloo_ranks import free_port, launch_info

SHORT = timedelta(seconds=0.6)


def test_an_error_names_the_ranks_of_missing_keys():
    first = launch_info(0, free_port())
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
        connect_store(launch_info(1, free_port(), master_address=address), timeout=SHORT)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_a_store_at_an_ipv6_address():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    first = launch_info(0, free_port(), master_address="::1")
    store = open_store(first, timeout=timedelta(seconds=30))
    other = connect_store(
        launch_info(1, first.master_port, master_address="::1"), timeout=timedelta(seconds=30)
    )
    other.set("key", "value")
    assert store.get("key") == b"value"
