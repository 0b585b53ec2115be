"""Mail through a third node: two that never meet, what carriers keep and refuse (docs/spec/mail.md §9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmesh.errors import PeerError
from agentmesh.node.mail import carriers
from agentmesh.node.mail.carriers import DEPOSITOR_MAX, Carriers
from agentmesh.store.mail import CARRIED
from agentmesh.wire import v1
from agentmesh.wire.message_views import MessageRequest
from tests.unit.node.test_mail import knows, raw, read
from tests.unit.node.test_two_nodes import echo
from tests.unit.node.world import FakeKit, Member, until, world


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave mail with others at once, not after seconds."""
    monkeypatch.setattr(carriers, "AWAY_S", 0.05)


async def part(one: Member, other: Member) -> None:
    """Cut the link between two nodes for good: each refuses the other."""
    for here, there in ((one, other), (other, one)):
        refusal_of = here.node.links._refusal_of

        def refuse(did: str, there: Member = there, refusal_of=refusal_of):  # type: ignore[no-untyped-def]
            return PeerError("apart", code="test.apart") if did == there.node.node_id else refusal_of(did)

        here.node.links._refusal_of = refuse
        here.node.links.drop(there.node.node_id, "apart")
    await until(lambda: not one.node.links.is_connected(other.node.node_id))


async def test_two_that_never_meet_reach_each_other_through_a_third_and_the_sender_hears_of_it(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        await a.serve("alice", echo)
        await b.serve("bob", echo)
        await until(lambda: knows(a, "bob") and knows(c, "bob"))
        await part(a, b)
        request = MessageRequest(to="bob", sender="alice", text="by hand", delivery="effectively-once")
        view = await a.node.mail.send(request)
        (one,) = (await read(b, "bob")).messages
        assert (one.data, one.sender_name, one.encrypted) == ("by hand", "alice", True)
        await until(lambda: a.node.mail.room.tally.delivered == 1)
        assert (await a.node.mail.sent(view.message_id)).state == "delivered"
        figures = await a.node.mail.figures()
        assert figures.sent == figures.delivered == 1
        await until(lambda: c.node.mail.room.carried == (0, 0))


async def test_a_carrier_keeps_the_letter_sealed_over_a_restart_until_its_recipient_is_there(tmp_path: Path) -> None:
    kits = [FakeKit(), FakeKit(), FakeKit()]
    async with world(tmp_path, 3, kits=kits) as (a, b, c):
        await a.serve("alice", echo)
        await b.serve("bob", echo)
        await until(lambda: knows(a, "bob") and knows(c, "bob"))
        await b.node.mesh.aclose()
        await until(lambda: not a.node.links.is_connected(b.node.node_id))
        await a.node.mail.send(
            MessageRequest(to="bob", sender="alice", text="secret words", delivery="effectively-once")
        )
        await until(lambda: c.node.mail.room.carried[0] == 1)
        await until(lambda: all(out.state == CARRIED for out in a.node.mail.room.outgoing.by_tag.values()))
        assert (await a.node.mail.figures()).outgoing[0].state == "carried"
    for path in (tmp_path / "n2").rglob("*"):
        assert not path.is_file() or b"secret words" not in path.read_bytes()
    async with world(tmp_path, 3, kits=kits, join=False) as (a, b, c):
        await part(a, b)
        await b.node.add_seeds([c.seed])  # the sender is not needed
        (one,) = (await read(b, "bob")).messages
        assert one.data == "secret words"
        await a.node.add_seeds([c.seed])
        await until(lambda: a.node.mail.room.tally.delivered == 1)
        assert len((await read(b, "bob", peek=True)).messages) == 1


async def test_a_carrier_keeps_no_more_of_one_node_than_its_share_and_nothing_that_makes_no_sense(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("bob", echo)
        keeper: Carriers = b.node.mail.room.carriers
        now_ms = b.node.mail.room.unix_ms()

        def letter(n: int, **more: object) -> v1.Carried:
            fields = {"mark": n.to_bytes(32, "big"), "recipient": b"r" * 32, "expires_ms": now_ms + 1_000_000}
            return v1.Carried(**{**fields, "sealed": b"x", **more})  # type: ignore[arg-type]

        bad = [
            letter(0, mark=b"short"),
            letter(0, recipient=b"short"),
            letter(0, sealed=b""),
            letter(0, sealed=b"x" * 4_000_000),
            letter(0, expires_ms=now_ms),
            letter(0, expires_ms=1 << 60),
        ]
        assert await keeper._keep(a.node.node_id, bad) == []
        marks = await keeper._keep(a.node.node_id, [letter(n) for n in range(1, DEPOSITOR_MAX + 10)])
        assert len(marks) == DEPOSITOR_MAX
        assert b.node.mail.room.carried == (DEPOSITOR_MAX, DEPOSITOR_MAX)


async def test_a_letter_that_does_not_open_is_refused_and_signed_for_by_nobody(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await a.serve("alice", echo)
        await b.serve("bob", echo)
        await until(lambda: knows(a, "bob"))
        bob = raw(b, "bob")
        letters = [v1.Carried(b"m" * 32, bob, b.node.mail.room.unix_ms() + 60_000, b"no letter")]
        reply = await a.node.mail.room.carriers._ask(
            b.node.node_id, v1.CarryOpen(v=v1.WIRE_VERSION, verb="hand", letters=letters)
        )
        assert reply is not None
        assert (reply.refused, reply.receipts) == ([b"m" * 32], [])
        assert not len(b.node.mail.room.inbox_of(bob))


async def test_a_receipt_that_the_recipient_did_not_sign_ends_no_message(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        await a.serve("alice", echo)
        await b.serve("bob", echo)
        await until(lambda: knows(a, "bob") and knows(c, "bob"))
        await b.node.mesh.aclose()
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="x", delivery="effectively-once"))
        await until(lambda: c.node.mail.room.carried[0] == 1)
        (out,) = a.node.mail.room.outgoing.by_tag.values()
        mark = carriers.mark_of(out.pair.mine, out.pair.theirs, out.id)
        reply = await c.node.mail.room.carriers._ask(
            a.node.node_id, v1.CarryOpen(v=v1.WIRE_VERSION, verb="receipts", receipts=[(mark, b"f" * 64)])
        )
        assert reply is not None
        assert reply.taken == []
        assert (await a.node.mail.figures()).delivered == 0


async def test_receipts_that_a_depositor_never_takes_count_as_what_it_left(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("bob", echo)
        room = b.node.mail.room
        until_ms = room.unix_ms() + 1_000_000
        marks = [n.to_bytes(32, "big") for n in range(DEPOSITOR_MAX)]
        letters = [v1.Carried(mark, b"r" * 32, until_ms, b"x") for mark in marks]
        assert len(await room.carriers._keep(a.node.node_id, letters)) == DEPOSITOR_MAX
        signed = dict.fromkeys(marks, b"s" * 64)
        assert len(await room.commits.read(lambda store: store.drop_carried(marks, signed))) == DEPOSITOR_MAX
        one_more = [v1.Carried(b"n" * 32, b"r" * 32, until_ms, b"x")]
        assert await room.carriers._keep(a.node.node_id, one_more) == []
        await room.commits.read(lambda store: store.drop_receipts(marks))
        assert len(await room.carriers._keep(a.node.node_id, one_more)) == 1


async def test_a_full_inbox_takes_no_letter_from_a_carrier_which_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        await a.serve("alice", echo)
        await b.serve("bob", echo)
        await until(lambda: knows(a, "bob") and knows(c, "bob"))
        await part(a, b)
        full = True
        asked: list[bytes] = []
        monkeypatch.setattr(b.node.mail.room.arrivals, "is_full", lambda agent: asked.append(agent) is None and full)
        await a.node.mail.send(MessageRequest(to="bob", sender="alice", text="later", delivery="effectively-once"))
        await until(lambda: bool(asked))
        assert not len(b.node.mail.room.inbox_of(raw(b, "bob")))
        assert c.node.mail.room.carried[0] == 1
        full = False
        c.node.mail.room.carriers.hand_over(b.node.node_id)
        assert [one.data for one in (await read(b, "bob")).messages] == ["later"]
