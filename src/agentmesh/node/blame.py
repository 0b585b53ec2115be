"""What a thing that happened is evidence of, and whether the one it points to may be innocent (docs/spec/trust.md §2). Pure."""

from __future__ import annotations

from agentmesh.core.trust.config import Kind
from agentmesh.errors import (
    AgentCanceled,
    AgentFailed,
    Closed,
    DecodeError,
    MeshError,
    NoRoute,
    PeerError,
    Refused,
    Timeout,
    Unauthorized,
)

#: Kinds that say no more than that somebody was not heard.
SILENCE: frozenset[Kind] = frozenset(("timeout", "unreached", "missed_lease"))
#: Refusals of a token for which its sender is not to blame: clocks differ, or its program is older.
_BLAMELESS_ENDS = (".expired", ".not_yet_valid", ".missing")
#: Codes that name somebody who did not prove that it spoke: whoever was expected at an address where another answers.
_UNPROVEN = ("handshake.",)
_LIES = ("signature.", "receipt.", "trust_statement.", "dht.forged", "overlay.impostor", "manifest.equivocation")


def kind_of_outcome(state: str, error: MeshError | None) -> Kind | None:
    """Return what an outcome is evidence of; None for one that says nothing of the callee."""
    if error is None:
        return "completed" if state == "completed" else None
    match error:
        case AgentCanceled():
            return "canceled"
        case AgentFailed():
            return "failed"
        case Timeout():
            return "unreached" if error.code == "unreached.not_accepted" else "timeout"
        case NoRoute() | Closed():
            return "unreached"
        case Refused():
            return "rejected"
        case _:
            return None


def kind_of_misbehaviour(code: str, detail: str) -> Kind | None:
    """Return what a breach of the protocol is evidence of; None if the one who is named may be innocent."""
    if code.startswith(_UNPROVEN) or code.endswith(_BLAMELESS_ENDS):
        return None
    # Machines say "overlay.record" and put the code of what was wrong with the record into the detail.
    inner = detail.partition(":")[0]
    return "bad_signature" if code.startswith(_LIES) or inner.startswith("signature.") else "protocol_abuse"


def kind_of_refusal(error: MeshError) -> Kind | None:
    """Return what a call that was turned away because of its token is evidence of; None if its node may be innocent."""
    if error.code.endswith(_BLAMELESS_ENDS):
        return None
    if isinstance(error, DecodeError):
        return "protocol_abuse"
    if isinstance(error, Unauthorized) and not error.code.startswith("token."):
        return None  # a lawful no to somebody who told the truth
    return "bad_signature" if isinstance(error, PeerError | Unauthorized) else None
