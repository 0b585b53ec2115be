"""What a program may do here. A scope is one of seven words; ``call`` may name one agent: ``call:summarize``.

    read      see agents, runs, traces, receipts and the state of the node
    call      call agents, and cancel what was called; ``call:AGENT`` only that agent
    register  bring agents in, take them out, and call in their name
    events    store events and follow the event log
    message   send and read messages of this node and its agents, publish and subscribe
    state     read and change shared state, take locks
    admin     everything: the node itself, its peers and who may use it

There are no patterns: a scope names what it names, and whatever cannot be read is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from agentmesh.errors import DecodeError, Unauthorized, UsageError
from agentmesh.ids import is_name, parse_agent_id

ScopeName = Literal["", "read", "call", "register", "events", "message", "state", "admin"]
#: Each scope and what it opens, for people.
SCOPES: dict[str, str] = {
    "read": "see agents, runs, traces, receipts and the state of the node",
    "call": "call agents, and cancel what was called; call:AGENT only that agent",
    "register": "bring agents in, take them out, and call in their name",
    "events": "store events and follow the event log",
    "message": "send and read messages of this node and its agents, publish and subscribe",
    "state": "read and change shared state, take locks",
    "admin": "everything: the node itself, its peers and who may use it",
}
#: Most scopes of one key.
SCOPES_MAX = 64
#: Codes of refusals where the credential is good but does not reach so far: HTTP 403, not 401.
FORBIDDEN = frozenset(
    {
        "group.owner",
        "policy.denied",
        "policy.out",
        "refused.origin",
        "refused.scope",
        "refused.tenant",
        "topic.foreign",
        "topic.publish",
        "topic.subscribe",
    }
)
#: Begins ``Rights.key`` of a session of the console; no API key can be named so.
SESSION_PREFIX = "console:"


@dataclass(frozen=True, slots=True, eq=False)
class Rights:
    """What one credential opens.

    Attributes:
        who: Whose it is, for people: "the operator", "key ci", "alice of https://issuer".
        scopes: Words of ``SCOPES``; with "admin" all of them.
        agents: The only agents that may be called, names folded and ids as they are; None = any.
        tenant: For whom; "" = the operator.
        key: Name of the API key or session, by which it is ended; "" for others.
        until: Unix seconds from which it is refused; None = never.
    """

    who: str
    scopes: frozenset[str]
    agents: frozenset[str] | None = None
    tenant: str = ""
    key: str = ""
    until: float | None = None

    def require(self, scope: str) -> None:
        """Raise Unauthorized (code "refused.scope", HTTP 403) unless the scope is held."""
        if scope and scope not in self.scopes:
            raise Unauthorized(
                f"{self.who} may not do this: it needs the scope {scope!r}",
                code="refused.scope",
                why=f"{scope} is to {SCOPES[scope]}",
                hint=f"ask the operator for a key that has it:   agentmesh keys add NAME --scope {scope}",
                extra={"scope": scope},
            )

    def may_call(self, name: str, agent_id: str) -> bool:
        """Say whether an agent is among those that may be called."""
        return self.agents is None or agent_id in self.agents or name.casefold() in self.agents

    def require_call(self, name: str, agent_id: str) -> None:
        """Raise Unauthorized (code "refused.scope", HTTP 403) unless that agent may be called."""
        if not self.may_call(name, agent_id):
            raise Unauthorized(
                f"{self.who} may not call {name[:80]!r}",
                code="refused.scope",
                why="its scopes name other agents",
                hint=f"ask the operator for a key that may:   agentmesh keys add NAME --scope call:{name[:80]}",
                extra={"scope": f"call:{name[:80]}"},
            )


#: Whoever holds ``api.token``.
OPERATOR = Rights("the operator", frozenset(SCOPES))
#: Whoever speaks A2A from this machine without any credential.
ANONYMOUS = Rights("a program without a key", frozenset({"read", "call", "register"}))
#: Whoever brings a call token: it opens the one call that it was made for, once it holds.
BY_TOKEN = Rights("a program with a call token", frozenset({"call"}))


def parse_scopes(texts: Iterable[str]) -> tuple[frozenset[str], frozenset[str] | None]:
    """Return (scopes, agents that ``call`` is limited to, None if it is not).

    Raises:
        UsageError: none, too many, unknown, or no agent after "call:" (code "keys.scope"). Nothing changed.
    """
    wanted = list(texts)
    if not 0 < len(wanted) <= SCOPES_MAX:
        raise UsageError(f"a key has 1 to {SCOPES_MAX} scopes", code="keys.scope", hint=_known())
    scopes: set[str] = set()
    agents: set[str] = set()
    for text in wanted:
        word, colon, agent = text.partition(":")
        if word not in SCOPES or (colon and word != "call"):
            raise UsageError(f"there is no scope {text[:80]!r}", code="keys.scope", hint=_known())
        if colon:
            agents.add(_agent_in(agent))
        scopes.add(text if not colon else "call:")
    if "call:" in scopes:
        if "call" in scopes or "admin" in scopes:
            raise UsageError(
                "one scope limits calls to some agents, another allows all of them",
                code="keys.scope",
                hint="leave one of them out",
            )
        scopes = (scopes - {"call:"}) | {"call"}
    if "admin" in scopes:
        scopes = set(SCOPES)
    return frozenset(scopes), frozenset(agents) if agents else None


def _agent_in(text: str) -> str:
    if is_name(text):
        return text.casefold()
    try:
        return parse_agent_id(text)
    except DecodeError as error:
        raise UsageError(
            f"{text[:80]!r} is neither the name nor the id of an agent",
            code="keys.scope",
            why="patterns are not read: a scope names one agent",
            hint="--scope call:summarize --scope call:translate",
        ) from error


def _known() -> str:
    return "scopes are " + ", ".join(SCOPES) + ", and call:AGENT"
