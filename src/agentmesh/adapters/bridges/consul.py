"""Consul as a foreign registry, by its HTTP API (``/v1/…``), meant for the agent on the same machine.

A service that carries the bridge's tag is an agent: at ``url`` of its meta, or at its address and port. The catalogue is
watched by blocking queries and told anew as a whole when it changed; whether an agent is well is for the mesh to find out.
Agents of this node are registered with a TTL check, which is kept passing while they are healthy; when the daemon dies they turn
critical after the TTL, and Consul removes them a minute later (the least that it allows).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from agentmesh.adapters.bridges.base import (
    ENTRIES_MAX,
    REQUEST_TIMEOUT_S,
    TTL_S,
    Alive,
    Change,
    Listed,
    Listing,
    Posting,
    Put,
    bad_answer,
    check_status,
    unreachable,
)
from agentmesh.adapters.bridges.spec import BridgeSpec, read_secret
from agentmesh.adapters.http_client import HttpClient, decode_json, read_whole
from agentmesh.adapters.shape import mapping, members
from agentmesh.errors import DecodeError, LimitError, Unreached

#: How long Consul may hold a blocking query, seconds; it adds up to a sixteenth of it.
_WAIT_S = 55
#: Pause between two listings: any change of any service in the cluster ends a blocking query.
_PAUSE_S = 1.0
_SERVICES_MAX = 1_000
_META_CHARS_MAX = 512
_DEREGISTER_AFTER = "1m"


class Consul:
    """The catalogue of one Consul datacentre (``base.Foreign``)."""

    kind = "consul"

    def __init__(self, spec: BridgeSpec) -> None:
        self._spec = spec
        self._client = HttpClient()
        self._index = 0
        self._published: dict[str, bytes] = {}
        self._healthy: dict[str, bool] = {}

    async def watch(self, *, fresh: bool) -> AsyncGenerator[Change]:
        """See ``Foreign.watch``."""
        if fresh:
            self._index = 0
        while True:
            query = {"index": str(self._index), "wait": f"{_WAIT_S}s"} if self._index else {}
            timeout_s = _WAIT_S * 17 / 16 + REQUEST_TIMEOUT_S if self._index else REQUEST_TIMEOUT_S
            body, index = await self._ask("GET", "/v1/catalog/services", query, timeout_s=timeout_s)
            if not index:
                raise bad_answer("consul", self._spec.base, "no X-Consul-Index, without which nothing can be watched")
            if index == self._index:
                yield Alive()
                await asyncio.sleep(_PAUSE_S)
                continue
            names = [name for name, tags in mapping(self._json(body)).items() if self._spec.tag in members(tags)]
            if len(names) > _SERVICES_MAX:
                raise LimitError(
                    f"{len(names)} services carry the tag {self._spec.tag!r}, at most {_SERVICES_MAX} are read",
                    code="bridge.too_many",
                )
            yield Listing()
            told = 0
            for name in sorted(names):
                path = f"/v1/catalog/service/{quote(name, safe='')}"
                body, _ = await self._ask("GET", path, {"tag": self._spec.tag})
                found = members(self._json(body))
                if (told := told + len(found)) > ENTRIES_MAX:
                    raise LimitError(f"more than {ENTRIES_MAX} services carry the tag", code="bridge.too_many")
                for item in found:
                    yield self._put(mapping(item))
            yield Listed()
            # An index that goes back belongs to a cluster that began anew: so does the watch (Consul, "blocking queries").
            self._index = index if index > self._index else 0
            await asyncio.sleep(_PAUSE_S)

    def _put(self, service: dict[str, Any]) -> Put:
        """Write an instance of a service as an entry."""
        meta = mapping(service.get("ServiceMeta"))
        said: dict[str, Any] = {name: meta[name] for name in ("url", "door", "name", "origin") if meta.get(name)}
        if "url" not in said:
            host = str(service.get("ServiceAddress") or service.get("Address") or "")
            host = f"[{host}]" if ":" in host else host
            said["url"] = f"http://{host}:{service.get('ServicePort') or 80}{meta.get('path') or ''}" if host else ""
        key = f"{service.get('Node', '')}/{service.get('ServiceID', '')}"[:512]
        return Put(key, msgspec.json.encode(said))

    async def publish(self, postings: Sequence[Posting], origin: str, *, fresh: bool = False) -> None:
        """See ``Foreign.publish``."""
        wanted = {_service_id(posting): self._service(posting, origin) for posting in postings}
        for service_id in [key for key in self._published if key not in wanted]:
            await self._deregister(service_id)
        for service_id, service in wanted.items():
            body = msgspec.json.encode(service)
            if fresh or self._published.get(service_id) != body:
                await self._ask("PUT", "/v1/agent/service/register", {"replace-existing-checks": "true"}, service)
                self._published[service_id] = body
        self._healthy = {_service_id(posting): posting.healthy for posting in postings}
        await self.keep()

    def _service(self, posting: Posting, origin: str) -> dict[str, Any]:
        parts = urlsplit(posting.url)
        service_id = _service_id(posting)
        return {
            "ID": service_id,
            "Name": posting.name,
            "Tags": [self._spec.tag, "agentmesh"],
            "Address": parts.hostname or "",
            "Port": parts.port or (443 if parts.scheme == "https" else 80),
            "Meta": {
                "url": posting.url[:_META_CHARS_MAX],
                "card": f"{posting.url}/.well-known/agent-card.json"[:_META_CHARS_MAX],
                "door": "a2a",
                "agent_id": posting.agent_id,
                "origin": origin,
                "description": posting.description[:_META_CHARS_MAX],
            },
            "Check": {
                "CheckID": service_id,
                "Name": "agentmesh",
                "TTL": f"{TTL_S}s",
                "DeregisterCriticalServiceAfter": _DEREGISTER_AFTER,
            },
        }

    async def keep(self) -> bool:
        """See ``Foreign.keep``: every check passes, or is critical if the agent is not well."""
        kept = True
        for service_id, healthy in self._healthy.items():
            body = {"Status": "passing" if healthy else "critical"}
            path = f"/v1/agent/check/update/{quote(service_id, safe='')}"
            try:
                await self._ask("PUT", path, {}, body)
            except _Unknown:
                self._published.pop(service_id, None)
                kept = False
        return kept

    async def withdraw(self) -> None:
        """See ``Foreign.withdraw``."""
        self._healthy = {}
        for service_id in list(self._published):
            await self._deregister(service_id)

    async def aclose(self) -> None:
        """See ``Foreign.aclose``."""
        await self._client.aclose()

    async def _deregister(self, service_id: str) -> None:
        with suppress(_Unknown):  # somebody did that already
            await self._ask("PUT", f"/v1/agent/service/deregister/{quote(service_id, safe='')}", {})
        self._published.pop(service_id, None)
        self._healthy.pop(service_id, None)

    async def _ask(
        self, method: str, path: str, query: dict[str, str], json: Any = None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> tuple[bytes, int]:
        """Send one request; return the body, and the index of the answer, 0 if it has none."""
        url = f"{self._spec.base}{path}{'?' if query else ''}{urlencode(query)}"
        headers = {"X-Consul-Token": read_secret(self._spec.secret)} if self._spec.secret else {}
        try:
            async with self._client.open(method, url, json=json, headers=headers, timeout_s=timeout_s) as response:
                body = await read_whole(response, self._client.answer_bytes_max)
                status, said = response.status, response.headers.get("x-consul-index", "")
        except Unreached as error:
            raise unreachable("consul", url, error) from error
        # An unknown check is 404 since Consul 1.12, and was 500 before.
        if status == 404 or (status == 500 and re.search(rb"nknown|does not have associated TTL", body[:1000])):
            raise _Unknown(f"consul does not know {path}", code="bridge.bad_answer")
        check_status("consul", url, status, body)
        if status != 200:
            raise bad_answer("consul", url, f"HTTP {status}: {body[:200].decode('utf-8', 'replace')}")
        return body, int(said) if said.isascii() and said.isdigit() and len(said) < 20 else 0

    def _json(self, body: bytes) -> Any:
        try:
            return decode_json(body)
        except DecodeError as error:
            raise bad_answer("consul", self._spec.base, error.detail) from error


class _Unknown(DecodeError):
    """Consul has no such service or check."""


def _service_id(posting: Posting) -> str:
    """Return the id of an agent's service: unique to the agent, and fit for a path."""
    return f"agentmesh-{posting.agent_id.rpartition(':')[2]}"
