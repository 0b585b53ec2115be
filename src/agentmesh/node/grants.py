"""Grants at a node: made with the keys that it holds, checked for the calls that bring them (docs/spec/tokens.md §4, §7.5)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from agentmesh.errors import Unauthorized, UsageError
from agentmesh.identity.budget import BUDGET_KEYS, Budget
from agentmesh.identity.grant import (
    CHAIN_MAX,
    Delegation,
    check_delegated,
    parent_hash,
    read_chain,
    read_kept_chain,
    scope_of,
    sign_grant,
)
from agentmesh.identity.grant_claims import LIFE_S_MAX, GrantClaims, Kind, Limit
from agentmesh.identity.jws import b64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.token import CallToken
from agentmesh.node.registry import Registry
from agentmesh.wire import v1
from agentmesh.wire.proof_views import GrantRequest, GrantView


class Grants:
    """Make and check grants.

    Args:
        key: This node's key: root of what its people grant, and of grants that its agents take.
        registry: Holds the keys of the agents beside this node.
        roots: did:keys of others whose grants count at the agents beside this node.
        id_of: Returns the did:key of an agent, given its name or id; raises AgentNotFound.
        unix_s: The wall clock.
    """

    def __init__(
        self,
        key: KeyPair,
        registry: Registry,
        roots: Sequence[str],
        id_of: Callable[[str], str],
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._key, self._registry, self._id_of, self._unix_s = key, registry, id_of, unix_s
        self._roots = frozenset((*roots, key.did))

    def check(self, message: v1.CallOpen, token: CallToken) -> Delegation | None:
        """Check the grants that come with a call whose token holds; None if it comes without any.

        Raises:
            DecodeError, SignatureError, ReplayError, Unauthorized: ``read_chain``, ``check_delegated``.
        """
        if not message.grants:
            if token.claims.ath is not None:
                raise Unauthorized(
                    "the call token names a grant that did not come with the call",
                    code="grant.missing",
                    hint="send the whole chain, root first",
                )
            return None
        delegation = read_chain(
            message.grants,
            now=int(self._unix_s()),
            holder=token.caller,
            audience=message.agent_id,
            roots=self._roots | {message.agent_id},
        )
        check_delegated(delegation, token, scope_of(message.skill))
        return delegation

    def make(self, request: GrantRequest) -> GrantView:
        """Sign a grant with the key of an agent beside this node, or of the node itself, and return it with its ancestors.

        Raises:
            UsageError: a name, scope, bound or lifetime is out of range (codes "grant.*", "token.budget"). Nothing was signed.
            AgentNotFound: the holder, the maker or an agent it is for is not known here. Nothing was signed.
            Unauthorized, DecodeError, SignatureError, ReplayError: the parents are no chain, or do not belong to the maker, or
                the new grant is wider than they are. Nothing was kept.
        """
        key = self._key_of(request.maker)
        now = int(self._unix_s())
        holder = self._id_of(request.to)
        audience = tuple(self._id_of(ref) for ref in request.audience)
        parents = list(request.parents)
        if len(parents) >= CHAIN_MAX:
            raise UsageError(f"a chain has at most {CHAIN_MAX} grants", code="grant.chain")
        above = read_kept_chain(parents).leaf.claims if parents else None
        if not 0 < request.life_s <= LIFE_S_MAX:
            raise UsageError(f"a grant lives from 1 to {LIFE_S_MAX} s", code="grant.life", hint="renew it instead")
        claims = GrantClaims(
            sub=request.principal or (above.sub if above else key.did),
            client_id=holder,
            aud=audience,
            iat=now,
            exp=min(now + request.life_s, above.exp) if above else now + request.life_s,
            jti=b64url(os.urandom(16)),
            scopes=tuple(request.scopes),
            limits=_limits(request) if above is None else _narrowed(above.limits, _limits(request)),
            depth=above.depth + 1 if above else 0,
            depth_max=request.depth_max,
            par_hash=parent_hash(parents[-1]) if parents else None,
        )
        chain = [*parents, sign_grant(key, claims)]
        # What it would be refused for elsewhere is said here: the maker is still there to hear it.
        made = read_chain(
            chain, now=now, holder=holder, audience=audience[0] if audience else "", roots=_root_of(chain)
        )
        return GrantView(
            chain=chain,
            root=made.root,
            maker=made.leaf.issuer,
            holder=holder,
            principal=made.sub,
            audience=list(made.leaf.claims.aud),
            scopes=list(made.scopes),
            limits={f"{one.key}.{one.kind}": one.value for one in made.leaf.claims.limits},
            exp=made.exp,
            depth=made.leaf.claims.depth,
        )

    def _key_of(self, maker: str) -> KeyPair:
        if not maker:
            return self._key
        agent = self._registry.require(maker, [a.manifest.name for a in self._registry.agents()])
        if agent.key is None:
            raise UsageError(
                f"agent {agent.manifest.name!r} keeps its key to itself",
                code="grant.key",
                hint="let the agent sign the grant (agentmesh.identity.grant.sign_grant)",
            )
        return agent.key


def _root_of(chain: Sequence[str]) -> tuple[str, ...]:
    return (read_kept_chain(chain).root,)


def _limits(request: GrantRequest) -> tuple[Limit, ...]:
    given: tuple[tuple[Kind, dict[str, int]], ...] = (
        ("max", request.max),
        ("max_lifetime", request.max_lifetime),
        ("max_subtree", request.max_subtree),
    )
    for _, bounds in given:
        for name in bounds:
            if name not in BUDGET_KEYS:
                raise UsageError(
                    f"{name[:40]!r} is nothing that is counted",
                    code="token.budget_key",
                    hint=f"known are {', '.join(BUDGET_KEYS)}",
                )
        Budget(**bounds)  # refuses what is out of range
    return tuple(sorted(Limit(name, kind, value) for kind, bounds in given for name, value in bounds.items()))


def _narrowed(above: Sequence[Limit], own: Sequence[Limit]) -> tuple[Limit, ...]:
    """Repeat every bound of the parent that the new grant does not set itself."""
    mine = {(one.key, one.kind) for one in own}
    return tuple(sorted([*own, *(one for one in above if (one.key, one.kind) not in mine)]))
