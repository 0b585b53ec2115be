"""The survey of the mesh: node after node is asked, within limits; liars can hide links, not invent them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import pytest

from agentmesh.core.overlay.shape import shape_of
from agentmesh.errors import DecodeError, MeshError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.node_record import NodeRecord, node_body, read_node_record, sign_node_record
from agentmesh.ids import NodeId, node_id, public_key_of
from agentmesh.net.tasks import TaskScope
from agentmesh.node.survey import (
    Met,
    Place,
    SurveyConfig,
    answer_of,
    both_ends,
    crawl,
    net_view,
    read_answer,
)
from agentmesh.node.views import zone_name
from agentmesh.wire import v1

NOW = 1_800_000_000


def key(number: int) -> KeyPair:
    return KeyPair.generate(number.to_bytes(32, "big"))


def record(number: int, site: str = "") -> NodeRecord:
    pair = key(number)
    body = node_body(
        seq=1, iat=NOW, wire=1, addresses=(f"tls:127.0.0.1:{1000 + number}",), site=site, name=f"n{number}"
    )
    return read_node_record(sign_node_record(pair, body), now=NOW)


def read(raw: bytes) -> NodeRecord:
    return read_node_record(raw, now=NOW)


class Graph:
    """A mesh of nodes 0 … n-1 that answer as their links say, unless they are dead, slow, or lie."""

    def __init__(self, links: dict[int, list[int]]) -> None:
        self.records = {i: record(i + 1) for i in links}
        self.ids = {i: self.records[i].node_id for i in links}
        self.number = {node: i for i, node in self.ids.items()}
        self.links = links
        self.dead: list[int] = []
        self.asked: list[int] = []
        self.at_once = self.at_once_max = 0

    def place(self, i: int) -> Place:
        return Place(self.records[i], 0, [(self.ids[j], (f"tls:h:{j}",)) for j in self.links[i]])

    async def ask(self, node: NodeId, addresses: Sequence[str]) -> Met | None:
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        i = self.number[node]
        self.asked.append(i)
        if i in self.dead:
            return None
        assert addresses, "a node is dialled where somebody said it is"
        return read_answer(node, answer_of(self.place(i)), read)

    async def crawl(self, config: SurveyConfig | None = None, for_s: float = 60.0):
        scope = TaskScope("test")
        try:
            return await crawl(
                self.ids[0], self.place(0), self.ask, config or SurveyConfig(), time.monotonic() + for_s, scope
            )
        finally:
            await scope.aclose()


def ring(n: int) -> dict[int, list[int]]:
    return {i: [(i - 1) % n, (i + 1) % n] for i in range(n)}


async def test_everybody_is_asked_once_though_many_name_them() -> None:
    graph = Graph({i: [j for j in range(20) if j != i] for i in range(20)})
    met, asked, complete = await graph.crawl()
    assert sorted(graph.asked) == list(range(1, 20))
    assert (len(met), asked, complete) == (20, 20, True)
    assert graph.at_once_max <= 8


async def test_a_survey_stops_at_its_number_of_nodes_and_says_that_it_is_partial() -> None:
    graph = Graph(ring(30))
    _, asked, complete = await graph.crawl(SurveyConfig(nodes_max=10))
    assert (asked, complete) == (10, False)
    assert len(graph.asked) == 9


async def test_a_survey_stops_at_its_time_with_what_it_has_and_leaves_no_task_behind() -> None:
    graph = Graph(ring(6))
    hanging = asyncio.Event()

    async def ask(node: NodeId, addresses: Sequence[str]) -> Met | None:
        if graph.number[node] == 5:
            await hanging.wait()
        return await graph.ask(node, addresses)

    scope = TaskScope("test")
    until_s = time.monotonic() + 0.1
    met, asked, complete = await crawl(graph.ids[0], graph.place(0), ask, SurveyConfig(), until_s, scope)
    assert (asked, complete) == (6, False)
    assert met[graph.ids[5]].record is None
    assert sum(one.record is not None for one in met.values()) == 5
    assert len(scope) == 0


async def test_a_dead_node_is_shown_as_silent_and_is_no_part_of_the_figures() -> None:
    graph = Graph(ring(5))
    graph.dead = [2]
    met, asked, complete = await graph.crawl()
    links = both_ends(met)
    view = net_view(list(met), met, links, shape_of(dict(enumerate(links)), random.Random(1), 64))
    assert (asked, complete, view.nodes, view.edges) == (5, True, 4, 3)
    assert [one.answered for one in view.map] == [True, True, True, True, False]


async def test_a_link_that_only_one_end_names_does_not_count() -> None:
    graph = Graph({0: [1, 2], 1: [0, 2], 2: [0, 1], 3: []})
    graph.links[2] = [0, 1, 3]  # 2 claims a link to 3, which knows nothing of it
    met, _, _ = await graph.crawl()
    assert both_ends(met) == [[1, 2], [0, 2], [0, 1], []]


async def test_a_liar_that_names_thousands_of_nodes_fills_no_memory() -> None:
    graph = Graph(ring(3))
    made_up = [key(1000 + i).public for i in range(v1.NEIGHBOURS_MAX)]

    async def ask(node: NodeId, addresses: Sequence[str]) -> Met | None:
        if node in graph.number:
            reply = answer_of(graph.place(graph.number[node]))
            reply.neighbours = [v1.NetNeighbour(k, "tls:h:1") for k in made_up]
            return read_answer(node, reply, read)
        return None

    scope = TaskScope("test")
    config = SurveyConfig(nodes_max=5)
    met, asked, complete = await crawl(graph.ids[0], graph.place(0), ask, config, time.monotonic() + 9, scope)
    assert len(met) <= 4 * config.nodes_max
    assert (asked, complete) == (5, False)


def good() -> tuple[NodeId, v1.NetReply]:
    one = record(1)
    return one.node_id, v1.NetReply(record=one.raw, depth=2, neighbours=[v1.NetNeighbour(key(2).public, "tls:h:1")])


def foreign(reply: v1.NetReply) -> None:
    reply.record = record(7).raw


def forged(reply: v1.NetReply) -> None:
    reply.record = reply.record[:-1] + bytes([reply.record[-1] ^ 1])


def crowded(reply: v1.NetReply) -> None:
    reply.neighbours = reply.neighbours * (v1.NEIGHBOURS_MAX + 1)


def short_key(reply: v1.NetReply) -> None:
    reply.neighbours = [v1.NetNeighbour(b"x" * 31)]


def long_address(reply: v1.NetReply) -> None:
    reply.neighbours = [v1.NetNeighbour(key(2).public, "x" * 257)]


def deep(reply: v1.NetReply) -> None:
    reply.depth = 257


@pytest.mark.parametrize("spoil", [foreign, forged, crowded, short_key, long_address, deep])
def test_an_answer_that_breaks_the_rules_is_refused(spoil: Callable[[v1.NetReply], None]) -> None:
    node, reply = good()
    assert read_answer(node, reply, read).named == [node_id(key(2).public)]
    spoil(reply)
    with pytest.raises(MeshError) as caught:
        read_answer(node, v1.decode_net_reply(v1.encode(reply)), read)
    assert isinstance(caught.value, DecodeError) or spoil is forged


def test_a_node_that_names_itself_or_another_twice_is_read_once() -> None:
    node, reply = good()
    reply.neighbours = [v1.NetNeighbour(public_key_of(node)), *reply.neighbours * 2]
    assert read_answer(node, reply, read).named == [node_id(key(2).public)]


def test_a_zone_is_named_by_its_site_and_the_bits_that_its_members_share() -> None:
    from agentmesh.ids import Key

    assert zone_name("", 0, Key(b"\xff" * 32)) == "/"
    assert zone_name("eu", 4, Key(b"\x60" + b"\0" * 31)) == "eu/0110"
    assert zone_name("eu", 10, Key(b"\x00\xff" + b"\0" * 30)) == "eu/0000000011"


def test_figures_that_mean_nothing_in_a_small_mesh_are_left_out() -> None:
    def view(n: int):
        met = {record(i + 1).node_id: Met(record(i + 1).node_id, record=record(i + 1)) for i in range(n)}
        ids = list(met)
        for one in met.values():
            one.named = [other for other in ids if other != one.node_id]
        links = both_ends(met)
        return net_view(ids, met, links, shape_of(dict(enumerate(links)), random.Random(1), 64))

    two, five, hundred = view(2), view(5), view(100)
    assert (two.clustering, two.path_length, two.tail_exponent) == (None, None, None)
    assert "say nothing yet" in two.notes[0]
    assert (five.clustering, five.path_length, five.tail_exponent) == (1.0, 1.0, None)
    assert "say nothing yet" in five.notes[0]
    assert hundred.clustering == 1.0
    assert hundred.notes == []
    assert hundred.zones == {"/": 100}
