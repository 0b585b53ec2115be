"""Who asks, and what was answered: tokens for calls between nodes, and receipts for their outcomes (docs/spec/tokens.md §7).

The node signs with the key of the calling agent, or with its own for people and for agents that keep their key to themselves.
A token names both nodes of the link it is made for, so that one that is stolen is good on no other connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from agentmesh.errors import ReplayError, Unauthorized
from agentmesh.identity.jws import b64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.token import (
    LIFE_S_MAX,
    CallClaims,
    CallToken,
    check_body,
    check_chain,
    digest_of,
    read_call_token,
    sign_call_token,
)
from agentmesh.ids import NodeId
from agentmesh.node.config import NodeConfig
from agentmesh.node.registry import Registry
from agentmesh.store.calls import CallStore
from agentmesh.wire import v1

METHOD = "CALL"


class Proofs:
    """Sign for calls that start here; check those that arrive.

    Args:
        key: This node's key.
        config: The longest chain.
        registry: Holds the keys of the agents beside this node.
        store: Remembers the tokens that were used.
        unix_s: The wall clock.
    """

    def __init__(
        self,
        key: KeyPair,
        config: NodeConfig,
        registry: Registry,
        store: CallStore,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._key, self._config, self._registry, self._store, self._unix_s = key, config, registry, store, unix_s

    def sign(self, message: v1.CallOpen, callee_node: NodeId) -> str:
        """Return the token for a call that is about to be sent to a node; each try needs its own.

        Raises:
            UsageError: the call cannot be described in a token. Nothing was sent.
            LimitError: its parts have no canonical form (codes "canonical.*"). Nothing was sent.
        """
        agent = self._registry.get(message.caller)
        key = self._key if agent is None or agent.key is None else agent.key
        now = int(self._unix_s())
        return sign_call_token(
            key,
            CallClaims(
                jti=b64url(os.urandom(16)),
                htm=METHOD,
                htu=_way(callee_node, self._key.did),
                iat=now,
                exp=now + LIFE_S_MAX,
                aud=message.agent_id,
                purpose=message.purpose,
                skill=message.skill or "",
                digest=digest_of(message.parts, message.skill, message.context_id),
                idem=message.task_id,
                trace_id=message.run_id,
                hops=tuple(message.hops),
                depth_max=self._config.hops_max,
            ),
        )

    def admit(self, peer: NodeId, message: v1.CallOpen) -> CallToken:
        """Check the token of a call that arrived over the link of ``peer``, and remember it.

        Raises:
            DecodeError, SignatureError, ReplayError, Unauthorized: ``read_call_token``; also code "token.missing" and, where
                token and message differ, "token.task", "token.hops", "token.digest". The token was not used up.
            LoopDetected: the callee is in the chain already, or the chain is too long.
            Busy, StoreError: it cannot be remembered.
        """
        if not message.token:
            raise Unauthorized(
                "the call carries no token",
                code="token.missing",
                why="every call says who asks, for what and over which body",
                hint="upgrade agentmesh on the calling machine",
            )
        now = int(self._unix_s())
        token = read_call_token(
            message.token,
            now=now,
            audience=message.agent_id,
            htm=METHOD,
            htu=_way(self._key.did, peer),
            is_replayed=self._store.is_noted,
        )
        claims = token.claims
        if token.caller not in (message.caller, peer):
            raise Unauthorized(
                "the call token was signed by neither the calling agent nor its node",
                code="token.caller",
                hint="sign with the key of the calling agent, or of the node it lives at",
            )
        if (claims.idem, claims.trace_id) != (message.task_id, message.run_id):
            raise Unauthorized("the call token was made for another task", code="token.task")
        if list(claims.hops) != message.hops:
            raise Unauthorized("the call token names another chain than the call", code="token.hops")
        check_body(token, digest_of(message.parts, message.skill, message.context_id))
        check_chain(token, message.agent_id)
        if not self._store.note_token(token.caller, claims.jti, token.kept_until, now=now):
            raise ReplayError("this call token was used before", code="token.replayed")
        return token


def _way(callee_node: str, caller_node: str) -> str:
    """Return what ``htu`` says on the wire between nodes: the node that is called, and the one whose link carries it."""
    return f"mesh:{callee_node}/{caller_node}"
