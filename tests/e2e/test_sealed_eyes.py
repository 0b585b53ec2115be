"""A third node of the mesh sees ciphertext only: all its files and all its memory are searched for what others say.

Three daemons: amy lives on the first, bob on the second, nobody on the third. That the search finds what is there is shown on the
recipient's node.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, Mesh, sees_agent, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

_MAPS = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw")
_PIECE_BYTES = 1 << 20


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon, Daemon]]:
    mesh = Mesh(tmp_path_factory.mktemp("eyes"))
    try:
        a = mesh.node("a")
        b = mesh.node("b", seeds=(a.seed(),))
        c = mesh.node("c", seeds=(a.seed(), b.seed()))
        for daemon, name in ((a, "amy"), (b, "bob")):
            daemon.post("/api/v1/agents", {"url": "mailbox:", "name": name})
        for daemon in (a, b, c):
            for name in ("amy", "bob"):
                wait_until(lambda d=daemon, n=name: sees_agent(d, n), f"{daemon.name} to know {name}")
        yield a, b, c
    finally:
        mesh.aclose()


def on_disk(daemon: Daemon, marker: bytes) -> list[str]:
    """Return the files of a home that hold some bytes."""
    files = [path for path in daemon.home.path.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path.relative_to(daemon.home.path)) for path in files if marker in path.read_bytes()]


def in_memory(daemon: Daemon, marker: bytes) -> bool:
    """Say whether the writable memory of a daemon holds some bytes; skips where nobody may look."""
    process = Path("/proc") / str(daemon.pid)
    try:
        areas = [(int(m[1], 16), int(m[2], 16)) for m in _MAPS.finditer((process / "maps").read_text())]
        with (process / "mem").open("rb", buffering=0) as memory:
            for begin, end in areas:
                if _in_area(memory.fileno(), begin, end, marker):
                    return True
    except (PermissionError, FileNotFoundError) as error:
        pytest.skip(f"the memory of other processes is closed here: {error}")
    return False


def _in_area(fd: int, begin: int, end: int, marker: bytes) -> bool:
    tail = b""
    while begin < end:
        try:
            piece = os.pread(fd, min(_PIECE_BYTES, end - begin), begin)
        except OSError:
            return False  # an area that cannot be read, such as that of a device
        if not piece:
            return False
        if marker in tail + piece:
            return True
        tail = piece[-len(marker) :]
        begin += len(piece)
    return False


def read(daemon: Daemon, agent: str, marker: bytes) -> bool:
    messages = daemon.get(f"/api/v1/inbox/{agent}?peek=true")["messages"]
    return any(marker.decode() in str(one["data"]) for one in messages)


def test_a_third_node_holds_nothing_of_what_two_agents_or_a_group_say(three: tuple[Daemon, Daemon, Daemon]) -> None:
    a, b, c = three
    a.ask("PUT", "/api/v1/groups/team", {"members": ["amy", "bob"]})
    for to in ("bob", "group:team"):
        marker = f"plain-{secrets.token_hex(16)}".encode()
        a.post("/api/v1/messages", {"to": to, "sender": "amy", "text": f"hear {marker.decode()} only"})
        wait_until(lambda m=marker: read(b, "bob", m), f"bob to have what was sent to {to}")
        assert on_disk(b, marker), "the search finds what is there"
        assert on_disk(c, marker) == []
        assert in_memory(b, marker), "the search finds what is there"
        assert not in_memory(c, marker)


def test_a_node_that_keeps_mail_for_an_absent_one_cannot_read_it(three: tuple[Daemon, Daemon, Daemon]) -> None:
    a, b, c = three
    b.aclose()
    marker = f"kept-{secrets.token_hex(16)}".encode()
    try:
        a.post("/api/v1/messages", {"to": "bob", "sender": "amy", "text": f"hear {marker.decode()} only"})
        wait_until(lambda: c.get("/api/v1/messages")["carried"], "the third node to keep a letter", timeout_s=60)
        assert on_disk(a, marker), "the search finds what is there"
        assert on_disk(c, b"agentmesh-sealed") == [], "not even of what kind it is"
        assert on_disk(c, marker) == []
        assert not in_memory(c, marker)
        a.aclose()  # the two are never there together
        b.open()
        wait_until(lambda: read(b, "bob", marker), "bob to have what the third node kept", timeout_s=60)
        assert on_disk(c, marker) == []
        assert not in_memory(c, marker)
    finally:
        a.aclose()
