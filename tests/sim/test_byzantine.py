"""Nodes that lie (docs/spec/simulator.md §6.1), driven with a toy brain."""

from __future__ import annotations

import random
from typing import Any

from agentmesh.core.dht.messages import FindReply, Hint, Item, Store
from agentmesh.core.machine import Send
from agentmesh.core.plumtree.messages import Gossip, IHave
from agentmesh.core.swim.messages import Ping
from agentmesh.ids import NodeId
from agentmesh.sim.byzantine import Mask, forge
from agentmesh.sim.runner import Run
from agentmesh.sim.scenario import parse
from tests.sim.toy import Toy

TO = NodeId("did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH")


def run_of(plan: str, size: int = 10) -> Run:
    return Run(
        parse(f'title = "t"\nsettle_s = 5\nduration_s = 20\n[byzantine]\nshare = 0.4\n{plan}', "t"), size, 1, Toy
    )


def mask_of(run: Run) -> Mask:
    return next(node.mask for node in run.world.nodes if node.mask is not None)


def altered(run: Run, message: Any) -> list[Any]:
    return [send.message for send in mask_of(run).alter([Send(TO, message)])]


def differing_bits(a: bytes, b: bytes) -> int:
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


def test_the_asked_share_lies_and_the_node_that_newcomers_know_does_not() -> None:
    run = run_of("forge = true")
    liars = [node.index for node in run.world.nodes if not node.is_honest]
    assert len(liars) == 4
    assert 0 not in liars


def test_a_forging_node_spoils_every_signed_record_and_nothing_else() -> None:
    record, key = bytes(range(200)), bytes(32)
    spoiled = forge(Store(rpc=7, items=[Item(key, record), Item(key, record)], at="udp:x:1"), random.Random(1))
    assert isinstance(spoiled, Store)
    assert (spoiled.rpc, spoiled.at) == (7, "udp:x:1")
    assert [differing_bits(item.value, record) for item in spoiled.items] == [1, 1]
    assert all(item.key == key for item in spoiled.items)
    ping = forge(Ping(1, 2, 3, 4, (record,)), random.Random(1))
    assert differing_bits(ping.records[0], record) == 1
    assert forge(Ping(1, 2, 3, 4), random.Random(1)) is None
    assert altered(run_of("forge = true"), Ping(1, 2, 3, 4)) == [Ping(1, 2, 3, 4)]


def test_a_withholding_node_passes_no_broadcast_on() -> None:
    run = run_of("withhold = true")
    own, passed_on = Gossip(kind="agent", hops=1, payload=b"x"), Gossip(kind="agent", hops=2, payload=b"x")
    assert altered(run, own) == [own]
    assert altered(run, passed_on) == []
    assert altered(run, IHave(ids=[], hops=[])) == [IHave(ids=[], hops=[])]
    (reply,) = altered(run, FindReply(rpc=1, hints=[Hint(bytes(32), "")], values=[b"v"], total=1))
    assert reply.values == []
    assert reply.total == 0


def test_a_lying_node_names_only_its_friends() -> None:
    run = run_of("lie = true")
    (reply,) = altered(run, FindReply(rpc=1, hints=[Hint(bytes(32), "udp:a:1")], values=[b"v"], total=1))
    liars = {node.key.public: node.address for node in run.world.nodes if not node.is_honest}
    assert reply.hints
    assert all(liars[hint.public] == hint.address for hint in reply.hints)
    assert reply.values == [b"v"]


def test_a_flooding_node_sends_at_its_rate() -> None:
    def sent(plan: str) -> int:
        run = run_of(plan)
        run.world.run(5)
        before = sum(kind.count for kind in run.world.carriage.kinds.values())
        run.world.run(15)
        return sum(kind.count for kind in run.world.carriage.kinds.values()) - before

    assert sent("flood = 20.0") - sent("flood = 0.0") > 4 * 20 * 10 * 0.8


def test_a_garbling_node_reaches_the_decoders_behind_the_envelope() -> None:
    run = run_of("garble = 0.5")
    run.world.run(20)
    refused = run.world.carriage.refused
    assert sum(count for code, count in refused.items() if code.startswith("wire.")) > 10
    assert not any(code.startswith("signature.") for code in refused)
    assert not run.world.violations


def test_worlds_with_liars_are_as_deterministic_as_others() -> None:
    digests: list[str] = []
    for _ in range(2):
        run = run_of("flood = 5.0\nforge = true\ngarble = 0.2\nlie = true")
        run.world.run(15)
        digests.append(run.world.digest())
    assert digests[0] == digests[1]
