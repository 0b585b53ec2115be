"""Groups over whole nodes: one encryption for all members, new keys when somebody leaves, and who may do what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from agentmesh.core.courier.message import Message
from agentmesh.errors import LimitError, MeshError, RecordNotFound, Unauthorized, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.senderkey import SendingChain
from agentmesh.ids import public_key_of
from agentmesh.node.mail.groups import COPY, NEED, Groups
from agentmesh.node.mail.inbox import Waiting
from agentmesh.node.mail.rings import Copy
from agentmesh.wire.message_views import InboxPage, MessageRequest
from tests.unit.node.test_two_nodes import echo
from tests.unit.node.world import FakeKit, Member, until, world

NAMES = ("alice", "bob", "carol")


async def three(members: Sequence[Member]) -> tuple[Member, Member, Member]:
    """Put one agent on each node and wait until all know all."""
    for member, name in zip(members, NAMES, strict=True):
        await member.serve(name, echo)
    await until(lambda: all(len(member.node.agents()) == 3 for member in members))
    a, b, c = members
    return a, b, c


def groups(member: Member) -> Groups:
    found = member.node.mail.members
    assert isinstance(found, Groups)
    return found


def key_of(member: Member, name: str) -> bytes:
    agent = member.node.registry.by_name(name)
    assert agent is not None
    return public_key_of(agent.manifest.agent_id)


async def read(member: Member, agent: str, count: int = 1) -> InboxPage:
    box = member.node.mail.room.inbox_of(member.node.mail.local(agent))
    await until(lambda: len(box) >= count)
    page = await member.node.mail.inbox(agent, limit=1_000, wait_s=0.0, lease_s=60.0, peek=False)
    await member.node.mail.ack(agent, [one.message_id for one in page.messages], back=False)
    return page


async def say(member: Member, sender: str, text: str, to: str = "group:team", **more: object) -> str:
    request = MessageRequest(to=to, sender=sender, text=text, **more)  # type: ignore[arg-type]
    return (await member.node.mail.send(request)).message_id


async def texts(member: Member, agent: str, count: int = 1) -> list[object]:
    return [one.data for one in (await read(member, agent, count)).messages]


@pytest.mark.parametrize("durable", [True, False])
async def test_every_member_gets_what_a_member_writes_in_order_and_the_writer_does_not(
    tmp_path: Path, durable: bool
) -> None:
    async with world(tmp_path, 3) as members:
        a, b, c = await three(members)
        view = await a.node.mail.set_group("team", ["alice", "bob", "carol"])
        assert (view.owner, view.epoch, view.member_names) == (a.node.node_id, 1, ["alice", "bob", "carol"])
        for n in range(3):
            await say(a, "alice", f"{n}", durable=durable)
        for member, name in ((b, "bob"), (c, "carol")):
            page = await read(member, name, 3)
            assert [one.data for one in page.messages] == ["0", "1", "2"]
            assert {(one.sender_name, one.scope, one.content_type, one.encrypted) for one in page.messages} == {
                ("alice", "group:team", "text/plain", True)
            }
        await say(b, "bob", "back", durable=durable)
        assert await texts(a, "alice") == await texts(c, "carol") == ["back"]
        assert not len(a.node.mail.room.inbox_of(b""))
        assert not len(b.node.mail.room.inbox_of(key_of(b, "bob")))
        [seen] = await c.node.mail.groups()
        assert (seen.name, seen.owner, len(seen.members)) == ("team", a.node.node_id, 3)


async def test_members_beside_one_node_each_get_their_copy(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await a.serve("alice", echo)
        await b.serve("bob", echo)
        await b.serve("bill", echo)
        await a.serve("anna", echo)
        await until(lambda: all(len(member.node.agents()) == 4 for member in (a, b)))
        await a.node.mail.set_group("team", ["alice", "anna", "bob", "bill"])
        view = await a.node.mail.send(MessageRequest(to="group:team", sender="alice", text="hi"))
        assert view.copies == 3
        assert [await texts(b, "bob"), await texts(b, "bill"), await texts(a, "anna")] == [["hi"]] * 3


async def test_who_left_gets_no_key_and_no_copy_and_can_write_no_more(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as members:
        a, b, c = await three(members)
        await a.node.mail.set_group("team", list(NAMES))
        await say(a, "alice", "all of us")
        assert await texts(b, "bob") == await texts(c, "carol") == ["all of us"]
        ring = groups(c).rings.named("team")
        [old] = ring.receiving.values()
        await a.node.mail.set_group("team", ["alice", "bob"])
        sent: list[Message] = []
        post = a.node.mail.room.post

        async def noted(messages: Sequence[Message], asked: str = "") -> list[MeshError | None]:
            sent.extend(messages)
            return await post(messages, asked)

        a.node.mail.room.post = noted  # type: ignore[method-assign]
        await say(a, "alice", "without carol")
        assert await texts(b, "bob") == ["without carol"]
        [copy] = sent
        assert copy.recipient == key_of(b, "bob")
        with pytest.raises(MeshError):
            old.open(copy.id, msgspec.msgpack.decode(copy.payload, type=Copy).letter)
        await until(lambda: key_of(c, "carol") not in ring.group.members)
        assert await c.node.mail.groups() == []
        with pytest.raises(RecordNotFound):
            await say(c, "carol", "me too")


async def test_a_newcomer_reads_what_is_written_from_then_on(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as members:
        a, b, c = await three(members)
        await a.node.mail.set_group("team", ["alice", "bob"])
        await say(a, "alice", "before")
        assert await texts(b, "bob") == ["before"]
        await a.node.mail.set_group("team", list(NAMES))
        await say(a, "alice", "after")
        assert await texts(c, "carol") == await texts(b, "bob") == ["after"]


async def test_the_key_travels_until_a_member_has_it_and_again_when_it_asks(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as members:
        a, b, _ = await three(members)
        await a.node.mail.set_group("team", list(NAMES))
        sizes: list[bool] = []
        post = a.node.mail.room.post

        async def noted(messages: Sequence[Message], asked: str = "") -> list[MeshError | None]:
            for one in messages:
                if one.content_type == COPY and one.recipient == key_of(b, "bob"):
                    sizes.append(msgspec.msgpack.decode(one.payload, type=Copy).share is not None)
            return await post(messages, asked)

        a.node.mail.room.post = noted  # type: ignore[method-assign]
        await say(a, "alice", "1")
        await until(lambda: not a.node.mail.room.outgoing.by_tag)  # all is delivered
        await say(a, "alice", "2")
        assert await texts(b, "bob", 2) == ["1", "2"]
        groups(b).rings.named("team").receiving.clear()  # a disk was lost
        await say(a, "alice", "3")
        ring = groups(a).rings.named("team")
        await until(lambda: key_of(b, "bob") not in ring.sending[key_of(a, "alice")].given)
        await say(a, "alice", "4")
        assert await texts(b, "bob") == ["4"]
        assert sizes == [True, False, False, True]
        letters = (await b.node.mail.dead(10, 0)).letters
        assert [(one.reason, one.side) for one in letters] == [("group.key_missing", "in")], "never silence"


async def test_groups_and_keys_survive_restarts_of_all_sides(tmp_path: Path) -> None:
    kits = [FakeKit() for _ in NAMES]
    async with world(tmp_path, 3, kits=kits) as members:
        a, b, c = await three(members)
        await a.node.mail.set_group("team", list(NAMES))
        await say(a, "alice", "1")
        assert await texts(b, "bob") == await texts(c, "carol") == ["1"]
        seed = b.seed
    async with world(tmp_path, 3, kits=kits) as members:
        a, b, c = members
        await until(lambda: all(len(member.node.agents()) == 3 for member in members))
        assert seed
        assert len(groups(b).rings.named("team").receiving) == 1
        await say(a, "alice", "2")
        assert await texts(b, "bob") == await texts(c, "carol") == ["2"]
        assert (await a.node.mail.set_group("team", ["alice", "bob"])).epoch == 2


async def test_only_the_node_that_made_a_group_changes_it(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as members:
        a, b, c = await three(members)
        await a.node.mail.set_group("team", list(NAMES))
        await until(lambda: groups(b).rings.all())
        for change in (b.node.mail.set_group("team", ["bob"]), b.node.mail.remove_group("team")):
            with pytest.raises(Unauthorized) as caught:
                await change
            assert caught.value.code == "group.owner"
        with pytest.raises(RecordNotFound):
            await c.node.mail.remove_group("nothing")
        assert (await a.node.mail.set_group("team", list(NAMES))).epoch == 1, "nothing changed, so nothing is renewed"
        ended = await a.node.mail.remove_group("team")
        assert (ended.members, ended.epoch) == ([], 2)
        await until(lambda: not groups(b).rings.all())
        old = groups(a).rings.own("team")
        assert old is not None
        again = await a.node.mail.set_group("team", ["alice", "carol"])
        assert again.epoch == 3, "an old statement brings nothing back"
        sent = await a.node.mail.sent(await say(a, "alice", "to one other"))
        assert (sent.to, sent.recipient) == ("group:team", "")


async def test_who_is_no_member_cannot_write_and_what_it_sends_past_its_own_node_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as members:
        a, b, c = await three(members)
        await a.node.mail.set_group("team", ["alice", "bob"])
        await say(a, "alice", "hello")
        assert await texts(b, "bob") == ["hello"]
        with pytest.raises(Unauthorized) as caught:
            await say(b, "", "x")
        assert caught.value.code == "group.member"
        stolen = groups(b).rings.named("team").group.raw
        for content_type, payload in ((COPY, b"\x93garbage"), ("text/plain", b"in clear"), (COPY, stolen), (NEED, b"")):
            forged = Message(
                id=os.urandom(16),
                sender=key_of(c, "carol"),
                recipient=key_of(b, "bob"),
                kind=1,
                sent_ms=c.node.mail.room.unix_ms(),
                payload=payload,
                content_type=content_type,
                scope="group:team",
            )
            assert await c.node.mail.room.post([forged]) == [None]
        await until(lambda: c.node.mail.room.tally.delivered == 4)
        letters = (await b.node.mail.dead(10, 0)).letters
        assert sorted(one.reason for one in letters) == ["group.clear", "group.malformed", "group.malformed"]
        assert not len(b.node.mail.room.inbox_of(key_of(b, "bob")))


async def test_a_group_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("alice", echo)
        for call, code in (
            (a.node.mail.set_group("team", []), "group.empty"),
            (a.node.mail.set_group("a b", ["alice"]), "group.name"),
        ):
            with pytest.raises(MeshError) as caught:
                await call
            assert caught.value.code == code
        assert not (tmp_path / "n0" / "groups.sqlite").exists(), "nothing was kept"
        await a.node.mail.set_group("team", ["alice"])
        with pytest.raises(UsageError) as alone:
            await say(a, "alice", "hello?")
        assert alone.value.code == "group.empty"
        await a.serve("anna", echo)
        await a.node.mail.set_group("team", ["alice", "anna"])
        with pytest.raises(LimitError):
            await say(a, "alice", "x" * (1024 * 1024))
        first = await say(a, "alice", "once", message_id="00000000-0000-4000-8000-000000000001")
        assert await say(a, "alice", "once", message_id=first) == first
        assert await texts(a, "anna") == ["once"]


async def test_everybody_gets_a_broadcast_once(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as members:
        a, b, c = await three(members)
        view = await a.node.mail.send(MessageRequest(to="*", sender="alice", text="all", kind="broadcast"))
        assert view.copies == 2
        for member, name in ((b, "bob"), (c, "carol")):
            [one] = (await read(member, name)).messages
            assert (one.data, one.scope, one.kind, one.encrypted) == ("all", "*", "broadcast", True)
        assert not len(a.node.mail.room.inbox_of(key_of(a, "alice")))
        with pytest.raises(UsageError):
            await a.node.mail.send(MessageRequest(to="*x", text="all"))


async def test_who_writes_by_unknown_keys_and_takes_nothing_is_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmesh.node.mail.groups._NEEDS_MAX", 3)
    async with world(tmp_path, 3) as members:
        _, b, c = await three(members)
        carol, bob = key_of(c, "carol"), key_of(b, "bob")
        room, messages = b.node.mail.room, list[Message]()
        for n in range(10):
            chain = SendingChain(KeyPair.generate(b"x" * 32), bytes(16), 1, bytes([n]) * 40)
            letter = chain.seal(b"aad", b"plain")
            messages.append(
                Message(
                    id=os.urandom(16),
                    sender=carol,
                    recipient=bob,
                    kind=1,
                    sent_ms=room.unix_ms(),
                    payload=msgspec.msgpack.encode(Copy(letter)),
                    content_type=COPY,
                    scope="group:none",
                )
            )
        asked: list[Message] = []
        pair = room.outgoing.pair(bob, carol)
        for message in messages:
            needs: list[Message] = []
            with pytest.raises(MeshError) as caught:
                groups(b)._open(Waiting(1, message, 0, True, False), needs)
            assert caught.value.code == "group.key_missing"
            asked += needs
            pair.waiting += len(needs)  # none of them is ever acknowledged
        assert [one.content_type for one in asked] == [NEED] * 3
        pair.waiting = 0
