"""Read an A2A agent card of 1.0 or 0.3: where the agent listens, in which dialect, and what it can do."""

from __future__ import annotations

import ipaddress
from typing import Any, Literal, NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

from agentmesh.adapters.base import Capabilities, Discovered
from agentmesh.adapters.http_client import check_url
from agentmesh.adapters.shape import discovered, mapping, members, words
from agentmesh.errors import DecodeError, UsageError

Version = Literal["1.0", "0.3"]
Binding = Literal["JSONRPC", "HTTP+JSON"]

#: Both well-known places, the current one first.
CARD_PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
INTERFACES_MAX = 32
#: Fragment that says that a URL is that of a card, not of an agent.
CARD_ITSELF = "card"


class Interface(NamedTuple):
    """One place where the agent listens."""

    url: str
    binding: Binding
    version: Version
    tenant: str


def card_urls(url: str) -> list[str]:
    """Return where the card of an agent at ``url`` may be, most likely first; the query is kept.

    A URL that ends in ``.json`` or ``#card`` is that of the card itself.
    """
    parts = urlsplit(url)
    if parts.path.endswith(".json") or parts.fragment == CARD_ITSELF:
        return [urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, ""))]
    folder = parts.path.rstrip("/")
    folders = [folder, ""] if folder else [""]
    return [urlunsplit((parts.scheme, parts.netloc, f + path, parts.query, "")) for f in folders for path in CARD_PATHS]


def read_card(card: dict[str, Any], card_url: str, asked_url: str) -> Discovered:
    """Turn a card into what the mesh knows of an agent.

    Raises:
        DecodeError: no agent card, or none of its interfaces is one we speak (code "agent.not_this_door").
        UsageError: it points to this machine although it came from another (code "agent.bad_url").
    """
    if not isinstance(card.get("name"), str) or not ({"supportedInterfaces", "url", "skills"} & set(card)):
        raise DecodeError("what answers there is no agent card", code="agent.not_this_door")
    interface = _choose(_interfaces(card, card_url))
    if interface is None:
        raise DecodeError(
            "the agent card offers no interface that this version speaks",
            code="agent.not_this_door",
            why="spoken are JSONRPC (1.0 and 0.3) and HTTP+JSON (1.0)",
        )
    interface = interface._replace(url=_reachable(interface.url, card_url))
    streaming = mapping(card.get("capabilities")).get("streaming") is True
    return discovered(
        card,
        fallback_name=f"agent-{urlsplit(asked_url).port or 80}",
        target={
            "url": interface.url,
            "binding": interface.binding,
            "version": interface.version,
            "tenant": interface.tenant,
            "streaming": streaming,
            "card_url": card_url,
        },
        # The id of a task is known early only from a stream; without it nothing can be canceled.
        capabilities=Capabilities(stream=streaming, cancel=streaming),
    )


def _interfaces(card: dict[str, Any], card_url: str) -> list[Interface]:
    found: list[Interface] = []
    for item in members(card.get("supportedInterfaces"))[:INTERFACES_MAX]:
        said = mapping(item)
        _add(found, said, said.get("protocolBinding"), words(said.get("protocolVersion"), "1.0"), card_url)
    own_version = words(card.get("protocolVersion"), "0.3")
    if "url" in card:
        _add(found, card, card.get("preferredTransport") or "JSONRPC", own_version, card_url)
    for item in members(card.get("additionalInterfaces"))[:INTERFACES_MAX]:
        said = mapping(item)
        _add(found, said, said.get("transport"), own_version, card_url)
    return found


def _add(found: list[Interface], said: dict[str, Any], binding: object, version: str, base: str) -> None:
    name = str(binding or "JSONRPC").upper()
    if name not in ("JSONRPC", "HTTP+JSON") or not isinstance(said.get("url"), str):
        return
    spoken: Version | None = "1.0" if version.startswith("1.") or version == "1" else None
    if version.startswith("0.") and name == "JSONRPC":
        spoken = "0.3"
    try:
        url = check_url(urljoin(base, str(said["url"])))
    except (UsageError, ValueError):
        return
    if spoken is not None:
        tenant = words(said.get("tenant"), "", 200)
        found.append(Interface(url, "JSONRPC" if name == "JSONRPC" else "HTTP+JSON", spoken, tenant))


def _choose(interfaces: list[Interface]) -> Interface | None:
    order = (("JSONRPC", "1.0"), ("HTTP+JSON", "1.0"), ("JSONRPC", "0.3"))
    for wanted in order:
        for interface in interfaces:
            if (interface.binding, interface.version) == wanted:
                return interface
    return None


def _reachable(url: str, card_url: str) -> str:
    """Return the interface URL as this machine can use it.

    A card often names the address its server was bound to: 0.0.0.0 becomes the host the card came from. A card from
    another machine must not point into this one, which would make the node call services of its own machine.
    """
    own, came_from = urlsplit(url), urlsplit(card_url)
    if _is_any(own.hostname):
        port = f":{own.port}" if own.port else ""
        host = came_from.hostname or ""
        host = f"[{host}]" if ":" in host else host
        return urlunsplit((own.scheme, host + port, own.path, own.query, ""))
    if is_loopback(own.hostname) and not is_loopback(came_from.hostname):
        raise UsageError(
            f"the agent card at {came_from.netloc} points to {own.netloc}, which is this machine",
            code="agent.bad_url",
            hint="set the agent's public URL in its card",
        )
    return url


def is_loopback(host: str | None) -> bool:
    """Say whether a host name or address means this machine."""
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_any(host: str | None) -> bool:
    try:
        return host is not None and ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
