"""``agentmesh topic create|list|remove|rules``: durable topics, and who may publish and subscribe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, clip
from agentmesh.cli.verb import built, group, new_app, verb

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_Name = Annotated[str, typer.Argument(help="Name of the durable topic.")]


def list_(out: Output) -> None:
    """List durable topics, and patterns that are followed here.

    \b
    agentmesh topic list
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        found = mesh.topics()
    if out.listing(found.topics, found, i18n.t("no topics yet"), "agentmesh topic create NAME 'SUBJECT.>'"):
        rows = [
            [
                one.name or "-", clip(" ".join(one.subjects), 50), one.engine or "-", f"{one.first}…{one.next}",
                str(one.subscribers), " ".join(f"{name}:{waiting}" for name, waiting in one.groups.items()) or "-",
            ]
            for one in found.topics
        ]  # fmt: skip
        out.table(["TOPIC", "SUBJECTS", "ENGINE", "OFFSETS", "FOLLOWERS", "GROUPS"], rows)


def create(
    out: Output,
    name: _Name,
    subjects: Annotated[list[str], typer.Argument(help="Patterns of the subjects that it keeps. Quote them.")],
    records: Annotated[int, typer.Option("--records", help="Keep at most so many.", min=1)] = 1_000_000,
    bytes_: Annotated[int, typer.Option("--bytes", help="Keep at most so much.", min=1)] = 1024 * 1024 * 1024,
    age: Annotated[str, typer.Option("--age", help="Keep for so long, such as 12h or 7d.")] = "7d",
) -> None:
    """Make a durable topic, which keeps what is published under its subjects, or change its limits.

    \b
    agentmesh topic create jobs 'jobs.>' --age 30d
    """
    from agentmesh.cli.commands.keys import seconds_in
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        view = mesh.create_topic(name, subjects, records_max=records, bytes_max=bytes_, age_s_max=int(seconds_in(age)))
    if out.json:
        out.data(view)
    else:
        out.check("ok", view.name, " ".join(view.subjects))
        out.next(f"agentmesh sub '>' --durable {view.name} --all")


def remove(out: Output, name: _Name) -> None:
    """Delete a durable topic with all it keeps.

    \b
    agentmesh topic remove jobs
    """
    from agentmesh.cli.connect import connect
    from agentmesh.errors import RecordNotFound
    from agentmesh.wire.message_views import TopicRemoved

    with connect(out) as mesh:
        removed = mesh.remove_topic(name)
    if not removed:
        raise RecordNotFound(f"no durable topic {name[:80]!r} here", code="topic.unknown", hint="agentmesh topic list")
    if out.json:
        out.data(TopicRemoved(name=name, removed=True))
    else:
        out.check("ok", name, i18n.t("removed"))


def rules(
    out: Output,
    file: Annotated[
        str, typer.Option("--set", help='Replace them by those of this JSON file: [{"pattern": …, "publish": […]}].')
    ] = "",
) -> None:
    """Show or replace the rules that say who may publish and subscribe; the first that fits decides.

    \b
    agentmesh topic rules
    agentmesh topic rules --set rules.json
    """
    from agentmesh.cli.connect import connect

    given = _rules_in(file) if file else None
    with connect(out) as mesh:
        view = mesh.topics() if given is None else mesh.set_topic_rules(given)
    if out.listing(
        view.rules, view, i18n.t("no rules: every member may publish and subscribe"), "agentmesh topic rules --set FILE"
    ):
        rows = [[one.pattern, " ".join(one.publish), " ".join(one.subscribe)] for one in view.rules]
        out.table(["PATTERN", "PUBLISH", "SUBSCRIBE"], rows)


def _rules_in(file: str) -> list[Any]:
    """Read rules. Raises UsageError."""
    import msgspec

    from agentmesh.errors import UsageError
    from agentmesh.wire.message_views import TopicRules

    try:
        with Path(file).open("rb") as source:
            return msgspec.json.decode(source.read(1024 * 1024), type=list[TopicRules])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{file} holds no rules", code="topic.rules_file", why=str(error), hint="agentmesh topic rules --json"
        ) from error


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Durable topics: make, list, remove; who may use which.")(
        group(list_)
    )
    for name, body in (("list", list_), ("create", create), ("remove", remove), ("rules", rules)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
