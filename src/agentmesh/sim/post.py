"""The couriers of a world and what their driver does: outboxes and inboxes that survive, sessions, mail streams.

Beside the brains and unknown to them: a scenario without a "mail" measure has none of this. What ``node.mail`` does with disks,
keys and streams is done here in the plainest way (docs/spec/simulator.md §5); handshakes carry no keys. Where links are
"lossy", parcels are lost, doubled and reordered one by one, which no stream of ours does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentmesh.core.courier.config import CourierConfig
from agentmesh.core.courier.inputs import (
    Arrived,
    Deliver,
    Delivered,
    Expired,
    Item,
    PathDown,
    PathUp,
    Ready,
    Returned,
    Room,
    SessionDown,
    SessionUp,
    Submit,
    Taken,
)
from agentmesh.core.courier.machine import Courier
from agentmesh.core.courier.messages import Accept, Open, Parcel, Refuse, decode_frame, encode_frame
from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.sim.node import DOWN, PAUSED, UP, SimNode

if TYPE_CHECKING:
    from agentmesh.sim.world import World

#: How often a driver looks after its streams and sessions, and until a paused process is tried again.
_TEND_S = 0.5
_PAUSED_S = 0.05
#: What a stream takes at once, how long until it takes more, and how long a batch takes to reach the disk.
_ROOM_BYTES = 64 * 1024
_ROOM_S = 0.001
_DISK_S = 0.005
#: An opening that was not answered is repeated.
_OPEN_S = 1.0


class Mail:
    """One message of a world.

    Attributes:
        number: Its id.
        sender, recipient: Nodes by index; one agent each.
        conversation, lane, acked: As in ``Item``.
        sent_s, expires_s: When.
        ended: "delivered", "expired", "returned"; "" while it is in the outbox.
        submitted: The session that has it; 0 = none.
        again: It came back from a session.
    """

    __slots__ = (
        "acked",
        "again",
        "conversation",
        "ended",
        "expires_s",
        "lane",
        "number",
        "recipient",
        "sender",
        "sent_s",
        "submitted",
    )

    def __init__(self, number: int, sender: int, recipient: int, conversation: str, lane: int) -> None:
        self.number, self.sender, self.recipient = number, sender, recipient
        self.conversation, self.lane = conversation, lane
        self.sent_s = self.expires_s = 0.0
        self.acked, self.again = True, False
        self.submitted = 0
        self.ended = ""


class Stream:
    """A mail stream between two runs of two nodes."""

    __slots__ = ("a", "b", "lives", "ready_us", "silent_s")

    def __init__(self, a: SimNode, b: SimNode) -> None:
        self.a, self.b, self.lives = a, b, (a.life, b.life)
        self.ready_us = [0, 0]
        self.silent_s: float | None = None

    def other(self, end: SimNode) -> SimNode:
        """Return the other end."""
        return self.b if end is self.a else self.a

    def is_current(self, end: SimNode) -> bool:
        """Say whether a node is still in the run that this stream belongs to."""
        return end.life == self.lives[0 if end is self.a else 1]


class Desk:
    """One node's courier and what is on its disk.

    Attributes:
        node: The node.
        courier: Of this run.
        life: The run.
        outbox: On disk: number → message that has not ended.
        inbox: On disk: numbers of messages in the order in which they were kept; those are what it tells repeats by.
        streams: By the index of the peer.
        sessions: By the index of the peer: sessions that are up, oldest first; peers by session.
        opening: By the index of the peer: session asked for, and when.
    """

    def __init__(self, node: SimNode, config: CourierConfig) -> None:
        self.node, self._config = node, config
        self.outbox: dict[int, Mail] = {}
        self.inbox: dict[int, float] = {}
        self.life = 0
        self.start()

    def start(self) -> None:
        """Begin a run: nothing is left but what is on disk."""
        self.courier = Courier(self._config)
        self.life = self.node.life
        self.streams: dict[int, Stream] = {}
        self.sessions: dict[int, dict[int, None]] = {}
        self.peers: dict[int, int] = {}
        self.opening: dict[int, tuple[int, float]] = {}
        for mail in self.outbox.values():
            mail.submitted = 0
            mail.again = True


class Post:
    """All desks.

    Args:
        world: The world.
        config: Knobs of the couriers.

    Attributes:
        desks: By the index of the node.
        repeated: Messages that came again and were known by their number.
        parcels, parcel_bytes: Sent.
        repeats: Letters repeated by couriers of earlier runs.
    """

    def __init__(self, world: World, config: CourierConfig) -> None:
        self._world = world
        self._rng = random.Random(f"post/{world.seed}")  # noqa: S311 a simulation
        self._lossy = world.scenario.links.mode == "lossy"
        self.desks = [Desk(node, config) for node in world.nodes]
        self.mails: list[Mail] = []
        self.repeated = self.parcels = self.parcel_bytes = self.repeats = self.letters = 0
        world.every(_TEND_S, self._tend)

    # What the measure does

    def send(self, mails: list[Mail]) -> None:
        """Put messages of one node to one other into its outbox, and on their way if that is possible."""
        for mail in mails:
            self.mails.append(mail)
            self.desks[mail.sender].outbox[mail.number] = mail
        self._forward(self.desks[mails[0].sender], mails[0].recipient)

    # The driver of one node

    def _at(self, node: SimNode, life: int, delay_s: float, what: Callable[[], None]) -> None:
        """Do something at a node later, if it is still in that run; a paused one does it when it goes on."""

        def now() -> None:
            if node.life != life or node.state == DOWN:
                return
            if node.state == PAUSED:
                self._world.call(_PAUSED_S, now)
            else:
                what()

        self._world.call(delay_s, now)

    def _feed(self, desk: Desk, incoming: Any) -> None:
        world, out = self._world, Outbox()
        world.trace(desk.node, incoming)
        desk.courier.handle(incoming, world.now_s, out)
        for delay_s, timer in out.timers:
            self._at(desk.node, desk.life, delay_s + 1e-6, lambda timer=timer: self._feed(desk, timer))
        for send in out.sends:
            peer = world.by_id[send.to].index
            stream = desk.streams.get(peer)
            if stream is not None:
                self._carry(desk, stream, send.message)
        for event in out.events:
            self._on_event(desk, event)

    def _on_event(self, desk: Desk, event: Any) -> None:
        world = self._world
        if isinstance(event, Ready):
            self._at(desk.node, desk.life, _ROOM_S, lambda: self._feed(desk, Room(event.peer, _ROOM_BYTES)))
        elif isinstance(event, Deliver):
            numbers = [(int(letter.body), letter.seq) for letter in event.letters]
            self._at(desk.node, desk.life, _DISK_S, lambda: self._keep(desk, event.session, numbers))
        elif isinstance(event, Delivered):
            for number in event.tags:
                self._end(desk, number, "delivered")
            self._forward(desk, desk.peers[event.session])
        elif isinstance(event, Expired):
            for number in event.tags:
                self._end(desk, number, "expired")
        elif isinstance(event, Returned):
            for number in event.tags:
                mail = desk.outbox[number]
                mail.submitted = 0
                mail.again = mail.again or event.reason != "full"
                if not mail.acked and event.reason != "full":
                    self._end(desk, number, "returned")
        elif isinstance(event, PeerMisbehaved):
            world.violate(f"an honest courier is blamed: {event.code} {event.detail}", desk.node)

    def _end(self, desk: Desk, number: int, how: str) -> None:
        mail = desk.outbox.pop(number)
        mail.ended = how

    def _keep(self, desk: Desk, session: int, numbers: list[tuple[int, int]]) -> None:
        """Write letters to disk, then acknowledge them."""
        for number, _ in numbers:
            if number in desk.inbox:
                self.repeated += 1
            else:
                desk.inbox[number] = self._world.now_s
        if session in desk.courier.sessions:
            self._feed(desk, Taken(session, [seq for _, seq in numbers]))

    def _forward(self, desk: Desk, peer: int) -> None:
        """Submit what waits for a peer, oldest first; open a stream or a session if there is none."""
        waiting = [mail for mail in desk.outbox.values() if mail.recipient == peer and not mail.submitted]
        if not waiting:
            return
        session = next(iter(desk.sessions.get(peer, ())), 0)
        if not session:
            if peer in desk.streams:
                self._open(desk, peer)
            else:
                self._dial(desk, peer)
            return
        items: list[Item] = []
        for mail in waiting:
            mail.submitted = session
            body = str(mail.number).encode()
            items.append(
                Item(
                    mail.number, mail.conversation, mail.lane, mail.expires_s, body, again=mail.again, acked=mail.acked
                )
            )
        self._feed(desk, Submit(session, items))

    def _tend(self) -> None:
        """Do for every node what its driver does twice a second."""
        world = self._world
        for desk in self.desks:
            node = desk.node
            if node.state == UP and desk.life != node.life:
                self.repeats += desk.courier.repeats
                self.letters += desk.courier.sent
                desk.start()
            if node.state != UP:
                continue
            for stream in list(desk.streams.values()):
                self._tend_stream(stream)
            for number, mail in list(desk.outbox.items()):
                if not mail.submitted and mail.expires_s <= world.now_s:
                    self._end(desk, number, "expired")
            for peer in dict.fromkeys(mail.recipient for mail in desk.outbox.values() if not mail.submitted):
                self._forward(desk, peer)
            for unreached in desk.courier.unreached():
                self._dial(desk, world.by_id[unreached].index)

    # Streams

    def _dial(self, desk: Desk, peer: int) -> None:
        world, a, b = self._world, desk.node, self._world.nodes[peer]
        if b.state != UP or not world.carriage.passes(a, b) or not world.carriage.passes(b, a):
            return  # tried again with the next look
        trip_us = world.ether.delay_us(a, b) + world.ether.delay_us(b, a)
        life = b.life
        self._at(a, a.life, trip_us * 1e-6, lambda: self._connect(desk, self.desks[peer], life))

    def _connect(self, desk: Desk, other: Desk, life: int) -> None:
        a, b = desk.node, other.node
        if b.life != life or b.state != UP or b.index in desk.streams:
            return
        if other.life != b.life:
            return  # its driver has not started yet
        old = other.streams.get(a.index)
        if old is not None:
            self._break(old)
        stream = desk.streams[b.index] = other.streams[a.index] = Stream(a, b)
        for end, peer in ((desk, b), (other, a)):
            if end.streams.get(peer.index) is stream:
                self._feed(end, PathUp(peer.node_id))
        self._forward(desk, b.index)
        self._forward(other, a.index)

    def _tend_stream(self, stream: Stream) -> None:
        """Break a stream that was silent for the idle timeout."""
        world, a, b = self._world, stream.a, stream.b
        fine = all(end.state == UP and stream.is_current(end) for end in (a, b))
        if fine and world.carriage.passes(a, b) and world.carriage.passes(b, a):
            stream.silent_s = None
        elif stream.silent_s is None:
            stream.silent_s = world.now_s
        elif world.now_s - stream.silent_s >= world.scenario.links.idle_timeout_s:
            self._break(stream)

    def _break(self, stream: Stream) -> None:
        for end in (stream.a, stream.b):
            desk, peer = self.desks[end.index], stream.other(end)
            if stream.is_current(end) and desk.life == end.life and desk.streams.get(peer.index) is stream:
                del desk.streams[peer.index]
                self._feed(desk, PathDown(peer.node_id))

    def _carry(self, desk: Desk, stream: Stream, frame: Any) -> None:
        """Send a frame over a stream, through whatever lies between."""
        world, ether, node = self._world, self._world.ether, desk.node
        peer = stream.other(node)
        raw = encode_frame(frame)
        self.parcels += 1
        self.parcel_bytes += len(raw)
        node.bytes_out += len(raw)
        if not stream.is_current(peer) or peer.state == DOWN or not world.carriage.passes(node, peer):
            return
        side = 0 if stream.a is node else 1
        delay_us = ether.delay_us(node, peer)
        at_us = world.now_us + delay_us
        copies = 1
        if self._lossy:
            if ether.is_lost() or ether.is_flipped():
                return
            at_us += ether.held_us(delay_us)
            copies += ether.is_doubled()
        else:
            at_us = max(at_us + ether.resent_us(delay_us), stream.ready_us[side] + 1)
            stream.ready_us[side] = at_us
        for _ in range(copies):
            self._at(
                peer, peer.life, (at_us - world.now_us) * 1e-6, lambda: self._on_frame(peer.index, node, stream, raw)
            )

    def _on_frame(self, index: int, sender: SimNode, stream: Stream, raw: bytes) -> None:
        desk = self.desks[index]
        if desk.life != desk.node.life or desk.streams.get(sender.index) is not stream:
            return
        frame = decode_frame(raw)
        if isinstance(frame, Parcel):
            if frame.session in desk.courier.sessions:
                self._feed(desk, Arrived(sender.node_id, frame))
            else:
                self._carry(desk, stream, Refuse(frame.session, "unknown"))
        elif isinstance(frame, Open):
            if frame.session not in desk.courier.sessions:
                self._up(desk, sender.index, frame.session)
            self._carry(desk, stream, Accept(frame.session, b""))
        elif isinstance(frame, Accept):
            if desk.opening.get(sender.index, (0, 0.0))[0] == frame.session:
                del desk.opening[sender.index]
                self._up(desk, sender.index, frame.session)
                self._forward(desk, sender.index)
        elif isinstance(frame, Refuse) and desk.peers.get(frame.session) == sender.index:
            self._down(desk, frame.session, frame.code)

    # Sessions

    def _open(self, desk: Desk, peer: int) -> None:
        now_s = self._world.now_s
        session, asked_s = desk.opening.get(peer, (0, 0.0))
        if session and asked_s + _OPEN_S > now_s:
            return
        session = session or self._rng.getrandbits(62) + 1
        desk.opening[peer] = session, now_s
        self._carry(desk, desk.streams[peer], Open(session, b""))

    def _up(self, desk: Desk, peer: int, session: int) -> None:
        desk.sessions.setdefault(peer, {})[session] = None
        desk.peers[session] = peer
        self._feed(desk, SessionUp(session, self._world.nodes[peer].node_id))

    def _down(self, desk: Desk, session: int, reason: str) -> None:
        peer = desk.peers[session]
        self._feed(desk, SessionDown(session, reason))
        del desk.peers[session]
        del desk.sessions[peer][session]
        self._forward(desk, peer)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a courier of a running node breaks a rule of its own."""
        for desk in self.desks:
            if desk.node.state != DOWN and desk.life == desk.node.life:
                desk.courier.assert_invariants()
