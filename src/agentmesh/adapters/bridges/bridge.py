"""One bridge at work: what it takes in, what it refuses and why, what it sends out.

In: changes that the other registry tells of are noted by key; a few workers settle one key after the other, so that a flood
of changes to one entry costs one registration. What fails for a reason that may pass is tried again, later and later. Out: the
agents beside this node are published whenever they change, and the lease is kept. Both run apart: either goes on without the
other. Everything is bounded: entries beyond ``taken_max`` are counted and come in when others go.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from agentmesh.adapters.bridges.base import Change, Foreign, Gone, Host, Listed, Listing, Put
from agentmesh.adapters.bridges.entry import Entry, read_entry
from agentmesh.adapters.bridges.outgoing import Outgoing
from agentmesh.adapters.bridges.spec import BridgeSpec
from agentmesh.adapters.places import check_link, reach_of_url
from agentmesh.adapters.reach import Reach
from agentmesh.core.budget.bucket import Bucket
from agentmesh.errors import (
    AgentFailed,
    DecodeError,
    LimitError,
    MeshError,
    ReadOnly,
    StateError,
    StoreError,
    Unreached,
)
from agentmesh.net.tasks import TaskScope
from agentmesh.wire.bridge_views import BridgeState, BridgeView, RefusedEntry

_log = logging.getLogger("agentmesh.bridges")

_WORKERS = 8
_BACKOFF_MIN_S, _BACKOFF_MAX_S = 0.5, 30.0
_RETRY_MIN_S, _RETRY_MAX_S = 2.0, 300.0
#: Refused entries that are told one by one.
REFUSED_SHOWN_MAX = 100
#: Refused entries that are remembered, to count each once.
_REFUSED_MAX = 20_000
#: With entries left out and room again, everything is listed anew, but not more often than this.
_RELIST_S = 5.0
_GOODBYE_S = 2.0
#: Changes of agents here within this time are looked at together.
_GATHER_S = 0.05
#: Registrations a second over time, once there were as many as the bridge may take in: each one is told to the whole mesh and
#: written to the audit log, so entries that change all the time must not set the pace.
_PACE = 2.0
#: Why an entry may not be taken in now, and yet later.
_PASSING = (Unreached, AgentFailed, StateError, LimitError, DecodeError, ReadOnly, StoreError)


@dataclass(slots=True)
class _Guest:
    """An entry that is to be taken in, or was.

    Attributes:
        entry, digest: What it says now, and a hash of that.
        is_there: False once it vanished; forgotten when its agents are gone.
        taken: What it said when its agents were registered.
        agents: Ids of these agents.
        tries: Registrations that failed since it changed.
        why: The last of these failures.
    """

    entry: Entry
    digest: bytes
    is_there: bool = True
    taken: Entry | None = None
    agents: list[str] = field(default_factory=list[str])
    tries: int = 0
    why: MeshError | None = None


class _Refusal(NamedTuple):
    """An entry that is refused for good, until it says something else."""

    digest: bytes
    why: MeshError


class Bridge:
    """Join one foreign registry to the node.

    Args:
        spec: Where it is and what crosses.
        foreign: The registry.
        host: The node.
        rng: For jitter.
    """

    def __init__(self, spec: BridgeSpec, foreign: Foreign, host: Host, rng: random.Random) -> None:
        self.spec = spec
        self._foreign, self._host, self._rng = foreign, host, rng
        self._scope = TaskScope(f"bridge-{spec.kind}", tasks_max=64)
        self._guests: OrderedDict[str, _Guest] = OrderedDict()
        self._refused: OrderedDict[str, _Refusal] = OrderedDict()
        self._mesh: set[str] = set()
        self._over: set[str] = set()
        self._dirty: dict[str, None] = {}
        self._busy: set[str] = set()
        self._wake = asyncio.Event()
        self._unlisted: set[str] | None = None
        self._came_from = Reach.PUBLIC
        self._relisted_s = 0.0
        self._watching: asyncio.Task[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._relisting: asyncio.TimerHandle | None = None
        self._noticing: asyncio.TimerHandle | None = None
        self._closed = False
        self._state: dict[str, BridgeState] = {"in": "off", "out": "off"}
        self._errors: dict[str, MeshError | None] = {"in": None, "out": None}
        self._since_s = {"in": time.time(), "out": time.time()}
        self._outgoing = Outgoing(spec, foreign, host, on_up=lambda: self._now("out", "up"))
        self._turn = asyncio.Lock()
        self._pace = Bucket(_PACE, spec.taken_max, time.monotonic())

    def open(self) -> None:
        """Begin to carry agents over."""
        if self.spec.way != "out":
            self._scope.spawn(self._steadily("in", self._listen), "in")
            for number in range(_WORKERS):
                self._scope.spawn(self._settle(), f"settle-{number}")
        if self.spec.way != "in":
            self._scope.spawn(self._steadily("out", self._outgoing.run), "out")

    def note_change(self) -> None:
        """Hear that an agent beside this node came, changed or went."""
        self._outgoing.note_change()
        if self._noticing is None and not self._closed:
            self._noticing = asyncio.get_running_loop().call_later(_GATHER_S, self._notice)

    def _notice(self) -> None:
        """Find the guests that are not registered any more, though their entries are there."""
        self._noticing = None
        for key, guest in self._guests.items():
            if guest.is_there and guest.taken is not None and not all(map(self._host.has, guest.agents)):
                guest.taken = None  # somebody withdrew it, or registered an agent of their own under its name
                self._again(key, guest)

    async def aclose(self, *, gone: bool = True) -> None:
        """Stop, withdraw what was sent out and let go what was taken in. Idempotent."""
        self._closed = True
        for timer in (*self._timers.values(), self._relisting, self._noticing):
            if timer is not None:
                timer.cancel()
        self._timers.clear()
        await self._scope.aclose()
        with suppress(MeshError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._foreign.withdraw()
        for key in self._guests if gone else ():
            await self._host.let_go(self.origin(key))
        self._guests.clear()
        await self._foreign.aclose()

    def origin(self, key: str) -> str:
        """Return what marks the agents that come by an entry."""
        return f"{self.spec.name}/{key}"

    def view(self) -> BridgeView:
        """Show its state."""
        failed = [(key, guest.why) for key, guest in self._guests.items() if guest.why is not None]
        refused = [*((key, refusal.why) for key, refusal in self._refused.items()), *failed]
        error = self._errors["in"] or self._errors["out"]
        return BridgeView(
            name=self.spec.name,
            url=self.spec.url,
            kind=self.spec.kind,
            way=self.spec.way,
            incoming=self._state["in"],
            outgoing=self._state["out"],
            since=round(max(self._since_s.values()), 3),
            error=_sentence(error) if error is not None else "",
            taken=sum(1 for guest in self._guests.values() if guest.taken is not None),
            waiting=sum(1 for guest in self._guests.values() if guest.taken is None and guest.why is None),
            left_out=len(self._over),
            mesh=len(self._mesh),
            refused=len(refused),
            refusals=[
                RefusedEntry(key=key[:200], code=why.code, reason=_sentence(why)[:500])
                for key, why in refused[:REFUSED_SHOWN_MAX]
            ],
            posted=[posting.name for posting in self._outgoing.posted],
        )

    def warnings(self) -> list[str]:
        """Return what a person should know."""
        error = self._errors["in"] or self._errors["out"]
        return [f"bridge {self.spec.name} is down: {_sentence(error)}"] if error is not None else []

    async def _steadily(self, side: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work again whenever it ends or fails, later and later while it fails."""
        failures = 0
        while True:
            begun_s = time.monotonic()
            if self._state[side] == "off":
                self._now(side, "connecting")
            try:
                await work()
                failures = 0
            except MeshError as error:
                failures = 1 if time.monotonic() - begun_s > _BACKOFF_MAX_S else failures + 1
                if self._state[side] != "down":
                    _log.warning("bridge %s (%s): %s", self.spec.name, side, error)
                self._now(side, "down", error)
            ceiling_s = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2 ** min(failures, 10))
            await asyncio.sleep(_BACKOFF_MIN_S / 2 + self._rng.random() * ceiling_s)

    def _now(self, side: str, state: BridgeState, error: MeshError | None = None) -> None:
        self._errors[side] = error
        if self._state[side] != state:
            self._state[side], self._since_s[side] = state, time.time()
            if state == "up":
                _log.info("bridge %s (%s) is up", self.spec.name, side)

    # -- in --------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._came_from = max(Reach.LOOPBACK, await reach_of_url(self.spec.base))
        fresh = self._state["in"] == "connecting" or self._unlisted is not None or (self._over and self._has_room())
        self._watching = self._scope.spawn(self._watch(fresh=bool(fresh)), "watch", quiet=True)
        try:
            await self._watching
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise  # this bridge closes; otherwise only the watch was ended, to list anew
        finally:
            self._watching.cancel()

    async def _watch(self, *, fresh: bool) -> None:
        async with aclosing(self._foreign.watch(fresh=fresh)) as changes:
            async for change in changes:
                self._take(change)
                self._now("in", "up")

    def _take(self, change: Change) -> None:
        if isinstance(change, Listing):
            self._unlisted = {*self._guests, *self._refused, *self._mesh, *self._over}
            self._relisted_s = time.monotonic()
        elif isinstance(change, Listed):
            gone, self._unlisted = self._unlisted or set(), None
            for key in sorted(gone):
                self._drop(key)
        elif isinstance(change, Gone):
            self._drop(change.key)
        elif isinstance(change, Put):
            if self._unlisted is not None:
                self._unlisted.discard(change.key)
            self._put(change)

    def _put(self, change: Put) -> None:
        key, digest = change.key, _digest(change.value)
        refusal = self._refused.get(key)
        if refusal is not None and refusal.digest == digest:
            return
        guest = self._guests.get(key)
        try:
            entry = read_entry(change.value)
        except DecodeError as error:
            self._drop(key)
            self._refuse(key, digest, error)
            return
        if entry.origin:
            self._drop(key)
            if len(self._mesh) < _REFUSED_MAX:
                self._mesh.add(key)
            return
        self._refused.pop(key, None)
        self._mesh.discard(key)
        if guest is None:
            if len(self._guests) >= self.spec.taken_max:
                if len(self._over) < _REFUSED_MAX:
                    self._over.add(key)
                return
            guest = self._guests[key] = _Guest(entry, digest)
        elif guest.is_there and guest.digest == digest:
            return
        self._over.discard(key)
        guest.entry, guest.digest, guest.is_there, guest.tries, guest.why = entry, digest, True, 0, None
        self._mark(key)

    def _drop(self, key: str) -> None:
        self._refused.pop(key, None)
        self._mesh.discard(key)
        self._over.discard(key)
        guest = self._guests.get(key)
        if guest is not None and guest.is_there:
            guest.is_there, guest.why = False, None
            self._mark(key)

    def _refuse(self, key: str, digest: bytes, why: MeshError) -> None:
        self._refused[key] = _Refusal(digest, why)
        while len(self._refused) > _REFUSED_MAX:
            self._refused.popitem(last=False)

    def _mark(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._dirty[key] = None
        self._wake.set()

    def _again(self, key: str, guest: _Guest) -> None:
        """Try an entry again later."""
        ceiling_s = min(_RETRY_MAX_S, _RETRY_MIN_S * 2 ** min(guest.tries, 10))
        if key not in self._timers:
            delay_s = ceiling_s / 2 + self._rng.random() * ceiling_s / 2
            self._timers[key] = asyncio.get_running_loop().call_later(delay_s, self._mark, key)

    def _has_room(self) -> bool:
        return len(self._guests) < self.spec.taken_max

    async def _settle(self) -> None:
        """Settle one noted entry after the other; as many of these run as ``_WORKERS`` says."""
        while True:
            key = next((key for key in self._dirty if key not in self._busy), None)
            if key is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            del self._dirty[key]
            self._busy.add(key)
            try:
                await self._settle_one(key)
            finally:
                self._busy.discard(key)
                if key in self._dirty:
                    self._wake.set()

    async def _settle_one(self, key: str) -> None:
        guest = self._guests.get(key)
        if guest is None:
            return
        origin = self.origin(key)
        if not guest.is_there:
            await self._host.let_go(origin)
            if not guest.is_there:  # it may have come back meanwhile
                self._guests.pop(key, None)
                self._relist_soon()
                for (
                    other,
                    one,
                ) in self._guests.items():  # a name may be free now, as when instances of one agent take turns
                    if one.why is not None and one.why.code == "register.taken":
                        self._mark(other)
            else:
                guest.taken, guest.agents = None, []
                self._mark(key)
            return
        entry = guest.entry
        try:
            await check_link(entry.url, self._came_from, own_port=self._host.port)
            async with self._turn:
                await asyncio.sleep(self._pace.wait_s(time.monotonic()))
            if guest.entry != entry or not guest.is_there:
                self._mark(key)
                return
            agents = await self._host.take_in(entry.url, entry.door, entry.name, origin, self._came_from)
        except MeshError as error:
            await self._failed(key, guest, entry, error)
            return
        self._pace.take(time.monotonic())
        guest.taken, guest.agents, guest.why, guest.tries = entry, agents, None, 0
        await self._host.let_go(origin, keep=agents)  # what the entry said before
        if guest.entry != entry or not guest.is_there:
            self._mark(key)

    async def _failed(self, key: str, guest: _Guest, entry: Entry, error: MeshError) -> None:
        if guest.entry != entry or not guest.is_there:
            return
        if guest.tries == 0:
            _log.info("bridge %s: %r is not taken in: %s", self.spec.name, key, error)
        guest.why, guest.tries = error, guest.tries + 1
        if guest.taken is not None:
            # What it leads to now is not what was agreed to.
            guest.taken, guest.agents = None, []
            await self._host.let_go(self.origin(key))
        if isinstance(error, _PASSING):
            self._again(key, guest)
        elif guest.entry == entry and guest.is_there:
            del self._guests[key]
            self._refuse(key, guest.digest, error)
            self._relist_soon()

    def _relist_soon(self) -> None:
        """List anew to find entries that were left out, now that there is room."""
        if self._over and self._relisting is None:
            wait_s = max(0.0, self._relisted_s + _RELIST_S - time.monotonic())
            self._relisting = asyncio.get_running_loop().call_later(wait_s, self._relist)

    def _relist(self) -> None:
        self._relisting = None
        if self._watching is not None:
            self._watching.cancel()


def _sentence(error: MeshError) -> str:
    return f"{error.detail}: {error.why}" if error.why else error.detail


def _digest(value: bytes | None) -> bytes:
    return blake2b(value or b"", digest_size=16).digest()
