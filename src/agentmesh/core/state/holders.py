"""Who holds which space: seek, found, follow, and replace a holder that died (docs/spec/state.md §6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.state.ground import Ground
from agentmesh.core.state.inputs import PlacesWanted
from agentmesh.core.state.messages import (
    Follow,
    Placed,
    Placement,
    Propose,
    Seek,
    Unplaced,
    Vote,
    Voted,
    is_local,
    is_space,
)
from agentmesh.core.state.placement import (
    check_placement,
    majority,
    nearest,
    nodes_of,
    successor,
    supersedes,
    with_votes,
)
from agentmesh.core.state.space import Space
from agentmesh.errors import MeshError
from agentmesh.ids import NodeId, public_key_of

#: Nodes that are asked who holds a space: the holders are among the nearest, some of which may be away.
_ASKED_MAX = 8
#: How long their answers are waited for before a space is founded.
_SEEK_S = 0.5
#: How soon, and then how often, the DHT of a mesh that is not known whole is asked whether somebody else founded the same space.
_LOOK_SOON_S, _LOOK_S = 10.0, 300.0


@dataclass(slots=True)
class _Seeking:
    token: int
    waiting: dict[NodeId, None]
    ranked: list[NodeId]


@dataclass(slots=True)
class _Proposal:
    placement: Placement
    votes: dict[bytes, Vote] = field(default_factory=dict[bytes, Vote])


class Holders:
    """The part of a replica that knows who holds what.

    Args:
        ground: Shared.
        on_placed: Called with a space whose holders are now others.
        on_followed: Called with a space and the holder that is followed from now on.
    """

    def __init__(
        self,
        ground: Ground,
        on_placed: Callable[[Space, float, Outbox], None],
        on_followed: Callable[[Space, NodeId, float, Outbox], None],
    ) -> None:
        self._ground, self._on_placed, self._on_followed = ground, on_placed, on_followed
        self._seeking: dict[str, _Seeking] = {}
        self._proposals: dict[str, _Proposal] = {}
        self._following: dict[str, NodeId] = {}
        self._looking: dict[str, None] = {}
        self._look_s: dict[str, float] = {}
        self._token = 0

    # Seek and found

    def seek(self, space: Space, out: Outbox) -> None:
        """Find out who holds a space, unless that is known, or under way."""
        ground = self._ground
        if is_local(space.name) or space.placement is not None or space.name in self._seeking:
            return
        if ground.whole:
            self._ask(space, nearest(space.name, (*ground.members, ground.node_id)), out)
        elif space.name not in self._looking:
            self._looking[space.name] = None
            out.emit(PlacesWanted(space.name))

    def on_places(self, space: Space, nodes: tuple[NodeId, ...], out: Outbox) -> None:
        """Ask the nodes that the DHT names, and those known here that are nearest; or hear what another founder has to say."""
        ground = self._ground
        self._looking.pop(space.name, None)
        if space.placement is None:
            near = nearest(space.name, (*ground.members, ground.node_id))
            self._ask(space, [*dict.fromkeys((*nodes, *near))], out)
            return
        for node in nodes[:_ASKED_MAX]:
            if node != ground.node_id and node not in space.holders:
                out.send(node, Seek(space.name))

    def _ask(self, space: Space, ranked: list[NodeId], out: Outbox) -> None:
        """Ask the nearest nodes who holds a space."""
        others = [node for node in ranked if node != self._ground.node_id][:_ASKED_MAX]
        if not others or space.placement is not None:
            return  # alone: there is nobody to share it with
        self._token += 1
        self._seeking[space.name] = _Seeking(self._token, dict.fromkeys(others), ranked)
        for node in others:
            out.send(node, Seek(space.name))
        out.after(_SEEK_S, Timer("state.seek", self._token))

    def on_seek(self, peer: NodeId, message: Seek, out: Outbox) -> None:
        """Answer who holds a space."""
        space = self._ground.spaces.get(message.space)
        if space is None or space.placement is None:
            out.send(peer, Unplaced(message.space))
        else:
            out.send(peer, Placed(message.space, space.placement))

    def on_unplaced(self, peer: NodeId, message: Unplaced, now_s: float, out: Outbox) -> None:
        """Found the space when all who were asked know of none."""
        seeking = self._seeking.get(message.space)
        if seeking is not None and seeking.waiting.pop(peer, peer) is None and not seeking.waiting:
            self._found(message.space, seeking, now_s, out)

    def on_seek_over(self, token: int, now_s: float, out: Outbox) -> None:
        """Found the space although some did not answer."""
        for name, seeking in list(self._seeking.items()):
            if seeking.token == token:
                self._found(name, seeking, now_s, out)

    def _found(self, name: str, seeking: _Seeking, now_s: float, out: Outbox) -> None:
        ground = self._ground
        del self._seeking[name]
        space = ground.spaces.get(name)
        if space is None or space.placement is not None or not ground.sure:
            return
        there = [n for n in seeking.ranked if n == ground.node_id or (n in ground.up and n not in seeking.waiting)]
        if len(there) < 2:
            return
        keys = tuple(public_key_of(node) for node in there[: ground.config.holders])
        placement = Placement(1, keys)
        self.adopt(space, with_votes(placement, [ground.vote(space, placement)]), now_s, out)

    # Placements

    def on_placed(self, peer: NodeId, message: Placed, now_s: float, out: Outbox) -> Space | None:
        """Take word of who holds a space; return the space if this node did not have it before and is a holder now."""
        ground = self._ground
        name, placement = message.space, message.placement
        if not is_space(name) or is_local(name):
            out.emit(PeerMisbehaved(peer, "state.malformed", "a placement of what can be no space"))
            return None
        space = ground.spaces.get(name)
        if space is not None and space.placement is not None and not supersedes(placement, space.placement):
            if supersedes(space.placement, placement):
                out.send(peer, Placed(name, space.placement))  # two founded it: both are to know which one stands
            return None
        if space is None and (ground.public not in placement.holders or len(ground.spaces) >= ground.config.spaces_max):
            return None
        try:
            check_placement(name, placement, ground.verify)
        except MeshError as error:
            out.emit(PeerMisbehaved(peer, error.code, str(error)))
            return None
        made = space is None
        space = ground.spaces.setdefault(name, Space(name)) if space is None else space
        self.adopt(space, placement, now_s, out, told_by=peer)
        return space if made else None

    def adopt(
        self, space: Space, placement: Placement, now_s: float, out: Outbox, told_by: NodeId | None = None
    ) -> None:
        """Use a placement from now on, and tell those whom it concerns."""
        ground = self._ground
        before = space.holders
        space.placement, space.holders = placement, tuple(nodes_of(placement.holders))
        if space.voted is not None and space.voted.epoch <= placement.epoch:
            space.voted = None
        space.caught = {}
        space.ready = not placement.before or ground.public in placement.before
        self._seeking.pop(space.name, None)
        self._proposals.pop(space.name, None)
        self._following.pop(space.name, None)
        ground.keep_space(space, out)
        if ground.holds(space) or told_by is None or ground.node_id in before:
            news = Placed(space.name, placement)
            for node in dict.fromkeys((*space.holders, *before, *space.followers)):
                if node not in (ground.node_id, told_by):
                    out.send(node, news)
        self.follow(space, now_s, out)
        self._on_placed(space, now_s, out)

    def follow(self, space: Space, now_s: float, out: Outbox) -> None:
        """Follow one of the holders, if this node is none and follows none."""
        ground = self._ground
        if ground.holds(space) or not space.holders or self._following.get(space.name) in ground.up:
            return
        reachable = ground.up_holders(space)
        if not reachable:
            for node in space.holders:
                out.send(node, Seek(space.name))  # opens a stream, if it can be reached
            return
        chosen = reachable[ground.rng.randrange(len(reachable))]
        self._following[space.name] = chosen
        out.send(chosen, Follow(space.name))
        self._on_followed(space, chosen, now_s, out)

    def followed(self, space: Space) -> NodeId | None:
        """Return the holder that this node follows."""
        node = self._following.get(space.name)
        return node if node in self._ground.up else None

    # Replace the dead

    def review(self, space: Space, now_s: float, out: Outbox) -> None:
        """Put another node in for a holder that died, or for one that was lacking; seek holders that are not known."""
        ground = self._ground
        placement = space.placement
        if placement is None:
            self.seek(space, out)
            return
        if not ground.whole and now_s >= self._look_s.setdefault(space.name, now_s + _LOOK_SOON_S):
            self._look_s[space.name] = now_s + _LOOK_S
            out.emit(PlacesWanted(space.name))
        if not ground.holds(space):
            self.follow(space, now_s, out)
            return
        for node in space.holders:
            if node in ground.members and node not in ground.up:
                out.send(node, Seek(space.name))  # opens a stream; then the two compare
        if space.voted is not None:  # whoever proposed it may be gone: go on with it
            self._propose(space, space.voted, out)
            return
        gone = [n for n in space.holders if now_s - ground.gone_s.get(n, now_s) >= ground.config.dead_s]
        alive = [node for node in space.holders if node not in gone]
        if alive[:1] != [ground.node_id] or len(alive) < majority(len(space.holders)):
            return
        ranked = [node for node in nearest(space.name, ground.members) if node in ground.up or node in ground.members]
        after = successor(placement, ranked, gone, ground.config.holders)
        if after is not None:
            self._propose(space, after, out)
            self._count(space, now_s, out)

    def _propose(self, space: Space, placement: Placement, out: Outbox) -> None:
        running = self._proposals.get(space.name)
        if running is None or (running.placement.epoch != placement.epoch or space.voted is not None):
            self._proposals[space.name] = _Proposal(placement)
        for node in nodes_of(placement.before):
            if node != self._ground.node_id:
                out.send(node, Propose(space.name, self._proposals[space.name].placement))

    def on_propose(self, peer: NodeId, message: Propose, out: Outbox) -> None:
        """Vote for a placement; a vote for another one of that epoch stands."""
        ground = self._ground
        space = ground.spaces.get(message.space)
        if space is None or space.placement is None:
            return
        wanted = message.placement
        if wanted.epoch <= space.epoch:
            out.send(peer, Placed(space.name, space.placement))
            return
        follows = wanted.epoch == space.epoch + 1 and wanted.before == space.placement.holders
        if not follows or not ground.holds(space) or peer not in space.holders:
            return
        kept = sum(holder in wanted.holders for holder in wanted.before)
        if kept < len(wanted.before) - 1 or not len(wanted.before) <= len(wanted.holders) <= ground.config.holders:
            out.emit(PeerMisbehaved(peer, "state.placement", "a proposal that replaces more than one holder"))
            return
        if space.voted is None:
            space.voted = with_votes(wanted, [])
            ground.keep_space(space, out)
        ground.send_flushed(peer, Voted(space.name, space.voted, ground.vote(space, space.voted)), out)

    def on_voted(self, peer: NodeId, message: Voted, now_s: float, out: Outbox) -> None:
        """Count a vote."""
        ground = self._ground
        space = ground.spaces.get(message.space)
        proposal = self._proposals.get(message.space)
        if space is None or space.placement is None or proposal is None or message.placement.epoch != space.epoch + 1:
            return
        vote, placement = message.vote, with_votes(message.placement, [])
        if vote.voter != public_key_of(peer) or peer not in space.holders:
            return
        if placement.before != space.placement.holders:
            return
        try:
            ground.verify(vote.voter, placement.signed_bytes(space.name), vote.signature)
        except MeshError as error:
            out.emit(PeerMisbehaved(peer, error.code, str(error)))
            return
        if placement != proposal.placement:
            if space.voted is not None:
                return
            proposal = self._proposals[space.name] = _Proposal(placement)
        proposal.votes[vote.voter] = vote
        self._count(space, now_s, out)

    def _count(self, space: Space, now_s: float, out: Outbox) -> None:
        """Give this node's own vote when it decides, so that two proposals never stand against each other with one vote each."""
        ground = self._ground
        proposal = self._proposals.get(space.name)
        if proposal is None:
            return
        placement, votes = proposal.placement, proposal.votes
        if len(votes) + 1 < majority(len(placement.before)) or (space.voted not in (None, placement)):
            return
        votes[ground.public] = ground.vote(space, placement)
        self.adopt(space, with_votes(placement, votes.values()), now_s, out)

    def forget_peer(self, peer: NodeId) -> None:
        """Take note that a peer cannot be reached."""
        for name in [name for name, node in self._following.items() if node == peer]:
            del self._following[name]
