"""Messages between whole nodes over the in-memory transport: sent, kept, acknowledged, refused, brought back."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from agentmesh.core.courier.message import Delivery, Message, encode
from agentmesh.errors import AgentNotFound, Busy, Full, LimitError, ReadOnly, RecordNotFound, UsageError
from agentmesh.ids import public_key_of
from agentmesh.node.mail.inbox import LETTERS_MAX, TRIES_MAX
from agentmesh.node.mail.outgoing import PAIR_MAX
from agentmesh.store.mail import Batch, MailStore
from agentmesh.wire.message_views import InboxPage, MessageRequest
from tests.unit.node.test_two_nodes import echo
from tests.unit.node.world import FakeKit, Member, until, world


async def two(members: Sequence[Member]) -> tuple[Member, Member]:
    """Put alice on the first node and bob on the second, and wait until they know each other."""
    a, b = members[:2]
    await a.serve("alice", echo)
    await b.serve("bob", echo)
    await until(lambda: knows(a, "bob") and knows(b, "alice"))
    return a, b


def knows(member: Member, name: str) -> bool:
    return any(view.name == name for view in member.node.agents())


def raw(member: Member, name: str) -> bytes:
    agent = member.node.registry.by_name(name)
    assert agent is not None
    return public_key_of(agent.manifest.agent_id)


def plain(sender: bytes, recipient: bytes, number: int = 0, **fields: object) -> Message:
    base = Message(
        id=os.urandom(16),
        sender=sender,
        recipient=recipient,
        kind=1,
        sent_ms=1_795_000_000_000,
        payload=f"{number}".encode(),
        durable=False,
    )
    return msgspec.structs.replace(base, **fields)


async def read(member: Member, agent: str, count: int = 1, **more: object) -> InboxPage:
    """Return what waits once there are so many."""
    await until(lambda: len(member.node.mail.room.inbox_of(member.node.mail.local(agent))) >= count)
    options = {"limit": 1_000, "wait_s": 0.0, "lease_s": 60.0, "peek": False, **more}
    return await member.node.mail.inbox(agent, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("durable", [True, False])
async def test_messages_arrive_in_order_encrypted_and_are_delivered_once_the_other_node_has_them(
    tmp_path: Path, durable: bool
) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        sent = [
            await a.node.mail.send(MessageRequest(to="bob", sender="alice", text=f"{n}", durable=durable))
            for n in range(5)
        ]
        page = await read(b, "bob", 5)
        assert [one.data for one in page.messages] == ["0", "1", "2", "3", "4"]
        assert {(one.sender_name, one.recipient_name, one.encrypted) for one in page.messages} == {
            ("alice", "bob", True)
        }
        await until(lambda: a.node.mail.room.tally.delivered == 5)
        assert (await a.node.mail.sent(sent[0].message_id)).state == "delivered"
        assert (await b.node.mail.ack("bob", [one.message_id for one in page.messages], back=False)).done == 5
        figures = await a.node.mail.figures()
        assert (figures.sent, figures.delivered, figures.queued, figures.sessions) == (5, 5, 0, 1)


async def test_a_node_whose_own_stream_was_idle_and_closed_still_acknowledges_what_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="one", durable=False))
        await until(lambda: a.node.mail.room.tally.delivered == 1)
        here, there = a.node.mail.room._ways, b.node.mail.room._ways
        monkeypatch.setattr(here, "_is_wanted", lambda _node: True)  # alice's stays
        monkeypatch.setattr("agentmesh.node.mail.ways._IDLE_S", 0.01)
        there._ways[a.node.node_id].wake.set()
        await until(lambda: not there.is_open(a.node.node_id))
        assert here.is_open(b.node.node_id)
        monkeypatch.setattr("agentmesh.node.mail.ways._IDLE_S", 60.0)
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="two", durable=False))
        await until(lambda: a.node.mail.room.tally.delivered == 2)


async def test_a_message_to_an_agent_of_the_same_node_needs_no_network_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("alice", echo)
        view = await a.node.mail.send(MessageRequest(to="alice", data={"n": 1}))
        (one,) = (await read(a, "alice")).messages
        assert (view.state, one.data, one.encrypted, one.sender) == ("delivered", {"n": 1}, False, a.node.node_id)


async def test_programs_beside_a_node_write_and_read_in_its_own_name(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        await a.node.mail.send(MessageRequest(to=b.node.node_id, text="node to node"))
        (one,) = (await read(b, "")).messages
        assert (one.data, one.sender_name, one.recipient_name) == ("node to node", "n0", "n1")


async def test_what_is_not_acknowledged_is_handed_out_again_and_at_last_a_dead_letter(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("alice", echo)
        room = a.node.mail.room
        shift_s = 0.0
        mono_s = room.mono_s
        room.mono_s = lambda: mono_s() + shift_s
        await a.node.mail.send(MessageRequest(to="alice", text="read me"))
        for tries in range(1, TRIES_MAX + 1):
            (one,) = (await read(a, "alice", lease_s=10.0)).messages
            assert one.tries == tries
            assert not (await a.node.mail.inbox("alice", limit=1, wait_s=0.0, lease_s=1.0, peek=False)).messages
            shift_s += 11.0
        assert not (await a.node.mail.inbox("alice", limit=1, wait_s=0.0, lease_s=1.0, peek=False)).messages
        letters = (await a.node.mail.dead(10, 0)).letters
        assert [(one.reason, one.side, one.message.data) for one in letters] == [("mail.unread", "in", "read me")]


async def test_a_message_that_is_given_back_comes_again_in_its_old_place(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("alice", echo)
        for text in ("first", "second"):
            await a.node.mail.send(MessageRequest(to="alice", text=text))
        (first,) = (await read(a, "alice", limit=1)).messages
        assert (await a.node.mail.ack("alice", [first.message_id], back=True)).done == 1
        assert [one.data for one in (await read(a, "alice", 2)).messages] == ["first", "second"]


async def test_what_waits_for_an_absent_node_goes_when_it_is_back_also_after_both_were_restarted(
    tmp_path: Path,
) -> None:
    kits = [FakeKit(), FakeKit()]
    async with world(tmp_path, 2, kits=kits) as members:
        a, b = await two(members)
        seed = b.seed
        await b.node.mesh.aclose()
        await until(lambda: not a.node.links.is_connected(b.node.node_id))
        view = await a.node.mail.send(
            MessageRequest(to="bob", sender="alice", text="later", delivery="effectively-once")
        )
        assert view.state == "queued"
    async with world(tmp_path, 2, kits=kits, join=False) as (a, b):
        waiting = await a.node.mail.figures()
        assert (waiting.sent, waiting.queued) == (1, 1)
        await a.node.add_seeds([seed])
        (one,) = (await read(b, "bob")).messages
        assert one.data == "later"
        await until(lambda: a.node.mail.room.tally.delivered == 1)
        assert (await a.node.mail.sent(view.message_id)).state == "delivered"
    async with world(tmp_path, 2, kits=kits, join=False) as (a, b):  # read and not acknowledged: it is still there
        (one,) = (await read(b, "bob")).messages
        assert one.data == "later"
        assert (await a.node.mail.figures()).sent == 1


async def test_a_session_that_the_peer_forgot_is_made_anew_and_nothing_comes_twice(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="1", durable=False))
        await read(b, "bob")
        first = next(iter(b.node.mail.room.sessions.sessions))
        b.node.mail.room.sessions.end(first, "test", tell=False)
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="2", durable=False))
        page = await read(b, "bob", 2, peek=True)
        assert [one.data for one in page.messages] == ["1", "2"]
        assert first not in a.node.mail.room.sessions.sessions


async def test_the_same_id_comes_once_however_often_it_is_sent(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        sender, recipient = raw(a, "alice"), raw(b, "bob")
        now_ms = a.node.mail.room.unix_ms()
        for durable in (False, True):
            one = plain(sender, recipient, sent_ms=now_ms, delivery=Delivery.EFFECTIVELY_ONCE, durable=durable)
            assert await a.node.mail.room.post([one, one, one]) == [None, None, None]
            await until(lambda: not a.node.mail.room.outgoing.by_tag)
        assert len((await read(b, "bob", 2)).messages) == 2
        assert (await b.node.mail.figures()).repeated == 4


async def test_a_repeated_request_with_an_id_is_answered_with_what_became_of_the_first(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        request = MessageRequest(to="bob", text="once", message_id="6f8f4c0e-3a3a-4c55-9f0c-2a8b7a4b1c1d")
        for _ in range(3):
            assert (await a.node.mail.send(request)).message_id == request.message_id
        await until(lambda: a.node.mail.room.tally.delivered == 1)
        assert len((await read(b, "bob")).messages) == 1


async def test_a_message_nobody_took_in_time_is_expired_listed_with_its_reason_and_can_be_sent_again(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        seed = b.seed
        await b.node.mesh.aclose()
        await until(lambda: not a.node.links.is_connected(b.node.node_id))
        view = await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="now or never", ttl_s=0.2))
        await until(lambda: a.node.mail.room.tally.expired == 1)
        (letter,) = (await a.node.mail.dead(10, 0)).letters
        assert (letter.message.message_id, letter.side) == (view.message_id, "out")
        assert letter.reason in ("mail.expired", "mail.no_route", "mail.no_agent")
        assert (await a.node.mail.sent(view.message_id)).state == "expired"
        again = await a.node.mail.retry(view.message_id)
        assert again.state == "queued"
        assert not (await a.node.mail.dead(10, 0)).letters
        assert seed
        figures = await a.node.mail.figures()
        assert figures.sent == figures.delivered + figures.expired + figures.dead + figures.queued == 2


async def test_a_full_inbox_holds_its_senders_up_and_loses_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        sender, recipient = raw(a, "alice"), raw(b, "bob")
        room, box = a.node.mail.room, b.node.mail.room.inbox_of(recipient)
        taken = 0
        for _ in range(400):
            now_ms = room.unix_ms()
            batch = [plain(sender, recipient, taken + n, sent_ms=now_ms) for n in range(100)]
            results = await room.post(batch)
            taken += sum(1 for error in results if error is None)
            if any(results):
                assert all(
                    error is None or (isinstance(error, Busy) and error.code == "mail.full") for error in results
                )
                break
            await asyncio.sleep(0)
        else:
            pytest.fail("the sender was never told to wait")
        assert len(box) <= 2 * LETTERS_MAX
        got: list[str] = []
        while len(got) < taken:
            page = await read(b, "bob")
            got += [str(one.data) for one in page.messages]
            await b.node.mail.ack("bob", [one.message_id for one in page.messages], back=False)
        assert got == [f"{n}" for n in range(taken)]
        assert taken >= PAIR_MAX


async def test_a_full_disk_refuses_the_message_and_the_receiver_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        full = True
        commit = MailStore.commit

        def refuse(store: MailStore, batch: Batch) -> list[int]:
            if full and (batch.out or batch.came):
                raise Full("no space left on device", code="store.full")
            return commit(store, batch)

        monkeypatch.setattr(MailStore, "commit", refuse)
        with pytest.raises(Full):
            await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="lost?"))
        assert (await a.node.mail.figures()).sent == 0
        full = False
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="first"))
        await read(b, "bob")
        full_there = True

        def refuse_there(store: MailStore, batch: Batch) -> list[int]:
            if full_there and batch.came:
                raise Full("no space left on device", code="store.full")
            return commit(store, batch)

        monkeypatch.setattr(MailStore, "commit", refuse_there)
        view = await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="second"))
        await until(lambda: b.node.mail.room.arrivals.refused_writes > 0)
        assert (await a.node.mail.sent(view.message_id)).state == "queued"
        full_there = False
        page = await read(b, "bob", 2, peek=True)
        assert [one.data for one in page.messages] == ["first", "second"]


async def test_what_comes_after_a_batch_that_the_disk_refused_does_not_overtake_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        commit, refused = MailStore.commit, 0

        def refuse_once(store: MailStore, batch: Batch) -> list[int]:
            nonlocal refused
            if batch.came and not refused:
                refused += 1
                raise Full("no space left on device", code="store.full")
            return commit(store, batch)

        monkeypatch.setattr(MailStore, "commit", refuse_once)
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="first"))
        await until(lambda: b.node.mail.room.arrivals.refused_writes > 0)
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="second"))
        page = await read(b, "bob", 2)
        assert [one.data for one in page.messages] == ["first", "second"]


async def test_what_makes_no_sense_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, _ = await two(members)
        send = a.node.mail.send
        for request in (
            MessageRequest(to="bob", text="x", ttl_s=0),
            MessageRequest(to="bob", text="x", ttl_s=-1),
            MessageRequest(to="bob", text="x", ttl_s=1e9),
            MessageRequest(to="bob", text="x", data=1),
            MessageRequest(to="bob", data_base64="not base64!"),
            MessageRequest(to="bob", text="x", message_id="no uuid"),
            MessageRequest(to="", text="x"),
            MessageRequest(to="*none", text="x"),
        ):
            with pytest.raises(UsageError):
                await send(request)
        with pytest.raises(LimitError):
            await send(MessageRequest(to="bob", text="x" * 100_000_000))
        with pytest.raises(AgentNotFound):
            await send(MessageRequest(to="nobody", text="x"))
        with pytest.raises(AgentNotFound):
            await send(MessageRequest(to="bob", sender="bob", text="in another's name"))
        with pytest.raises(RecordNotFound):
            await a.node.mail.sent("6f8f4c0e-3a3a-4c55-9f0c-2a8b7a4b1c1d")
        assert (await a.node.mail.figures()).sent == 0


async def test_a_stream_that_was_not_used_for_long_is_let_go_and_opened_again_for_the_next_message(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        for number in range(2):
            await a.node.mail.send(MessageRequest(to="bob", sender="alice", text=f"{number}", durable=False))
            await until(lambda number=number: a.node.mail.room.tally.delivered == number + 1)
            for one, other in ((a, b), (b, a)):
                ways = one.node.mail.room._ways
                ways.turn(time.monotonic() + 100)
                await until(lambda ways=ways, node=other.node.node_id: not ways.is_open(node))
        assert [one.data for one in (await read(b, "bob", 2)).messages] == ["0", "1"]


async def test_a_stopped_node_takes_no_message_and_goes_on_reading(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        await b.node.mail.send(MessageRequest(to="alice", sender="bob", text="before"))
        await read(a, "alice", peek=True)
        a.node.switch.damage = "for the test"
        with pytest.raises(ReadOnly):
            await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="no"))
        assert [one.data for one in (await read(a, "alice")).messages] == ["before"]
        a.node.switch.damage = ""
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="again"))
        assert [one.data for one in (await read(b, "bob")).messages] == ["again"]


async def test_the_metrics_say_what_became_of_messages(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="1"))
        await read(b, "bob")
        await until(lambda: a.node.mail.room.tally.delivered == 1)
        sender, reader = await a.node.measure(), await b.node.measure()
        assert sender.values["agentmesh_messages_total"][("delivered",)] == 1
        assert reader.values["agentmesh_messages_total"][("received",)] == 1
        assert reader.values["agentmesh_inbox_messages"][()] == 1
        assert sender.values["agentmesh_mail_sessions"][()] == 1


async def test_a_node_that_sends_nothing_makes_no_file_and_loads_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        assert not a.node.mail.room.commits.exists
        assert not (tmp_path / "n0" / "mail.sqlite").exists()


async def test_a_peer_that_speaks_for_others_inside_its_session_is_refused_and_noted(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        room = a.node.mail.room
        sender, recipient = raw(a, "alice"), raw(b, "bob")
        now_ms = room.unix_ms()
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="honest", durable=False))
        await read(b, "bob")
        pair = room.outgoing.pairs[sender, recipient]
        forged = plain(recipient, recipient, sent_ms=now_ms, payload=b"forged")
        astray = plain(sender, sender, sent_ms=now_ms, payload=b"astray")
        for number, message in enumerate((forged, astray), 1 << 60):
            out = room.outgoing.add(message, encode(message), pair, number, room.mono_s() + 60, "")
            room.outgoing.queue(pair, [out])
        noted: list[str] = []
        b.node.mail.room.arrivals._on_misbehaved = lambda _peer, code, _detail: noted.append(code)
        room._departures.push(pair)
        await until(lambda: len(noted) == 2)
        assert noted == ["message.forged", "message.forged"]
        assert len(b.node.mail.room.inbox_of(recipient)) == 1
