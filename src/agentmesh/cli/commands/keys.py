"""``agentmesh keys add|list|revoke``: API keys for programs, each with its scopes."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, age
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.wire.access import KeyView

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_Name = Annotated[str, typer.Argument(help="What people call the key.")]


def add(
    out: Output,
    name: _Name,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            "-s",
            help="read, call, call:AGENT, register, events, message, state or admin; repeat it for several.",
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", help="When it ends, such as 12h or 30d; never if left out.")
    ] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="For whom; the operator's own if left out.")] = "",
) -> None:
    """Make an API key and print it, this one time.

    \b
    agentmesh keys add ci --scope call:summarize --scope read --expires 30d
    export AGENTMESH_API_KEY=$(agentmesh keys add ci --scope read)

    The node keeps only its hash: a key that is lost is revoked and made anew.
    """
    from agentmesh.cli.connect import connect
    from agentmesh.errors import UsageError
    from agentmesh.wire.access import KeyRequest

    if not scope:
        raise UsageError(
            "a key needs at least one scope",
            code="keys.scope",
            hint=f"agentmesh keys add {name} --scope read   (also: call, call:AGENT, register, events, message, state, admin)",
        )
    request = KeyRequest(name=name, scopes=scope, expires_s=seconds_in(expires) if expires else None, tenant=tenant)
    with connect(out) as mesh:
        made = mesh.add_key(request)
    if out.json:
        out.data(made)
        return
    out.line(made.secret)
    out.note(i18n.t("this is the only time that the key is shown"))
    out.next("export AGENTMESH_API_KEY=amk_…", i18n.t("programs and 'agentmesh' itself then use it"))


def list_(out: Output) -> None:
    """List the API keys: what each may do, when it ends and when it was last used.

    \b
    agentmesh keys list
    """
    from agentmesh.cli.connect import connect
    from agentmesh.wire.access import KeyList

    with connect(out) as mesh:
        found = mesh.keys()
    nothing = i18n.t("no API keys yet")
    if out.listing(found, KeyList(keys=found), nothing, "agentmesh keys add NAME --scope read"):
        out.table(["NAME", "SCOPES", "TENANT", "MADE", "ENDS", "USED"], [_row(key, time.time()) for key in found])


def _row(key: KeyView, now: float) -> list[Styled]:
    if key.expires is None:
        ends: Styled = "never"
    elif key.expired:
        ends = ("over", "fail")
    else:
        ends = f"in {age(key.expires - now)}"
    used = "-" if key.used is None else f"{age(max(0.0, now - key.used))} ago"
    made = f"{age(max(0.0, now - key.made))} ago"
    return [(key.name, "name"), " ".join(key.scopes), key.tenant or "-", made, ends, used]


def revoke(out: Output, name: _Name) -> None:
    """Revoke an API key: it opens nothing from now on, and what goes on in its name ends.

    \b
    agentmesh keys revoke ci
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        revoked = mesh.revoke_key(name)
    if out.json:
        out.data(revoked)
    else:
        out.check("ok", revoked.name, i18n.t("revoked"))


def seconds_in(text: str) -> float:
    """Return the seconds of a duration such as 90s, 15m, 12h, 30d or 4w. Raises UsageError."""
    from agentmesh.errors import UsageError

    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(
            f"{text[:40]!r} is no duration",
            code="usage.duration",
            why="a duration is a number and one of s, m, h, d, w",
            hint="--expires 30d",
        )
    return float(match[1]) * _UNITS[match[2]]


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="API keys for programs: make, list, revoke.")(group(list_))
    for name, body in (("add", add), ("list", list_), ("revoke", revoke)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
