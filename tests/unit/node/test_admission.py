"""Credentials at work: peers are judged when they greet and as time goes on; a node keeps its own fresh."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import Full, MeshError, Unauthorized
from agentmesh.identity.credential import LIFE_S_MAX, sign_credential
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.node.admission import Admission, CredentialFiles
from tests.support.records import EPOCH, key
from tests.unit.node.test_two_nodes import ask, echo, knows
from tests.unit.node.world import Member, until, world

ROOT, OTHER_ROOT = key(70), key(71)
#: The keys of nodes n0 and n1 in ``world``.
KEYS = [KeyPair.generate(bytes([i + 1]) * 32) for i in range(2)]


class Clock:
    def __init__(self) -> None:
        self.now_s = float(EPOCH)

    def __call__(self) -> float:
        return self.now_s


def files_in(directory: Path) -> CredentialFiles:
    directory.mkdir(parents=True, exist_ok=True)
    return CredentialFiles(directory / "credential.jwt", directory / "revoked.txt")


def put(path: Path, text: str) -> None:
    """Replace a file as an editor or ``identity root`` does: another inode, so that equal times do not matter."""
    draft = path.with_suffix(".new")
    draft.write_text(text, "utf-8")
    os.replace(draft, path)


def credential(node: KeyPair, root: KeyPair = ROOT, *, iat: float = EPOCH, life_s: int = 600) -> str:
    return sign_credential(root, node.did, id=secrets.token_hex(8), iat=int(iat), life_s=life_s)


def code_of(call: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(MeshError) as caught:
        call(*args)
    return caught.value.code


def test_a_peer_must_show_a_credential_of_a_root_that_counts() -> None:
    door = Admission(NodeId(KEYS[0].did), roots=(ROOT.did,), now_s=Clock())
    peer = NodeId(KEYS[1].did)
    assert code_of(door.admit, peer, "") == "credential.missing"
    assert code_of(door.admit, peer, credential(KEYS[1], OTHER_ROOT)) == "credential.root"
    assert code_of(door.admit, peer, credential(KEYS[0])) == "credential.node"
    assert code_of(door.check, peer) == "credential.missing"
    door.admit(peer, credential(KEYS[1]))
    door.check(peer)
    door.admit(peer, "")
    door.keep_only([])
    assert code_of(door.admit, peer, "") == "credential.missing"


def test_a_credential_that_ends_has_to_be_replaced_by_a_newer_one() -> None:
    clock, peer = Clock(), NodeId(KEYS[1].did)
    door = Admission(NodeId(KEYS[0].did), roots=(ROOT.did,), now_s=clock)
    door.admit(peer, credential(KEYS[1]))
    clock.now_s += 631
    assert code_of(door.check, peer) == "credential.expired"
    door.admit(peer, credential(KEYS[1], iat=clock.now_s))
    door.check(peer)


def test_without_roots_anybody_may_come_but_the_revoked(tmp_path: Path) -> None:
    files, peer = files_in(tmp_path), NodeId(KEYS[1].did)
    put(files.revoked, f"# lost laptop\n{peer}  # anna's\nno id\n")
    door = Admission(NodeId(KEYS[0].did), files)
    door.admit(NodeId(key(75).did), "")
    assert code_of(door.admit, peer, "") == code_of(door.check, peer) == "credential.revoked"
    assert "'no id'" in door.warnings()[0]


def test_a_revoked_root_ends_all_that_it_certified(tmp_path: Path) -> None:
    files, peer = files_in(tmp_path), NodeId(KEYS[1].did)
    door = Admission(NodeId(KEYS[0].did), files, (ROOT.did,), now_s=Clock())
    door.admit(peer, credential(KEYS[1]))
    put(files.revoked, ROOT.did)
    door.refresh()
    assert code_of(door.check, peer) == "credential.revoked"
    assert code_of(door.admit, peer, credential(KEYS[1])) == "credential.revoked"


def test_nobody_is_taken_back_because_the_list_got_lost_or_damaged(tmp_path: Path) -> None:
    files, peer = files_in(tmp_path), NodeId(KEYS[1].did)
    put(files.revoked, peer)
    door = Admission(NodeId(KEYS[0].did), files)
    files.revoked.unlink()
    door.refresh()
    assert door.revoked(peer)
    assert "is gone" in door.warnings()[0]
    files.revoked.write_bytes(b"\xff\xfe")
    door.refresh()
    assert door.revoked(peer)
    put(files.revoked, "")
    door.refresh()
    assert not door.revoked(peer)
    assert door.warnings() == []


def test_others_who_know_of_revoked_ids_are_asked() -> None:
    door, peer = Admission(NodeId(KEYS[0].did)), NodeId(KEYS[1].did)
    door.revocations.append(lambda did: did == peer)
    assert code_of(door.admit, peer, "") == "credential.revoked"


def test_a_new_credential_file_is_found_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    files, clock = files_in(tmp_path), Clock()
    own = Admission(NodeId(KEYS[0].did), files, now_s=clock)
    assert (own.shown, own.warnings()) == ("", [])
    first = credential(KEYS[0])
    put(files.credential, first + "\n")
    assert own.refresh()
    assert own.shown == first
    for bad in ("garbage", credential(KEYS[1]), credential(KEYS[0], iat=EPOCH - 10_000), "x" * 10_000):
        put(files.credential, bad)
        assert not own.refresh()
        assert own.shown == first
        assert "the one before stays in use" in own.warnings()[0]
    assert not own.refresh()


def test_the_end_of_the_own_credential_is_announced_in_time(tmp_path: Path) -> None:
    files, clock = files_in(tmp_path), Clock()
    put(files.credential, credential(KEYS[0], life_s=LIFE_S_MAX))
    own = Admission(NodeId(KEYS[0].did), files, now_s=clock)
    assert own.warnings() == []
    clock.now_s += LIFE_S_MAX - 7_200
    assert "ends in 2.0 hours" in own.warnings()[0]
    clock.now_s += 7_201
    assert "has expired" in own.warnings()[0]


def test_a_node_with_the_root_key_renews_itself_at_half_of_its_life(tmp_path: Path) -> None:
    files, clock = files_in(tmp_path), Clock()
    own = Admission(
        NodeId(KEYS[0].did), files, root_key=ROOT, write=lambda raw: put(files.credential, raw), now_s=clock
    )
    first = own.shown
    assert files.credential.read_text() == first
    clock.now_s += LIFE_S_MAX * 0.49
    assert not own.refresh()
    clock.now_s += LIFE_S_MAX * 0.02
    assert own.refresh()
    assert files.credential.read_text() == own.shown != first
    assert not own.refresh()


def test_a_renewed_credential_is_shown_although_the_disk_is_full(tmp_path: Path) -> None:
    def full(_: str) -> None:
        raise Full("no space left")

    own = Admission(NodeId(KEYS[0].did), files_in(tmp_path), root_key=ROOT, write=full, now_s=Clock())
    assert own.shown
    assert "could not be kept" in own.warnings()[0]


async def greeted(one: Member, other: Member) -> None:
    await until(lambda: one.node.links.is_connected(other.node.node_id))


async def test_nodes_of_one_root_call_each_other_and_renew_without_a_new_link(tmp_path: Path) -> None:
    clock = Clock()
    files = [files_in(tmp_path / f"id{i}") for i in range(2)]
    for i in range(2):
        put(files[i].credential, credential(KEYS[i]))
    admissions = [Admission(NodeId(KEYS[i].did), files[i], (ROOT.did,), now_s=clock) for i in range(2)]
    async with world(tmp_path, 2, admissions=admissions) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        assert await ask(a, "echo", "hello") == "hello"
        link = b.node.links.peer(a.node.node_id)
        clock.now_s += 300
        put(files[0].credential, credential(KEYS[0], iat=clock.now_s))
        a.node.mesh.review()
        await until(lambda: admissions[1]._held[a.node.node_id].iat == int(clock.now_s))
        clock.now_s += 400  # The first ones have ended by now; a's newer one holds, b's does not.
        assert await ask(a, "echo", "again") == "again"
        assert b.node.links.peer(a.node.node_id) is link
        a.node.mesh.review()
        await until(lambda: not a.node.links.is_connected(b.node.node_id))


async def test_a_node_without_a_credential_is_turned_away_and_told_why(tmp_path: Path) -> None:
    closed = Admission(NodeId(KEYS[0].did), roots=(ROOT.did,), now_s=Clock())
    async with world(tmp_path, 2, join=False, admissions=[closed, Admission(NodeId(KEYS[1].did))]) as (a, b):
        await a.serve("echo", echo)
        await b.node.add_seeds([a.seed])
        await until(lambda: "device credential" in next((p.last_error for p in b.node.peers()), ""))
        # It knows that the dial failed, so that it tries again ever more seldom instead of at once.
        assert list(b.node.links.peers()) == list(a.node.links.peers()) == []
        assert not knows(b, "echo")


async def test_a_request_of_a_peer_whose_credential_has_ended_is_not_served(tmp_path: Path) -> None:
    """Between two reviews as well: each request is judged."""
    clock = Clock()
    door = Admission(NodeId(KEYS[1].did), roots=(ROOT.did,), now_s=clock)
    files = files_in(tmp_path / "id")
    put(files.credential, credential(KEYS[0]))
    async with world(tmp_path, 2, admissions=[Admission(NodeId(KEYS[0].did), files, now_s=clock), door]) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        clock.now_s += 700
        with pytest.raises(MeshError):
            await asyncio.wait_for(ask(a, "echo"), 10)
        assert agent.calls == []


async def test_a_revoked_node_loses_its_link_and_gets_no_other(tmp_path: Path) -> None:
    files = files_in(tmp_path / "id")
    admissions = [Admission(NodeId(KEYS[0].did), files), Admission(NodeId(KEYS[1].did))]
    async with world(tmp_path, 2, admissions=admissions) as (a, b):
        put(files.revoked, b.node.node_id)
        a.node.mesh.review()
        await until(lambda: not a.node.links.is_connected(b.node.node_id))
        with pytest.raises(Unauthorized):
            await a.node.links.connect(a.node.mesh.contact_of(b.node.node_id))
        assert not a.node.links.is_connected(b.node.node_id)
