"""The "sdk" door: agent processes made with our own SDK (``sdk.serving``), NDJSON over loopback HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import quote

import msgspec

from agentmesh.adapters.base import Capabilities, Discovered, Step
from agentmesh.adapters.http_client import (
    HttpClient,
    check_url,
    decode_json,
    failed_status,
    guarded,
    pieces_of,
    read_whole,
)
from agentmesh.adapters.lines import LineSplitter
from agentmesh.adapters.reach import Reach
from agentmesh.adapters.shape import amounts_of, discovered, mapping
from agentmesh.errors import AgentFailed, Closed, DecodeError, MeshError, from_wire
from agentmesh.node.door import Door, Happening, Health, Invocation
from agentmesh.sdk.serving import KIND
from agentmesh.sdk.turn import InvokeRequest
from agentmesh.wire.event import TERMINAL_STATES, Kind, state_of

DISCOVER_TIMEOUT_S = 5.0
CANCEL_TIMEOUT_S = 2.0
AGENTS_MAX = 256
#: A larger schema is left out of the manifest.
SCHEMA_CHARS_MAX = 2000


class _Line(msgspec.Struct):
    """One line of an answer."""

    kind: Kind
    payload: dict[str, Any]


class _Listing(msgspec.Struct):
    kind: str
    agents: list[dict[str, Any]]


_line_decoder = msgspec.json.Decoder(_Line)


class SdkAdapter:
    """Call agents that were made with ``@agent``."""

    name = "sdk"

    def __init__(self, least: Reach = Reach.NEVER) -> None:
        self._client = HttpClient(least=least)

    async def install(self, *, plan_only: bool = False) -> list[Step]:
        """Return []: nothing to prepare."""
        return []

    async def discover(self, url: str) -> list[Discovered]:
        """Return the agents of the process behind a URL. Raises as ``Adapter.discover``."""
        base = check_url(url).rstrip("/")
        answer = await self._client.fetch("GET", f"{base}/.well-known/agentmesh.json", timeout_s=DISCOVER_TIMEOUT_S)
        try:
            if answer.status != 200:
                raise DecodeError(f"HTTP {answer.status}")
            listing = msgspec.convert(decode_json(answer.body), _Listing)
            if listing.kind != KIND or not 0 < len(listing.agents) <= AGENTS_MAX:
                raise DecodeError(f"kind {listing.kind[:40]!r} with {len(listing.agents)} agents")
            return [_discovered(base, agent) for agent in listing.agents]
        except (DecodeError, msgspec.ValidationError) as error:
            raise DecodeError(
                "no AgentMesh SDK process answers there", code="agent.not_this_door", why=str(error)[:300]
            ) from error

    def open(self, target: dict[str, Any]) -> Door:
        """Return the door to one discovered agent."""
        return SdkDoor(self._client, str(target["base"]), str(target["agent"]))

    async def aclose(self) -> None:
        """Close the sockets. Idempotent."""
        await self._client.aclose()


def _discovered(base: str, agent: dict[str, Any]) -> Discovered:
    extra = dict(mapping(agent.get("params")))
    schemas = {k: msgspec.json.encode(v).decode() for k, v in mapping(agent.get("schemas")).items()}
    # As JSON text: a signed manifest carries no false, zero, float or empty member, and schemas are full of them.
    if small := {k: v for k, v in schemas.items() if len(v) <= SCHEMA_CHARS_MAX}:
        extra["input_schemas"] = small
    return discovered(
        agent,
        fallback_name="agent",
        target={"base": base, "agent": str(agent.get("name", ""))},
        capabilities=Capabilities(),
        extra=extra,
    )


class SdkDoor:
    """One agent of one SDK process."""

    def __init__(self, client: HttpClient, base: str, agent: str) -> None:
        self._client = client
        self._base = base
        self._agent = agent

    async def invoke(self, call: Invocation) -> AsyncIterator[Happening]:
        """Run the call; see ``Door.invoke``. Closing the answer's socket is what cancels it on the other side."""
        request = InvokeRequest(
            task_id=call.task_id,
            run_id=call.run_id,
            parts=call.parts,
            skill=call.skill,
            context_id=call.context_id,
            caller=call.caller,
            caller_name=call.caller_name,
            deadline_s=call.deadline_s,
            traceparent=call.traceparent,
            tracestate=call.tracestate,
            lamport=call.lamport,
            hops=list(call.hops),
            metadata=call.metadata,
            budget=amounts_of(call.budget),
            baggage=call.baggage,
        )
        url = f"{self._base}/invoke/{self._agent}"
        async with self._client.open("POST", url, json=request, timeout_s=call.deadline_s) as response:
            if response.status != 200:
                raise _refusal(url, response.status, await read_whole(response, 65536))
            async with aclosing(pieces_of(response, LineSplitter())) as lines:
                async for line in lines:
                    happening = _read(line)
                    if happening.kind == "error":
                        raise _failure(happening.payload)
                    yield happening
                    if happening.kind == "status" and state_of(happening.payload) in TERMINAL_STATES:
                        return
        raise Closed(f"{self._agent} went away before its answer was whole", code="agent.closed")

    async def cancel(self, task_id: str) -> None:
        """Ask the process to stop the task; see ``Door.cancel``."""
        with suppress(MeshError):
            await self._client.fetch(
                "POST", f"{self._base}/cancel/{quote(task_id, safe='')}", timeout_s=CANCEL_TIMEOUT_S
            )

    async def health(self) -> Health:
        """Ask the process whether it is alive; see ``Door.health``."""
        return await _health(self._client, self._base)

    async def aclose(self) -> None:
        """Do nothing: the sockets belong to the adapter."""


@guarded
async def _health(client: HttpClient, base: str) -> Health:
    answer = await client.fetch("GET", f"{base}/health", timeout_s=CANCEL_TIMEOUT_S)
    return Health("healthy") if answer.status == 200 else Health("unhealthy", f"HTTP {answer.status}")


def _read(line: bytes) -> Happening:
    try:
        read = _line_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AgentFailed(f"the agent sent a line that makes no sense: {error}", code="agent.bad_answer") from error
    return Happening(read.kind, read.payload)


def _failure(payload: dict[str, Any]) -> AgentFailed:
    error = from_wire(payload)
    if isinstance(error, AgentFailed):
        return error
    # Only the node may refuse or time out in its own name; what an agent says is the agent's failure.
    return AgentFailed(error.detail, code=error.code, why=error.why, hint=error.hint)


def _refusal(url: str, status: int, body: bytes) -> MeshError:
    with suppress(DecodeError):
        found = decode_json(body)
        if isinstance(found, dict) and isinstance(found.get("error"), dict):  # pyright: ignore[reportUnknownMemberType]
            return from_wire(found["error"])  # pyright: ignore[reportUnknownArgumentType]
    return failed_status(url, status, body)
