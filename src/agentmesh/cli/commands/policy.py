"""``agentmesh policy show|explain|check``: who may call what at this node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.connect import agent_names
from agentmesh.cli.output import Output, clip, printable
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.wire.policy import PartyView, RulingView

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_ROWS_SHOWN = 50
_MODES = {
    "open": "open: whoever no rule names may call",
    "closed": "closed: one's own organisation may call, others need a rule",
    "strict": "strict: nobody may call whom no rule permits",
    "broken": "nothing could be read: only this node itself may call",
}


def show(
    out: Output,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print what Cedar policies may speak of; asks no node.")
    ] = False,
) -> None:
    """Show what is in force: the default, organisations, lists and policies.

    \b
    agentmesh policy show
    agentmesh policy show --schema
    """
    if schema:
        from agentmesh.node.policy.cedar import SCHEMA

        if out.json:
            out.data({"schema": SCHEMA})
        else:
            out.raw(SCHEMA)
        return
    from agentmesh.cli.connect import connect
    from agentmesh.ids import short

    with connect(out) as mesh:
        view = mesh.policy()
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data(as_dict(view))
        return
    out.check("fail" if view.mode == "broken" else "ok", "default", i18n.t(_MODES.get(view.mode, view.mode)))
    out.check("ok", "files", ", ".join(view.files) or f"- ({view.directory})")
    for warning in view.warnings:
        out.check("warn", "warning", clip(printable(warning), 400))
    for name, keys in list(view.organisations.items())[:_ROWS_SHOWN]:
        shown = ", ".join(short(key) for key in keys[:8])
        out.check("ok", name, f"{len(keys)}: {shown}{' …' if len(keys) > 8 else ''}")
    lists = (
        ("deny", view.deny),
        ("allow", view.allow),
        ("grey", view.grey),
        ("out.deny", view.out_deny),
        ("out.confined", view.out_confined),
    )
    entries = [(name, one) for name, many in lists for one in many]
    if entries:
        out.line("")
        rows = [[name, one.who, clip(one.why, 60) or "-", clip(one.source, 40)] for name, one in entries[:_ROWS_SHOWN]]
        out.table(["list", "who", "reason", "where"], rows)
    if view.policies:
        out.line("")
        rows = [[one.effect, one.id, clip(one.reason, 60) or "-", one.source] for one in view.policies[:_ROWS_SHOWN]]
        out.table(["effect", "policy", "reason", "where"], rows)
    left = max(0, len(entries) - _ROWS_SHOWN) + max(0, len(view.policies) - _ROWS_SHOWN)
    if left:
        out.note(i18n.t("{count} more; --json has all", count=left))
    out.next("agentmesh policy explain CALLER CALLEE")


def explain(
    out: Output,
    caller: Annotated[
        str, typer.Argument(help="Agent, name@node or did:key; @NODE for the person at a node, @ for the one here.")
    ],
    callee: Annotated[
        str, typer.Argument(help="An agent at this node, or elsewhere: may the call leave?", autocompletion=agent_names)
    ],
    skill: Annotated[str, typer.Option("--skill", help="Skill that would be asked for.")] = "",
    purpose: Annotated[str, typer.Option("--purpose", help="Purpose that would be given.")] = "",
) -> int:
    """Say whether a call would pass now, and why. Ends with 0 for yes and 3 for no.

    \b
    agentmesh policy explain greeter calc
    agentmesh policy explain @laptop calc --skill add

    It names the rule that decides, and where it stands. The caller itself is told only the reason that the rule gives.
    """
    from agentmesh.cli.connect import connect
    from agentmesh.errors import EXIT_AUTH

    with connect(out) as mesh:
        view = mesh.explain_policy(caller, callee, skill=skill, purpose=purpose)
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data(as_dict(view))
    else:
        _tell(out, view)
    return 0 if view.allowed else EXIT_AUTH


def check(
    out: Output,
    file: Annotated[
        Path | None, typer.Argument(help="A .cedar file, or lists.toml; all of policies/ when left out.")
    ] = None,
) -> None:
    """Read policy files as the node would, and say what is wrong with them; no node is asked.

    \b
    agentmesh policy check
    agentmesh policy check draft/payments.cedar

    A .cedar file is read together with the lists.toml beside it, which says which organisations there are.
    """
    from agentmesh.cli.connect import home_of
    from agentmesh.node.policy.files import LISTS, listing, read_all, read_one
    from agentmesh.node.policy.policy import load

    ignored: tuple[str, ...] = ()
    if file is None:
        directory = home_of(out).policies
        seen = listing(directory)
        ignored, sources = seen.ignored, read_all(directory, [one[0] for one in seen.stamp])
    else:
        sources = [read_one(file)]
        beside = file.parent / LISTS
        if file.name == LISTS or file.suffix == ".toml":
            sources = [sources[0]._replace(name=LISTS)]
        elif beside.is_file():
            sources.append(read_one(beside))
    loaded = load(sources)
    policies = loaded.engine.rows if loaded.engine else []
    entries = sum(len(index) for index in (*loaded.lists.entries.values(), *loaded.lists.out.values()))
    if out.json:
        out.data(
            {
                "files": list(loaded.files),
                "policies": len(policies),
                "entries": entries,
                "organisations": loaded.lists.organisations,
                "ignored": list(ignored),
                "version": loaded.version,
            }
        )
        return
    for name in loaded.files:
        own = sum(one.source.startswith(f"{name}:") for one in policies)
        out.check(
            "ok",
            name,
            i18n.t("{count} entries", count=entries) if name == LISTS else i18n.t("{count} policies", count=own),
        )
    for name in ignored:
        out.check("warn", name, i18n.t("not read: neither lists.toml nor *.cedar"))
    if not sources:
        out.note(i18n.t("there are no policy files"))


def _tell(out: Output, view: RulingView) -> None:
    answer = i18n.t("yes") if view.allowed else i18n.t("no")
    who = f"{printable(clip(view.caller.name, 40))} → {printable(clip(view.callee.name, 40))}"
    out.check("ok" if view.allowed else "fail", answer, who)
    where = f"   {view.source}" if view.source else ""
    out.line("  because     ", (view.ground, "head"), f"  {printable(clip(view.rule, 200))}{where}")
    out.line("  caller      ", _side(view.caller), f"  trust {view.trust} ({view.tier})")
    out.line("  callee      ", _side(view.callee))
    if not view.allowed:
        out.line("  is told     ", f"{view.code}: {printable(view.told)}")
    elif view.priority_max < 9:
        out.line("  priority    ", i18n.t("at most {priority}", priority=view.priority_max))
    for warning in view.warnings:
        out.check("warn", "warning", clip(printable(warning), 400))
    out.next("agentmesh policy show")


def _side(party: PartyView) -> str:
    from agentmesh.ids import short

    organisation = party.organisation or i18n.t("no organisation named here")
    tags = f"  tags {', '.join(party.tags[:8])}" if party.tags else ""
    claimed = f"  claims {', '.join(party.claimed_tags[:8])}" if party.claimed_tags and not party.tags else ""
    return printable(f"{short(party.key)}  {organisation}{tags}{claimed}")


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Show, explain and check who may call what.")(group(show))
    for name, body in (("show", show), ("explain", explain), ("check", check)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
