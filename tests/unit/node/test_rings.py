"""What a node knows of groups: old statements and strangers change nothing, tables are bounded, letters open again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentmesh.core.courier.message import Message
from agentmesh.errors import LimitError, MeshError, Unauthorized, UsageError
from agentmesh.identity.group import group_id, sign_group
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.senderkey import SendingChain
from agentmesh.node.mail import rings as module
from agentmesh.node.mail.rings import Copy, Inner, Missing, Rings
from tests.support.records import EPOCH, key

OWNER, OTHER, ALICE, BOB, CAROL = (key(n) for n in range(1, 6))


def rings_of(tmp_path: Path, here: KeyPair, node: KeyPair = OTHER) -> Rings:
    return Rings(tmp_path / f"{here.public[-1]}.sqlite", node.did, lambda raw: raw == here.public, os.urandom)


def statement(*members: KeyPair, epoch: int = 1, owner: KeyPair = OWNER, name: str = "team") -> bytes:
    return sign_group(owner, name=name, epoch=epoch, iat=EPOCH, members=tuple(m.public for m in members))


def message(sender: KeyPair, to: KeyPair, payload: bytes) -> Message:
    return Message(os.urandom(16), sender.public, to.public, 1, EPOCH * 1000, payload, scope="group:team")


def written(rings: Rings, sender: KeyPair, to: KeyPair, text: bytes, *, with_key: bool = True) -> Message:
    ring = rings.of(group_id(OWNER.did, "team"))
    assert ring is not None
    plain = message(sender, to, text)
    _, share, letter = rings.write(ring, sender, plain)
    return msgspec.structs.replace(plain, payload=rings.copy(ring, letter, share if with_key else None))


def code_of(call: Any, *args: Any) -> str:
    with pytest.raises(MeshError) as caught:
        call(*args)
    return caught.value.code


def test_a_letter_brings_its_key_and_its_group_and_opens_again_also_after_a_restart(tmp_path: Path) -> None:
    alice, bob = rings_of(tmp_path, ALICE, OWNER), rings_of(tmp_path, BOB)
    alice.learn(statement(ALICE, BOB))
    first, second = (written(alice, ALICE, BOB, text) for text in (b"1", b"2"))
    third = written(alice, ALICE, BOB, b"3", with_key=False)
    for _ in range(2):
        assert [bob.read(one).payload for one in (third, first, second)[1:]] == [b"1", b"2"]
    bob.settle()
    bob.close()
    again = rings_of(tmp_path, BOB)
    assert [again.read(one).payload for one in (first, third)] == [b"1", b"3"]
    assert [ring.group.name for ring in again.all()] == ["team"]


def test_a_letter_without_its_key_is_missing_it_and_one_of_an_unknown_group_too(tmp_path: Path) -> None:
    alice, bob = rings_of(tmp_path, ALICE, OWNER), rings_of(tmp_path, BOB)
    alice.learn(statement(ALICE, BOB))
    letter = written(alice, ALICE, BOB, b"x", with_key=False)
    with pytest.raises(Missing):
        bob.read(letter)
    bob.learn(statement(ALICE, BOB))
    with pytest.raises(Missing):
        bob.read(letter)
    assert bob.read(written(alice, ALICE, BOB, b"y")).payload == b"y"


def test_who_left_is_refused_though_it_brings_a_key_of_its_own_and_the_old_statement(tmp_path: Path) -> None:
    bob, old = rings_of(tmp_path, BOB), statement(ALICE, BOB, CAROL)
    bob.learn(old)
    bob.learn(statement(ALICE, BOB, epoch=2))
    chain = SendingChain(CAROL, group_id(OWNER.did, "team"), 2, os.urandom(40))
    share = chain.share
    plain = message(CAROL, BOB, b"")
    letter = chain.seal(plain.id, msgspec.msgpack.encode(Inner("text/plain", b"still here")))
    forged = msgspec.structs.replace(plain, payload=msgspec.msgpack.encode(Copy(letter, share, old)))
    with pytest.raises(Unauthorized):
        bob.read(forged)


def test_the_chains_of_who_left_are_deleted_and_those_who_stay_are_still_read(tmp_path: Path) -> None:
    alice, carol, bob = rings_of(tmp_path, ALICE, OWNER), rings_of(tmp_path, CAROL), rings_of(tmp_path, BOB)
    for rings in (alice, carol, bob):
        rings.learn(statement(ALICE, BOB, CAROL))
    late = written(alice, ALICE, BOB, b"late")
    bob.read(written(alice, ALICE, BOB, b"a"))
    bob.read(written(carol, CAROL, BOB, b"c"))
    bob.settle()
    ring = bob.learn(statement(ALICE, BOB, epoch=2))
    assert ring is not None
    assert [sender for sender, _ in ring.receiving] == [ALICE.public]
    assert bob.read(late).payload == b"late", "of the epoch before, from a member"
    bob.close()
    again = rings_of(tmp_path, BOB).of(ring.group.id)
    assert again is not None
    assert [sender for sender, _ in again.receiving] == [ALICE.public]


def test_old_statements_and_those_of_strangers_change_nothing(tmp_path: Path) -> None:
    bob = rings_of(tmp_path, BOB)
    bob.learn(statement(ALICE, BOB, epoch=5))
    for raw in (statement(BOB, CAROL, epoch=4), statement(CAROL, epoch=5)):
        ring = bob.learn(raw)
        assert ring is not None
        assert ring.group.epoch == 5
        assert ALICE.public in ring.group.members
    theirs = bob.learn(statement(BOB, CAROL, epoch=9, owner=CAROL))
    assert theirs is not ring, "another owner's group of that name is another group"
    assert bob.learn(statement(ALICE, CAROL, owner=ALICE)) is None, "it concerns nobody here"
    assert code_of(bob.named, "team") == "group.ambiguous"
    assert bob.named(f"team@{CAROL.did}").group.owner == CAROL.did
    with pytest.raises(UsageError):
        bob.named("TEAM")


def test_a_group_that_ended_is_remembered_so_that_nothing_brings_it_back(tmp_path: Path) -> None:
    bob = rings_of(tmp_path, BOB)
    bob.learn(statement(ALICE, BOB))
    bob.learn(statement(epoch=2))
    assert bob.all() == []
    bob.close()
    again = rings_of(tmp_path, BOB)
    again.learn(statement(ALICE, BOB))
    assert again.all() == []


def test_groups_are_bounded_and_those_that_ended_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RINGS_MAX", 2)
    bob = rings_of(tmp_path, BOB)
    for name in ("one", "two"):
        bob.learn(statement(BOB, name=name))
    with pytest.raises(LimitError):
        bob.learn(statement(BOB, name="three"))
    bob.learn(statement(name="one", epoch=2))
    assert bob.learn(statement(BOB, name="three")) is not None
    assert [ring.group.name for ring in bob.all()] == ["three", "two"]


def test_one_other_node_cannot_fill_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWNER_MAX", 2)
    bob = rings_of(tmp_path, BOB)
    for name in ("one", "two"):
        bob.learn(statement(BOB, name=name))
    with pytest.raises(LimitError):
        bob.learn(statement(BOB, name="three"))
    assert bob.learn(statement(BOB, name="two", epoch=2)) is not None
    assert bob.learn(statement(BOB, name="three", owner=CAROL)) is not None
    for name in ("mine", "too", "and"):
        assert bob.learn(statement(BOB, name=name, owner=OTHER)) is not None, "its own it makes itself"


@pytest.mark.parametrize("payload", [b"", b"\x93", b"\x93\xc4\x00\xc0\xc4\x00", os.urandom(300)], ids=range(4))
def test_garbage_is_refused_and_changes_nothing(tmp_path: Path, payload: bytes) -> None:
    bob = rings_of(tmp_path, BOB)
    assert code_of(bob.read, message(ALICE, BOB, payload)) in ("group.malformed", "group.key_missing")
    assert bob.all() == []
