"""Drives the courier (sans-IO) on the loop: seals what it sends, opens what came, keeps its timers (docs/spec/courier.md §3)."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentmesh.core.courier import inputs
from agentmesh.core.courier.messages import Accept, Open, Parcel, Refuse, decode_frame, encode_frame
from agentmesh.core.machine import Outbox, Timer
from agentmesh.errors import DecodeError
from agentmesh.ids import NodeId

if TYPE_CHECKING:
    from agentmesh.core.courier.machine import Courier
    from agentmesh.node.mail.handshakes import Handshakes

_log = logging.getLogger("agentmesh.mail")
_aad = struct.Struct(">QQQB").pack


class Carriage:
    """Feed the courier and carry out what it asks for.

    Args:
        push: Sends a frame to a peer.
        on_event: Takes what the courier tells.
        mono_s: Monotonic clock.

    Attributes:
        handshakes: The sessions; set before the first frame.
        courier: The machine; None before ``begin``.
    """

    handshakes: Handshakes

    def __init__(
        self, push: Callable[[NodeId, bytes], None], on_event: Callable[[Any], None], mono_s: Callable[[], float]
    ) -> None:
        self._push, self._on_event, self._mono_s = push, on_event, mono_s
        self.courier: Courier | None = None
        self._out = Outbox()
        self._timers: set[asyncio.TimerHandle] = set()
        self._feeding = False
        self._fed: deque[Any] = deque()
        self._parcels: dict[NodeId, deque[Parcel]] = {}

    def begin(self) -> None:
        """Make the machine."""
        from agentmesh.core.courier.config import CourierConfig
        from agentmesh.core.courier.machine import Courier

        self.courier = Courier(CourierConfig())

    def close(self) -> None:
        """Stop: nothing is fed and no timer fires from now on. Idempotent."""
        self.courier = None
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()

    def drop(self, node: NodeId) -> None:
        """Forget the parcels for a peer whose stream is gone: the courier repeats them."""
        self._parcels.pop(node, None)

    def fill(self, node: NodeId, room: int) -> bytes | None:
        """Ask the courier for the next parcel for a peer, seal and encode it."""
        parcels = self._parcels.get(node)
        if parcels is None:
            parcels = self._parcels[node] = deque()
        if not parcels:
            self.feed(inputs.Room(node, room))
        return self._sealed(parcels.popleft()) if parcels else None

    def _sealed(self, parcel: Parcel) -> bytes:
        session = self.handshakes.sessions.get(parcel.session)
        if session is None:
            parcel.letters = []
        elif parcel.letters:
            seal, number = session.channel.seal, parcel.session
            for letter in parcel.letters:
                letter.body = seal(letter.seq, _aad(number, letter.seq, letter.after, letter.lane), letter.body)
            session.used_s = self._mono_s()
        return encode_frame(parcel)

    def on_frame(self, peer: NodeId, raw: bytes) -> None:
        frame = decode_frame(raw)
        if isinstance(frame, Parcel):
            self._on_parcel(peer, frame)
        elif isinstance(frame, Open):
            self.handshakes.on_open(peer, frame)
        elif isinstance(frame, Accept):
            self.handshakes.on_accept(peer, frame)
        elif isinstance(frame, Refuse):
            self.handshakes.on_refuse(peer, frame)
        else:
            self.handshakes.on_close(peer, frame)

    def _on_parcel(self, peer: NodeId, parcel: Parcel) -> None:
        session = self.handshakes.sessions.get(parcel.session)
        if session is None:
            self.handshakes.unknown(peer, parcel.session)
            return
        if session.node != peer:
            raise DecodeError("a parcel of a session with another node", code="session.foreign")
        if parcel.letters:
            opened, number = session.channel.open, parcel.session
            for letter in parcel.letters:
                letter.body = opened(letter.seq, _aad(number, letter.seq, letter.after, letter.lane), letter.body)
            session.used_s = self._mono_s()
        self.feed(inputs.Arrived(peer, parcel))

    def feed(self, incoming: Any) -> None:
        """Give the courier an input and carry out the effects before returning; inputs made by effects follow in order."""
        if self.courier is None:
            return
        self._fed.append(incoming)
        if self._feeding:
            return
        self._feeding = True
        out, fed = self._out, self._fed
        try:
            while fed:
                one = fed.popleft()
                try:
                    self.courier.handle(one, self._mono_s(), out)
                except Exception:  # noqa: BLE001 as in ``node.driver``: one bad input, one lost step
                    _log.exception("courier failed on %s", type(one).__name__)
                if out.sends:
                    answers = type(one) is inputs.Room
                    for send in out.sends:
                        if answers:
                            self._parcels[send.to].append(send.message)
                        else:  # an acknowledgement, which the courier says at once
                            self._push(send.to, self._sealed(send.message))
                    out.sends.clear()
                if out.timers:
                    for delay_s, timer in out.timers:
                        self._arm(delay_s, timer)
                    out.timers.clear()
                if out.events:
                    events, out.events = out.events, []
                    for event in events:
                        self._on_event(event)
        finally:
            self._feeding = False

    def _arm(self, delay_s: float, timer: Timer) -> None:
        due_s = self._mono_s() + delay_s

        def fire() -> None:
            self._timers.discard(handle)
            if self._mono_s() < due_s and self.courier is not None:
                self._arm(due_s - self._mono_s(), timer)
                return
            self.feed(timer)

        handle = asyncio.get_running_loop().call_later(max(0.0, delay_s), fire)
        self._timers.add(handle)
