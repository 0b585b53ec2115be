"""An A2A agent in the dialects met in the wild, for the contract suite: ``a2a_dialects.py PORT DIALECT``.

    langgraph   a 1.0 card and methods, but events shaped as 0.3 ("kind": "status-update")
    fasta2a     timestamps without a zone, SUBMITTED at once, the last artifact repeats the full text with append false
    v03         0.3 throughout: card at /.well-known/agent.json, message/stream

Written on Starlette alone. Prints its URL when it listens.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

NO_ZONE = "2026-11-21T01:02:03.456789"


class Agent:
    """Obey the words of the contract suite in one dialect."""

    def __init__(self, url: str, dialect: str) -> None:
        self.url = url
        self.dialect = dialect
        self.old = dialect == "v03"
        self.tasks: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, asyncio.Event] = {}
        self.memory: dict[str, str] = {}
        self.started = 0
        self.cancels = 0

    def card(self) -> dict[str, Any]:
        card: dict[str, Any] = {
            "name": "Dialect Agent",
            "description": f"An agent that speaks like {self.dialect}.",
            "version": "1",
            "capabilities": {"streaming": self.dialect != "fasta2a"},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [{"id": "obey", "name": "Obey", "description": "Obeys words.", "tags": ["test"]}],
        }
        if self.old:
            return {**card, "url": self.url, "protocolVersion": "0.3.0"}
        interface = {"url": self.url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        return {**card, "supportedInterfaces": [interface]}

    def state(self, name: str) -> str:
        return name if self.dialect in ("v03", "langgraph") else "TASK_STATE_" + name.upper().replace("-", "_")

    def text(self, text: str) -> dict[str, Any]:
        return {"text": text} if self.dialect == "fasta2a" else {"kind": "text", "text": text}

    def status(self, name: str, text: str = "") -> dict[str, Any]:
        status: dict[str, Any] = {"state": self.state(name), "timestamp": NO_ZONE}
        if text:
            status["message"] = {"role": "agent", "messageId": uuid.uuid4().hex, "parts": [self.text(text)]}
        return status

    async def rpc(self, request: Request) -> Response:
        call = await request.json()
        method, params = call["method"], call.get("params", {})
        known = (
            {"message/send", "message/stream", "tasks/get", "tasks/cancel"}
            if self.old
            else {"SendMessage", "SendStreamingMessage", "GetTask", "CancelTask"}
        )
        if method not in known:
            return self.problem(call, -32601, "Method not found")
        if not self.old and request.headers.get("A2A-Version") != "1.0":
            return self.problem(call, -32009, "version not supported")
        match method:
            case "message/stream" | "SendStreamingMessage":
                return StreamingResponse(self.sse(call, params), media_type="text/event-stream")
            case "message/send" | "SendMessage":
                return await self.send(call, params)
            case "tasks/cancel" | "CancelTask":
                return self.cancel(call, params["id"])
            case _:
                task = self.tasks.get(params["id"])
                return self.result(call, task) if task else self.problem(call, -32001, "no such task")

    def result(self, call: dict[str, Any], result: dict[str, Any]) -> JSONResponse:
        return JSONResponse({"jsonrpc": "2.0", "id": call["id"], "result": result})

    def problem(self, call: dict[str, Any], code: int, message: str) -> JSONResponse:
        return JSONResponse({"jsonrpc": "2.0", "id": call["id"], "error": {"code": code, "message": message}})

    def new(self, params: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
        message = params["message"]
        task: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "contextId": message.get("contextId") or uuid.uuid4().hex,
            "status": self.status("submitted"),
            "artifacts": [],
        }
        if self.dialect != "fasta2a":
            task["kind"] = "task"
        self.tasks[task["id"]] = task
        self.ends[task["id"]] = asyncio.Event()
        word, _, rest = message["parts"][0]["text"].partition(" ")
        return task, word, rest

    def cancel(self, call: dict[str, Any], task_id: str) -> JSONResponse:
        self.cancels += 1
        self.tasks[task_id]["status"] = self.status("canceled")
        self.ends[task_id].set()
        return self.result(call, self.tasks[task_id])

    async def send(self, call: dict[str, Any], params: dict[str, Any]) -> JSONResponse:
        task, word, rest = self.new(params)
        if self.dialect == "fasta2a":
            # The answer comes later; whoever wants it must poll.
            asyncio.get_running_loop().call_later(0.02, self.finish, task, word, rest)
            return self.result(call, {"task": dict(task)})
        if word == "hang":
            self.started += 1
            await self.ends[task["id"]].wait()
        else:
            self.finish(task, word, rest)
        return self.result(call, task)

    def finish(self, task: dict[str, Any], word: str, rest: str) -> None:
        if word == "hang":
            self.started += 1
            return
        if word == "fail":
            task["status"] = self.status("failed", rest)
            return
        text = "".join(rest.split()) if word == "stream" else self.obey(word, rest, task["contextId"])
        if text:
            task["artifacts"] = [{"artifactId": "answer", "parts": [self.text(text)]}]
        # The completion message says the same again.
        task["status"] = self.status("completed", text if self.dialect == "fasta2a" else "")

    async def sse(self, call: dict[str, Any], params: dict[str, Any]) -> AsyncIterator[bytes]:
        task, word, rest = self.new(params)
        ids = {"taskId": task["id"], "contextId": task["contextId"]}

        def event(body: dict[str, Any]) -> bytes:
            whole = {"jsonrpc": "2.0", "id": call["id"], "result": body}
            return f"data: {json.dumps(whole, ensure_ascii=False)}\r\n\r\n".encode()

        def status(name: str, text: str = "") -> bytes:
            final = name not in ("submitted", "working")
            return event({"kind": "status-update", **ids, "status": self.status(name, text), "final": final})

        yield event(task)
        yield status("working")
        if word == "hang":
            self.started += 1
            await self.ends[task["id"]].wait()
            yield status("canceled")
            return
        if word == "fail":
            yield status("failed", rest)
            return
        if word == "flood":
            artifact = {"artifactId": "a", "parts": [self.text("x" * 2**20)]}
            while True:
                yield event({"kind": "artifact-update", **ids, "append": True, "artifact": artifact})
                await asyncio.sleep(0)  # let the server notice that nobody listens any more
        pieces = rest.split() if word == "stream" else [self.obey(word, rest, task["contextId"])]
        for n, piece in enumerate(pieces):
            if piece:
                artifact = {"artifactId": "answer", "parts": [self.text(piece)]}
                yield event({"kind": "artifact-update", **ids, "append": n > 0, "artifact": artifact})
        if "".join(pieces):
            # The whole text once more: it replaces, it does not add.
            artifact = {"artifactId": "answer", "parts": [self.text("".join(pieces))]}
            yield event({"kind": "artifact-update", **ids, "append": False, "lastChunk": True, "artifact": artifact})
        yield status("completed")

    def obey(self, word: str, rest: str, conversation: str) -> str:
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
                return "x" * (20 * 1024 * 1024)
            case "started":
                return str(self.started)
            case "cancels":
                return str(self.cancels)
            case "empty":
                return ""
            case _:
                return rest


def main() -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen(128)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    agent = Agent(url, sys.argv[2])
    card_path = "/.well-known/agent.json" if agent.old else "/.well-known/agent-card.json"
    routes = [Route(card_path, lambda _: JSONResponse(agent.card())), Route("/", agent.rpc, methods=["POST"])]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning"))
    print(url, flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
