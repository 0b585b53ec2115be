"""Peers that break the rules on mail streams: floods, replays, other people's sessions, frames that are none (mail.md §3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentmesh.core.courier.messages import FRAME_BYTES_MAX, Letter, Open, Parcel, decode_frame, encode_frame
from agentmesh.ids import NodeId
from agentmesh.node.mail import handshakes, inbox
from agentmesh.node.mail.inbox import Inbox, Waiting
from agentmesh.wire.message_views import MessageRequest
from tests.unit.node.test_mail import knows, plain, raw, read, two
from tests.unit.node.test_two_nodes import echo
from tests.unit.node.world import Member, until, world


def say(one: Member, to: Member, frame: bytes) -> None:
    """Put a frame on the mail stream of a node, one that the node would never say itself."""
    room = one.node.mail.room
    room._begin()
    room._ways.push(to.node.node_id, frame)


def frames_of(member: Member) -> list[tuple[NodeId, bytes]]:
    """Return a list that fills with the frames that come to a node from now on."""
    ways: Any = member.node.mail.room._ways
    was, seen = ways._on_frame, list[tuple[NodeId, bytes]]()

    def on_frame(node: NodeId, frame: bytes) -> None:
        seen.append((node, frame))
        was(node, frame)

    ways._on_frame = on_frame
    return seen


def noted(member: Member) -> list[str]:
    """Return a list that fills with what a node holds against its peers from now on."""
    codes: list[str] = []
    was = member.node.links._on_misbehaved
    member.node.links._on_misbehaved = lambda peer, code, detail: (codes.append(code), was(peer, code, detail))[1]
    return codes


async def exchange(a: Member, b: Member) -> None:
    """Show that honest mail goes through."""
    await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="honest", durable=False))
    page = await read(b, "bob")
    assert page.messages[-1].data == "honest"
    await b.node.mail.ack("bob", [one.message_id for one in page.messages], back=False)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"no frame", "courier.malformed"),
        (b"\xc4" * (FRAME_BYTES_MAX + 1), "courier.too_large"),
        (b"", "courier.malformed"),
    ],
)
async def test_what_is_no_frame_costs_its_sender_the_stream_and_nobody_else_anything(
    tmp_path: Path, frame: bytes, code: str
) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        codes = noted(b)
        say(a, b, frame)
        await until(lambda: codes == [code])
        await exchange(a, b)


async def test_a_flood_of_offers_makes_no_session_and_keeps_nobody_out(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as members:
        a, b = await two(members)
        c = members[2]
        answers = frames_of(c)
        for number in range(1, 1_001):
            say(c, b, encode_frame(Open(number, b"\1" * 169)))
        await until(lambda: len(answers) == 1_000, 20.0)
        assert not b.node.mail.room.sessions.sessions
        busy = sum(getattr(decode_frame(frame), "code", "") == "session.busy" for _, frame in answers)
        assert busy > 500  # most of them were refused before anything was computed
        await exchange(a, b)


async def test_an_offer_that_a_third_node_repeats_opens_nothing_for_it(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as members:
        a, b = await two(members)
        c = members[2]
        seen = frames_of(b)
        await exchange(a, b)
        (offer,) = [frame for _, frame in seen if isinstance(decode_frame(frame), Open)]
        opened = decode_frame(offer)
        assert isinstance(opened, Open)
        answers = frames_of(c)
        say(c, b, offer)
        say(c, b, encode_frame(Open(77, opened.offer)))
        await until(lambda: len(answers) == 2)
        assert {getattr(decode_frame(frame), "code", "") for _, frame in answers} <= {
            "session.taken",
            "signature.invalid",
        }
        assert {session.node for session in b.node.mail.room.sessions.sessions.values()} == {a.node.node_id}


async def test_a_parcel_that_is_repeated_delivers_once_and_one_for_the_session_of_others_ends_its_stream(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 3) as members:
        a, b = await two(members)
        c = members[2]
        await c.serve("carol", echo)
        await until(lambda: knows(c, "bob"))
        seen, codes = frames_of(b), noted(b)
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="once", durable=False))
        await read(b, "bob", peek=True)
        parcels = [frame for _, frame in seen if isinstance(decode_frame(frame), Parcel)]
        for frame in parcels:
            say(a, b, frame)
        say(c, b, parcels[0])
        await until(lambda: codes == ["session.foreign"])
        await until(lambda: sum(frame == parcels[0] for _, frame in seen) == 3)
        assert len((await read(b, "bob", peek=True)).messages) == 1


async def test_a_letter_that_was_altered_or_made_up_is_never_delivered(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        await exchange(a, b)
        (session,) = b.node.mail.room.sessions.sessions
        codes = noted(b)
        letter = Letter(5, 0, 1, 1_000, False, b"x" * 300)
        say(a, b, encode_frame(Parcel(session, [letter], [], 0, 1, [])))
        await until(lambda: codes == ["session.ciphertext"])
        assert not len(b.node.mail.room.inbox_of(raw(b, "bob")))
        await exchange(a, b)


async def test_one_peer_begins_so_many_sessions_and_leaves_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "PEER_MAX", 2)
    async with world(tmp_path, 3) as members:
        a, b = await two(members)
        c = members[2]
        for name in ("carol", "carla", "carmen"):
            await c.serve(name, echo)
        await until(lambda: knows(c, "bob"))
        answers = frames_of(c)
        for name in ("carol", "carla", "carmen"):
            await c.node.mail.send(MessageRequest(to="bob", sender=name, text=name, durable=False))
        await until(lambda: any(getattr(decode_frame(f), "code", "") == "session.busy" for _, f in answers))
        held = [session.node for session in b.node.mail.room.sessions.sessions.values()]
        assert held == [c.node.node_id] * 2
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="honest", durable=False))
        page = await read(b, "bob", 3)
        assert [one.data for one in page.messages if one.sender_name == "alice"] == ["honest"]


async def test_letters_beyond_twice_what_an_inbox_holds_stay_with_their_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 2) as members:
        a, b = await two(members)
        await exchange(a, b)
        room, over = b.node.mail.room, True
        monkeypatch.setattr(Inbox, "is_over", property(lambda _: over))
        monkeypatch.setattr(room.sessions, "_is_full", lambda _: over)
        answers = frames_of(a)
        view = await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="held"))
        await until(lambda: any(getattr(decode_frame(f), "code", "") == "session.busy" for _, f in answers))
        assert not room.sessions.sessions
        assert not len(room.inbox_of(raw(b, "bob")))
        assert (await a.node.mail.sent(view.message_id)).state == "queued"
        over = False
        assert [one.data for one in (await read(b, "bob")).messages] == ["held"]


def test_an_inbox_is_over_only_with_twice_what_it_should_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "LETTERS_MAX", 2)
    box = Inbox(lambda _one, _reason: None)
    for cursor in range(1, 5):
        assert not box.is_over
        box.put([Waiting(cursor, plain(b"s" * 32, b"r" * 32), 0, True, False)])
    assert box.is_over
    assert not box.room
