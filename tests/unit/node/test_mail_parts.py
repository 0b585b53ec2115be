"""Parts of the mail room alone: what is remembered of ids, what an inbox hands out in which order (docs/spec/mail.md §5–6)."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.courier.message import Message
from agentmesh.node.mail.inbox import TRIES_MAX, Inbox, Waiting
from agentmesh.node.mail.seen import SEEN_MAX, SEEN_S, Seen

BASE = Message(id=b"i" * 16, sender=b"s" * 32, recipient=b"r" * 32, kind=1, sent_ms=0, payload=b"x", ttl_ms=10**9)


def test_an_id_is_remembered_for_ten_minutes_and_forgotten_within_twenty() -> None:
    seen = Seen(0.0)
    young, _ = seen.of(b"ends")
    young.add(b"id")
    seen.count += 1
    seen.tidy(SEEN_S - 1)
    seen.tidy(SEEN_S + 1)
    young, old = seen.of(b"ends")
    assert b"id" in old
    assert b"id" not in seen.of(b"others")[1]
    seen.tidy(2 * SEEN_S + 2)
    assert not len(seen)


def test_ids_are_bounded_however_many_come() -> None:
    seen = Seen(0.0)
    for at in range(0, 4 * SEEN_MAX, 4_096):
        young, _ = seen.of(b"ends")
        young.update(n.to_bytes(4, "big") for n in range(at, at + 4_096))
        seen.count += 4_096
        seen.tidy(1.0)
    assert SEEN_MAX <= len(seen) <= 2 * SEEN_MAX


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(("put", "hand", "ack", "back", "wait", "peek")), st.integers(1, 4)), max_size=60
    )
)
def test_an_inbox_hands_out_each_message_in_order_until_it_is_acknowledged_or_given_up(
    steps: list[tuple[str, int]],
) -> None:
    dead: list[tuple[int, str]] = []
    box = Inbox(lambda one, reason: dead.append((one.cursor, reason)))
    waiting: dict[int, tuple[int, float]] = {}  # the model: cursor → (tries, leased until)
    now_s, cursor = 1.0, 0

    def name(number: int) -> bytes:
        return number.to_bytes(16, "big")

    for step, count in steps:
        if step == "put":
            ones: list[Waiting] = []
            for _ in range(count):
                cursor += 1
                ones.append(Waiting(cursor, msgspec.structs.replace(BASE, id=name(cursor)), 0, True, False))
                waiting[cursor] = (0, 0.0)
            box.put(ones)
        elif step == "hand":
            got = [one.cursor for one in box.hand_out(count, now_s, 0, 5.0, peek=False)]
            free = [c for c, (_, until_s) in sorted(waiting.items()) if not until_s]
            assert got == free[:count]
            for one in got:
                waiting[one] = (waiting[one][0] + 1, now_s + 5.0)
        elif step == "peek":
            peeked = [one.cursor for one in box.hand_out(100, now_s, 0, 5.0, peek=True)]
            assert peeked == sorted(waiting)
        elif step == "wait":
            now_s += 6.0
            box.expire(now_s, 0)
            for one, (tries, until_s) in list(waiting.items()):
                if until_s and tries >= TRIES_MAX:
                    del waiting[one]
                elif until_s:
                    waiting[one] = (tries, 0.0)
        elif waiting:
            one = sorted(waiting)[count % len(waiting)]
            if step == "ack":
                assert [w.cursor for w in box.take(name(one))] == [one]
                del waiting[one]
            else:
                leased = bool(waiting[one][1])
                assert box.give_back(name(one)) == leased
                tries = waiting[one][0]
                if leased and tries >= TRIES_MAX:
                    del waiting[one]
                else:
                    waiting[one] = (tries, 0.0)
        assert len(box) == len(waiting)
        assert box.bytes == len(waiting)
    assert all(reason == "mail.unread" for _, reason in dead)


def test_what_is_past_its_end_is_given_up_and_a_repeated_id_is_taken_with_all_its_copies() -> None:
    dead: list[str] = []
    box = Inbox(lambda _, reason: dead.append(reason))
    late = msgspec.structs.replace(BASE, ttl_ms=5)
    box.put([Waiting(1, late, 0, True, False), Waiting(2, BASE, 0, True, False), Waiting(3, BASE, 0, True, False)])
    assert [one.cursor for one in box.hand_out(10, 1.0, 6, 5.0, peek=False)] == [2, 3]
    assert dead == ["mail.expired"]
    assert [one.cursor for one in box.take(BASE.id)] == [2, 3]
    assert (len(box), box.bytes) == (0, 0)
