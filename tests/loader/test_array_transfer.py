"""Array transfer: values, memory, and closed channels."""

import os
import socket

import numpy as np
import pytest

from openfold_opt.loader.array_transfer import channel_pair, receive_arrays, send_arrays


@pytest.fixture
def channel():
    ends = channel_pair()
    yield ends
    for end in ends:
        end.close()


def test_received_arrays_equal_sent_arrays(channel):
    arrays = {
        "floats": np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.float32),
        "strided": np.arange(20, dtype=np.uint8)[::3],
    }
    send_arrays(channel[0], ("label", 5), arrays)
    message, received = receive_arrays(channel[1])
    assert message == ("label", 5)
    assert list(received) == list(arrays)
    for name, array in arrays.items():
        assert received[name].dtype == array.dtype
        assert np.array_equal(received[name], array)
    received["floats"][:] = 1


def test_messages_can_be_received_after_the_sender_has_closed(channel):
    sender, receiver = channel
    for number in range(3):
        send_arrays(sender, number, {"x": np.full(100_000, number)})
    sender.close()
    for number in range(3):
        message, arrays = receive_arrays(receiver)
        assert message == number
        assert (arrays["x"] == number).all()
    with pytest.raises(EOFError):
        receive_arrays(receiver)


def test_descriptors_are_released(channel):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    send_arrays(channel[0], None, {"x": np.zeros(10)})
    receive_arrays(channel[1])
    before = descriptors()
    for _ in range(50):
        send_arrays(channel[0], None, {"x": np.zeros(10)})
        receive_arrays(channel[1])
    assert descriptors() == before


def test_receive_raises_timeout_error(channel):
    channel[1].settimeout(0.05)
    with pytest.raises(TimeoutError):
        receive_arrays(channel[1])


def test_too_long_header_is_an_error(channel):
    with pytest.raises(ValueError, match="make the message smaller or send its data as arrays"):
        send_arrays(channel[0], "x" * 200_000, {})
    assert channel[0].type == socket.SOCK_SEQPACKET


def test_messages_of_a_sender_that_closed_with_unread_input_are_received(channel):
    sender, receiver = channel
    receiver.send(b"unread")
    send_arrays(sender, "last", {"x": np.ones(3)})
    sender.close()
    assert receive_arrays(receiver)[0] == "last"
    with pytest.raises(EOFError):
        receive_arrays(receiver)
