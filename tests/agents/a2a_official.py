"""An A2A agent on the official SDK, for the contract suite: ``a2a_official.py PORT MODE``.

Modes: jsonrpc, rest, compat (a 0.3 card, served by the SDK's compatibility layer), nostream. Prints its URL when it listens.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers.default_request_handler_v2 import DefaultRequestHandlerV2
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part, Role
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


class Executor(AgentExecutor):
    """Obey the words of the contract suite."""

    def __init__(self) -> None:
        self.memory: dict[str, str] = {}
        self.started = 0
        self.cancels = 0

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task or new_task_from_user_message(context.message)
        if context.current_task is None:
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        word, _, rest = context.get_user_input().partition(" ")
        await updater.start_work()
        match word:
            case "stream":
                pieces = rest.split()
                for n, piece in enumerate(pieces):
                    last = n == len(pieces) - 1
                    await updater.add_artifact([Part(text=piece)], artifact_id="answer", append=n > 0, last_chunk=last)
                await updater.complete()
            case "hang":
                self.started += 1
                await asyncio.Event().wait()
            case "fail":
                await updater.failed(new_text_message(rest, role=Role.ROLE_AGENT))
            case "empty":
                await updater.complete()
            case "ask":
                if context.current_task is None:
                    await updater.requires_input(new_text_message("which one?", role=Role.ROLE_AGENT))
                else:
                    await self._answer(updater, "never mind")
            case "picked":
                await self._answer(updater, f"resumed {context.current_task is not None}")
            case _:
                await self._answer(updater, self._obey(word, rest, task.context_id))

    async def _answer(self, updater: TaskUpdater, text: str) -> None:
        await updater.add_artifact([Part(text=text)], name="answer", last_chunk=True)
        await updater.complete()

    def _obey(self, word: str, rest: str, conversation: str) -> str:
        match word:
            case "remember":
                self.memory[conversation] = rest
                return "ok"
            case "recall":
                return self.memory.get(conversation, "nothing")
            case "big":
                return "x" * int(rest)
            case "wide":
                return "你好🙂" * int(rest)
            case "flood":
                return "x" * (17 * 1024 * 1024)
            case "started":
                return str(self.started)
            case "cancels":
                return str(self.cancels)
            case _:
                return rest

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.cancels += 1
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def application(url: str, mode: str) -> Starlette:
    """Build the server of one mode."""
    binding, version = ("HTTP+JSON" if mode == "rest" else "JSONRPC"), ("0.3" if mode == "compat" else "1.0")
    card = AgentCard(
        name="Official Agent",
        description="An agent on the official SDK.",
        version="1.2.3",
        supported_interfaces=[AgentInterface(url=url, protocol_binding=binding, protocol_version=version)],
        capabilities=AgentCapabilities(streaming=mode != "nostream"),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="obey", name="Obey", description="Obeys words.", tags=["test"])],
    )
    handler = DefaultRequestHandlerV2(agent_executor=Executor(), task_store=InMemoryTaskStore(), agent_card=card)
    routes = create_agent_card_routes(card)
    if mode == "rest":
        routes += create_rest_routes(handler)
    else:
        routes += create_jsonrpc_routes(handler, "/", enable_v0_3_compat=mode == "compat")
    if mode == "compat":
        routes.insert(0, Route("/.well-known/agent-card.json", lambda _: JSONResponse(card_03(url))))
    return Starlette(routes=routes)


def card_03(url: str) -> dict[str, object]:
    """Return a card as 0.3 spells it."""
    return {
        "protocolVersion": "0.3.0",
        "name": "Official Agent",
        "description": "An agent on the official SDK.",
        "version": "1.2.3",
        "url": url,
        "preferredTransport": "JSONRPC",
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "obey", "name": "Obey", "description": "Obeys words.", "tags": ["test"]}],
    }


def main() -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen(128)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(application(url, sys.argv[2]), log_level="warning"))
    print(url, flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
