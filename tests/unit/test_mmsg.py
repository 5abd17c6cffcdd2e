"""Rings of datagrams over real sockets of the local host."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from router_agent.mmsg import IOVEC, MMSGHDR, SOCKADDR_IN, SOCKADDR_IN6, ReceiveRing, SendRing


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        yield left, right


def test_layouts_have_the_sizes_of_the_kernel() -> None:
    assert (IOVEC.itemsize, MMSGHDR.itemsize) == (16, 64)
    assert (SOCKADDR_IN.itemsize, SOCKADDR_IN6.itemsize) == (16, 28)


def test_payloads_and_lengths_arrive_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    sender = SendRing(pair[0], 8, 32)
    receiver = ReceiveRing(pair[1], 16, 32)
    sender.data[:] = np.arange(8, dtype=np.uint8)[:, None]
    sender.lengths[:] = np.arange(1, 9)
    assert sender.send(2, 5) == 5
    assert receiver.receive() == 5
    assert receiver.lengths[:5].tolist() == [3, 4, 5, 6, 7]
    assert [int(receiver.data[i, receiver.lengths[i] - 1]) for i in range(5)] == [2, 3, 4, 5, 6]
    assert not receiver.truncated[:5].any()
    assert receiver.receive() == 0


def test_a_long_datagram_is_cut_and_marked(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver = ReceiveRing(pair[1], 4, 8)
    pair[0].send(b"short")
    pair[0].send(b"much too long for it")
    pair[0].send(b"12345678")
    assert receiver.receive(socket.MSG_DONTWAIT | socket.MSG_TRUNC) == 3
    assert receiver.truncated[:3].tolist() == [False, True, False]
    assert receiver.lengths[:3].tolist() == [5, 20, 8]
    assert receiver.data[1].tobytes() == b"much too"


def test_a_ring_is_reused_without_growing_old(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = SendRing(pair[0], 3, 16), ReceiveRing(pair[1], 2, 16)
    for round_ in range(50):
        sender.data[:, 0] = round_
        sender.lengths[:] = (1, 16, 7)
        assert sender.send(0, 3) == 3
        assert [receiver.receive(), receiver.lengths[:2].tolist()] == [2, [1, 16]]
        assert [receiver.receive(), receiver.lengths[0], receiver.data[0, 0]] == [1, 7, round_]


@pytest.mark.parametrize(
    ("family", "host", "layout"),
    [(socket.AF_INET, "127.0.0.1", SOCKADDR_IN), (socket.AF_INET6, "::1", SOCKADDR_IN6)],
    ids=["ipv4", "ipv6"],
)
def test_destinations_and_sources_are_columns(
    family: socket.AddressFamily, host: str, layout: np.dtype[np.void]
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as two:
        one.bind((host, 0))
        two.bind((host, 0))
        sender = SendRing(one, 4, 8, address=layout)
        sender.destinations["family"] = family
        sender.destinations["address"] = np.frombuffer(socket.inet_pton(family, host), np.uint8)
        sender.destinations["port"] = two.getsockname()[1]
        receiver = ReceiveRing(two, 4, 8, address=layout)
        assert sender.send(0, 4) == 4
        assert receiver.receive(0) == 4
        assert receiver.sources["family"].tolist() == [family] * 4
        assert set(receiver.sources["port"].tolist()) == {one.getsockname()[1]}
        assert socket.inet_ntop(family, receiver.sources["address"][3].tobytes()) == host


def test_a_full_peer_is_no_error_and_counts_what_went(pair: tuple[socket.socket, socket.socket]) -> None:
    sender = SendRing(pair[0], 4096, 64)
    taken = sender.send(0, 4096)
    assert 0 < taken < 4096
    assert sender.send(taken, 4096 - taken) == 0
    receiver = ReceiveRing(pair[1], 4096, 64)
    assert receiver.receive() == taken


def test_errors_carry_their_number(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    with pytest.raises(OSError, match="sendmmsg") as refused:
        SendRing(pair[0], 1, 1).send(0, 1)
    assert refused.value.errno == errno.ECONNREFUSED
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        pytest.raises(OSError, match="recvmmsg"),
    ):
        ReceiveRing(stream, 1, 1).receive()


def test_nonsense_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        ReceiveRing(pair[0], 0, 10)
    ring = SendRing(pair[0], 4, 10)
    with pytest.raises(ValueError, match="ring of 4"):
        ring.send(2, 3)
    with pytest.raises(TypeError, match="address"):
        _ = ring.destinations
