"""Where partners ask: who it is, how often it may, and what it gets (docs/spec/federation.md §4).

A request is judged in this order: proof, replay, whether its node or organisation is a partner, revocation, rate. Strangers hear
one and the same answer whatever they ask. Nothing here does I/O; ``api.federation`` brings requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from agentmesh.errors import Busy, DecodeError, MeshError, ReplayError, Unauthorized, UsageError
from agentmesh.identity.federation_proof import Asked, read_ask, sign_answer
from agentmesh.identity.keys import KeyPair
from agentmesh.node.federation.exports import Exports
from agentmesh.node.federation.rules import Partner, Rules
from agentmesh.wire.federation import ORDERS_MAX, PAGE_ENTRIES_MAX, PUSH_BYTES_MAX, CatalogPage, Push, Pushed

PULL_PATH, PUSH_PATH = "/federation/pull", "/federation/push"

#: Requests of one partner: sustained a second, and at once. A first pull of 10,000 entries is 50 requests.
_PARTNER_PER_S, _PARTNER_BURST = 20.0, 200.0
#: Proofs that are checked at all, whoever sends them: a signature costs 0.1 ms.
_ALL_PER_S, _ALL_BURST = 200.0, 600.0
#: Used proofs that are remembered, of one partner; they end by themselves within two minutes.
_USED_MAX = 8_192

_push_decoder = msgspec.json.Decoder(Push)


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float

    def take(self, per_s: float, burst: float, now_s: float) -> float:
        """Take one; return 0, or the seconds until there is one."""
        self.left = min(burst, self.left + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        if self.left < 1:
            return (1 - self.left) / per_s
        self.left -= 1
        return 0.0


@dataclass(slots=True)
class Visitor:
    """What is known of a partner since this node started.

    Attributes:
        pulled_s: Monotonic time of its last pull.
        rev: Place up to which it has pulled.
        refused: Requests that were refused.
    """

    bucket: _Bucket
    used: dict[str, int] = field(default_factory=dict[str, int])
    pulled_s: float | None = None
    rev: int = 0
    refused: int = 0


class Desk:
    """Answer partners.

    Args:
        key: This node's.
        exports: What they see.
        rules: Returns who they are.
        origin: Where this node is asked, as its operator says; "" = nowhere, every request is refused.
        voucher: Returns this node's voucher.
        refusal_of: Why an id may do nothing here.
        orders: Returns the revocations to tell.
        evidence: Returns a statement about these agents.
        on_push: Called with a partner's key, organisation or node, and what it pushed; returns how much was taken.
        is_seed: Whether this node pulls from who asks, and so listens to its hints.
        unix_s, mono_s: The clocks.
    """

    def __init__(
        self,
        key: KeyPair,
        exports: Exports,
        rules: Callable[[], Rules],
        *,
        voucher: Callable[[], str],
        refusal_of: Callable[[str], MeshError | None],
        orders: Callable[[], list[str]],
        evidence: Callable[[list[str]], str],
        on_push: Callable[[Asked, Push], int],
        is_seed: Callable[[Asked], bool],
        unix_s: Callable[[], float] = time.time,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.origin = ""
        self._key, self._exports, self._rules = key, exports, rules
        self._voucher, self._refusal_of, self._orders, self._evidence = voucher, refusal_of, orders, evidence
        self._on_push, self._is_seed, self._unix_s, self._mono_s = on_push, is_seed, unix_s, mono_s
        self._all = _Bucket(_ALL_BURST, mono_s())
        self._opened = int(unix_s())
        self.visitors: dict[str, Visitor] = {}

    def pull(self, proof: str, *, cursor: str = "", updated_since: str = "", limit: int = 0) -> tuple[bytes, str]:
        """Answer a pull.

        Returns:
            The body and its proof.

        Raises:
            Unauthorized, SignatureError, DecodeError, ReplayError: who asks is nobody that is shown anything, or the cursor is
                unknown (code "federation.cursor_unknown": begin anew).
            Busy: too many requests.
            UsageError: a parameter makes no sense.
        """
        asked = self._read(proof, "GET", PULL_PATH, None)
        partner = self.partner_of(asked.organisation, asked.node)
        if partner is None:
            raise _stranger("neither the node nor its organisation is a partner here")
        visitor = self._enter(asked, partner.key)
        if not 0 <= limit <= PAGE_ENTRIES_MAX:
            raise UsageError(f"limit is 1 to {PAGE_ENTRIES_MAX}", code="federation.limit")
        page = self._exports.page(partner, cursor=cursor, updated_since=updated_since, limit=limit or PAGE_ENTRIES_MAX)
        self._complete(page, partner)
        visitor.pulled_s = self._mono_s()
        visitor.rev = self._exports.feeds[partner.key].read(page.metadata.next_cursor)[0]
        return self._signed(asked, msgspec.json.encode(page))

    def _complete(self, page: CatalogPage, partner: Partner) -> None:
        """Add what concerns the whole answer: revocations, and on the last page what was seen of the agents."""
        extra = page.metadata.mesh
        extra.orders = self._orders()[:ORDERS_MAX]
        if not extra.more:
            extra.evidence = self._evidence(self._exports.shown(partner.key))

    def push(self, proof: str, body: bytes) -> tuple[bytes, str]:
        """Take a hint, and perhaps entries, of a partner. Raises as ``pull``."""
        if len(body) > PUSH_BYTES_MAX:
            raise DecodeError(f"a push of {len(body)} bytes", code="federation.too_large")
        asked = self._read(proof, "POST", PUSH_PATH, body)
        if self.partner_of(asked.organisation, asked.node) is None and not self._is_seed(asked):
            raise _stranger("neither the node nor its organisation is a partner or a seed here")
        self._enter(asked, asked.organisation or asked.node)
        try:
            push = _push_decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise DecodeError(f"that is no push: {error}", code="federation.push") from error
        if len(push.entries) > PAGE_ENTRIES_MAX:
            raise DecodeError(f"{len(push.entries)} entries in one push", code="federation.push")
        return self._signed(asked, msgspec.json.encode(Pushed(taken=self._on_push(asked, push))))

    def _read(self, proof: str, method: str, path: str, body: bytes | None) -> Asked:
        """Return who asks. Raises MeshError."""
        now_s = self._mono_s()
        if (wait_s := self._all.take(_ALL_PER_S, _ALL_BURST, now_s)) > 0:
            raise Busy("too many requests", code="federation.busy", retry_after_s=round(wait_s + 0.05, 2))
        if not self.origin or not proof:
            raise _stranger("there is no proof in the header DPoP")
        return read_ask(
            proof,
            now=int(self._unix_s()),
            method=method,
            origin=self.origin,
            path=path,
            body=body,
            is_replayed=lambda _node, _jti: False,  # looked at below, per partner, before anything is done
        )

    def _enter(self, asked: Asked, key: str) -> Visitor:
        """Let a known one in, unless it is revoked or asks too often; its proof is used up. Raises MeshError."""
        now_s = self._mono_s()
        visitor = self.visitors.get(key)
        if visitor is None:
            visitor = self.visitors[key] = Visitor(_Bucket(_PARTNER_BURST, now_s))
        try:
            for did in (asked.node, asked.organisation):
                if did and (refusal := self._refusal_of(did)) is not None:
                    raise refusal
            if (wait_s := visitor.bucket.take(_PARTNER_PER_S, _PARTNER_BURST, now_s)) > 0:
                raise Busy("too many requests", code="federation.busy", retry_after_s=round(wait_s + 0.05, 2))
            self._note_used(visitor, asked)
        except MeshError:
            visitor.refused += 1
            raise
        return visitor

    def partner_of(self, organisation: str, node: str) -> Partner | None:
        """Return the partner that a node stands for: itself, or its organisation."""
        partners = self._rules().partners
        return partners.get(node) or (partners.get(organisation) if organisation else None)

    def _note_used(self, visitor: Visitor, asked: Asked) -> None:
        """Remember a proof. Raises ReplayError, Busy."""
        now = int(self._unix_s())
        used, name = visitor.used, f"{asked.node} {asked.jti}"
        if name in used or asked.iat < self._opened:
            # What was used in an earlier run is not known, so nothing is taken that was signed before this one began.
            raise ReplayError("this proof was used before", code="federation.replayed")
        if len(used) >= _USED_MAX:
            for old in [old for old, until in used.items() if until < now]:
                del used[old]
            if len(used) >= _USED_MAX:
                raise Busy("too many requests", code="federation.busy", retry_after_s=10.0)
        used[name] = asked.kept_until

    def _signed(self, asked: Asked, body: bytes) -> tuple[bytes, str]:
        proof = sign_answer(self._key, asked=asked, body=body, iat=int(self._unix_s()), voucher=self._voucher())
        return body, proof


def _stranger(why: str) -> Unauthorized:
    return Unauthorized(
        "this node shows nothing to you",
        code="federation.stranger",
        why=why,
        hint="its operator adds your organisation's key to federation.toml",
    )
