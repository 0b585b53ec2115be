"""One call inside an agent process: run the function, turn what it does into NDJSON lines, stop it when told to.

A line is ``{"kind", "payload"}`` as in EventV1; the last one is a terminal status (completed or canceled) or an error.
Plain functions run in a daemon thread of their own, so that a stuck one can neither block the loop nor hold up the exit.
Called by ``sdk.serving`` only.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from agentmesh.errors import AgentFailed, LimitError, MeshError, to_wire
from agentmesh.sdk.agent import Agent, Context, Skill, parts_of
from agentmesh.sdk.ambient import within
from agentmesh.sdk.context import CallContext, enter, leave

if TYPE_CHECKING:
    from agentmesh.sdk.client import Mesh

#: Longest line, bytes; the reader's limit.
LINE_BYTES_MAX = 8 * 1024 * 1024
#: A generator waits while so many lines or bytes are unread.
LINES_WAIT = 256
BYTES_WAIT = 1024 * 1024
#: Reports beyond this many unread lines or bytes fail the call: the function does not listen to back-pressure.
LINES_MAX = 10_000
PENDING_BYTES_MAX = 64 * 1024 * 1024


class InvokeRequest(msgspec.Struct, kw_only=True):
    """``POST /invoke/<agent>``: one call as the node hands it to an agent process (fields as in ``node.door.Invocation``)."""

    task_id: str
    run_id: str
    parts: list[dict[str, Any]]
    skill: str | None = None
    context_id: str | None = None
    caller: str = ""
    caller_name: str = ""
    deadline_s: float = 60.0
    traceparent: str | None = None
    tracestate: str = ""
    lamport: int = 0
    hops: list[str] = []
    metadata: dict[str, Any] = {}
    budget: dict[str, int] = {}
    baggage: dict[str, str] = {}


class Outlet:
    """Lines on their way out, bounded; filled by the function, emptied by the HTTP answer."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._bytes = 0
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self.ended = False

    def put(self, kind: str, payload: dict[str, Any], *, last: bool = False) -> None:
        """Add a line; nothing is added after the last.

        Raises:
            LimitError: the line is too long, or too much is unread. Nothing was added.
        """
        if self.ended:
            return
        line = msgspec.json.encode({"kind": kind, "payload": payload})
        if len(line) > LINE_BYTES_MAX:
            raise LimitError(
                f"one piece of the answer has {len(line)} bytes, at most {LINE_BYTES_MAX} can be sent",
                code="agent.line_too_long",
                hint="yield it in pieces",
            )
        if not last and (len(self._lines) >= LINES_MAX or self._bytes + len(line) > PENDING_BYTES_MAX):
            raise LimitError("the function reports faster than anyone reads", code="agent.flood")
        self._lines.append(line)
        self._bytes += len(line)
        self.ended = last
        if len(self._lines) >= LINES_WAIT or self._bytes >= BYTES_WAIT:
            self._writable.clear()
        else:
            self._writable.set()
        self._readable.set()

    async def drain(self) -> None:
        """Wait until the reader has caught up."""
        if not self.ended:
            await self._writable.wait()

    async def take(self) -> bytes:
        """Wait for lines and return all of them, each with its newline; b"" after the last."""
        if not self._lines and not self.ended:
            self._readable.clear()
            await self._readable.wait()
        if not self._lines:
            return b""
        self._lines.append(b"")
        batch = b"\n".join(self._lines)
        self._lines.clear()
        self._bytes = 0
        self._writable.set()
        return batch


class Turn:
    """One call being served.

    Args:
        agent: Who answers.
        request: The call.
        context: What nested calls inherit.
        mesh: Gives the client that nested calls use.
    """

    def __init__(
        self, agent: Agent, request: InvokeRequest, context: CallContext, mesh: Callable[[], Mesh] | None = None
    ) -> None:
        self.outlet = Outlet()
        self._agent = agent
        self._request = request
        self._call = context
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._context = Context(context, request.parts, request.metadata, self._report, mesh)
        self._task: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """Stop the function: CancelledError for async ones, ``ctx.cancelled`` for plain ones. Idempotent."""
        self._context.mark_cancelled()
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Run the function to its end; the outlet has its last line when this returns. Raises nothing of the function's."""
        self._task = asyncio.current_task()
        token = enter(self._call)
        try:
            if self._context.cancelled:
                raise asyncio.CancelledError
            skill = self._agent.pick(self._request.skill)
            with within(self._call.traceparent, self._call.tracestate):
                await self._answer(skill, self._arguments(skill))
            self.outlet.put("status", {"state": "completed"}, last=True)
        except asyncio.CancelledError:
            self.outlet.put("status", {"state": "canceled"}, last=True)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge of somebody's function: all its errors are answers
            self.outlet.put("error", to_wire(as_failure(error)), last=True)
        finally:
            leave(token)

    def _arguments(self, skill: Skill) -> dict[str, Any]:
        arguments = skill.signature.arguments(self._request.parts)
        return arguments | dict.fromkeys(skill.signature.context_names, self._context)

    async def _answer(self, skill: Skill, arguments: dict[str, Any]) -> None:
        function = skill.function
        if inspect.isasyncgenfunction(function):
            generator: AsyncGenerator[Any, None] = function(**arguments)
            async with aclosing(generator):
                async for item in generator:
                    self._piece(item)
                    await self.outlet.drain()
        elif inspect.iscoroutinefunction(function):
            self._whole(await function(**arguments))
        elif inspect.isgeneratorfunction(function):
            await self._in_thread(lambda: self._pump(function(**arguments)))
        else:
            value = await self._in_thread(lambda: function(**arguments))
            # A plain function may hand back a coroutine (functools.partial of an async one).
            self._whole(await value if inspect.isawaitable(value) else value)

    def _pump(self, generator: Generator[Any, None, None]) -> None:
        """Drive a plain generator in its thread, waiting for the reader after each item."""

        async def one(item: Any) -> None:
            self._piece(item)
            await self.outlet.drain()

        with suppress(asyncio.CancelledError):
            for item in generator:
                if self._context.cancelled:
                    break
                asyncio.run_coroutine_threadsafe(one(item), self._loop).result()
        generator.close()

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Run in a daemon thread with this task's contextvars; its result or exception comes back here."""
        done: asyncio.Future[Any] = self._loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(value)
            elif isinstance(error, StopIteration):
                done.set_exception(RuntimeError("the function raised StopIteration"))
            else:
                done.set_exception(error)

        def body() -> None:
            value, error = None, None
            try:
                value = copied.run(work)
            except BaseException as caught:  # noqa: BLE001 - handed to the waiting task
                error = caught
            with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                self._loop.call_soon_threadsafe(settle, value, error)

        copied = contextvars.copy_context()
        threading.Thread(target=body, name=f"agent-{self._agent.name}", daemon=True).start()
        return await done

    def _piece(self, item: Any) -> None:
        if isinstance(item, str):
            self.outlet.put("message", {"role": "agent", "parts": [{"text": item}], "delta": True})
        elif item is not None:
            self.outlet.put("message", {"role": "agent", "parts": parts_of(item)})

    def _whole(self, value: Any) -> None:
        parts = parts_of(value)
        if not parts:
            return
        if list(parts[0]) == ["data"] and len(parts) == 1:
            # Programs read the data, people the text.
            text = msgspec.json.encode(parts[0]["data"]).decode()
            parts.insert(0, {"text": text})
        self.outlet.put("message", {"role": "agent", "parts": parts})

    def _report(self, kind: str, payload: dict[str, Any]) -> None:
        if threading.get_ident() == self._thread_id:
            self.outlet.put(kind, payload)
            return
        if self._context.cancelled:
            return
        asyncio.run_coroutine_threadsafe(self._put(kind, payload), self._loop).result()

    async def _put(self, kind: str, payload: dict[str, Any]) -> None:
        self.outlet.put(kind, payload)


def as_failure(error: BaseException) -> AgentFailed:
    """Turn what a function raised into what its caller sees: the text, never the traceback, which goes to our stderr."""
    if isinstance(error, AgentFailed):
        return error
    if isinstance(error, MeshError):
        code = error.code if error.code.startswith("agent.") else None
        return AgentFailed(error.detail, code=code, why=error.why, hint=error.hint, extra={"cause": error.code})
    traceback.print_exception(error, file=sys.stderr)
    name = type(error).__name__
    return AgentFailed(str(error)[:4000] or name, extra={"exception": name})
