"""A node double for the A2A edge: a few agents whose behaviour the test steers, and a real server in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import uvicorn
from starlette.applications import Starlette

from agentmesh.api.a2a import A2AEdge
from agentmesh.errors import AgentCanceled, AgentFailed, AgentNotFound, MeshError, NoRoute, RunNotFound, to_wire
from agentmesh.sdk.types import AgentDetail, AgentView, CallRequest, CancelResult, Reply
from agentmesh.wire.event import EventV1, text_of

EXT = "https://agentmesh.dev/ext/mesh/v1"
Emit = Callable[..., None]
Behaviour = Callable[["ScriptedCall"], Coroutine[Any, Any, None]]
_ids = itertools.count(1)


class ScriptedCall:
    """A call whose events a coroutine of the test makes."""

    def __init__(self, request: CallRequest, name: str) -> None:
        self.request = request
        self.run_id = request.run_id or f"{next(_ids):032x}"
        self.task_id = request.task_id or f"{next(_ids):032x}"
        self.name = name
        self.events: list[EventV1] = []
        self.error: MeshError | None = None
        self.driver: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._over = False

    @property
    def text(self) -> str:
        return text_of(self.request.parts)

    async def emit(self, kind: Any, **payload: Any) -> None:
        self.events.append(
            EventV1(
                id=f"{next(_ids):032x}",
                ts=1_700_000_000_000_000 + next(_ids),
                kind=kind,
                run_id=self.run_id,
                task_id=self.task_id,
                agent=self.name,
                agent_id="did:key:agent",
                node_id="did:key:node",
                lamport=len(self.events) + 1,
                payload=payload,
            )
        )
        self._wake()

    async def say(self, text: str, *, delta: bool = True) -> None:
        await self.emit("message", role="agent", parts=[{"text": text}], delta=delta)

    async def finish(self, state: str = "completed", **more: Any) -> None:
        await self.emit("status", state=state, **more)

    async def drive(self, behaviour: Behaviour) -> None:
        try:
            await behaviour(self)
        except asyncio.CancelledError:
            await self.emit("error", **to_wire(AgentCanceled("the task was canceled by its caller")))
            await self.finish("canceled", detail="canceled")
        except MeshError as error:
            self.error = error
            if self.events:
                await self.emit("error", **to_wire(error))
                await self.finish("failed", detail=error.detail)
        self._over = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[EventV1]:
        position = 0
        while True:
            while position < len(self.events):
                position += 1
                yield self.events[position - 1]
            if self._over:
                return
            await self._changed.wait()

    async def reply(self) -> Reply:
        if self.error is not None:
            raise self.error
        return Reply(run_id=self.run_id, task_id=self.task_id, state="completed")

    async def aclose(self) -> None:
        if self.driver is not None:
            self.driver.cancel()


class Double:
    """The part of ``Backend`` that the A2A edge uses."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {
            "echo": _echo,
            "slow": self._slow,
            "fail": _fail,
            "ask": _ask,
            "files": _files,
            "thinker": _thinker,
            "gone": _gone,
        }
        self.gate = asyncio.Event()
        self.started = asyncio.Event()
        self.calls: dict[str, ScriptedCall] = {}
        self.requests: list[CallRequest] = []

    def tenant_of(self, task_id: str, agent_id: str = "") -> str:
        return ""

    async def look_for(self, ref: str) -> None:
        """All that this double knows is known here."""

    def agent(self, ref: str) -> AgentDetail:
        name = ref.partition("@")[0]
        if name not in self.behaviours:
            raise AgentNotFound.near(ref, self.behaviours)
        return AgentDetail(
            agent=AgentView(agent_id="did:key:agent", name=name, node_id="did:key:node"), card=card_of(name)
        )

    async def call(self, request: CallRequest) -> ScriptedCall:
        name = request.to.partition("@")[0]
        self.requests.append(request)
        call = ScriptedCall(request, name)
        self.calls[call.task_id] = call
        call.driver = asyncio.get_running_loop().create_task(call.drive(self.behaviours[name]))
        return call

    async def cancel(self, task_id: str) -> CancelResult:
        call = self.calls.get(task_id)
        if call is None or call.driver is None:
            raise RunNotFound("no such task")
        if call.driver.done():
            return CancelResult(task_id=task_id, canceled=False)
        call.driver.cancel()
        return CancelResult(task_id=task_id, canceled=True)

    async def task_events(self, task_id: str) -> list[EventV1]:
        call = self.calls.get(task_id)
        return list(call.events) if call else []

    async def _slow(self, call: ScriptedCall) -> None:
        await call.emit("status", state="working")
        await call.say("one ")
        self.started.set()
        await self.gate.wait()
        await call.say("two")
        await call.finish()


async def _echo(call: ScriptedCall) -> None:
    await call.emit("status", state="submitted", input=call.request.parts)
    await call.emit("status", state="working")
    await call.emit("status", state="submitted")
    for word in ("echo", ": ", call.text):
        await call.say(word)
    await call.finish()


async def _fail(call: ScriptedCall) -> None:
    await call.emit("status", state="working")
    raise AgentFailed("division by zero", hint="use another number")


async def _gone(call: ScriptedCall) -> None:
    raise NoRoute("no living replica of 'gone' can be reached")


async def _ask(call: ScriptedCall) -> None:
    if call.request.parent_task_id is None:
        await call.say("Which city?", delta=False)
        await call.finish("input-required")
    else:
        await call.say(f"Weather of {call.text}: fine", delta=False)
        await call.finish()


async def _files(call: ScriptedCall) -> None:
    await call.emit("artifact", artifact_id="table", name="table", parts=[{"data": {"n": 3, "x": 1.5}}])
    await call.emit("artifact", artifact_id="log", parts=[{"text": "a"}])
    await call.emit("artifact", artifact_id="log", parts=[{"text": "b"}], append=True, last=True)
    await call.emit("artifact", artifact_id="odd", parts=[{"data": {"nan": float("nan"), "raw": b"\x00"}}, "loose", {}])
    await call.finish()


async def _thinker(call: ScriptedCall) -> None:
    await call.emit("reasoning", text="hm")
    await call.emit("tool", name="search", args={"q": "x"}, result={"n": 1})
    await call.say("first", delta=False)
    await call.say("second", delta=False)
    await call.finish()


def card_of(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"The {name} agent",
        "version": "1.2.3",
        "supportedInterfaces": [{"url": "http://10.0.0.9:1/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        "capabilities": {
            "pushNotifications": True,
            "extensions": [{"uri": EXT, "description": "mesh", "params": {"agent_id": "did:key:agent", "seq": "7"}}],
        },
        "securitySchemes": {"dpop": {"httpAuthSecurityScheme": {"scheme": "DPoP"}}},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "s", "name": "s", "description": "does it", "tags": ["t"]}],
        "signatures": [{"protected": "e30", "signature": "AA"}],
    }


@contextlib.asynccontextmanager
async def serving(backend: Any) -> AsyncIterator[str]:
    """Serve the A2A routes of a backend on a free port; yields ``http://127.0.0.1:PORT/a2a``."""
    port = 0
    edge = A2AEdge(backend, port_of=lambda: port)
    app = Starlette(routes=edge.routes())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    # asyncio turns Nagle off only on sockets that say they are TCP; without that each answer waits 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    port = listening.getsockname()[1]
    task = asyncio.get_running_loop().create_task(server.serve([listening]))
    try:
        yield f"http://127.0.0.1:{port}/a2a"
    finally:
        await edge.aclose()
        server.should_exit = True
        await task
