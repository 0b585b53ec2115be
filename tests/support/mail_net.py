"""Two or more couriers over a network that loses, doubles, reorders and splits, in virtual time, with a dumb model of what
must come out. Parcels go through the wire form, so that one letter object is never in two places.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
from agentmesh.core.courier.messages import decode_frame, encode_frame
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.ids import NodeId


@dataclass
class Weather:
    """What happens to parcels, and how slow drivers are."""

    loss: float = 0.0
    double: float = 0.0
    delay_s: float = 0.01
    jitter_s: float = 0.0
    take_s: float = 0.002
    room_s: float = 0.001
    room_bytes: int = 65_536


@dataclass
class Sent:
    """One item: to whom, and how it ended."""

    session: int
    conversation: str
    number: int
    acked: bool = True
    ended: list[str] = field(default_factory=list)


class MailNode:
    """A courier and its driver."""

    def __init__(self, net: MailNet, name: str, config: CourierConfig | None) -> None:
        self.net, self.name, self.courier = net, NodeId(name), Courier(config)
        self.sent: dict[int, Sent] = {}
        self.got: list[tuple[int, str, int]] = []
        self.taken: list[tuple[int, int]] = []
        self.events: list[Any] = []
        self.steady = True

    def feed(self, incoming: Any) -> Outbox:
        """Hand over one input, check the machine, and do what it wants."""
        out = Outbox()
        self.courier.handle(incoming, self.net.now_s, out)
        if self.net.checked:
            self.courier.assert_invariants()
        for delay_s, timer in out.timers:
            self.net.call(delay_s, lambda timer=timer: self.feed(timer))
        for send in out.sends:
            self.net.carry(self, send.to, send.message)
        for event in out.events:
            self._on_event(event)
        return out

    def _on_event(self, event: Any) -> None:
        net, weather = self.net, self.net.weather
        self.events.append(event)
        if isinstance(event, Ready):
            net.call(weather.room_s, lambda: self.feed(Room(event.peer, weather.room_bytes)))
        elif isinstance(event, Deliver):
            for letter in event.letters:
                conversation, _, number = letter.body.split(b" ")[0].decode().rpartition("/")
                self.got.append((event.session, conversation, int(number)))
            seqs = [letter.seq for letter in event.letters]
            net.rng.shuffle(seqs)
            cut = net.rng.randrange(len(seqs) + 1)
            for part in (seqs[:cut], seqs[cut:]):
                if part:
                    net.call(weather.take_s * net.rng.random() * 2, lambda part=part: self._take(event.session, part))
        elif isinstance(event, Delivered | Expired | Returned):
            word = type(event).__name__ if not isinstance(event, Returned) else event.reason
            for tag in event.tags:
                self.sent[tag].ended.append(word)
        elif isinstance(event, PeerMisbehaved):
            net.blamed.append((self.name, event))

    def _take(self, session: int, seqs: list[int]) -> None:
        if session in self.courier.sessions:
            self.feed(Taken(session, seqs))

    def submit(self, session: int, conversations: list[str], **fields: Any) -> list[int]:
        """Send one item per name of a conversation; return the tags."""
        items, tags = list[Item](), list[int]()
        ttl_s, size = fields.pop("ttl_s", 1e5), fields.pop("size", 20)
        for conversation in conversations:
            tag = len(self.sent)
            self.sent[tag] = Sent(session, conversation, tag, fields.get("acked", True))
            body = f"{conversation}/{tag} ".encode() + bytes(size)
            lane = fields.get("lane", -1)
            rest = {key: value for key, value in fields.items() if key != "lane"}
            items.append(
                Item(
                    tag,
                    conversation,
                    lane if lane >= 0 else self.net.rng.randrange(4),
                    self.net.now_s + ttl_s,
                    body,
                    **rest,
                )
            )
            tags.append(tag)
        self.feed(Submit(session, items))
        return tags


class MailNet:
    """The network and its clock."""

    def __init__(self, seed: int = 0, weather: Weather | None = None, *, checked: bool = True) -> None:
        self.rng = random.Random(seed)
        self.weather = weather or Weather()
        self.checked = checked
        self.now_s = 0.0
        self.nodes: dict[NodeId, MailNode] = {}
        self.blamed: list[tuple[NodeId, PeerMisbehaved]] = []
        self.up: set[tuple[NodeId, NodeId]] = set()
        self._epoch: dict[tuple[NodeId, NodeId], int] = {}
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self.carried = 0
        self._letters: dict[tuple[NodeId, NodeId, int, int], tuple[int, int, bytes]] = {}
        self.tap: Callable[[NodeId, NodeId, Any], bool] | None = None

    def node(self, name: str, config: CourierConfig | None = None) -> MailNode:
        """Add a node."""
        node = self.nodes[NodeId(name)] = MailNode(self, name, config)
        return node

    def call(self, delay_s: float, what: Callable[[], object]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._agenda, (self.now_s + delay_s, self._count, what))

    def run(self, for_s: float) -> None:
        """Let time pass."""
        end_s = self.now_s + for_s
        while self._agenda and self._agenda[0][0] <= end_s:
            at_s, _, what = heapq.heappop(self._agenda)
            self.now_s = max(self.now_s, at_s)
            what()
        self.now_s = end_s

    def session(self, number: int, a: MailNode, b: MailNode) -> None:
        """Open a session at both ends."""
        a.feed(SessionUp(number, b.name))
        b.feed(SessionUp(number, a.name))

    def close(self, number: int, reason: str = "closed") -> None:
        """End a session at both ends."""
        for node in self.nodes.values():
            node.feed(SessionDown(number, reason))

    def link(self, a: MailNode, b: MailNode) -> None:
        """Bring the path up at both ends."""
        self.up |= {(a.name, b.name), (b.name, a.name)}
        a.feed(PathUp(b.name))
        b.feed(PathUp(a.name))

    def cut(self, a: MailNode, b: MailNode) -> None:
        """Break the path; what is on its way is lost."""
        for pair in ((a.name, b.name), (b.name, a.name)):
            self.up.discard(pair)
            self._epoch[pair] = self._epoch.get(pair, 0) + 1
        a.feed(PathDown(b.name))
        b.feed(PathDown(a.name))

    def carry(self, sender: MailNode, to: NodeId, parcel: Any) -> None:
        """Send a parcel through the weather."""
        pair, weather, rng = (sender.name, to), self.weather, self.rng
        assert pair in self.up, "a parcel was sent where there is no path"
        for letter in parcel.letters:
            what = letter.after, letter.lane, letter.body
            assert self._letters.setdefault((*pair, parcel.session, letter.seq), what) == what, "a nonce was used twice"
        raw = encode_frame(parcel)
        self.carried += len(raw)
        if self.tap is not None and not self.tap(sender.name, to, parcel):
            return
        epoch = self._epoch.get(pair, 0)

        def arrive() -> None:
            if self._epoch.get(pair, 0) == epoch:
                frame: Any = decode_frame(raw)
                self.nodes[to].feed(Arrived(sender.name, frame))

        for _ in range(2 if rng.random() < weather.double else 1):
            if rng.random() >= weather.loss:
                self.call(weather.delay_s + rng.random() * weather.jitter_s, arrive)


def check_accounts(sender: MailNode, receiver: MailNode, session: int) -> None:
    """Compare what was sent in a session with what came out and what the sender was told."""
    got = [(conversation, number) for of, conversation, number in receiver.got if of == session]
    assert len(set(got)) == len(got), "something was delivered twice"
    order: dict[str, int] = {}
    for conversation, number in got:
        assert number > order.get(conversation, -1), f"{number} of {conversation!r} after {order[conversation]}"
        order[conversation] = number
    arrived = {number for _, number in got}
    for number, sent in sender.sent.items():
        if sent.session == session:
            assert len(sent.ended) <= 1, f"item {number} ended as {sent.ended}"
            if sent.ended == ["Delivered"]:
                assert number in arrived, f"item {number} is said to be delivered"
            if sent.ended and sent.ended[0] in ("full", "no_session", "no_path"):
                assert number not in arrived, f"item {number} was never sent"
    assert arrived <= {number for number, sent in sender.sent.items() if sent.session == session}


def unended(node: MailNode) -> list[int]:
    """Return the tags of which the driver has heard nothing."""
    return [number for number, sent in node.sent.items() if not sent.ended]


__all__ = ["MailNet", "MailNode", "Timer", "Weather", "check_accounts", "unended"]
