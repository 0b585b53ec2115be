"""The "a2a" door: any A2A server, 1.0 or 0.3, strict or not (A2A specification 1.0 §3, §5, §9, §11).

A streaming agent is called by SendStreamingMessage; one that says it does not stream by SendMessage, whose answer is
polled by GetTask while the task runs. A stream that breaks is taken up once by SubscribeToTask, then by polling. Departures
from the specification are in ``a2a_fold``; dialects in ``a2a_rpc``; cards in ``a2a_card``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from agentmesh.adapters.a2a_card import card_urls, read_card
from agentmesh.adapters.a2a_fold import TaskFold
from agentmesh.adapters.a2a_parts import write_parts
from agentmesh.adapters.a2a_rpc import METHOD_NOT_FOUND, UNSUPPORTED, VERSION_NOT_SUPPORTED, A2ARpc, is_refusal_of
from agentmesh.adapters.base import Discovered, Step
from agentmesh.adapters.http_client import HttpClient, check_url, decode_json, guarded, tcp_health
from agentmesh.adapters.places import check_link
from agentmesh.adapters.reach import Reach
from agentmesh.adapters.shape import amounts_of, context_headers, mapping
from agentmesh.errors import AgentFailed, Closed, DecodeError, MeshError, Timeout, Unreached
from agentmesh.identity.manifest import EXT
from agentmesh.node.door import Door, Happening, Health, Invocation

DISCOVER_TIMEOUT_S = 5.0
CANCEL_TIMEOUT_S = 1.5
POLL_MIN_S, POLL_MAX_S = 0.05, 2.0
#: One GetTask may take so long.
POLL_TIMEOUT_S = 10.0
#: Conversations remembered per agent.
CONTEXTS_MAX = 1000


class A2AAdapter:
    """Call agents that speak A2A."""

    name = "a2a"

    def __init__(self, least: Reach = Reach.NEVER) -> None:
        self._client = HttpClient(least=least)

    async def install(self, *, plan_only: bool = False) -> list[Step]:
        """Return []: nothing to prepare."""
        return []

    async def discover(self, url: str) -> list[Discovered]:
        """Read the agent card. Raises as ``Adapter.discover``."""
        check_url(url)
        said = ""
        for card_url in card_urls(url):
            answer = await self._client.fetch("GET", card_url, timeout_s=DISCOVER_TIMEOUT_S)
            if answer.status != 200:
                said = said or f"{urlsplit(card_url).path} answers HTTP {answer.status}"
                continue
            try:
                found = read_card(mapping(decode_json(answer.body)), card_url, url)
                if self._client.least is not Reach.NEVER:
                    await check_link(str(found.target["url"]), self._client.least)
                return [found]
            except DecodeError as error:
                said = error.why or error.detail
        raise DecodeError("no A2A agent answers there", code="agent.not_this_door", why=said)

    def open(self, target: dict[str, Any]) -> Door:
        """Return the door to one discovered agent."""
        return A2ADoor(self._client, target)

    async def aclose(self) -> None:
        """Close the sockets. Idempotent."""
        await self._client.aclose()


class _Conversation(NamedTuple):
    """What the agent calls a conversation of ours, and the task in it that waits for input."""

    context_id: str
    waiting_task: str


class A2ADoor:
    """One A2A agent.

    Args:
        client: Who carries the calls.
        target: As ``a2a_card.read_card`` made it.
    """

    def __init__(self, client: HttpClient, target: dict[str, Any]) -> None:
        self._client = client
        self._card_url = str(target.get("card_url", ""))
        self._url = str(target["url"])
        self._streaming = bool(target.get("streaming"))
        self._rpc = A2ARpc(
            client,
            self._url,
            "HTTP+JSON" if target.get("binding") == "HTTP+JSON" else "JSONRPC",
            "0.3" if target.get("version") == "0.3" else "1.0",
            str(target.get("tenant", "")),
        )
        self._running: dict[str, TaskFold] = {}
        self._conversations: OrderedDict[str, _Conversation] = OrderedDict()

    async def invoke(self, call: Invocation) -> AsyncIterator[Happening]:
        """Run the call; see ``Door.invoke``. Leaving early sends CancelTask."""
        fold = TaskFold()
        deadline = asyncio.get_running_loop().time() + call.deadline_s
        self._running[call.task_id] = fold
        ended = ""
        try:
            async with aclosing(self._happenings(call, fold, deadline)) as happenings:
                async for happening in happenings:
                    if fold.ended and happening.kind == "status":
                        ended = str(happening.payload.get("state"))
                        if call.context_id and "context_id" in happening.payload:
                            happening.payload["context_id"] = call.context_id
                    yield happening
        finally:
            self._running.pop(call.task_id, None)
            self._remember(call, fold, waiting=ended == "input-required")
            if fold.task_id and not fold.ended:
                await self._cancel(fold.task_id)

    async def cancel(self, task_id: str) -> None:
        """Send CancelTask; see ``Door.cancel``."""
        fold = self._running.get(task_id)
        if fold is not None and fold.task_id and not fold.ended:
            await self._cancel(fold.task_id)

    async def health(self) -> Health:
        """Ask for the card; see ``Door.health``."""
        return await _health(self._client, self._card_url, self._url)

    async def aclose(self) -> None:
        """Do nothing: the sockets belong to the adapter."""

    async def _cancel(self, agent_task_id: str) -> None:
        with suppress(MeshError, TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await self._rpc.call("cancel", {"id": agent_task_id}, timeout_s=CANCEL_TIMEOUT_S)

    async def _happenings(self, call: Invocation, fold: TaskFold, deadline: float) -> AsyncGenerator[Happening, None]:
        broken: MeshError | None = None
        answered = False
        if self._streaming:
            try:
                async with aclosing(self._streamed(call, fold, deadline)) as happenings:
                    async for happening in happenings:
                        yield happening
                answered = True
            except AgentFailed as error:
                if fold.ended or fold.task_id or not is_refusal_of(error, UNSUPPORTED, METHOD_NOT_FOUND):
                    raise
            except Closed as error:
                if not fold.task_id:
                    raise
                broken, answered = error, True
        if not answered:
            for happening in fold.feed(await self._send(call, deadline)):
                yield happening
        if fold.ended:
            return
        if not fold.task_id:
            raise Closed("the agent ended its answer before it had begun", code="agent.closed")
        if self._streaming and answered:
            async with aclosing(self._resumed(call, fold, deadline)) as happenings:
                async for happening in happenings:
                    yield happening
        async with aclosing(self._polled(call, fold, deadline, broken)) as happenings:
            async for happening in happenings:
                yield happening

    async def _streamed(self, call: Invocation, fold: TaskFold, deadline: float) -> AsyncGenerator[Happening, None]:
        for last_try in (False, True):
            try:
                async with aclosing(
                    self._rpc.stream(
                        "stream", self._params(call), timeout_s=_left(deadline), headers=context_headers(call)
                    )
                ) as results:
                    async for result in results:
                        for happening in fold.feed(result):
                            yield happening
                        if fold.ended:
                            return
            except AgentFailed as error:
                if last_try or fold.task_id or fold.ended or not self._other_version(error):
                    raise
            else:
                return

    async def _send(self, call: Invocation, deadline: float) -> dict[str, Any]:
        try:
            return await self._rpc.call(
                "send", self._params(call), timeout_s=_left(deadline), headers=context_headers(call)
            )
        except AgentFailed as error:
            if not self._other_version(error):
                raise
        return await self._rpc.call(
            "send", self._params(call), timeout_s=_left(deadline), headers=context_headers(call)
        )

    def _other_version(self, error: AgentFailed) -> bool:
        """Change to the other version if the endpoint does not know the one its card names; say whether that was done."""
        if self._rpc.binding != "JSONRPC" or not is_refusal_of(error, VERSION_NOT_SUPPORTED, METHOD_NOT_FOUND):
            return False
        self._rpc.version = "0.3" if self._rpc.version == "1.0" else "1.0"
        return True

    async def _resumed(self, call: Invocation, fold: TaskFold, deadline: float) -> AsyncGenerator[Happening, None]:
        """Take a broken stream up again, once; when that fails too, polling decides."""
        results = self._rpc.stream(
            "subscribe", {"id": fold.task_id}, timeout_s=_left(deadline), headers=context_headers(call)
        )
        try:
            async with aclosing(results):
                async for result in results:
                    for happening in fold.feed(result):
                        yield happening
                    if fold.ended:
                        return
        except AgentFailed:
            if fold.ended:
                raise
        except Unreached:
            return

    async def _polled(
        self, call: Invocation, fold: TaskFold, deadline: float, broken: MeshError | None
    ) -> AsyncGenerator[Happening, None]:
        pause_s = POLL_MIN_S
        while not fold.ended:
            try:
                result = await self._rpc.call(
                    "get",
                    {"id": fold.task_id},
                    timeout_s=min(POLL_TIMEOUT_S, _left(deadline)),
                    headers=context_headers(call),
                )
            except (AgentFailed, Unreached) as error:
                _left(deadline)
                gone = "the agent went away before its answer was whole"
                raise Closed(gone, code="agent.closed", why=(broken or error).detail) from error
            for happening in fold.feed(result):
                yield happening
            if not fold.ended:
                await asyncio.sleep(min(pause_s, _left(deadline)))
                pause_s = min(pause_s * 1.6, POLL_MAX_S)

    def _params(self, call: Invocation) -> dict[str, Any]:
        message: dict[str, Any] = {
            "messageId": call.task_id,
            "role": "user" if self._rpc.version == "0.3" else "ROLE_USER",
            "parts": write_parts(call.parts, self._rpc.version),
        }
        if self._rpc.version == "0.3":
            message["kind"] = "message"
        known = self._conversations.get(call.context_id or "")
        if call.context_id:
            message["contextId"] = known.context_id if known else call.context_id
        if known and known.waiting_task:
            message["taskId"] = known.waiting_task
        params: dict[str, Any] = {"message": message}
        if self._rpc.version == "0.3":
            params["configuration"] = {"blocking": True}
        ours = {EXT: {"budget": amounts_of(call.budget)}} if call.budget else {}
        if metadata := {**call.metadata, **({"skill": call.skill} if call.skill else {}), **ours}:
            params["metadata"] = metadata
        return params

    def _remember(self, call: Invocation, fold: TaskFold, *, waiting: bool) -> None:
        """Keep what the agent calls this conversation, and which of its tasks the next message answers."""
        if not fold.context_id:
            return
        known = _Conversation(fold.context_id, fold.task_id if waiting else "")
        for key in {call.context_id or "", fold.context_id} - {""}:
            self._conversations[key] = known
            self._conversations.move_to_end(key)
        while len(self._conversations) > CONTEXTS_MAX:
            self._conversations.popitem(last=False)


def _left(deadline: float) -> float:
    left = deadline - asyncio.get_running_loop().time()
    if left <= 0:
        raise Timeout("the agent did not finish in time", code="agent.timeout")
    return left


@guarded
async def _health(client: HttpClient, card_url: str, url: str) -> Health:
    if card_url:
        answer = await client.fetch("GET", card_url, timeout_s=DISCOVER_TIMEOUT_S)
        if answer.status == 200:
            return Health("healthy")
        if answer.status >= 500:
            return Health("unhealthy", f"its card answers HTTP {answer.status}")
    return await tcp_health(url, client.least)
