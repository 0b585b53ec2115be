"""Agents that were written to and are away: mail is still taken for them, sealed, kept by others, and delivered at last."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmesh.core.brain import BrainConfig
from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.errors import AgentNotFound, UsageError
from agentmesh.identity.manifest import Manifest, read_record, sign_card
from agentmesh.node.mail import carriers
from agentmesh.node.mail.acquaintances import Acquaintances, agreement_in
from agentmesh.store import acquaintances as store
from agentmesh.wire.message_views import MessageRequest
from tests.support.records import EPOCH, card, key
from tests.unit.node.test_mail import knows, read
from tests.unit.node.test_two_nodes import echo
from tests.unit.node.world import FakeKit, until, world

#: Who leaves is forgotten by the directory at once.
FORGETFUL = BrainConfig(directory=DirectoryConfig(leave_grace_s=0.05, lease_gone_s=0.1))


async def test_mail_for_one_whom_the_directory_has_forgotten_is_taken_carried_and_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carriers, "AWAY_S", 0.05)
    kits = [FakeKit(), FakeKit(), FakeKit()]
    async with world(tmp_path, 3, kits=kits, brain=FORGETFUL) as (a, b, c):
        await a.serve("alice", echo)
        await b.serve("bob", echo)
        await until(lambda: knows(a, "bob") and knows(c, "bob"))
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="while you are here"))
        assert [one.data for one in (await read(b, "bob")).messages] == ["while you are here"]
        await b.node.mesh.aclose()
        await until(lambda: not knows(a, "bob") and not knows(c, "bob"))
        view = await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="while you are away"))
        assert view.recipient_name == "bob"
        await until(lambda: c.node.mail.room.carried[0] >= 1, 20.0)
    async with world(tmp_path, 3, kits=kits, join=False, brain=FORGETFUL) as (a, b, c):
        view = await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="after a restart"))
        assert view.recipient_name == "bob"
        for member in (a, c):
            await b.node.add_seeds([member.seed])
        texts = {one.data for one in (await read(b, "bob", 3)).messages}
        assert texts == {"while you are here", "while you are away", "after a restart"}


async def test_who_was_withdrawn_is_forgotten(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await a.serve("alice", echo)
        await b.serve("bob", echo)
        await until(lambda: knows(a, "bob"))
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="x"))
        assert a.node.mail.away.find("bob") is not None
        await b.node.deregister("bob")
        await until(lambda: a.node.mail.away.find("bob") is None)
        with pytest.raises(AgentNotFound):
            await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="x"))


def manifest(number: int, *, name: str = "bob", seq: int = 1, signed: bool = True, **params: object) -> Manifest:
    import json

    made = card(key(number), key(99).did, name=name, seq=seq, params=params or None)
    raw = json.dumps(sign_card(key(number), made) if signed else made).encode()
    return read_record(raw, now=EPOCH, require_signed=False)


def test_what_is_known_of_an_agent_is_its_newest_manifest_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    known = Acquaintances(path)
    assert known.place(key(1).public) is None
    assert not path.exists(), "nothing is made before there is something to keep"
    known.note(key(1).public, manifest(1))
    known.note(key(1).public, manifest(1, name="robert", seq=2))
    known.close()
    again = Acquaintances(path)
    assert again.find("bob") is None
    assert again.find("ROBERT") == again.find(key(1).did) == again.find(f"robert@{key(99).did}") == key(1).public
    assert again.find(f"robert@{key(98).did}") is None
    assert (again.place(key(1).public), again.name(key(1).did)) == (key(99).did, "robert")
    assert again.agreement(key(1).public) is None
    again.forget(key(1).public)
    again.close()
    assert Acquaintances(path).find("robert") is None


def test_of_two_of_one_name_none_is_guessed(tmp_path: Path) -> None:
    known = Acquaintances(tmp_path / "a.sqlite")
    for number in (1, 2):
        known.note(key(number).public, manifest(number))
    with pytest.raises(UsageError):
        known.find("bob")


def test_those_remembered_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "KEPT_MAX", 3)
    monkeypatch.setattr("agentmesh.node.mail.acquaintances.KEPT_MAX", 3)
    known = Acquaintances(tmp_path / "a.sqlite")
    for number in range(1, 6):
        known.note(key(number).public, manifest(number, name=f"n{number}"))
    known.close()
    for one in (known, Acquaintances(tmp_path / "a.sqlite")):
        assert [one.find(f"n{number}") is not None for number in range(1, 6)] == [False, False, True, True, True]


def test_the_agreement_key_of_an_unsigned_or_malformed_manifest_counts_nothing() -> None:
    from agentmesh.identity.agreement import AgreementKey, agreement_param

    public = AgreementKey(b"k" * 32, EPOCH, EPOCH + 86_400).public
    assert agreement_in(manifest(1, key_agreement=agreement_param(public))) == public
    assert agreement_in(manifest(1, signed=False, key_agreement=agreement_param(public))) is None
    assert agreement_in(manifest(1, key_agreement={"kty": "OKP"})) is None
    assert agreement_in(manifest(1)) is None


async def test_a_session_that_outlived_its_stream_does_not_keep_mail_from_going_through_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carriers, "AWAY_S", 0.05)
    async with world(tmp_path, 3, brain=FORGETFUL) as (a, b, c):
        await a.serve("alice", echo)
        await b.serve("bob", echo)
        await until(lambda: knows(a, "bob") and knows(c, "bob"))
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="there"))
        await until(lambda: not a.node.mail.room.outgoing.by_tag)
        await b.node.mesh.aclose()
        await until(lambda: not a.node.links.is_connected(b.node.node_id))
        await until(lambda: not a.node.mail.room._ways.is_open(b.node.node_id))  # pyright: ignore[reportPrivateUsage]
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="away"))
        await until(lambda: c.node.mail.room.carried[0] == 1, 20.0)
