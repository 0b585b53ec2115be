"""``agentmesh run --to NAME TEXT``: call an agent, stream its answer, end with the id of the run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentmesh.cli import i18n
from agentmesh.cli.connect import agent_names, short_run
from agentmesh.cli.given import payload
from agentmesh.cli.output import Output, clip, printable
from agentmesh.cli.verb import single
from agentmesh.core.balance.config import STRATEGIES, Strategy
from agentmesh.errors import EXIT_INTERRUPTED, MeshError, UsageError

if TYPE_CHECKING:
    from agentmesh.sdk.sync import SyncCallStream, SyncMesh
    from agentmesh.wire.event import EventV1
    from agentmesh.wire.views import CallRequest

HEDGE_MS_MAX = 600_000
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s)", re.ASCII)


def run(
    out: Output,
    text: Annotated[str | None, typer.Argument(help="What to say; '-' reads stdin.")] = None,
    to: Annotated[str, typer.Option("--to", help="Name, name@node or id.", autocompletion=agent_names)] = "",
    sender: Annotated[str, typer.Option("--from", help="Call in the name of this local agent.")] = "",
    skill: Annotated[str | None, typer.Option("--skill", help="Skill, if the agent has several.")] = None,
    file: Annotated[str | None, typer.Option("--file", help="Read the text from a file.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Structured input, as JSON.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Conversation to continue.")] = None,
    purpose: Annotated[
        str, typer.Option("--purpose", help="Why; signed into the call and shown with its receipt.")
    ] = "",
    idempotent: Annotated[
        bool, typer.Option("--idempotent", help="It may run twice: if a replica is lost on the way, ask another.")
    ] = False,
    hedge: Annotated[
        str, typer.Option("--hedge", help="Ask a second replica after this long without an answer, as 200ms or 2s.")
    ] = "",
    balance: Annotated[
        str,
        typer.Option("--balance", help="How to choose among replicas: " + ", ".join(STRATEGIES) + "."),
    ] = "",
    grant: Annotated[
        str | None, typer.Option("--grant", help="File with the grant that allows the call (see 'agentmesh grant').")
    ] = None,
    budget: Annotated[
        str,
        typer.Option("--budget", help="The most it may use: usd=0.05,tokens=2000,calls=3,wall=30s, or some of them."),
    ] = "",
    priority: Annotated[
        int, typer.Option("--priority", min=0, max=9, help="Where your calls wait: 0 can wait, 9 goes first.")
    ] = 5,
    baggage: Annotated[
        list[str] | None,
        typer.Option("--baggage", help="KEY=VALUE that goes along with all calls of the run; repeatable."),
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Show the answer as it comes; with --json one event per line."),
    ] = None,
) -> int:
    """Call an agent and stream its answer.

    \b
    agentmesh run --to calc "1+1"
    echo "long text" | agentmesh run --to reviewer -

    The last line is 'trace: ID' (not with -q or --json). Ctrl-C cancels the remote task.
    """
    from agentmesh.cli.connect import connect

    if not to:
        raise UsageError("no agent named", why="--to is missing", hint='agentmesh run --to NAME "text"')
    given = payload(text, file, data, 'agentmesh run --to NAME "text"')
    hedge_ms = _milliseconds(hedge, idempotent=idempotent) if hedge else None
    strategy = _strategy(balance)
    if grant is not None:
        from agentmesh.cli.commands.grant import read_chain_file

        given["grants"] = read_chain_file(grant)
    with connect(out) as mesh:
        from agentmesh.sdk.calling import call_request
        from agentmesh.sdk.sync import SyncCallStream

        request = call_request(
            to,
            skill=skill,
            context_id=context,
            purpose=purpose,
            balance=strategy,
            idempotent=idempotent,
            hedge_ms=hedge_ms,
            budget=_amounts(budget),
            priority=priority,
            baggage=_baggage(baggage or []),
            stream=True,
            **given,
        )
        request.timeout_s = out.timeout_s or request.timeout_s
        request.from_agent = sender or request.from_agent
        return _Conversation(out, mesh, request, SyncCallStream(mesh, request), stream).run()


def _amounts(text: str) -> dict[str, int]:
    """Read ``usd=0.05,tokens=2000``. Raises UsageError."""
    if not text:
        return {}
    from agentmesh.identity.budget import BUDGET_KEYS, Budget

    budget = Budget.from_text(text)
    return {name: value for name in BUDGET_KEYS if (value := getattr(budget, name)) is not None}


def _baggage(members: list[str]) -> dict[str, str]:
    """Read ``KEY=VALUE`` of each. Raises UsageError."""
    pairs = [member.partition("=") for member in members]
    if bad := [key for key, equals, _ in pairs if not equals]:
        raise UsageError(f"--baggage {bad[0][:60]!r} has no value", code="usage.baggage", hint="--baggage lang=en")
    return {key: value for key, _, value in pairs}


def _milliseconds(text: str, *, idempotent: bool) -> int:
    """Read ``200ms`` or ``2s``. Raises UsageError."""
    if not idempotent:
        raise UsageError(
            "--hedge needs --idempotent",
            code="usage.hedge",
            why="a call that is hedged may run twice",
            hint=f'agentmesh run --idempotent --hedge {text} --to NAME "text"',
        )
    found = _DURATION.fullmatch(text)
    wanted_ms = 0 if found is None else int(float(found[1]) * (1000 if found[2] == "s" else 1))
    if not 1 <= wanted_ms <= HEDGE_MS_MAX:
        raise UsageError(
            f"--hedge {text[:40]!r} is no time between 1ms and {HEDGE_MS_MAX // 1000}s",
            code="usage.hedge",
            hint="--hedge 200ms",
        )
    return wanted_ms


def _strategy(text: str) -> Strategy | Literal[""]:
    """Check the name of a strategy. Raises UsageError."""
    for known in STRATEGIES:
        if text == known:
            return known
    if text:
        raise UsageError(
            f"--balance {text[:40]!r} is no strategy", code="usage.balance", hint="--balance " + "|".join(STRATEGIES)
        )
    return ""


class _Conversation:
    """One call as the person sees it."""

    def __init__(
        self, out: Output, mesh: SyncMesh, request: CallRequest, events: SyncCallStream, stream: bool | None
    ) -> None:
        self._out = out
        self._mesh = mesh
        self._request = request
        self._events = events
        self._lines = out.json and stream is True
        self._live = not out.json and stream is not False
        self._run_id = request.run_id or ""
        self._written = False
        self._open_line = False

    def run(self) -> int:
        """Carry the call to its end and return the exit code."""
        try:
            self._out.status(f"{i18n.t('waiting for {name}', name=self._request.to)} …")
            for event in self._events:
                self._show(event)
        except KeyboardInterrupt:
            return self._interrupted()
        except MeshError as error:
            self._close_line()
            if self._run_id:
                error.extra.setdefault("run_id", self._run_id)
                error.hint = error.hint or f"agentmesh trace {short_run(self._run_id)}"
            code = self._out.problem(error)
            self._trace_line()
            return code
        return self._finish()

    def _show(self, event: EventV1) -> None:
        from agentmesh.wire.event import text_of
        from agentmesh.wire.views import begins_again

        self._run_id = event.run_id
        if self._lines:
            from agentmesh.cli.commands.up import as_dict

            self._out.data(as_dict(event))
            return
        if event.kind == "message" and event.payload.get("role", "agent") != "user" and self._live:
            said = printable(text_of(event.payload.get("parts")))
            delta = bool(event.payload.get("delta"))
            if not delta:
                self._close_line()
            if said:
                self._out.clear_status()
                self._out.raw(said if delta else said + "\n")
                self._written = True
                self._open_line = delta and not said.endswith("\n")
        elif begins_again(event) and self._written and self._live:
            self._close_line()
            self._out.note(("! ", "warn"), i18n.t("the answer begins again: it comes from another replica"))
        elif self._out.verbose and event.kind in ("status", "tool", "reasoning"):
            from agentmesh.cli.timeline import describe

            self._close_line()
            self._out.note((f"  {event.kind}  {clip(describe(event), 100)}", "dim"))
        elif event.kind == "status" and event.payload.get("state") == "working":
            detail = event.payload.get("text") or event.payload.get("detail") or ""
            if detail:
                self._out.status(clip(f"{self._request.to}: {detail}", 70))

    def _finish(self) -> int:
        from agentmesh.cli.commands.up import as_dict

        reply = self._events.reply
        self._run_id = reply.run_id
        if self._out.json:
            self._out.data({"reply": as_dict(reply)} if self._lines else as_dict(reply))
            return 0
        self._close_line()
        if not self._written and reply.text:
            self._out.raw(printable(reply.text) + "\n")
        elif not self._written and reply.data:
            for value in reply.data:
                self._out.data(value)
        self._out.note((f"{reply.agent or self._request.to} · {reply.ms:.0f} ms · {reply.path}", "dim"))
        if reply.state == "input-required":
            self._out.note(("! ", "warn"), i18n.t("the agent asks for more input"))
            if reply.context_id:
                self._out.next(f'agentmesh run --to {self._request.to} --context {reply.context_id} "…"')
        self._trace_line()
        return 0

    def _interrupted(self) -> int:
        """Cancel the remote task and say whether it heard."""
        self._close_line()
        self._out.note(i18n.t("canceling the remote task"))
        # The broken stream has told the daemon already; a task that it knows and that runs no more was stopped by that.
        try:
            self._mesh.cancel(self._events.task_id)
            heard = True
        except MeshError:
            heard = False
        self._events.close()
        self._out.note(i18n.t("the remote task was told to stop" if heard else "the remote task may still run"))
        self._trace_line()
        return EXIT_INTERRUPTED

    def _trace_line(self) -> None:
        if self._run_id and not self._out.json and not self._out.quiet:
            self._out.line(("trace: ", "dim"), short_run(self._run_id))

    def _close_line(self) -> None:
        self._out.clear_status()
        if self._open_line:
            self._out.raw("\n")
            self._open_line = False


def build() -> Any:
    """Return the command."""
    return single(run, own_timeout=True)
