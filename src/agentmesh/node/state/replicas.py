"""The replica machine on asyncio: its records go to the store, its messages over the wires, its timers to the loop."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import WallClock
from agentmesh.core.state.causality import VersionVector
from agentmesh.core.state.config import StateConfig
from agentmesh.core.state.inputs import (
    Changed,
    Done,
    Flushed,
    FlushWanted,
    KeepSpace,
    KeepWrite,
    LocalRead,
    LocalWrite,
    Members,
    Places,
    PlacesWanted,
    Refusal,
)
from agentmesh.core.state.messages import Placement, Write
from agentmesh.core.state.placement import space_key
from agentmesh.core.state.replica import Replica
from agentmesh.core.state.space import Space
from agentmesh.core.state.types import Past
from agentmesh.errors import Corrupt, MeshError
from agentmesh.identity.keys import KeyPair, verify
from agentmesh.ids import Key, NodeId, node_id
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Peer
from agentmesh.node.state.wires import Wires
from agentmesh.obs.meters import Counts
from agentmesh.store.spaces import SpaceRow, SpaceStore, WriteRow

_log = logging.getLogger("agentmesh.state")

_LOOK_S = 1.0
_encode = msgspec.msgpack.Encoder().encode
_write_decoder = msgspec.msgpack.Decoder(Write)
_past_decoder = msgspec.msgpack.Decoder(Past)


class _Body(msgspec.Struct, array_like=True):
    placement: Placement | None
    voted: Placement | None
    seen: bytes


_body_decoder = msgspec.msgpack.Decoder(_Body)


class Replicas:
    """Drive the replicas of one node.

    Args:
        key: The node's key; signs its writes.
        path: Where they are kept.
        config: Knobs.
        wires: Makes the streams to other nodes: called with what takes inputs.
        members: Returns who is there.
        providers: Looks up in the DHT who provides a key, and where that node can be reached.
        hint: Takes a node and where it can be reached.
        advertise: Has this node found in the DHT under these keys, and no others.
        on_changed: Called with each key that shows something else than before.
        on_misbehaved: Called with (peer, code, detail).

    Raises:
        StoreError, ConfigError: the file cannot be used.
    """

    def __init__(
        self,
        key: KeyPair,
        path: Path,
        config: StateConfig,
        wires: Callable[[Callable[[Any], None]], Wires],
        *,
        members: Callable[[], Members],
        providers: Callable[[Key], Coroutine[Any, Any, dict[NodeId, tuple[str, ...]]]],
        hint: Callable[[NodeId, tuple[str, ...]], None],
        advertise: Callable[[tuple[Key, ...]], None],
        on_changed: Callable[[str, str], None],
        on_misbehaved: Callable[[NodeId, str, str], None],
    ) -> None:
        self._store = SpaceStore.open(path, config.history_max)
        rng = random.Random(os.urandom(16))  # noqa: S311 jitter and choices, not secrets
        self.machine = Replica(node_id(key.public), config, rng, self._store.birth, key.sign, verify)
        self._members, self._providers, self._hint, self._advertise = members, providers, hint, advertise
        self._advertised: tuple[str, ...] = ()
        self._on_changed, self._on_misbehaved = on_changed, on_misbehaved
        self.wires = wires(self.feed)
        self.refusals = Counts(1, series_max=100)
        self._scope = TaskScope("state")
        self._results: dict[int, Done | asyncio.Future[Done] | None] = {}
        self._refs = 0
        self._inputs: list[Any] = []
        self._running = self._closed = False
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._next_timer = 0
        self.feed(WallClock(time.time()))
        for name in self._store.names():
            self._load(name)
        self._look()

    def open(self) -> None:
        """Begin to look round; needs a running loop."""
        self._scope.spawn(self._look_loop(), "look")

    async def _look_loop(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._look()

    def _look(self) -> None:
        self.feed(WallClock(time.time()))
        members = self._members()
        self.feed(members)
        if members.whole and not self._advertised:
            return
        held = tuple(name for name, space in self.machine.spaces.items() if self.machine.ground.holds(space))
        if held != self._advertised:
            self._advertised = held
            self._advertise(tuple(space_key(name) for name in held))

    # Local reads and writes

    def space(self, name: str) -> Space | None:
        """Return a space of which there is a replica here; read-only."""
        return self.machine.spaces.get(name)

    def do(self, make: Callable[[int], LocalRead | LocalWrite]) -> Done | asyncio.Future[Done]:
        """Give the machine a local read or write, made with its ref; LOCAL ones are done when this returns."""
        self._refs += 1
        ref = self._refs
        self._results[ref] = None
        wanted = make(ref)
        if wanted.space not in self.machine.spaces:
            self._look()  # whom to ask about it must be known now, not at the next look
        self.feed(wanted)
        result = self._results[ref]
        if isinstance(result, Done):
            del self._results[ref]
            return result
        future = self._results[ref] = asyncio.get_running_loop().create_future()
        return future

    def abandon(self, future: asyncio.Future[Done]) -> None:
        """Forget a read or write that nobody waits for any more; it goes on."""
        for ref, result in self._results.items():
            if result is future:
                del self._results[ref]
                return

    def _end(self, done: Done) -> None:
        result = self._results.get(done.ref, done)
        if result is None:
            self._results[done.ref] = done
        elif isinstance(result, asyncio.Future):
            del self._results[done.ref]
            if not result.done():
                result.set_result(done)

    # Other nodes

    def on_up(self, peer: Peer) -> None:
        """Open a stream to a peer whose link is up, if it holds a space that is used here, or uses one that is held here."""
        node = peer.link.peer
        spaces = self.machine.spaces.values()
        if not peer.calls_only and any(node in space.holders for space in spaces):
            self.wires.on_up(node)

    # The machine

    def feed(self, incoming: Any) -> None:
        """Give the machine an input and carry out the effects before returning; inputs made by effects follow in order."""
        if self._closed:
            return
        self._inputs.append(incoming)
        if self._running:
            return
        self._running = True
        try:
            while self._inputs:
                self._step(self._inputs.pop(0))
        finally:
            self._running = False

    def _step(self, incoming: Any) -> None:
        out = Outbox()
        try:
            self.machine.handle(incoming, time.monotonic(), out)
        except Exception:  # noqa: BLE001 as the brain's driver: one bad input, one lost step
            _log.exception("replica failed on %s", type(incoming).__name__)
            return
        if out.records and (error := self._keep(out.records)) is not None:
            self._undo(out, error)
            return
        for send in out.sends:
            self.wires.send(send.to, send.message)
        for delay_s, timer in out.timers:
            self._arm(delay_s, timer)
        for event in out.events:
            self._on_event(event)

    def _keep(self, records: list[Any]) -> MeshError | None:
        rows: list[WriteRow | SpaceRow] = []
        for record in records:
            if isinstance(record, KeepWrite):
                rows.append(
                    WriteRow(
                        record.space,
                        record.key,
                        record.mark,
                        _encode(record.write),
                        _encode(record.past),
                        record.dropped,
                        record.n,
                    )
                )
            elif isinstance(record, KeepSpace):
                body = _encode(_Body(record.placement, record.voted, record.seen))
                rows.append(SpaceRow(record.space, body, self.machine.spaces[record.space].reserved))
        try:
            self._store.keep(rows)
        except MeshError as error:
            return error
        return None

    def _undo(self, out: Outbox, error: MeshError) -> None:
        """Take back a step whose records the disk did not take: its spaces are read again from there, and nothing is sent."""
        _log.warning("shared state cannot be written: %s", error)
        for name in dict.fromkeys(record.space for record in out.records):
            self.machine.shelf.forget(name)
            try:
                self._load(name)
            except MeshError as problem:
                _log.warning("space %s cannot be read: %s", name, problem)
        for delay_s, timer in out.timers:
            self._arm(delay_s, timer)
        for event in out.events:
            if isinstance(event, Done):
                self._end(Done(event.ref, event.error or error))
            elif isinstance(event, FlushWanted):
                self._on_event(event)

    def _load(self, name: str) -> None:
        row = self._store.space(name)
        space = Space(name)
        try:
            if row is not None and row.body:
                body = _body_decoder.decode(row.body)
                space.placement, space.voted = body.placement, body.voted
                space.seen = VersionVector.decode(body.seen)
            space.n = 0 if row is None else row.n
            writes = [_write_decoder.decode(raw) for raw in self._store.writes(name)]
            pasts = [(key, _past_decoder.decode(raw)) for key, raw in self._store.pasts(name)]
            self.machine.shelf.restore(space, writes, pasts)
        except (msgspec.DecodeError, MeshError) as error:
            raise Corrupt(
                f"space {name!r} in {self._store.path} cannot be read: {error}",
                hint="other holders have it: move the file away, and it comes back",
            ) from error

    def _on_event(self, event: Any) -> None:
        match event:
            case Done():
                self._end(event)
            case Changed():
                self._on_changed(event.space, event.key)
            case FlushWanted():
                self._scope.spawn(self._flush(event.upto), "flush")
            case PeerMisbehaved():
                self._on_misbehaved(event.peer, event.code, event.detail)
            case Refusal():
                self.refusals.add((event.code,))
            case PlacesWanted():
                self._scope.spawn(self._look_up(event.space), "places", quiet=True)
            case _:
                pass

    async def _look_up(self, space: str) -> None:
        found = await self._providers(space_key(space))
        for node, addresses in found.items():
            self._hint(node, addresses)
        self.feed(Places(space, tuple(found)))

    async def _flush(self, upto: int) -> None:
        while True:
            try:
                await asyncio.to_thread(self._store.sync)
            except MeshError as error:
                _log.warning("shared state cannot be brought to disk: %s", error)
                await asyncio.sleep(_LOOK_S)  # nothing leaves this node until it can
                continue
            break
        self.feed(Flushed(upto))

    def _arm(self, delay_s: float, timer: Timer) -> None:
        self._next_timer += 1
        number = self._next_timer

        def fire() -> None:
            self._timers.pop(number, None)
            self.feed(timer)

        # Loops fire up to a clock step early; the machine may rely on it that the time has come.
        self._timers[number] = asyncio.get_running_loop().call_later(max(0.0, delay_s) + 0.001, fire)

    async def aclose(self) -> None:
        """Stop; what was acknowledged is on disk. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        for result in self._results.values():
            if isinstance(result, asyncio.Future):
                result.cancel()
        await self.wires.aclose()
        await self._scope.aclose()
        self._store.close()
