"""The courier: numbers, orders, acknowledges, repeats, expires and bounds messages between agents (docs/spec/courier.md).

Many sessions, each between one agent here and one agent elsewhere, share the path to the other's node. Bodies are opaque; the
driver seals what is sent and opens what comes, and parcels are sent when it says that the path has room. Figures that only
grow (``sent`` …) are for people; the rules are in ``sending``, ``receiving`` and ``path``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from agentmesh.core.courier.agenda import Agenda
from agentmesh.core.courier.config import CourierConfig
from agentmesh.core.courier.inputs import (
    Arrived,
    Blocked,
    Deliver,
    Delivered,
    Expired,
    Idle,
    Item,
    PathDown,
    PathUp,
    Ready,
    Refused,
    Returned,
    Room,
    SessionDown,
    SessionUp,
    Submit,
    Taken,
    Unblocked,
    Window,
)
from agentmesh.core.courier.message import MESSAGE_BYTES_MAX
from agentmesh.core.courier.messages import LETTER_BYTES, PARCEL_BYTES, Letter
from agentmesh.core.courier.path import Path
from agentmesh.core.courier.sending import REPEATS
from agentmesh.core.courier.session import Session
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.ids import NodeId

#: An acknowledged range costs so many bytes at most, as one letter given up does.
_RANGE_BYTES = 18


class Courier:
    """All sessions of one node.

    Args:
        config: Bounds and intervals.

    Attributes:
        sessions, paths: By id, by node.
        letters, bytes: What waits or is unacknowledged in all sessions.
        untaken_bytes, held_bytes: What was delivered and not taken; what waits for an earlier letter.
        sent, repeats, delivered, expired, returned: Letters sent first and again; items that ended, by how.
        received, repeated, dropped, strays: Letters delivered; that came again; for which there was no room; parcels of
            sessions that are not known.
    """

    def __init__(self, config: CourierConfig | None = None) -> None:
        self.config = config or CourierConfig()
        self.sessions: dict[int, Session] = {}
        self.paths: dict[NodeId, Path] = {}
        self.letters = self.bytes = self.held_bytes = 0
        self.untaken_bytes = 0.0
        self.sent = self.repeats = self.delivered = self.expired = self.returned = 0
        self.received = self.repeated = self.dropped = self.strays = 0
        self._agenda = Agenda(self.sessions)
        self._wake = self._agenda.wake
        self._inputs: dict[type, Callable[[Any, float, Outbox], None]] = {
            Arrived: self._on_arrived,
            Room: self._on_room,
            Submit: self._on_submit,
            Taken: self._on_taken,
            Window: self._on_window,
            SessionUp: self._on_session_up,
            SessionDown: self._on_session_down,
            PathUp: self._on_path_up,
            PathDown: self._on_path_down,
            Timer: self._on_timer,
        }

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input (``core.courier.inputs``, ``Timer``) at monotonic time ``now_s`` and write effects."""
        handle = self._inputs.get(incoming.__class__)
        if handle is None:
            return
        handle(incoming, now_s, out)
        self._agenda.arm(now_s, out)

    def unreached(self) -> list[NodeId]:
        """Return the nodes to which there is no path though something waits for them, letters or acknowledgements."""
        return [
            peer
            for peer, path in self.paths.items()
            if not path.up and any(each.sending.letters or each.receiving.owed for each in path.sessions.values())
        ]

    # Sessions and paths

    def _on_session_up(self, up: SessionUp, now_s: float, out: Outbox) -> None:
        if up.session in self.sessions:
            raise AssertionError(f"session {up.session} is up already")
        path = self.paths.get(up.peer)
        if len(self.sessions) >= self.config.sessions_max or (path is None and not self._has_room_for_path()):
            out.emit(Refused(up.session, "full"))
            return
        if path is None:
            path = self.paths[up.peer] = Path(self.config)
        session = self.sessions[up.session] = path.sessions[up.session] = Session(
            up.session, up.peer, self.config, now_s
        )
        self._wake(session, now_s + self.config.idle_s)

    def _on_session_down(self, down: SessionDown, now_s: float, out: Outbox) -> None:
        session = self.sessions.pop(down.session, None)
        if session is None:
            return
        path = self.paths[session.peer]
        path.leave(session)
        del path.sessions[session.id]
        if not path.up and not path.sessions:
            del self.paths[session.peer]
        elif not path:
            path.ready = False
        sending, receiving = session.sending, session.receiving
        self.letters -= sending.letters
        self.bytes -= sending.bytes
        self.untaken_bytes -= receiving.untaken_bytes
        self.held_bytes -= receiving.held_bytes
        self._give_back(session.id, sending.give_back(), down.reason, out)

    def _has_room_for_path(self) -> bool:
        return len(self.paths) < self.config.paths_max

    def _on_path_up(self, up: PathUp, now_s: float, out: Outbox) -> None:
        path = self.paths.get(up.peer)
        if path is None:
            if not self._has_room_for_path():
                return
            path = self.paths[up.peer] = Path(self.config)
        if path.up:
            self._on_path_down(PathDown(up.peer), now_s, out)
            path.up = True
            self.paths[up.peer] = path
        path.up = True
        for session in path.sessions.values():
            session.up_s = now_s
            session.asks = 0
            if session.sending.flight or session.sending.blocked:
                session.returning = True
                out.send(session.peer, session.parcel([], [], ask=True), link=True)
            self._settle(session, path, now_s, out)

    def _on_path_down(self, down: PathDown, now_s: float, out: Outbox) -> None:
        path = self.paths.get(down.peer)
        if path is None:
            return
        path.up = path.ready = False
        for session in path.sessions.values():
            path.leave(session)
            session.returning = False
            sending = session.sending
            before, size = sending.letters, sending.bytes
            dropped, lost = sending.drop_unsent(), sending.lose_unacked()
            self._count(sending.letters - before, sending.bytes - size)
            self._give_back(session.id, dropped, "no_path", out)
            self._give_back(session.id, lost, "lost", out)
        if not path.sessions:
            del self.paths[down.peer]

    # Sending

    def _on_submit(self, submit: Submit, now_s: float, out: Outbox) -> None:
        session, items = self.sessions.get(submit.session), submit.items
        if session is None:
            self._give_back(submit.session, [item.tag for item in items], "no_session", out)
            return
        path, sending = self.paths[session.peer], session.sending
        if not path.up:
            self._give_back(session.id, [item.tag for item in items if not item.acked], "no_path", out)
            items = [item for item in items if item.acked]
        fitting = self._fitting(session, items)
        if fitting < len(items):
            self._give_back(session.id, [item.tag for item in items[fitting:]], "full", out)
            items = items[:fitting]
        if not items:
            return
        size = sending.bytes
        sending.put(items)
        self._count(len(items), sending.bytes - size)
        session.busy_s = now_s
        session.idle = False
        self._settle(session, path, now_s, out)

    def _fitting(self, session: Session, items: list[Item]) -> int:
        """Return how many of these items, from the first, there is room for."""
        config, sending = self.config, session.sending
        letters = min(config.queue_letters_max - sending.letters, config.letters_max - self.letters, len(items))
        room = min(config.queue_bytes_max - sending.bytes, config.bytes_max - self.bytes)
        if letters == len(items) and sum([len(item.body) for item in items]) <= room:
            return letters
        for at in range(letters):
            room -= len(items[at].body)
            if room < 0:
                return at
        return max(0, letters)

    def _on_room(self, given: Room, now_s: float, out: Outbox) -> None:
        path = self.paths.get(given.peer)
        if path is None or not path.up:
            return
        path.ready = True  # nobody needs to be told while it is being used
        left, alone_max = given.bytes, MESSAGE_BYTES_MAX + LETTER_BYTES
        while left > 0:
            turn = path.next()
            if turn is None:
                break
            lane, session = turn
            around = PARCEL_BYTES + _RANGE_BYTES * (1 + len(session.receiving.taken.more) // 2)
            letters, gone, used, expired = self._fill(session, lane, left - around, alone_max, now_s, out)
            if letters or gone:
                left -= around + used
                alone_max = left - around  # one letter goes even if it is larger than the room, so that it ever goes
                path.spend(lane, session, around + used)
                session.busy_s = now_s
                out.send(session.peer, session.parcel(letters, gone), link=True)
            elif session.sending.open_lanes() >> lane & 1:
                path.put_back(lane, session)
                if not expired:
                    break
            self._settle(session, path, now_s, out)
        path.ready = bool(path)
        if path.ready:
            out.emit(Ready(given.peer))

    def _fill(
        self, session: Session, lane: int, room: int, alone_max: int, now_s: float, out: Outbox
    ) -> tuple[list[Letter], list[int], int, bool]:
        """Take what goes into one parcel from a lane: letters, letters given up, bytes; and whether some had expired."""
        sending = session.sending
        bytes_max, expired, gone = min(room, session.allowance), list[int](), list[int]()
        before, held = sending.letters, sending.bytes
        if lane == REPEATS:
            letters, gone, used = sending.repeats(now_s, bytes_max, max(room, alone_max), expired)
            self.repeats += len(letters)
        else:
            letters, used = sending.fresh(lane, now_s, bytes_max, max(room, alone_max), expired)
            self.sent += len(letters)
        if expired:
            self._count(sending.letters - before, sending.bytes - held)
            self._expire(session.id, expired, out)
        return letters, gone, used, bool(expired)

    # Receiving

    def _on_arrived(self, arrived: Arrived, now_s: float, out: Outbox) -> None:
        parcel = arrived.parcel
        session = self.sessions.get(parcel.session)
        if session is None:
            self.strays += 1
            return
        if session.peer != arrived.peer:
            out.emit(PeerMisbehaved(arrived.peer, "courier.session", "a parcel of a session with another node"))
            return
        sending, receiving = session.sending, session.receiving
        code = receiving.judge(parcel) or sending.judge(parcel.acks, parcel.credit)
        if code:
            out.emit(PeerMisbehaved(arrived.peer, code, f"a parcel of session {session.id} breaks the rules"))
            return
        session.busy_s = now_s
        session.idle = False
        if parcel.acks:
            before, size = sending.letters, sending.bytes
            tags = sending.acknowledge(parcel.acks, now_s)
            if tags:
                self.delivered += len(tags)
                out.emit(Delivered(session.id, tags))
            self._count(sending.letters - before, sending.bytes - size)
        if parcel.credit > sending.credit:
            sending.credit = parcel.credit
        if parcel.letters or parcel.gone:
            self._take_in(session, arrived, out)
        if parcel.ask:
            receiving.owed += 1
            if now_s >= session.answered_s + self.config.ack_delay_s:
                session.answered_s = now_s
                receiving.asked = True
        path = self.paths[session.peer]
        if session.returning:
            session.returning = False
            size = sending.bytes
            lost = sending.repeat_all(session.up_s)
            self._count(0, sending.bytes - size)
            self._give_back(session.id, lost, "lost", out)
        self._settle(session, path, now_s, out)

    def _take_in(self, session: Session, arrived: Arrived, out: Outbox) -> None:
        receiving, config = session.receiving, self.config
        held, untaken, repeated, dropped = (
            receiving.held_bytes,
            receiving.untaken_bytes,
            receiving.repeated,
            receiving.dropped,
        )
        room = config.held_bytes_max
        ready = receiving.accept(arrived.parcel, int(room - self.untaken_bytes), room - self.held_bytes)
        self.held_bytes += receiving.held_bytes - held
        self.untaken_bytes += receiving.untaken_bytes - untaken
        self.repeated += receiving.repeated - repeated
        self.dropped += receiving.dropped - dropped
        if ready:
            self.received += len(ready)
            out.emit(Deliver(session.id, ready))

    def _on_taken(self, taken: Taken, now_s: float, out: Outbox) -> None:
        session = self.sessions.get(taken.session)
        if session is None or not taken.seqs:
            return
        receiving = session.receiving
        untaken = receiving.untaken_bytes
        receiving.take(taken.seqs)
        self.untaken_bytes += receiving.untaken_bytes - untaken
        self._settle(session, self.paths[session.peer], now_s, out)

    def _on_window(self, window: Window, now_s: float, out: Outbox) -> None:
        session = self.sessions.get(window.session)
        if session is None:
            return
        receiving = session.receiving
        receiving.window(window.letters, window.bytes)
        receiving.owed += receiving.raise_credit()
        self._settle(session, self.paths[session.peer], now_s, out)

    # What follows from any change of a session

    def _settle(self, session: Session, path: Path, now_s: float, out: Outbox) -> None:
        """Acknowledge, queue, tell of credit, and plan to wake, as the session's state asks for."""
        sending, receiving, config = session.sending, session.receiving, self.config
        blocked = session.wants()
        if blocked is not sending.blocked:
            sending.blocked = blocked
            out.emit(Blocked(session.id) if blocked else Unblocked(session.id))
            session.asks = 0
        if not path.up:
            self._wake(session, max(sending.expires_s, session.looked_s + config.expiry_s))
            return
        if receiving.asked or receiving.owed >= config.ack_letters:
            out.send(session.peer, session.parcel([], []), link=True)
        elif receiving.owed and session.ack_s == inf:
            session.ack_s = now_s + config.ack_delay_s
            self._wake(session, session.ack_s)
        if sending.lanes_open:
            path.stand(session)
            if path and not path.ready:
                path.ready = True
                out.emit(Ready(session.peer))
        if not blocked or sending.flight:
            session.ask_s = inf
        elif session.ask_s == inf:
            session.ask_s = now_s + min(config.ask_s * (1 << min(session.asks, 10)), config.rto_max_s)
            self._wake(session, session.ask_s)
        if sending.flight:
            self._wake(session, now_s + sending.rto_s())
        if sending.expires_s < session.wake_s:
            self._wake(session, max(sending.expires_s, session.looked_s + config.expiry_s))

    def _on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        for session in self._agenda.due(timer, now_s):
            self._look(session, now_s, out)

    def _look(self, session: Session, now_s: float, out: Outbox) -> None:
        """Do what is due in a session."""
        path, sending = self.paths[session.peer], session.sending
        config = self.config
        if sending.expires_s <= now_s and session.looked_s + config.expiry_s <= now_s:
            session.looked_s = now_s
            before, size = sending.letters, sending.bytes
            tags = sending.expire(now_s)
            self._count(sending.letters - before, sending.bytes - size)
            self._expire(session.id, tags, out)
        if path.up:
            if session.ack_s <= now_s:
                session.receiving.asked = True
            if session.ask_s <= now_s:
                session.ask_s = inf
                session.asks += 1
                out.send(session.peer, session.parcel([], [], ask=True), link=True)
            if sending.overdue_s() <= now_s:
                size = sending.bytes
                lost = sending.repeat_overdue(now_s)
                self._count(0, sending.bytes - size)
                self._give_back(session.id, lost, "lost", out)
        if session.busy_s + config.idle_s <= now_s and not session.idle and not sending.letters:
            session.idle = True
            out.emit(Idle(session.id))
        self._settle(session, path, now_s, out)
        self._wake(session, session.due_s(up=path.up))

    # Accounts

    def _count(self, letters: int, size: int) -> None:
        self.letters += letters
        self.bytes += size

    def _expire(self, session: int, tags: list[int], out: Outbox) -> None:
        if tags:
            self.expired += len(tags)
            out.emit(Expired(session, tags))

    def _give_back(self, session: int, tags: list[int], reason: str, out: Outbox) -> None:
        if tags:
            self.returned += len(tags)
            out.emit(Returned(session, tags, reason))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule is broken."""
        config, sessions = self.config, self.sessions
        assert len(sessions) <= config.sessions_max
        assert len(self.paths) <= config.paths_max
        self._agenda.assert_invariants()
        assert sum(len(path.sessions) for path in self.paths.values()) == len(sessions)
        for path in self.paths.values():
            path.assert_invariants()
        for session in sessions.values():
            sending, receiving = session.sending, session.receiving
            sending.assert_invariants()
            receiving.assert_invariants()
            assert sending.letters - len(sending.flight) <= config.queue_letters_max
            assert sending.bytes <= config.queue_bytes_max
            up = self.paths[session.peer].up
            assert not up or sending.open_lanes() & ~session.listed == 0, "something waits and stands in no queue"
            assert not up or not sending.flight or session.wake_s < inf, "nobody will repeat what is on its way"
        assert self.letters == sum(each.sending.letters for each in sessions.values()) <= config.letters_max
        assert self.bytes == sum(each.sending.bytes for each in sessions.values()) <= config.bytes_max
        assert self.held_bytes == sum(each.receiving.held_bytes for each in sessions.values())
