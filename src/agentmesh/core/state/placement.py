"""Who holds a space: the nodes nearest to its name, and how one holder takes the place of another (docs/spec/state.md §6).

A change of holders must never leave two sets that both can answer QUORUM. So each placement names the one before, and counts
only with the votes of a majority of those holders, who each give one vote for an epoch and answer for the old one no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from agentmesh.core.state.messages import Placement, Vote
from agentmesh.errors import DecodeError
from agentmesh.ids import Key, NodeId, did_of, public_key_of

HOLDERS_MAX = 8
EPOCH_MAX = 2**40


def space_key(space: str) -> Key:
    """Return the DHT key of a space."""
    return Key(hashlib.sha256(b"agentmesh space\n" + space.encode("utf-8", "surrogatepass")).digest())


def nearest(space: str, nodes: Iterable[NodeId]) -> list[NodeId]:
    """Return nodes by how near their DHT key is to the space's, nearest first."""
    key = int.from_bytes(space_key(space), "big")
    return sorted(dict.fromkeys(nodes), key=lambda node: key ^ _number(node))


def _number(node: NodeId) -> int:
    return int.from_bytes(hashlib.sha256(public_key_of(node)).digest(), "big")


def majority(count: int) -> int:
    """Return how many of so many are more than half."""
    return count // 2 + 1


def nodes_of(keys: Iterable[bytes]) -> list[NodeId]:
    """Return the nodes with these public keys."""
    return [NodeId(did_of(key)) for key in keys]


def successor(placement: Placement, ranked: Sequence[NodeId], gone: Iterable[NodeId], count: int) -> Placement | None:
    """Return the placement that should follow, without votes; None if there is nobody to put in, or no need.

    One holder at a time is replaced, as then every majority of the new ones shares a node with every majority of the old.

    Args:
        placement: The current one.
        ranked: Nodes that may hold the space and are there, nearest first.
        gone: Holders that are dead.
        count: How many holders there should be.
    """
    holders = nodes_of(placement.holders)
    lost = frozenset(gone)
    spare = [node for node in ranked if node not in holders]
    if len(holders) < count and spare:
        chosen = [*holders, spare[0]]
    else:
        dead = [node for node in holders if node in lost]
        if not dead or not spare:
            return None
        chosen = [spare[0] if node == dead[0] else node for node in holders]
    keys = tuple(public_key_of(node) for node in chosen)
    return Placement(placement.epoch + 1, keys, placement.holders)


def check_placement(space: str, placement: Placement, verify: Callable[[bytes, bytes, bytes], None]) -> None:
    """Check a placement that somebody names.

    It need not follow the one that is known here: a space that two founded has two lines of placements until they meet.

    Args:
        space: Of which.
        placement: To be checked.
        verify: (public key, message, signature); raises SignatureError.

    Raises:
        DecodeError: it cannot be (code "state.placement"). No state changed.
        SignatureError: a vote does not hold. No state changed.
    """
    holders, before = placement.holders, placement.before
    if not 0 < placement.epoch <= EPOCH_MAX or not 0 < len(holders) <= HOLDERS_MAX or len(before) > HOLDERS_MAX:
        raise _broken("its numbers make no sense")
    if len(frozenset(holders)) != len(holders) or any(len(key) != 32 for key in (*holders, *before)):
        raise _broken("its holders are no different keys")
    if (placement.epoch == 1) is not (not before):
        raise _broken("only the first has none before it")
    voters = [vote.voter for vote in placement.votes]
    if len(voters) > HOLDERS_MAX or len(frozenset(voters)) != len(voters):
        raise _broken("somebody voted twice")
    if before:
        if sum(voter in before for voter in voters) < majority(len(before)) or not all(v in before for v in voters):
            raise _broken("no majority of the holders before voted for it")
    elif len(voters) != 1:
        raise _broken("nobody founded it")
    signed = placement.signed_bytes(space)
    for vote in placement.votes:
        verify(vote.voter, signed, vote.signature)


def supersedes(placement: Placement, current: Placement | None) -> bool:
    """Say whether a placement that holds is to be used in place of the current one.

    Two nodes may found one space without knowing of each other; both then take the one that sorts first.
    """
    if current is None or placement.epoch > current.epoch:
        return True
    return placement.epoch == current.epoch and _sort_key(placement) < _sort_key(current)


def _sort_key(placement: Placement) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    return placement.holders, placement.before


def with_votes(placement: Placement, votes: Iterable[Vote]) -> Placement:
    """Return it with these votes, in order of voters."""
    kept = {vote.voter: vote for vote in votes}
    return Placement(placement.epoch, placement.holders, placement.before, tuple(kept[k] for k in sorted(kept)))


def _broken(why: str) -> DecodeError:
    return DecodeError("a placement that cannot be", code="state.placement", why=why)
