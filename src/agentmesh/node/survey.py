"""The shape of the mesh: ask this node's neighbours for theirs, and those for theirs, until all are asked or a limit is met.

A node knows only its own neighbours, so nobody can look this up; a survey asks node after node (``wire.v1.NetQuery``). What
a node says of its neighbours is a claim: a link counts when both of its ends name it, and a node when it answered itself,
over a link that its key opened, with its own signed record. So one liar can hide its own links but invent no others.
Addresses that a node names are dialled as hints; the key is what is dialled.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentmesh.core.overlay.shape import Shape, shape_of
from agentmesh.errors import DecodeError, MeshError
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import NodeId, did_of, public_key_of, short
from agentmesh.net.base import Contact, Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links
from agentmesh.node.views import zone_name
from agentmesh.wire import v1
from agentmesh.wire.net_views import NetNodeView, NetView

ADDRESS_CHARS_MAX = 256
#: Nodes from which the mean path is measured; more are sampled (the error of the mean is then a few percent).
_PATH_SAMPLES = 64
#: Below so many nodes a mean over triangles or paths says more of chance than of the mesh.
FEW_NODES = 10
#: Below so many nodes the tail of the degrees is a handful of nodes.
TAIL_NODES = 100


@dataclass(frozen=True, slots=True)
class SurveyConfig:
    """Limits of one survey.

    Attributes:
        nodes_max: Nodes asked at most. Raise it for larger meshes; each costs a link for a moment. A guess.
        at_once: Nodes asked at the same time. More is faster and costs more links at once. A guess.
        survey_s: Seconds after which it ends with what it has. About what a person waits for a command.
        answer_s: Seconds that one node may take, dialling included; less than ``survey_s``. A guess: many round trips.
    """

    nodes_max: int = 512
    at_once: int = 8
    survey_s: float = 5.0
    answer_s: float = 1.5


class Place(NamedTuple):
    """Where this node stands: its own record (None before the first is signed), zone depth and neighbours.

    ``stops`` names the emergency stops in force here.
    """

    record: NodeRecord | None
    depth: int
    neighbours: Sequence[tuple[NodeId, tuple[str, ...]]]
    stops: Sequence[str] = ()


@dataclass(slots=True)
class Met:
    """One node that the survey came across.

    Attributes:
        node_id: Who.
        addresses: Where to dial it, as far as anybody said.
        record, depth, named: Its answer; None, 0 and empty without one.
        stops: The emergency stops that it says are in force there.
    """

    node_id: NodeId
    addresses: list[str] = field(default_factory=list[str])
    record: NodeRecord | None = None
    depth: int = 0
    named: list[NodeId] = field(default_factory=list[NodeId])
    stops: tuple[str, ...] = ()


class Survey:
    """Ask the mesh for its shape, and answer others that do.

    Args:
        node_id: This node.
        links: To peers.
        place: Returns where this node stands now.
        read: Verifies a node record; raises MeshError.
        on_misbehaved: Called with (peer, code, detail) when an answer breaks the protocol.
        rng: Picks the nodes from which paths are measured.
        config: Limits.
    """

    def __init__(
        self,
        node_id: NodeId,
        links: Links,
        *,
        place: Callable[[], Place],
        read: Callable[[bytes], NodeRecord],
        on_misbehaved: Callable[[NodeId, str, str], None],
        rng: random.Random,
        config: SurveyConfig | None = None,
    ) -> None:
        self._node_id = node_id
        self._links = links
        self._place, self._read, self._on_misbehaved = place, read, on_misbehaved
        self._rng = rng
        self._config = config or SurveyConfig()
        self._scope = TaskScope("survey")
        self._running: asyncio.Task[NetView] | None = None

    async def net(self) -> NetView:
        """Return the shape of the mesh. Who asks while a survey runs gets that one's result."""
        if self._running is None or self._running.done():
            self._running = self._scope.spawn(self._survey(), "survey", quiet=True)
        return await asyncio.shield(self._running)

    async def serve(self, stream: Stream) -> None:
        """Answer a NetQuery: our record, our zone's depth, our neighbours."""
        await stream.send(v1.encode(answer_of(self._place())))
        await stream.finish()

    async def aclose(self) -> None:
        """Stop a survey that runs. Idempotent."""
        await self._scope.aclose()

    async def _survey(self) -> NetView:
        begin_s = time.monotonic()
        place = self._place()
        until_s = begin_s + self._config.survey_s
        met, asked, complete = await crawl(self._node_id, place, self._ask, self._config, until_s, self._scope)
        order = list(met)
        adjacency = both_ends(met)
        rng = random.Random(self._rng.getrandbits(64))  # noqa: S311 a sample of nodes, no secret
        # A quarter second of arithmetic for a large mesh: not on the loop that carries calls.
        shape = await asyncio.to_thread(shape_of, dict(enumerate(adjacency)), rng, _PATH_SAMPLES)
        view = net_view(order, met, adjacency, shape)
        view.neighbours = [node for node, _ in place.neighbours]
        view.asked, view.answered, view.complete = asked, len(adjacency), complete
        view.seconds = round(time.monotonic() - begin_s, 3)
        return view

    async def _ask(self, node: NodeId, addresses: Sequence[str]) -> Met | None:
        """Ask one node; None when it does not answer, or answers with what is not allowed."""
        was_linked = self._links.is_connected(node)
        try:
            async with asyncio.timeout(self._config.answer_s):
                peer = await self._links.connect(Contact(node, tuple(addresses)))
                stream = await peer.link.open_stream()
                try:
                    await stream.send(v1.encode(v1.NetQuery(v=v1.WIRE_VERSION)))
                    payload = await stream.recv()
                finally:
                    stream.reset(0)
            if payload is None:
                return None
            return read_answer(node, v1.decode_net_reply(payload), self._read)
        except DecodeError as error:
            self._on_misbehaved(node, error.code, str(error))
            return None
        except (MeshError, TimeoutError):
            return None
        finally:
            if not was_linked:
                self._part(node)

    def _part(self, node: NodeId) -> None:
        """Give up a link that was made only to ask, unless something else uses it by now."""
        peer = self._links.peer(node)
        busy = peer is None or peer.requests or peer.calls
        if not busy and all(node != near for near, _ in self._place().neighbours):
            self._links.drop(node, "asked")


Ask = Callable[[NodeId, Sequence[str]], Coroutine[Any, Any, Met | None]]


async def crawl(
    own: NodeId, place: Place, ask: Ask, config: SurveyConfig, until_s: float, scope: TaskScope
) -> tuple[dict[NodeId, Met], int, bool]:
    """Ask node after node, nearest first, until nobody named is left to ask.

    Args:
        own: This node, which is not asked.
        place: Where it stands.
        ask: Asks one node.
        config: Limits.
        until_s: Monotonic time at which to stop.
        scope: Owns the tasks that ask.

    Returns:
        Everybody met in order of appearance (this node first), how many were asked (this node included), and whether
        everybody met was asked.
    """
    named = [node for node, _ in place.neighbours]
    first = Met(own, record=place.record, depth=place.depth, named=named, stops=tuple(place.stops))
    met: dict[NodeId, Met] = {own: first}
    waiting: list[NodeId] = []
    for node, addresses in place.neighbours:
        if node not in met:
            met[node] = Met(node, list(addresses))
            waiting.append(node)
    asked = 1
    running: dict[asyncio.Task[Met | None], NodeId] = {}
    try:
        while waiting or running:
            while waiting and len(running) < config.at_once and asked < config.nodes_max:
                node = waiting.pop(0)
                asked += 1
                running[scope.spawn(ask(node, met[node].addresses), f"ask-{short(node)}", quiet=True)] = node
            left_s = until_s - time.monotonic()
            if not running or left_s <= 0:
                return met, asked, False
            done, _ = await asyncio.wait(running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task in done]:
                node = running.pop(task)
                answer = task.result()
                if answer is not None:
                    _take(met, waiting, node, answer, config.nodes_max)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return met, asked, True


def _take(met: dict[NodeId, Met], waiting: list[NodeId], node: NodeId, answer: Met, nodes_max: int) -> None:
    """Note what a node answered, and whom it brings to ask."""
    mine = met[node]
    mine.record, mine.depth, mine.named = answer.record, answer.depth, answer.named
    mine.stops = answer.stops
    for named, address in zip(answer.named, answer.addresses, strict=True):
        known = met.get(named)
        if known is None:
            if len(met) >= 4 * nodes_max:
                continue  # Whoever names thousands of nodes fills no memory; what is left out was never asked.
            known = met[named] = Met(named)
            waiting.append(named)
        if address and address not in known.addresses and len(known.addresses) < 4:
            known.addresses.append(address)


def answer_of(place: Place) -> v1.NetReply:
    """Return the answer to a NetQuery."""
    return v1.NetReply(
        record=place.record.raw if place.record is not None else b"",
        depth=place.depth,
        neighbours=[
            v1.NetNeighbour(public_key_of(node), addresses[0][:ADDRESS_CHARS_MAX] if addresses else "")
            for node, addresses in list(place.neighbours)[: v1.NEIGHBOURS_MAX]
        ],
        stops=list(place.stops)[: v1.STOPS_MAX],
    )


def read_answer(node: NodeId, reply: v1.NetReply, read: Callable[[bytes], NodeRecord]) -> Met:
    """Check an answer; ``addresses`` of the result stand beside ``named``, "" where none is told.

    Raises:
        DecodeError: too many neighbours, a malformed key or address, or the record of another node.
        MeshError: the record is malformed, badly signed or out of date.
    """
    if len(reply.neighbours) > v1.NEIGHBOURS_MAX or not 0 <= reply.depth <= 256:
        raise DecodeError(f"{len(reply.neighbours)} neighbours at depth {reply.depth}", code="net.too_many")
    if len(reply.stops) > v1.STOPS_MAX or any(len(stop) > v1.STOP_CHARS_MAX for stop in reply.stops):
        raise DecodeError(f"{len(reply.stops)} stops in force, or one with a name too long", code="net.too_many")
    met = Met(node, depth=reply.depth, stops=tuple(reply.stops))
    seen: set[NodeId] = set()
    for neighbour in reply.neighbours:
        if len(neighbour.key) != 32 or len(neighbour.address) > ADDRESS_CHARS_MAX:
            raise DecodeError("a neighbour has a malformed key or address", code="net.malformed")
        named = NodeId(did_of(neighbour.key))
        if named != node and named not in seen:
            seen.add(named)
            met.named.append(named)
            met.addresses.append(neighbour.address)
    met.record = read(reply.record)
    if met.record.node_id != node:
        raise DecodeError("a node answered with the record of another", code="net.foreign")
    return met


def both_ends(met: dict[NodeId, Met]) -> list[list[int]]:
    """Return the links that both ends name, among the nodes that answered, by position among those."""
    answered = [one for one in met.values() if one.record is not None]
    place = {one.node_id: i for i, one in enumerate(answered)}
    named = [{place[n] for n in one.named if n in place} for one in answered]
    return [sorted(j for j in named[i] if j != i and i in named[j]) for i in range(len(answered))]


def net_view(
    order: Sequence[NodeId], met: dict[NodeId, Met], adjacency: Sequence[Sequence[int]], shape: Shape
) -> NetView:
    """Show a survey; figures that mean nothing in a mesh of this size are left out or explained."""
    answered = [node for node in order if met[node].record is not None]
    silent = [node for node in order if met[node].record is None]
    view = NetView(nodes=len(answered), edges=shape.edges)
    view.degree_p50, view.degree_p99, view.degree_max = shape.degree_p50, shape.degree_p99, shape.degree_max
    view.components, view.largest_component = shape.components, round(shape.largest_component, 4)
    if len(answered) >= 3:
        view.clustering = round(shape.clustering, 4)
        view.path_length = round(shape.path_length, 3)
    if len(answered) >= TAIL_NODES and not math.isnan(shape.tail_exponent):
        view.tail_exponent, view.tail_fit = round(shape.tail_exponent, 3), round(shape.tail_fit, 4)
    view.notes = notes_of(len(answered))
    view.map = [
        _node_view(met[node], list(adjacency[i]) if i < len(answered) else [])
        for i, node in enumerate((*answered, *silent))
    ]
    for node in view.map:
        if node.answered:
            view.zones[node.zone] = view.zones.get(node.zone, 0) + 1
    view.zones = dict(sorted(view.zones.items()))
    return view


def notes_of(nodes: int) -> list[str]:
    """Say which figures mean little in a mesh of so many nodes."""
    if nodes < FEW_NODES:
        return [f"with {nodes} nodes, clustering, path length and degrees say nothing yet: everybody is near everybody"]
    if nodes < TAIL_NODES:
        return [f"the tail exponent needs {TAIL_NODES} nodes; there are {nodes}"]
    return []


def _node_view(one: Met, neighbours: list[int]) -> NetNodeView:
    record = one.record
    if record is None:
        return NetNodeView(node_id=one.node_id, node_name=short(one.node_id), answered=False)
    return NetNodeView(
        node_id=one.node_id,
        node_name=record.name or short(one.node_id),
        site=record.site,
        capacity=record.capacity,
        zone=zone_name(record.site, one.depth, record.key),
        neighbours=neighbours,
        stops=list(one.stops),
    )
