"""``agentmesh state get|set|add|increment|…``: read and change state that agents share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, clip, clock, printable
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.sdk.sync_state import SyncSpace
    from agentmesh.wire.state_views import StateView

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_Space = Annotated[str, typer.Argument(help="Name of the space.")]
_Key = Annotated[str, typer.Argument(help="Key in it.")]
_Value = Annotated[str, typer.Argument(help="JSON, or else taken as text.")]
_Level = Annotated[
    str, typer.Option("--level", help="What must be true of the answer: local, causal, quorum or linearizable.")
]
_Expect = Annotated[
    int, typer.Option("--expect", help="Linearizable: only if this is the current revision; 0 = only if there is none.")
]


def list_(
    out: Output,
    space: Annotated[str, typer.Argument(help="Its keys; all spaces if left out.")] = "",
    prefix: Annotated[str, typer.Argument(help="Only keys that begin so.")] = "",
) -> None:
    """List spaces, or the keys of one.

    \b
    agentmesh state list
    agentmesh state list team
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        if space:
            found = mesh.state(space).keys(prefix)
            if out.listing(found.keys, found, i18n.t("no keys"), f"agentmesh state set {space} KEY VALUE"):
                out.table(["KEY", "TYPE", "VALUE"], [[one.key, one.type, clip(_text(one), 60)] for one in found.keys])
            return
        whole = mesh.spaces()
        if out.listing(whole.spaces, whole, i18n.t("no spaces"), "agentmesh state set SPACE KEY VALUE"):
            rows = [[one.space, str(one.keys), str(len(one.holders)), str(one.siblings)] for one in whole.spaces]
            out.table(["SPACE", "KEYS", "HOLDERS", "SIBLINGS"], rows)
        out.note(i18n.t("highest level here: {level}", level=whole.level_max))


def get(out: Output, space: _Space, key: _Key, level: _Level = "local") -> int:
    """Print a key; ends with 6 if there is none.

    \b
    agentmesh state get team motto
    agentmesh state get team motto --level quorum --json
    """
    with _at(out, space) as shared:
        view = shared.read(key, level=_level(level))
    if not view.exists and not out.json:
        from agentmesh.errors import RecordNotFound

        raise RecordNotFound(
            f"{space} has no key {key[:80]!r}", code="state.no_key", hint=f"agentmesh state list {space}"
        )
    _tell(out, view)
    return 0


def set_(
    out: Output,
    space: _Space,
    key: _Key,
    value: _Value,
    type_: Annotated[str, typer.Option("--type", help="Of a new key: register, lww, counter, set, …")] = "",
    level: _Level = "local",
    expect: _Expect = -1,
) -> None:
    """Set a key. Values that were written at once are kept side by side until `agentmesh state resolve` settles them.

    \b
    agentmesh state set team motto "ship it"
    agentmesh state set team leader '{"name": "amy"}' --level linearizable --expect 0
    """
    fields: dict[str, Any] = {"type": _type(type_)}
    if expect >= 0:
        fields["expect"] = expect
    _change(out, space, key, "set", level, value=_read(value), **fields)


def resolve(out: Output, space: _Space, key: _Key, value: _Value, level: _Level = "local") -> None:
    """Settle values that were written at once by one value.

    \b
    agentmesh state resolve team motto "ship it"
    """
    _change(out, space, key, "resolve", level, value=_read(value))


def delete(out: Output, space: _Space, key: _Key, level: _Level = "local") -> None:
    """Delete a key.

    \b
    agentmesh state delete team motto
    """
    _change(out, space, key, "delete", level)


def increment(
    out: Output,
    space: _Space,
    key: _Key,
    by: Annotated[int, typer.Argument(help="How much; after '--' also negative.")] = 1,
    level: _Level = "local",
) -> None:
    """Add to a counter; every addition of everybody counts.

    \b
    agentmesh state increment team votes
    agentmesh state increment team votes -- -1
    """
    _change(out, space, key, "increment", level, by=by)


def add(out: Output, space: _Space, key: _Key, value: _Value, level: _Level = "local") -> None:
    """Add to a set.

    \b
    agentmesh state add team members amy
    """
    _change(out, space, key, "add", level, value=_read(value))


def discard(out: Output, space: _Space, key: _Key, value: _Value, level: _Level = "local") -> None:
    """Take out of a set.

    \b
    agentmesh state discard team members amy
    """
    _change(out, space, key, "discard", level, value=_read(value))


def history(out: Output, space: _Space, key: _Key) -> None:
    """Show what was done to a key, newest first.

    \b
    agentmesh state history team votes
    """
    from agentmesh.ids import short
    from agentmesh.wire.state_views import StateHistory

    with _at(out, space) as shared:
        entries = shared.history(key)
    whole = StateHistory(space=space, key=key, entries=entries)
    if out.listing(entries, whole, i18n.t("nothing was done to it"), f"agentmesh state list {space}"):
        rows = [[clock(one.ts), short(one.writer), one.op, one.fate, clip(_json(one.value), 60)] for one in entries]
        out.table(["WHEN", "WHO", "WHAT", "FATE", "VALUE"], rows)


def watch(
    out: Output,
    space: _Space,
    prefix: Annotated[str, typer.Argument(help="Only keys that begin so.")] = "",
    count: Annotated[int, typer.Option("--count", "-n", help="End after so many; 0 = go on until Ctrl-C.", min=0)] = 0,
) -> None:
    """Show keys as they are and whenever they change, until Ctrl-C; with --json one per line.

    \b
    agentmesh state watch team
    """
    seen = 0
    with _at(out, space) as shared:
        for view in shared.watch(prefix, retry_for_s=86_400):
            if out.json:
                out.data(view)
            else:
                out.line((printable(view.key), "name"), "  ", printable(_text(view)))
            seen += 1
            if count and seen >= count:
                break


class _at:
    """A space of the running node, while the client is open."""

    def __init__(self, out: Output, space: str) -> None:
        from agentmesh.cli.connect import connect

        self._mesh, self._space = connect(out), space

    def __enter__(self) -> SyncSpace:
        return self._mesh.__enter__().state(self._space)

    def __exit__(self, *exc: Any) -> None:
        self._mesh.__exit__(*exc)


def _change(out: Output, space: str, key: str, op: Any, level: str, **fields: Any) -> None:
    with _at(out, space) as shared:
        view = shared.change(key, op, level=_level(level), **fields)
    _tell(out, view)


def _tell(out: Output, view: StateView) -> None:
    if out.json:
        out.data(view)
        return
    out.line(printable(_text(view)))
    if view.siblings:
        from agentmesh.ids import short

        out.note(("! ", "warn"), i18n.t("{count} values were written at once:", count=len(view.siblings)))
        for one in view.siblings:
            out.note(f"  {short(one.writer)}  {printable(_json(one.value))}")
        out.next(f"agentmesh state resolve {view.space} {view.key} VALUE")


def _text(view: StateView) -> str:
    return "-" if not view.exists else view.value if isinstance(view.value, str) else _json(view.value)


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def _read(text: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _level(text: str) -> Any:
    from agentmesh.cli.commands.send import choice
    from agentmesh.wire.state_views import LevelName

    return choice("--level", text, get_args(LevelName))


def _type(text: str) -> Any:
    from agentmesh.cli.commands.send import choice
    from agentmesh.wire.state_views import StateType

    return choice("--type", text, get_args(StateType)) if text else ""


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Read and change state that agents share.")(group(list_))
    bodies = (
        ("list", list_), ("get", get), ("set", set_), ("resolve", resolve), ("delete", delete),
        ("increment", increment), ("add", add), ("discard", discard), ("history", history), ("watch", watch),
    )  # fmt: skip
    for name, body in bodies:
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
