"""Make an agent out of typed functions: ``@agent``, ``Agent`` with ``@calc.skill``, ``Context``, ``run``.

    from agentmesh import agent, run

    @agent
    async def hello(name: str) -> str:
        "Greets a person."
        return f"你好 {name}"

    run(hello)

Types and docstring become the card. A function may be async, plain (it runs in a thread), or a generator of either kind
(each item is streamed). ``sdk.process`` serves agents, ``sdk.signature`` reads types.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

import msgspec

from agentmesh.errors import AgentFailed, LimitError, UsageError
from agentmesh.ids import is_name
from agentmesh.sdk.context import CallContext
from agentmesh.sdk.signature import Signature, describe
from agentmesh.wire.event import EventV1, text_of

if TYPE_CHECKING:
    from agentmesh.sdk.client import Mesh
    from agentmesh.sdk.messaging import Message
    from agentmesh.sdk.types import Reply

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

#: Most skills of one agent.
SKILLS_MAX = 64


class Context:
    """What a running agent function knows and can do; injected where a parameter is annotated ``Context``.

    ``call`` and ``stream`` are for async functions; a plain one uses ``SyncMesh()``, which joins the same run.
    The reporting methods (``status``, ``reasoning``, ``tool``, ``artifact``) never block and may be called from the
    function's own thread; more than 10,000 unread reports raise LimitError.

    Attributes:
        call_context: Run, task, caller and the like.
        parts: The caller's input as A2A parts.
        metadata: What the caller sent along.
    """

    def __init__(
        self,
        call_context: CallContext,
        parts: list[dict[str, Any]],
        metadata: dict[str, Any],
        report: Callable[[str, dict[str, Any]], None],
        mesh: Callable[[], Mesh] | None = None,
    ) -> None:
        self.call_context = call_context
        self.parts = parts
        self.metadata = metadata
        self._report = report
        self._shared = mesh
        self._loop = asyncio.get_running_loop()
        self._cancelled = False
        self._used = dict.fromkeys(("tokens", "usd_micros"), 0)

    @property
    def budget(self) -> dict[str, int]:
        """What the call may use at most: any of ``calls``, ``tokens``, ``usd_micros``, ``wall_ms``."""
        return self.call_context.budget

    @property
    def baggage(self) -> dict[str, str]:
        """What came along with the call, such as a language; calls made from here pass it on."""
        return self.call_context.baggage

    @property
    def run_id(self) -> str:
        """The run that this call is part of."""
        return self.call_context.run_id

    @property
    def task_id(self) -> str:
        """This call."""
        return self.call_context.task_id

    @property
    def context_id(self) -> str | None:
        """The conversation, if the caller named one."""
        return self.call_context.context_id

    @property
    def text(self) -> str:
        """The caller's input as text."""
        return text_of(self.parts)

    @property
    def cancelled(self) -> bool:
        """Whether the call was canceled: for plain functions, which nobody can interrupt; async ones get CancelledError."""
        return self._cancelled

    def mark_cancelled(self) -> None:
        """Say to the function that it should stop. Called by the serving process."""
        self._cancelled = True

    async def call(self, to: str, text: str | None = None, **options: Any) -> Reply:
        """Call another agent as part of this run.

        Args:
            to: Name, ``name@node`` or id.
            text: Input as text; or ``data=``, ``parts=`` and the other options of ``Mesh.call``.

        Raises:
            AgentNotFound, AgentFailed, LoopDetected, Unreached: as ``Mesh.call``.
        """
        async with self._mesh() as mesh:
            return await mesh.call(to, text, **options)

    async def stream(self, to: str, text: str | None = None, **options: Any) -> AsyncGenerator[EventV1, None]:
        """Call another agent and yield its events as they happen. Raises as ``call``."""
        async with self._mesh() as mesh, mesh.stream(to, text, **options) as events:
            async for event in events:
                yield event

    def status(self, text: str) -> None:
        """Report progress for people; not part of the answer."""
        self._report("status", {"state": "working", "text": text})

    def undo(self, skill: str, **arguments: Any) -> None:
        """Say what would undo something that was just done; it stands in the audit record of this call, newest last.

        Args:
            skill: Skill of this agent that undoes it.
            arguments: What to call it with: ids, not contents. Up to 4 KB of JSON; of more only a digest is kept.
        """
        self._report("status", {"state": "working", "undo": {"skill": skill, "arguments": plain(arguments)}})

    def reasoning(self, text: str) -> None:
        """Report a thought; not part of the answer."""
        self._report("reasoning", {"text": text})

    def tool(self, name: str, args: Any = None, result: Any = None) -> None:
        """Report that a tool was used."""
        self._report("tool", {"name": name, "args": plain(args), "result": plain(result)})

    def usage(self, *, tokens: int = 0, usd_micros: int = 0) -> None:
        """Add to what this call has used: it stands on the receipt, and a call that exceeds its budget is stopped.

        Args:
            tokens: Tokens of language models, in and out together.
            usd_micros: Millionths of a US dollar.

        Raises:
            UsageError: a value that is no integer ≥ 0 (code "agent.usage"). Nothing was added.
        """
        for name, value in (("tokens", tokens), ("usd_micros", usd_micros)):
            if type(value) is not int or value < 0:
                raise UsageError(
                    f"usage of {name} is {value!r:.60}", code="agent.usage", hint="give an integer, 0 or more"
                )
        self._used = {"tokens": self._used["tokens"] + tokens, "usd_micros": self._used["usd_micros"] + usd_micros}
        self._report("status", {"state": "working", "usage": dict(self._used)})

    def artifact(self, name: str, parts: list[dict[str, Any]] | str | Any, *, artifact_id: str | None = None) -> None:
        """Report a result that stands beside the answer: text, data, or a list of A2A parts."""
        self._report("artifact", {"artifact_id": artifact_id or name, "name": name, "parts": parts_of(parts)})

    @asynccontextmanager
    async def _mesh(self) -> AsyncGenerator[Mesh, None]:
        """Give the process's own client, whose connections are open already; a new one in a function's own loop."""
        if self._shared is not None and asyncio.get_running_loop() is self._loop:
            yield self._shared()
            return
        from agentmesh.sdk.client import Mesh

        here = self.call_context
        async with Mesh(home=here.home, url=here.url, token=here.token) as mesh:
            yield mesh


class Skill:
    """One function of an agent.

    Attributes:
        id, name, description, tags: As the card shows them.
        function: What runs.
        signature: Its parameters.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        id: str | None = None,
        name: str | None = None,
        description: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        own = getattr(function, "__name__", "agent")
        self.id = id or own
        self.name = name or own.replace("_", " ")
        self.description = description or describe(function)
        self.tags = list(tags or []) or ["function"]
        self.function = function
        self.signature = Signature(function, Context)

    @property
    def streams(self) -> bool:
        """Whether it yields its answer piece by piece."""
        return inspect.isasyncgenfunction(self.function) or inspect.isgeneratorfunction(self.function)

    def card(self) -> dict[str, Any]:
        """Return the A2A AgentSkill."""
        return {"id": self.id, "name": self.name, "description": self.description, "tags": self.tags}


class Agent:
    """A named agent with one or more skills.

    Args:
        name: What people type: letters, digits, ``-``, ``_``, inner dots; at most 64 characters.
        description: One or more sentences; else the docstring of the first skill.
        version: The agent's own version.
        params: Further manifest params: models, context_window, pricing, qps_budget, concurrency_limit.

    Raises:
        UsageError: the name does not fit (code "agent.bad_name").
    """

    def __init__(
        self, name: str, *, description: str | None = None, version: str = "1.0.0", params: dict[str, Any] | None = None
    ) -> None:
        if not is_name(name):
            raise UsageError(
                f"{name[:80]!r} cannot be the name of an agent",
                code="agent.bad_name",
                why="a name has 1 to 64 letters, digits, '-', '_' or inner dots",
                hint='for example Agent("my-agent")',
            )
        self.name = name
        self.version = version
        self.params = dict(params or {})
        self.skills: dict[str, Skill] = {}
        self.main: Skill | None = None
        self.hears: Callable[[Message], Any] | None = None
        self._description = description

    @property
    def description(self) -> str:
        """One or more sentences for people and for search."""
        first = next(iter(self.skills.values()), None)
        return self._description or (first.description if first else f"The agent {self.name}.")

    def on_message(self, function: F, /) -> F:
        """Have a function called with each message that comes for the agent while it serves; use as a decorator.

        What it returns is sent back to the sender, None is no answer. The message is acknowledged when the function has
        returned. If it raises, the message comes again, five times in all; then it is taken out and the log says why.

        Raises:
            UsageError: there is one already.
        """
        if self.hears is not None:
            raise UsageError(f"{self.name} has a function for messages already", code="agent.on_message")
        self.hears = function
        return function

    @overload
    def skill(self, function: F, /) -> F: ...
    @overload
    def skill(
        self,
        /,
        *,
        id: str | None = None,
        name: str | None = None,
        description: str | None = None,
        tags: list[str] | None = None,
        default: bool = False,
    ) -> Callable[[F], F]: ...
    def skill(self, function: Any = None, /, *, default: bool = False, **options: Any) -> Any:
        """Add a function as a skill; use bare or with ``id``, ``name``, ``description``, ``tags``, ``default``.

        ``default=True`` marks the skill that answers when the caller names none. The function itself is returned unchanged.

        Raises:
            UsageError: a second skill of that id, a second default, or types that JSON cannot carry.
        """
        if function is None:

            def add(f: F) -> F:
                return self._add(f, default, options)

            return add
        return self._add(function, default, options)

    def _add(self, function: F, default: bool, options: dict[str, Any]) -> F:
        skill = Skill(function, **options)
        if skill.id in self.skills:
            raise UsageError(f"{self.name} has two skills {skill.id!r}", code="agent.bad_function")
        if default and self.main is not None:
            raise UsageError(
                f"{self.name} has two default skills: {self.main.id} and {skill.id}", code="agent.bad_function"
            )
        if len(self.skills) >= SKILLS_MAX:
            raise UsageError(f"{self.name} has more than {SKILLS_MAX} skills", code="agent.bad_function")
        self.skills[skill.id] = skill
        if default:
            self.main = skill
        return function

    def pick(self, skill_id: str | None) -> Skill:
        """Return the skill that answers a call.

        Raises:
            AgentFailed: no such skill, or none was named and several exist (code "agent.no_skill").
        """
        known = ", ".join(self.skills) or "none"
        if skill_id:
            if skill := self.skills.get(skill_id):
                return skill
            raise AgentFailed(f"{self.name} has no skill {skill_id[:80]!r}; it has {known}", code="agent.no_skill")
        if self.main is not None:
            return self.main
        if len(self.skills) == 1:
            return next(iter(self.skills.values()))
        raise AgentFailed(f"name a skill of {self.name}: {known}", code="agent.no_skill", hint="--skill NAME")

    def describe(self) -> dict[str, Any]:
        """Return what ``/.well-known/agentmesh.json`` says of this agent, JSON-ready."""
        return {
            "name": self.name,
            "description": self.description,
            "version": self.version,
            "skills": [s.card() for s in self.skills.values()],
            "schemas": {s.id: s.signature.schema for s in self.skills.values()},
            "params": self.params,
            "capabilities": {"stream": True, "cancel": True, "multi_turn": True, "parallel": True},
        }

    def __repr__(self) -> str:
        return f"Agent({self.name!r}, skills={list(self.skills)})"


class FunctionAgent(Agent):
    """An agent of one function, still callable as that function."""

    def __init__(self, function: Callable[..., Any], name: str, options: dict[str, Any], skill: dict[str, Any]) -> None:
        super().__init__(name, **options)
        self._add(function, True, skill)
        self.__wrapped__ = function
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, with no mesh in between: for tests and for plain use."""
        return self.__wrapped__(*args, **kwargs)


@overload
def agent(function: Callable[..., Any], /) -> FunctionAgent: ...
@overload
def agent(
    *,
    name: str | None = None,
    description: str | None = None,
    version: str = "1.0.0",
    skill: str | None = None,
    tags: list[str] | None = None,
    params: dict[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], FunctionAgent]: ...
def agent(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    version: str = "1.0.0",
    skill: str | None = None,
    tags: list[str] | None = None,
    params: dict[str, Any] | None = None,
) -> FunctionAgent | Callable[[Callable[..., Any]], FunctionAgent]:
    """Make an agent of one typed function; use bare (``@agent``) or with arguments.

    Args:
        name: Its name in the mesh; else the function's name with ``-`` for ``_``.
        description: Else the docstring's first paragraph.
        version: The agent's own version.
        skill: Id of its one skill; else the function's name.
        tags: For search.
        params: Further manifest params.

    Raises:
        UsageError: the name does not fit, or the types cannot be carried by JSON.
    """

    def make(f: Callable[..., Any]) -> FunctionAgent:
        own = getattr(f, "__name__", "agent").strip("_").replace("_", "-")
        options = {"description": description, "version": version, "params": params}
        return FunctionAgent(f, name or own, options, {"id": skill, "tags": tags})

    return make if function is None else make(function)


def plain(value: Any) -> Any:
    """Return a value as JSON-ready builtins (dataclasses, Structs, datetimes and the like unfolded).

    Raises:
        LimitError: it cannot be carried as JSON (code "agent.bad_answer").
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    try:
        return msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise LimitError(f"the answer cannot be carried as JSON: {error}", code="agent.bad_answer") from error


def parts_of(value: Any) -> list[dict[str, Any]]:
    """Return an answer as A2A parts: str → text, a list of parts as it is, None → nothing, anything else → data."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"text": value}]
    if isinstance(value, list) and value and all(_is_part(item) for item in cast("list[object]", value)):
        return cast("list[dict[str, Any]]", plain(value))
    return [{"data": plain(value)}]


def _is_part(item: object) -> bool:
    return isinstance(item, dict) and bool({"text", "data", "url", "raw"} & set(cast("dict[str, Any]", item)))


def run(
    *agents: Agent,
    home: str | os.PathLike[str] | None = None,
    url: str | None = None,
    token: str | None = None,
) -> None:
    """Serve agents and keep them registered with the daemon until SIGINT or SIGTERM; then withdraw them and return.

    Args:
        agents: One or more; all in this process.
        home, url, token: Where the daemon is; see ``sdk.locate``.

    Raises:
        SystemExit: no daemon answers, or it refused; three lines on stderr say why and what to do next.
        UsageError: no agent, or one without a skill.
    """
    from agentmesh.sdk.process import run_blocking

    run_blocking(list(agents), home=home, url=url, token=token)


async def serve(
    *agents: Agent,
    home: str | os.PathLike[str] | None = None,
    url: str | None = None,
    token: str | None = None,
) -> None:
    """Do what ``run`` does inside a running event loop, until this coroutine is cancelled. Signals are left alone.

    Raises:
        NoRoute, Unauthorized, Refused: the daemon does not answer or refused. Nothing is left running.
    """
    from agentmesh.sdk.process import AgentProcess

    async with AgentProcess(list(agents), home=home, url=url, token=token) as process:
        await process.wait()
