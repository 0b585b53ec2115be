"""Nodes that lie: an honest brain behind a mask that alters, withholds and invents what goes out (docs/spec/simulator.md §6).

A mask knows only messages. It signs nothing that its node's key could not sign: it can replay and damage what others
signed, lie in what is unsigned, and send whatever it likes in its own name.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from agentmesh.core.dht.messages import FindNode, FindReply, FindValue, Hint
from agentmesh.core.machine import Send
from agentmesh.core.orders.messages import Orders, OrdersHeld
from agentmesh.core.plumtree.messages import Gossip, Graft, IHave
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.order import Stop, sign_order
from agentmesh.sim.node import UP, SimNode

if TYPE_CHECKING:
    from agentmesh.sim.world import World

#: A signed record is at least a key and a signature long.
_SIGNED_BYTES_MIN = 96
_HINTS = 8


class Mask:
    """What one lying node does to its messages.

    Args:
        world: The world.
        node: Who lies.
        friends: All lying nodes, named to whoever asks.
    """

    __slots__ = ("_friends", "_node", "_rng", "_world")

    def __init__(self, world: World, node: SimNode, friends: list[SimNode]) -> None:
        self._world, self._node, self._friends = world, node, friends
        self._rng = random.Random(f"mask/{world.seed}/{node.index}")  # noqa: S311 a simulation

    def alter(self, sends: Iterable[Send]) -> list[Send]:
        """Return what is really sent in place of ``sends``."""
        plan = self._world.scenario.byzantine
        really: list[Send] = []
        for send in sends:
            message = send.message
            if plan.withhold and isinstance(message, Gossip) and message.hops > 1:
                continue
            if plan.withhold and isinstance(message, Orders | OrdersHeld):
                continue
            if plan.withhold and isinstance(message, FindReply) and message.values:
                message = FindReply(rpc=message.rpc, hints=message.hints)
            if plan.lie and isinstance(message, FindReply):
                message = FindReply(rpc=message.rpc, hints=self._friendly(), values=message.values, total=message.total)
            if plan.forge and isinstance(message, Orders):
                message = Orders(orders=[raw[:-9] + raw[-9:][::-1] for raw in message.orders])
            if plan.forge and (forged := forge(message, self._rng)) is not None:
                message = forged
            really.append(Send(send.to, message, send.at, send.link))
        return really

    def _friendly(self) -> list[Hint]:
        """Name other lying nodes as the nearest there are."""
        chosen = self._rng.sample(self._friends, min(_HINTS, len(self._friends)))
        return [Hint(friend.key.public, friend.address) for friend in chosen]

    def flood(self) -> None:
        """Send one bogus message to a peer it has a link with."""
        if self._node.state != UP or not self._node.links:
            return
        rng = self._rng
        to = rng.choice(list(self._node.links))
        message: Any = rng.choice(
            (
                Gossip(kind="agent", hops=1, payload=rng.randbytes(200)),
                IHave(ids=[rng.randbytes(16) for _ in range(20)], hops=[1] * 20),
                Graft(ids=[rng.randbytes(16) for _ in range(20)]),
                Orders(orders=[_invented_order(rng)]),
                FindNode(rpc=rng.getrandbits(32), target=rng.randbytes(32)),
                FindValue(rpc=rng.getrandbits(32), key=rng.randbytes(32)),
                FindReply(rpc=rng.getrandbits(32), hints=self._friendly(), values=[rng.randbytes(250)]),
            )
        )
        self._world.carriage.send_all(self._node, [Send(to, message)])


def _invented_order(rng: random.Random) -> str:
    """Return a stop that an operator signed who was made up for it."""
    return sign_order(KeyPair(rng.randbytes(32)), Stop("mine"), seq=1, iat=1, jti=str(rng.getrandbits(96)))


def forge(message: Any, rng: random.Random) -> Any:
    """Return a copy of a message in which one bit of each signed record it carries is changed; None if it carries none."""
    tree = msgspec.to_builtins(message, builtin_types=(bytes,))
    if not _spoil(tree, rng):
        return None
    kind: type[Any] = message.__class__
    return msgspec.convert(tree, kind, builtin_types=(bytes,))


def _spoil(tree: Any, rng: random.Random) -> bool:
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]
    found = False
    for place, value in list(items):
        if isinstance(value, bytes) and len(value) >= _SIGNED_BYTES_MIN:
            tree[place] = _flipped(value, rng)
            found = True
        elif isinstance(value, dict | list | tuple):
            inner: Any = list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            if _spoil(inner, rng):
                tree[place] = inner
                found = True
    return found


def _flipped(raw: bytes, rng: random.Random) -> bytes:
    changed = bytearray(raw)
    bit = rng.randrange(8 * len(raw))
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def mask_some(world: World) -> list[SimNode]:
    """Choose the lying nodes of a world and let them begin; node 0, whom newcomers know, is honest."""
    plan = world.scenario.byzantine
    rng = random.Random(f"masks/{world.seed}")  # noqa: S311 a simulation
    friends = rng.sample(world.nodes[1:], round(plan.share * (len(world.nodes) - 1)))
    friends.sort(key=lambda node: node.index)
    for node in friends:
        node.mask = Mask(world, node, friends)
        if plan.flood > 0:
            world.call(rng.random(), lambda mask=node.mask: world.every(1 / plan.flood, mask.flood))
    return friends
