"""Who asks, and what was answered: tokens for calls between nodes, and receipts for their outcomes (docs/spec/tokens.md §7).

The node signs with the key of the calling agent, or with its own for people and for agents that keep their key to themselves.
A token names both nodes of the link it is made for, so that one that is stolen is good on no other connection.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec

from agentmesh.codec.canonical import canonical
from agentmesh.errors import AgentFailed, LimitError, MeshError, ReplayError, StoreError, Unauthorized, problem_type
from agentmesh.identity.audit_record import undo_of
from agentmesh.identity.budget import UNBOUNDED, Budget, Usage
from agentmesh.identity.claims import hash_of
from agentmesh.identity.jws import b64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.receipt import (
    Outcome,
    ReceiptClaims,
    ResponseDigest,
    check_receipt,
    read_receipt,
    sign_receipt,
)
from agentmesh.identity.token import (
    LIFE_S_MAX,
    CallClaims,
    CallToken,
    check_body,
    check_chain,
    digest_of,
    read_call_token,
    sign_call_token,
    token_hash,
)
from agentmesh.ids import NodeId
from agentmesh.node.config import NodeConfig
from agentmesh.node.registry import LocalAgent, Registry
from agentmesh.obs.meters import Checks
from agentmesh.store.calls import CallStore
from agentmesh.store.receipt_journal import KeptReceipt
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, is_end, state_of

_log = logging.getLogger("agentmesh.proof")

METHOD = "CALL"
#: Pairs of callee and caller whose last receipt is remembered; that of others is looked up.
_PAIRS_MAX = 10_000
#: Remarks of one call about how to undo it that are kept.
_UNDO_MAX = 8


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
        #: How long it took to check the tokens of calls that came in, for ``/metrics``.
        self.checks = Checks()
        self._last: dict[tuple[str, str], str] = {}

    def sign(self, message: v1.CallOpen, callee_node: NodeId, budget: Budget = UNBOUNDED) -> CallToken:
        """Put a token into a call that is about to be sent to a node, and return it; each try needs its own.

        Raises:
            UsageError: the call cannot be described in a token. Nothing was sent.
            LimitError: its parts have no canonical form (codes "canonical.*"). Nothing was sent.
        """
        agent = self._registry.get(message.caller)
        key = self._key if agent is None or agent.key is None else agent.key
        now = int(self._unix_s())
        claims = CallClaims(
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
            budget=budget,
            hops=tuple(message.hops),
            depth_max=self._config.hops_max,
            ath=hash_of(message.grants[-1]) if message.grants else None,
        )
        message.token = sign_call_token(key, claims)
        return CallToken(key.did, claims, token_hash(message.token))

    def admit(self, peer: NodeId, message: v1.CallOpen) -> CallToken:
        """Check the token of a call that arrived over the link of ``peer``, and remember it.

        Raises:
            DecodeError, SignatureError, ReplayError, Unauthorized: ``read_call_token``; also code "token.missing" and, where
                token and message differ, "token.task", "token.hops", "token.digest". The token was not used up.
            LoopDetected: the callee is in the chain already, or the chain is too long.
            Busy, StoreError: it cannot be remembered.
        """
        began_s = time.perf_counter()
        is_good = False
        try:
            token = self._admit(peer, message)
            is_good = True
            return token
        finally:
            self.checks.note(time.perf_counter() - began_s, good=is_good)

    def _admit(self, peer: NodeId, message: v1.CallOpen) -> CallToken:
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

    # Receipts

    def attest(
        self, agent: LocalAgent, message: v1.CallOpen, story: Witness, state: str, error: MeshError | None
    ) -> str:
        """Sign what happened to a call at an agent beside this node, and keep it.

        Args:
            agent: The callee.
            message: The call, with its token.
            story: What was told to the caller.
            state: How it ended; a terminal state that was told wins.
            error: Why it was refused or failed.

        Returns:
            The receipt; "" if the agent keeps its key to itself, since nobody else can sign for it, or if it cannot be kept:
            the work is done, so its outcome is told without one, and the log says why.
        """
        if agent.key is None:
            return ""
        token = story.token
        outcome = story.ended or state
        if outcome in ("failed", "rejected") and error is None:
            error = AgentFailed("the agent failed")
        if outcome in ("completed", "input-required"):
            error = None
        callee = agent.key.did
        try:
            raw = sign_receipt(
                agent.key,
                ReceiptClaims(
                    aud=token.caller,
                    iat=int(self._unix_s()),
                    jti=b64url(os.urandom(16)),
                    txn=token.claims.trace_id,
                    proof=token.hash,
                    req_digest=token.claims.digest,
                    res_digest=story.digest,
                    outcome=cast("Outcome", outcome),
                    task_id=message.task_id,
                    usage=story.spent,
                    grant=token.claims.ath,
                    problem=None if error is None else problem_type(error),
                    prev=self._last.get((callee, token.caller)) or self._store.last_hash(callee, token.caller),
                ),
            )
            kept = hash_of(raw)
            self._store.keep(
                KeptReceipt(kept, message.task_id, message.run_id, callee, token.caller, raw, message.token)
            )
        except StoreError as failure:
            _log.error("the receipt of task %s cannot be kept, so none is given: %s", message.task_id, failure)
            return ""
        self._last.pop((callee, token.caller), None)
        while len(self._last) >= _PAIRS_MAX:
            del self._last[next(iter(self._last))]
        self._last[callee, token.caller] = kept
        return raw

    def accept(self, raw: str, message: v1.CallOpen, story: Witness) -> None:
        """Check a receipt that came with an outcome, and keep it; if the store is full, the log says so.

        Raises:
            DecodeError, SignatureError, ReplayError: it is none, or about another call or answer. It was not kept.
        """
        receipt = read_receipt(raw, now=int(self._unix_s()))
        check_receipt(receipt, story.token, res_digest=story.digest)
        try:
            self._store.keep(
                KeptReceipt(
                    receipt.hash,
                    message.task_id,
                    message.run_id,
                    receipt.issuer,
                    story.token.caller,
                    raw,
                    message.token,
                )
            )
        except StoreError as failure:
            _log.error("the receipt of task %s came and cannot be kept: %s", message.task_id, failure)


class Witness:
    """What was told of one call so far, as callee and caller both see it: the ground of its receipt.

    Args:
        token: The call's token.
    """

    __slots__ = ("_digest", "_started_s", "calls", "ended", "token", "undo", "usage")

    def __init__(self, token: CallToken) -> None:
        self.token = token
        #: The state that ended the task, once it was told.
        self.ended: str | None = None
        #: What the agent said it has used, None before it said anything; it never falls.
        self.usage: Usage | None = None
        #: Further calls that the agent made through this node while it worked, those below them included.
        self.calls = 0
        #: What would undo the work, as the agent says: at most ``_UNDO_MAX`` remarks.
        self.undo: list[dict[str, Any]] = []
        self._digest = ResponseDigest()
        self._started_s = time.perf_counter()

    def add(self, event: EventV1) -> None:
        """Take an event of the callee in the order in which it is told: its kind and payload count, as canonical JSON."""
        said = {"kind": event.kind, "payload": event.payload}
        try:
            raw = canonical(said, floats=True)
        except LimitError:  # an integer that JSON readers disagree on: still the same bytes at both ends
            raw = msgspec.json.encode(said, order="deterministic")
        self._digest.add(raw)
        if event.kind == "status":
            if (used := Usage.reported(event.payload.get("usage"))) is not None:
                self.usage = used if self.usage is None else self.usage.at_least(used)
            if is_end(state := state_of(event.payload)):
                self.ended = state
        if "undo" in event.payload and len(self.undo) < _UNDO_MAX and (undo := undo_of(event.payload["undo"])):
            self.undo.append(undo)

    @property
    def digest(self) -> str:
        """Digest of all events so far (``identity.receipt.ResponseDigest``)."""
        return self._digest.value

    @property
    def spent(self) -> Usage:
        """What the agent says it has used, with the time and the further calls that its node counted."""
        used = self.usage
        if used is None:
            return Usage(self.calls, wall_ms=self.wall_ms)
        return Usage(max(used.calls, self.calls), used.tokens, used.usd_micros, self.wall_ms)

    @property
    def wall_ms(self) -> int:
        """Milliseconds since the call was accepted."""
        return int(self.wall_s * 1000)

    @property
    def wall_s(self) -> float:
        """Seconds since the call was accepted, by a clock that nobody sets."""
        return time.perf_counter() - self._started_s


def _way(callee_node: str, caller_node: str) -> str:
    """Return what ``htu`` says on the wire between nodes: the node that is called, and the one whose link carries it."""
    return f"mesh:{callee_node}/{caller_node}"
