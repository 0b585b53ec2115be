"""The window of background dials (docs/spec/contacts.md §2.3)."""

from __future__ import annotations

import asyncio

import pytest

from agentmesh.errors import NoRoute, Timeout
from agentmesh.identity.keys import KeyPair
from agentmesh.net.tls import TlsTransport
from agentmesh.node.window import OVERLOADED, WINDOW_MAX, DialWindow
from tests.support.records import key

LATE = Timeout("late", code=OVERLOADED)


def test_the_window_halves_with_each_sign_of_overload_and_never_closes() -> None:
    window = DialWindow()
    sizes: list[float] = []
    for n in range(8):
        window.note(LATE, n * 3.0)
        sizes.append(window.size)
    assert sizes[:4] == [WINDOW_MAX / 2, WINDOW_MAX / 4, WINDOW_MAX / 8, 1.0]
    assert sizes[-1] == 1.0
    assert window.has_room(0)
    assert not window.has_room(1)


def test_many_dials_that_fail_together_are_one_sign() -> None:
    window = DialWindow()
    for n in range(10):
        window.note(LATE, n * 0.1)
    assert window.size == WINDOW_MAX / 2


def test_success_opens_the_window_again_and_dead_peers_leave_it_alone() -> None:
    window = DialWindow()
    for n in range(8):
        window.note(LATE, n * 3.0)
    window.note(NoRoute("nobody is there"), 100.0)
    window.note(Timeout("nobody answers", code="unreached.timeout.dial"), 110.0)
    assert window.size == 1.0
    for _ in range(200):
        window.note(None, 120.0)
    assert window.size == WINDOW_MAX


async def test_a_peer_that_takes_the_connection_and_never_shakes_hands_is_a_sign_of_overload() -> None:
    mute = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    ours: KeyPair = key(1)
    transport = TlsTransport(ours, "")
    await transport.open()
    try:
        with pytest.raises(Timeout) as error:
            await transport.dial(key(2).did, f"tls:127.0.0.1:{port}", 0.2)  # pyright: ignore[reportArgumentType]
        assert error.value.code == OVERLOADED
    finally:
        await transport.aclose()
        mute.close()
