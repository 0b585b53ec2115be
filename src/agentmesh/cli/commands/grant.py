"""``agentmesh grant make|show``: let an agent act in one's name, within bounds, and read what was granted."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli.connect import agent_names
from agentmesh.cli.output import Output
from agentmesh.cli.verb import built, group, new_app, verb
from agentmesh.errors import UsageError

if TYPE_CHECKING:
    from agentmesh.wire.proof_views import GrantView

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_FILE_BYTES_MAX = 64 * 1024
_BOUND_KINDS = {"max": "max", "total": "max_lifetime", "subtree": "max_subtree"}


def make(
    out: Output,
    to: Annotated[str, typer.Option("--to", help="Agent that may act.", autocompletion=agent_names)],
    audience: Annotated[list[str], typer.Option("--for", help="Agent that it may call so; may be repeated.")],
    scope: Annotated[list[str], typer.Option("--scope", help="call.SKILL, or call.* for every skill.")],
    life_s: Annotated[int, typer.Option("--life", help="Seconds until it ends, at most 86400.")] = 300,
    bound: Annotated[
        list[str] | None,
        typer.Option("--bound", help="max:calls=1 per call, total:usd_micros=50000 in all, subtree:tokens=9000."),
    ] = None,
    maker: Annotated[str, typer.Option("--from", help="Local agent that grants; the person here if left out.")] = "",
    parent: Annotated[str | None, typer.Option("--parent", help="File with the grant that it is made from.")] = None,
    depth: Annotated[int | None, typer.Option("--depth", help="How deep it may be passed on; 0 = not at all.")] = None,
) -> None:
    """Let an agent act in your name: what, at whom, how long and how much.

    \b
    agentmesh grant make --to planner --for calc --scope "call.*" > grant.txt
    agentmesh run --from planner --to calc --grant grant.txt "6 * 7"

    The grant is printed and kept nowhere. Whoever it is for may use it until it ends, nobody else.
    """
    from agentmesh.cli.connect import connect

    bounds = _bounds(bound or [])
    with connect(out) as mesh:
        made = mesh.grant(
            to,
            audience,
            scope,
            life_s=life_s,
            maker=maker,
            parents=read_chain_file(parent) if parent else [],
            depth_max=depth,
            **bounds,
        )
    if out.json:
        out.data(made)
        return
    for one in made.chain:
        out.raw(one + "\n")
    _tell(out, made)


def show(
    out: Output, source: Annotated[str, typer.Argument(help="File that 'grant make' wrote; '-' reads stdin.")]
) -> None:
    """Read a grant and check its signatures, without asking any node.

    \b
    agentmesh grant show grant.txt
    """
    from agentmesh.identity.grant import read_kept_chain
    from agentmesh.wire.proof_views import GrantView

    chain = read_chain_file(source)
    found = read_kept_chain(chain)
    claims = found.leaf.claims
    view = GrantView(
        chain=chain,
        root=found.root,
        maker=found.leaf.issuer,
        holder=claims.client_id,
        principal=found.sub,
        audience=list(claims.aud),
        scopes=list(claims.scopes),
        limits={f"{one.key}.{one.kind}": one.value for one in claims.limits},
        exp=claims.exp,
        depth=claims.depth,
    )
    if out.json:
        out.data(view)
    else:
        _tell(out, view, fully=True)


def read_chain_file(source: str) -> list[str]:
    """Return the grants of a file, one per line, root first. Raises UsageError."""
    try:
        if source == "-":
            raw = sys.stdin.buffer.read(_FILE_BYTES_MAX + 1)
        else:
            with Path(source).open("rb") as file:
                raw = file.read(_FILE_BYTES_MAX + 1)
        text = raw.decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the grant {source!r}", code="grant.file", why=str(error)) from error
    chain = text.split()
    if len(raw) > _FILE_BYTES_MAX or not chain:
        raise UsageError(
            f"{source!r} holds no grant", code="grant.file", hint="agentmesh grant make … > grant.txt   writes one"
        )
    return chain


def _bounds(given: list[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for one in given:
        kind, _, rest = one.partition(":")
        name, _, value = rest.partition("=")
        if kind not in _BOUND_KINDS or not value.isascii() or not value.isdigit():
            raise UsageError(
                f"{one[:80]!r} is no bound",
                code="grant.bound",
                why="a bound is KIND:NAME=INTEGER, KIND being max, total or subtree",
                hint="--bound max:calls=1 --bound total:usd_micros=50000",
            )
        found.setdefault(_BOUND_KINDS[kind], {})[name] = int(value)
    return found


def _tell(out: Output, made: GrantView, *, fully: bool = False) -> None:
    from agentmesh.ids import short

    left_s = made.exp - int(time.time())
    lines = [
        f"{short(made.holder)} may {', '.join(made.scopes)} at {', '.join(short(a) for a in made.audience)}",
        f"in the name of {made.principal if not made.principal.startswith('did:') else short(made.principal)}, "
        + (f"for {left_s} s" if left_s > 0 else f"ended {-left_s} s ago"),
    ]
    lines += [f"{name} ≤ {value}" for name, value in made.limits.items()]
    for line in lines:
        if fully:
            out.line(line)
        else:
            out.note(line)


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Let an agent act in your name, within bounds.")(group())
    for name, body in (("make", make), ("show", show)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
