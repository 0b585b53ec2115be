"""The Foreign contract: what a bridge asks of another registry. One file per kind.

A foreign registry holds entries, each a key and bytes (``entry`` reads them). ``tests/contract/test_bridge.py`` runs the same
cases on every kind. Nothing here knows the mesh; ``bridge`` does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentmesh.adapters.http_client import Answer, HttpClient, excerpt
from agentmesh.adapters.http_pool import place_of
from agentmesh.adapters.reach import Reach
from agentmesh.errors import DecodeError, LimitError, NoRoute, Unauthorized, Unreached

#: Entries outlive a daemon that died by at most so many seconds.
TTL_S = 30
REQUEST_TIMEOUT_S = 10.0
#: Largest entry that is read.
ENTRY_BYTES_MAX = 64 * 1024
#: Entries of one listing; a registry of more is not for one prefix.
ENTRIES_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Put:
    """An entry is there, new or changed. ``value`` is None when it is larger than is read."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Gone:
    """An entry is not there any more."""

    key: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A whole listing begins: what is not put before ``Listed`` is gone."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The whole listing has been told; what follows is single changes."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The watch stands; nothing changed."""


Change = Put | Gone | Listing | Listed | Alive


@dataclass(frozen=True, slots=True)
class Posting:
    """An agent beside this node, as it goes out.

    Attributes:
        agent_id: did:key of the agent.
        name, description: For people.
        url: Its A2A endpoint at this node.
        card: Its A2A card, whose interfaces are at ``url``.
        healthy: Whether its last health check went well.
    """

    agent_id: str
    name: str
    description: str
    url: str
    card: dict[str, Any]
    healthy: bool


class Foreign(Protocol):
    """One foreign registry. Every method raises Unreached when it does not answer, Unauthorized when it refuses the
    credentials, DecodeError when it answers nonsense; each may be called again.
    """

    def watch(self, *, fresh: bool) -> AsyncGenerator[Change]:
        """Yield what is there and then what changes, without end; closing the iterator early ends the request.

        Args:
            fresh: Begin with a whole listing; otherwise go on from where the last watch ended, if that is still possible.
        """
        ...

    async def publish(self, postings: Sequence[Posting], origin: str, *, fresh: bool = False) -> None:
        """Make the entries of this node exactly these; cheap when nothing changed.

        Args:
            postings: What shall stand there.
            origin: Id of this node.
            fresh: Write all of them, whatever was written before.
        """
        ...

    async def keep(self) -> bool:
        """Tell that this node lives. False: its entries were dropped meanwhile, and have to be published again."""
        ...

    async def withdraw(self) -> None:
        """Remove the entries of this node."""
        ...

    async def aclose(self) -> None:
        """Close connections; entries stay until they run out. Idempotent."""
        ...


async def ask(
    client: HttpClient,
    what: str,
    method: str,
    url: str,
    *,
    json: Any = None,
    headers: dict[str, str],
    timeout_s: float = 0,
) -> Answer:
    """Send one request to a foreign registry and return its answer below 400, 404 and 400 included.

    Args:
        what: Kind of the registry, for messages.
        timeout_s: For the whole answer; 0 for the usual ten seconds.

    Raises:
        NoRoute, Closed, Timeout: it does not answer, or says that it cannot now (code "bridge.unreachable").
        Unauthorized: 401 or 403 (code "bridge.unauthorized"). LimitError: the answer is too large.
        DecodeError: any other status.
    """
    try:
        answer = await client.fetch(method, url, json=json, headers=headers, timeout_s=timeout_s or REQUEST_TIMEOUT_S)
    except LimitError:
        raise
    except Unreached as error:
        raise unreachable(what, url, error) from error
    check_status(what, url, answer.status, answer.body)
    return answer


def unreachable(what: str, url: str, error: Unreached) -> Unreached:
    """Say of a foreign registry what the HTTP client said of an agent."""
    return type(error)(
        f"{what} at {place_of(url)} does not answer", code="bridge.unreachable", why=error.why or error.detail
    )


def check_status(what: str, url: str, status: int, body: bytes) -> None:
    """Raise for a status that is no answer; see ``ask``."""
    said = excerpt(body)[:300]
    if status in (401, 403):
        raise Unauthorized(
            f"{what} at {place_of(url)} refuses this node",
            code="bridge.unauthorized",
            why=said or f"HTTP {status}",
            hint="put the credentials into a file and name it:   ?secret=FILE",
        )
    if status in (429, 500, 502, 503, 504):
        raise NoRoute(
            f"{what} at {place_of(url)} cannot answer now", code="bridge.unreachable", why=said or f"HTTP {status}"
        )
    if status >= 400 and status not in (400, 404):
        raise bad_answer(what, url, said or f"HTTP {status}")


def bad_answer(what: str, url: str, why: str) -> DecodeError:
    """Build the error for an answer that makes no sense."""
    return DecodeError(
        f"{what} at {place_of(url)} answered what makes no sense", code="bridge.bad_answer", why=why[:300]
    )


class Host(Protocol):
    """What a bridge asks of the node."""

    @property
    def node_id(self) -> str:
        """Id of this node."""
        ...

    @property
    def port(self) -> int:
        """Port of its HTTP API."""
        ...

    def own(self, edge: str) -> list[Posting]:
        """Return the agents beside this node that may go out: its own, neither those of tenants nor of other registries.

        Args:
            edge: Base URL of this node for others; "" = its loopback address.
        """
        ...

    async def take_in(self, url: str, door: str, name: str, origin: str, least: Reach) -> list[str]:
        """Register the agents behind a URL and return their ids; no connection to them may lead further inside than ``least``.

        Raises:
            MeshError: as ``Registry.register``. Nothing changed.
        """
        ...

    async def let_go(self, origin: str, keep: Sequence[str] = ()) -> None:
        """Withdraw the agents that came by an entry, except those of these ids."""
        ...

    def has(self, agent_id: str) -> bool:
        """Say whether an agent is registered here."""
        ...
