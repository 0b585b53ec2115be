"""Speak A2A as a client: JSON-RPC of 1.0 and 0.3, HTTP+JSON of 1.0, answers whole or as server-sent events.

A thin client of our own, because the servers in the wild mix the two versions and the official client loses their answers
(research: adapters §5). The ``A2A-Version`` header is always sent: without it a request counts as 0.3 (A2A 1.0 §3.6.2).
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal
from urllib.parse import quote

from agentmesh.adapters.a2a_card import Binding, Version
from agentmesh.adapters.http1 import Response
from agentmesh.adapters.http_client import HttpClient, decode_json, failed_status, pieces_of, read_whole
from agentmesh.adapters.lines import EventSplitter
from agentmesh.adapters.shape import mapping, members
from agentmesh.errors import AgentFailed, DecodeError

Method = Literal["send", "stream", "get", "cancel", "subscribe"]

_METHODS: dict[Version, dict[Method, str]] = {
    "1.0": {
        "send": "SendMessage",
        "stream": "SendStreamingMessage",
        "get": "GetTask",
        "cancel": "CancelTask",
        "subscribe": "SubscribeToTask",
    },
    "0.3": {
        "send": "message/send",
        "stream": "message/stream",
        "get": "tasks/get",
        "cancel": "tasks/cancel",
        "subscribe": "tasks/resubscribe",
    },
}
#: JSON-RPC: no such method; A2A: operation or version not supported. All are said before any work starts.
METHOD_NOT_FOUND, UNSUPPORTED, VERSION_NOT_SUPPORTED = -32601, -32004, -32009
_ERROR_BODY_MAX = 65536
_REASONS = {"UNSUPPORTED_OPERATION": UNSUPPORTED, "VERSION_NOT_SUPPORTED": VERSION_NOT_SUPPORTED}


class A2ARpc:
    """Calls to one A2A endpoint.

    Args:
        client: Who carries them.
        url: The endpoint.
        binding: How calls are spelled.
        version: Which version to speak; may be changed when the endpoint turns out to speak the other.
        tenant: The interface's tenant, "" for none.
    """

    def __init__(self, client: HttpClient, url: str, binding: Binding, version: Version, tenant: str) -> None:
        self._client = client
        self._url = url
        self.binding: Binding = binding
        self.version: Version = version
        self._tenant = tenant
        self._ids = itertools.count(1)

    async def call(
        self, method: Method, params: dict[str, Any], *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Call a method and return its result.

        Raises:
            AgentFailed: an error answer (``extra["rpc_code"]`` where there is one) or garbage.
            NoRoute, Closed, Timeout, LimitError: as ``HttpClient.open``.
        """
        async with self._client.open(timeout_s=timeout_s, **self._request(method, params, headers or {})) as response:
            return await self._whole(response)

    async def stream(
        self, method: Method, params: dict[str, Any], *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Call a streaming method and yield its results as they come. Raises as ``call``, at any point."""
        async with self._client.open(timeout_s=timeout_s, **self._request(method, params, headers or {})) as response:
            if response.status != 200 or response.content_type != "text/event-stream":
                yield await self._whole(response)
                return
            async with aclosing(pieces_of(response, EventSplitter())) as events:
                async for event in events:
                    yield self._result(event)

    def _request(self, method: Method, params: dict[str, Any], context: dict[str, str]) -> dict[str, Any]:
        streams = method in ("stream", "subscribe")
        headers = {"A2A-Version": self.version, "Accept": "text/event-stream" if streams else "application/json"}
        headers |= context
        if self.binding == "JSONRPC":
            if self._tenant:
                params = {**params, "tenant": self._tenant}
            body = {"jsonrpc": "2.0", "id": next(self._ids), "method": _METHODS[self.version][method], "params": params}
            return {"method": "POST", "url": self._url, "json": body, "headers": headers}
        base = self._url.rstrip("/") + (f"/{quote(self._tenant, safe='')}" if self._tenant else "")
        task = quote(str(params.get("id", "")), safe="")
        headers["Content-Type"] = "application/a2a+json"
        match method:
            case "send" | "stream":
                return {"method": "POST", "url": f"{base}/message:{method}", "json": params, "headers": headers}
            case "get":
                return {"method": "GET", "url": f"{base}/tasks/{task}", "headers": headers}
            case "cancel" | "subscribe":
                return {"method": "POST", "url": f"{base}/tasks/{task}:{method}", "json": {}, "headers": headers}

    async def _whole(self, response: Response) -> dict[str, Any]:
        if response.status == 200:
            return self._result(await read_whole(response, self._client.answer_bytes_max))
        body = await read_whole(response, _ERROR_BODY_MAX)
        try:
            found = decode_json(body)
        except DecodeError:
            found = None
        if (error := mapping(mapping(found).get("error"))) and isinstance(error.get("message"), str):
            raise _failure(error)
        raise failed_status(response.url, response.status, body)

    def _result(self, body: bytes) -> dict[str, Any]:
        try:
            found = mapping(decode_json(body))
        except DecodeError as error:
            raise AgentFailed(error.detail, code="agent.bad_answer") from error
        if "error" in found:
            raise _failure(mapping(found["error"]))
        result = mapping(found.get("result")) if self.binding == "JSONRPC" else found
        if not result:
            raise AgentFailed("the agent's answer holds no result", code="agent.bad_answer")
        return result


def _failure(error: dict[str, Any]) -> AgentFailed:
    code = error.get("code")
    for detail in members(error.get("details")):
        code = _REASONS.get(str(mapping(detail).get("reason")), code)
    text = str(error.get("message") or "the agent answered with an error")[:2048]
    return AgentFailed(text, extra={"rpc_code": code if isinstance(code, int) else 0})


def is_refusal_of(error: AgentFailed, *codes: int) -> bool:
    """Say whether an error is one of these JSON-RPC codes."""
    return error.extra.get("rpc_code") in codes
