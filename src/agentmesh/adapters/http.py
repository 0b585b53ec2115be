"""The "http" door: a plain HTTP agent, ``POST {url}/rpc`` with JSON in and out (RQ2).

Request: ``{"text", "data"?, "parts", "skill"?, "task_id", "run_id", "context_id"?, "caller"?, "metadata"?, "budget"?}``, with
the headers ``traceparent``, ``tracestate`` and ``baggage`` (W3C) where there are any. Answer: JSON with the answer under text,
output, result, answer, response, message or content; any other JSON; or text. ``"usage": {"tokens", "usd_micros"}`` beside the
answer says what it cost. There is no streaming, and giving up means closing the connection. A URL with a path is used as it is,
without ``/rpc``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agentmesh.adapters.a2a_parts import read_parts
from agentmesh.adapters.base import Capabilities, Discovered, Step
from agentmesh.adapters.http_client import (
    Answer,
    HttpClient,
    check_url,
    decode_json,
    failed_status,
    guarded,
    same_origin,
    tcp_health,
)
from agentmesh.adapters.reach import Reach
from agentmesh.adapters.shape import amounts_of, context_headers, discovered, fit_name, mapping, usage_in, words
from agentmesh.errors import AgentFailed, DecodeError
from agentmesh.node.door import Door, Happening, Health, Invocation
from agentmesh.wire.event import text_of

DISCOVER_TIMEOUT_S = 5.0
#: Where an answer may stand, the most telling first.
ANSWER_KEYS = ("text", "output", "result", "answer", "response", "message", "content")
_DESCRIPTION_PATH = "/.well-known/agentmesh.json"


class HttpAdapter:
    """Call agents that take JSON by POST."""

    name = "http"

    def __init__(self, least: Reach = Reach.NEVER) -> None:
        self._client = HttpClient(least=least)

    async def install(self, *, plan_only: bool = False) -> list[Step]:
        """Return []: nothing to prepare."""
        return []

    async def discover(self, url: str) -> list[Discovered]:
        """Read the description if there is one; otherwise the name comes from host and port. Raises as ``Adapter.discover``."""
        said = await self.describe(url)
        return [self._discovered(url, said)]

    async def describe(self, url: str) -> dict[str, Any]:
        """Return the agent's own description: ``/.well-known/agentmesh.json`` or the URL itself, {} when neither has one.

        Raises:
            UsageError: not a usable URL. NoRoute, Closed, Timeout: nothing answers there.
        """
        check_url(url)
        parts = urlsplit(url)
        for place in dict.fromkeys((f"{parts.scheme}://{parts.netloc}{_DESCRIPTION_PATH}", url)):
            try:
                answer = await self._client.fetch("GET", place, timeout_s=DISCOVER_TIMEOUT_S)
                found = mapping(decode_json(answer.body)) if answer.status == 200 else {}
            except (AgentFailed, DecodeError):
                continue
            if isinstance(found.get("name"), str):
                return found
        return {}

    async def takes_posts(self, url: str) -> bool:
        """Say whether something seems to be at the place that calls go to: anything but "not found". Runs no call."""
        answer = await self._client.fetch("GET", rpc_url(check_url(url)), timeout_s=DISCOVER_TIMEOUT_S)
        return answer.status not in (404, 410)

    def open(self, target: dict[str, Any]) -> Door:
        """Return the door to one discovered agent."""
        return HttpDoor(self._client, str(target["url"]), str(target.get("health_url", "")))

    async def aclose(self) -> None:
        """Close the sockets, which ends what runs. Idempotent."""
        await self._client.aclose()

    def _discovered(self, url: str, said: dict[str, Any]) -> Discovered:
        parts = urlsplit(url)
        host = parts.hostname or "agent"
        place = f"agent-{parts.port}" if parts.port else fit_name(host, "agent")
        own = words(said.get("url"), "")
        endpoint = own if own and same_origin(own, url) else rpc_url(url)
        params = mapping(said.get("params"))
        return discovered(
            said,
            fallback_name=place,
            target={"url": endpoint, "health_url": f"{parts.scheme}://{parts.netloc}/health"},
            capabilities=Capabilities(stream=False, cancel=False),
            extra=params,
        )


def rpc_url(url: str) -> str:
    """Return where calls go: the URL itself if it has a path, else its ``/rpc``."""
    parts = urlsplit(url)
    return url if parts.path not in ("", "/") else parts._replace(path="/rpc").geturl()


class HttpDoor:
    """One plain HTTP agent."""

    def __init__(self, client: HttpClient, url: str, health_url: str) -> None:
        self._client = client
        self._url = url
        self._health_url = health_url
        self._running: dict[str, asyncio.Timeout] = {}

    async def invoke(self, call: Invocation) -> AsyncIterator[Happening]:
        """Run the call; see ``Door.invoke``. Leaving early closes the connection."""
        # A deadline that ``cancel`` moves to now: a way to stop this without a task of its own for every call.
        stop = asyncio.timeout(None)
        self._running[call.task_id] = stop
        parts: list[dict[str, Any]] | None = None
        used: dict[str, int] = {}
        try:
            async with stop:
                answer = await self._ask(call)
                parts, used = _read(self._url, answer), _used(answer)
        except TimeoutError:
            pass
        finally:
            self._running.pop(call.task_id, None)
        if parts is None:
            yield Happening("status", {"state": "canceled"})
            return
        if parts:
            yield Happening("message", {"role": "agent", "parts": parts})
        yield Happening("status", {"state": "completed", **({"usage": used} if used else {})})

    async def cancel(self, task_id: str) -> None:
        """Close the connection of the call; see ``Door.cancel``."""
        if stop := self._running.get(task_id):
            stop.reschedule(asyncio.get_running_loop().time())

    async def health(self) -> Health:
        """Ask ``/health`` where there is one, else try to connect; see ``Door.health``."""
        return await _health(self._client, self._health_url, self._url)

    async def aclose(self) -> None:
        """Do nothing: the sockets belong to the adapter."""

    async def _ask(self, call: Invocation) -> Answer:
        data = [p["data"] for p in call.parts if "data" in p]
        body: dict[str, Any] = {
            "text": text_of(call.parts),
            "parts": call.parts,
            "task_id": call.task_id,
            "run_id": call.run_id,
        }
        optional: dict[str, Any] = {
            "data": data[0] if len(data) == 1 else data or None,
            "skill": call.skill,
            "context_id": call.context_id,
            "caller": call.caller,
            "caller_name": call.caller_name,
            "metadata": call.metadata,
            "budget": amounts_of(call.budget),
        }
        body.update({k: v for k, v in optional.items() if v not in (None, "", {})})
        headers = {"Accept": "application/json, text/plain;q=0.9"}
        headers |= context_headers(call)
        return await self._client.fetch("POST", self._url, json=body, headers=headers, timeout_s=call.deadline_s)


@guarded
async def _health(client: HttpClient, health_url: str, url: str) -> Health:
    if health_url:
        try:
            answer = await client.fetch("GET", health_url, timeout_s=DISCOVER_TIMEOUT_S)
        except AgentFailed:
            return await tcp_health(url, client.least)
        if answer.status < 400:
            return Health("healthy")
        if answer.status >= 500 and answer.status != 501:
            return Health("unhealthy", f"/health answers HTTP {answer.status}")
    return await tcp_health(url, client.least)


def _read(url: str, answer: Answer) -> list[dict[str, Any]]:
    """Return the answer as parts.

    Raises:
        AgentFailed: an error answer, or none that can be read.
    """
    if answer.status >= 400:
        raise failed_status(url, answer.status, answer.body)
    if not answer.body:
        return []
    if answer.media_type.startswith("text/"):
        return [{"text": answer.body.decode("utf-8", "replace")}]
    if answer.media_type.endswith(("json", "octet-stream")):
        try:
            return _parts(decode_json(answer.body))
        except DecodeError as error:
            raise AgentFailed(error.detail, code="agent.bad_answer") from error
    raise AgentFailed(
        f"the agent answered with {answer.media_type[:80]}, which is neither JSON nor text",
        code="agent.bad_answer",
        hint="answer with application/json or text/plain",
    )


def _used(answer: Answer) -> dict[str, int]:
    """Return what the answer says it used: its member ``usage``."""
    if answer.media_type.startswith("text/") or b'"usage"' not in answer.body:
        return {}
    try:
        return usage_in(mapping(decode_json(answer.body)).get("usage"))
    except DecodeError:
        return {}


def _parts(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"text": value}] if value else []
    said = mapping(value)
    if not said:
        return [] if value in (None, {}) else _data(value)
    if parts := read_parts(said.get("parts")):
        return parts
    key = next((k for k in ANSWER_KEYS if said.get(k) is not None), None)
    if key is None:
        if error := said.get("error"):
            text = words(error, "") or words(mapping(error).get("message"), "") or msgspec.json.encode(error).decode()
            raise AgentFailed(text[:2048])
        return _data(said["data"]) if "data" in said else _data(said)
    found = said[key]
    parts = _parts(found) if isinstance(found, str) else _data(found)
    if key != "data" and said.get("data") is not None:
        parts.append({"data": said["data"]})
    return parts


def _data(value: Any) -> list[dict[str, Any]]:
    """Return a value as text for people and data for programs."""
    return [{"text": msgspec.json.encode(value).decode()}, {"data": value}]
